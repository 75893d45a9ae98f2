"""The check of rendered rows: analytic surfaces whose measures are known, faces that must pass, scans that must not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scan_folders import face_grid

from preprocess.alignment.crop import crop_mesh
from preprocess.build.row_check import check_row, measure_row
from preprocess.geometry.mesh import Mesh
from preprocess.rendering.cameras import build_cameras
from preprocess.rendering.views import Views, render_views
from shared.errors import ScanError
from shared.modalities import DEPTH_STEP_MM, DEPTH_ZERO
from shared.schema import RenderSettings, View

FRONT = RenderSettings(views=(View(0),), supersampling=1)
THREE = RenderSettings(size_px=112, supersampling=1)


def drawn(z_mm: np.ndarray, mask: np.ndarray, color: np.ndarray | None = None) -> Views:
    """Images of one view of a height field, as the renderer would draw it."""
    depth = np.where(mask, np.rint(z_mm / DEPTH_STEP_MM) + DEPTH_ZERO, 0).astype(np.uint16)[None]
    normal = np.where(mask[..., None], 255, 0).astype(np.uint8).repeat(3, axis=-1)[None]
    texture = None if color is None else (color * mask[..., None]).astype(np.uint8)[None]
    return Views(texture, normal, depth)


def grid() -> tuple[np.ndarray, np.ndarray]:
    centres = (np.arange(FRONT.size_px) + 0.5) * FRONT.mm_per_px - 100.8
    x, y = np.meshgrid(centres, -centres)
    return x, y


def face(scale: float = 1.0, *, keep: str = "all", color: tuple[int, int, int] | None = None) -> Mesh:
    """The average face, perhaps a part of it, cropped as a build crops it; uneven vertex colours, or one colour."""
    vertices, triangles = face_grid(2.0)
    vertices = vertices.astype(np.float32) * np.float32(scale)
    centres = vertices[triangles].mean(axis=1)
    kept = {
        "all": slice(None),
        "left": centres[:, 0] > 0,
        "right": centres[:, 0] < 0,
        "upper": centres[:, 1] > -15,
        "no nose": np.linalg.norm(centres, axis=1) > 24,
    }[keep]
    shade = np.clip(60 + vertices[:, :1] * [0.4, 0.3, 0.2] + [40, 20, 10], 0, 255)
    colors = shade if color is None else np.broadcast_to(color, vertices.shape)
    triangles = triangles[kept].astype(np.int32)
    return crop_mesh(Mesh(vertices, triangles, colors=colors.astype(np.uint8)), 100.0)


def check(mesh: Mesh, options: RenderSettings = THREE) -> None:
    cameras = build_cameras(options.views)
    check_row(render_views(mesh, cameras, size_px=options.size_px, radius_mm=100, supersampling=1), options)


@pytest.mark.parametrize("keep", ["all", "left", "right", "upper", "no nose"])
@pytest.mark.parametrize("scale", [0.7, 1.0, 1.4])
@pytest.mark.parametrize(
    "views", [THREE.views, (View(0),), (View(45), View(-45)), (View(0, 20), View(0, -20))], ids=len
)
def test_faces_pass(keep: str, scale: float, views: tuple[View, ...]) -> None:
    if keep == "no nose" and scale < 1:
        pytest.skip("a hole larger than the face's nose")
    check(face(scale, keep=keep), replace(THREE, views=views))


def test_measures_of_a_ball() -> None:
    """Half a ball of radius 60: area of its disc, distance of the origin, and a relief that follows from the integral."""
    x, y = grid()
    squared = 60.0**2 - x**2 - y**2
    seen = measure_row(drawn(np.sqrt(np.maximum(squared, 0)) - 50, squared > 0), FRONT)
    assert seen.area_mm2 == pytest.approx(np.pi * 60**2, rel=0.02)
    # Heights over a disc: E[z²] − E[z]² = R² (1/2 − 4/9)
    assert seen.relief_mm == pytest.approx(60 * np.sqrt(1 / 18), rel=0.02)
    assert seen.centre_mm == pytest.approx(10, abs=0.5)
    assert seen.rim_share == 0


@given(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5), st.floats(-30, 30))
@settings(max_examples=25, deadline=None)
def test_planes_are_refused_however_they_stand(slope_x: float, slope_y: float, height_mm: float) -> None:
    x, y = grid()
    with pytest.raises(ScanError, match=r"flat within 0\.\d mm"):
        check_row(drawn(slope_x * x + slope_y * y + height_mm, np.hypot(x, y) < 70), FRONT)


@given(st.floats(0, 2 * np.pi), st.floats(0, 15))
@settings(max_examples=25, deadline=None)
def test_faces_beside_the_middle_are_refused(angle: float, by_mm: float) -> None:
    x, y = grid()
    dx, dy = x - (by_mm + 75) * np.cos(angle), y - (by_mm + 75) * np.sin(angle)
    mask = (np.hypot(dx, dy) < 40) & (np.hypot(x, y) < 99)
    with pytest.raises(ScanError, match="from where the tip of the nose should be"):
        check_row(drawn(-0.02 * (dx**2 + dy**2), mask), FRONT)


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
@settings(max_examples=20, deadline=None)
def test_textures_of_one_colour_are_refused(red: int, green: int, blue: int) -> None:
    x, y = grid()
    mask = np.hypot(x, y) < 80
    z = -0.01 * (x**2 + y**2)
    color = np.broadcast_to([red, green, blue], (*mask.shape, 3))
    check_row(drawn(z, mask), FRONT)  # the surface alone is good
    with pytest.raises(ScanError, match="black" if max(red, green, blue) < 4 else "black|one colour"):
        check_row(drawn(z, mask, color), FRONT)


@given(st.floats(0.06, 1.0), st.floats(0, 200), st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_dark_skin_and_bad_light_pass(contrast: float, brightness: float, seed: int) -> None:
    """Skin with 40 levels from its darkest to its lightest parts, at little light or nearly white."""
    x, y = grid()
    mask = np.hypot(x, y) < 80
    skin = 40 * np.random.default_rng(seed).random((*mask.shape, 3)) + 20
    check_row(drawn(-0.01 * (x**2 + y**2), mask, np.clip(contrast * skin + brightness, 0, 255)), FRONT)


def test_walls_run_out_of_the_image() -> None:
    x, y = grid()
    wall = drawn(8 * np.sin(x / 12) - 5, np.hypot(x, y) < 100)
    assert measure_row(wall, FRONT).rim_share > 0.9
    with pytest.raises(ScanError, match="runs out of the image on both sides"):
        check_row(wall, FRONT)


def test_small_patches_and_black_textures_are_refused_when_rendered() -> None:
    with pytest.raises(ScanError, match=r"2[0-3]\.\d cm² of surface"):
        check(face(0.3))
    with pytest.raises(ScanError, match="black"):
        check(face(color=(0, 0, 0)))
    with pytest.raises(ScanError, match="level 130"):
        check(face(color=(130, 130, 130)))


def test_blank_images_are_refused() -> None:
    blank = drawn(np.zeros((224, 224)), np.zeros((224, 224), bool))
    with pytest.raises(ScanError, match=r"0\.0 cm² of surface"):
        check_row(blank, FRONT)


def test_images_too_small_for_a_rim_are_measured_without_one() -> None:
    small = replace(FRONT, size_px=16)
    measures = measure_row(drawn(np.zeros((16, 16)), np.ones((16, 16), bool)), small)
    assert np.isnan(measures.rim_share)
    assert measures.area_mm2 > 0
