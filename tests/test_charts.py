"""Texture atlases whose picture is known: nothing from beyond a chart's border may be in it, whatever lies there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from analytic_face import pixel_centres_mm

from preprocess.geometry.mesh import Mesh
from preprocess.rendering.cameras import build_cameras
from preprocess.rendering.edge_samples import UNTEXTURED_GREY
from preprocess.rendering.views import render_views
from shared.schema import parse_views

CAMERAS = build_cameras(parse_views("0,35"))
RED, BLUE = (230, 40, 30), (20, 60, 220)
HALF_MM = 80.0


@dataclass(frozen=True)
class Layout:
    """How the sheet's charts lie in the image: cells of its side with some texels around each."""

    cells: int = 6  # along each side
    quads: int = 4  # of a chart, along each side
    texels: int = 60  # of a chart, along each side
    padding: int = 4
    offset: float = 0.0  # of charts against the texels' grid
    shared: bool = True  # whether triangles share vertices


def make_atlas(layout: Layout, background: tuple[int, int, int], bleed: int = 0) -> Mesh:
    """A flat sheet, its left half red and its right half blue, cut into charts that lie in the image in any order, turned.

    Texels whose middle a chart covers, and `bleed` more around it, have its colour; all others that of the background.
    """
    rng = np.random.default_rng(1)
    n, per = layout.cells, layout.quads
    pitch = layout.texels + 2 * layout.padding
    image = np.full((n * pitch, n * pitch, 3), background, np.uint8)
    order = rng.permutation(n * n)
    side = n * per + 1
    grid = np.linspace(-HALF_MM, HALF_MM, side)
    vertices = np.stack([*np.meshgrid(grid, grid), np.zeros((side, side))], -1).reshape(-1, 3).astype(np.float32)
    triangles, uv = [], []
    for chart in range(n * n):
        across, up = chart % n, chart // n
        column, row = order[chart] % n * pitch + layout.padding, order[chart] // n * pitch + layout.padding
        low, high = layout.offset - bleed, layout.texels + layout.offset + bleed
        first, last = int(np.ceil(low - 0.5)), int(np.floor(high - 0.5)) + 1
        image[max(row + first, 0) : row + last, max(column + first, 0) : column + last] = (
            RED if 2 * across < n else BLUE
        )
        turn = rng.integers(4)
        for i, j in np.ndindex(per, per):
            corners = np.array([[j, i], [j + 1, i], [j + 1, i + 1], [j, i + 1]])
            index = (up * per + corners[:, 1]) * side + across * per + corners[:, 0]
            place = corners / per - 0.5
            for _ in range(turn):
                place = place[:, ::-1] * [-1, 1]
            place = (place + 0.5) * layout.texels + layout.offset + [column, row]
            for which in ([0, 1, 2], [0, 2, 3]):
                triangles.append(index[which])
                uv.append(place[which] / image.shape[1::-1] * [1, -1] + [0, 1])
    mesh = Mesh(vertices, np.array(triangles, np.int32), np.array(uv, np.float32), image)
    return mesh if layout.shared else split(mesh)


def split(mesh: Mesh) -> Mesh:
    """Every triangle with vertices of its own."""
    corners = mesh.vertices_mm[mesh.triangles].reshape(-1, 3)
    return replace(mesh, vertices_mm=corners, triangles=np.arange(len(corners), dtype=np.int32).reshape(-1, 3))


def draw_textures(mesh: Mesh, size_px: int) -> np.ndarray:
    images = render_views(mesh, CAMERAS, size_px=size_px).texture
    assert images is not None
    return images


def worst_colour(mesh: Mesh, size_px: int) -> float:
    """The largest difference from the sheet's colour, of pixels that lie in the surface and in one half."""
    images = draw_textures(mesh, size_px)
    x, y = pixel_centres_mm(size_px)
    worst = 0.0
    for image, view in zip(images, CAMERAS.views, strict=True):
        face_x = np.broadcast_to(x / np.cos(np.deg2rad(view.yaw_deg)), (size_px, size_px))
        pixel = 201.6 / size_px / np.cos(np.deg2rad(view.yaw_deg))
        inside = (np.abs(face_x) < HALF_MM - pixel) & (np.abs(y)[:, None] < HALF_MM - pixel)
        for colour, half in ((RED, face_x < -pixel), (BLUE, face_x > pixel)):
            worst = max(worst, np.abs(image[inside & half].astype(float) - colour).max())
    return worst


@pytest.mark.parametrize("size_px", [32, 96, 224])
@pytest.mark.parametrize(
    "layout",
    [
        Layout(),
        Layout(texels=300),
        Layout(padding=1, texels=61),
        Layout(offset=0.37, padding=2),
        Layout(shared=False),
        Layout(texels=8, padding=2),  # a texel is larger than a pixel
        Layout(texels=8, padding=2, offset=0.37),
        Layout(cells=24, quads=1, texels=9, padding=2),  # two triangles a chart
    ],
    ids=str,
)
@pytest.mark.parametrize("background", [(0, 0, 0), (255, 255, 255)], ids=str)
def test_no_border_of_a_chart_shows(layout: Layout, size_px: int, background: tuple[int, int, int]) -> None:
    assert worst_colour(make_atlas(layout, background), size_px) <= 2


@pytest.mark.parametrize("bleed", [1, 4])
def test_padding_changes_nothing(bleed: int) -> None:
    layout = Layout(offset=0.25)
    bare, padded = (render_views(make_atlas(layout, (0, 0, 0), b), CAMERAS, size_px=96).texture for b in (0, bleed))
    np.testing.assert_array_equal(bare, padded)


def test_charts_that_touch_do_not_mix() -> None:
    for size_px in (32, 96):
        assert worst_colour(make_atlas(Layout(padding=0, texels=300), (0, 0, 0)), size_px) <= 2


def roll(mesh: Mesh) -> Mesh:
    """Charts across the image's edges, whose coordinates go beyond 1 and below 0."""
    assert mesh.texture is not None and mesh.uv is not None
    height, width = mesh.texture.shape[:2]
    shift = np.array([width // 3 + 7, height // 3 + 11])
    uv = mesh.uv.astype(float) + shift / [width, -height] + [3, 0]
    return replace(mesh, texture=np.roll(mesh.texture, shift[::-1], (0, 1)), uv=uv.astype(np.float32))


def overlap(mesh: Mesh) -> Mesh:
    """All charts of one colour in one place, half of them mirrored."""
    assert mesh.uv is not None
    uv, per_chart = mesh.uv.copy(), 2 * Layout().quads ** 2
    blue = mesh.vertices_mm[mesh.triangles].mean(axis=1)[:, 0] > 0
    for which in (blue, ~blue):
        charts = uv[which].reshape(-1, per_chart, 3, 2)
        low, high = charts[0].min((0, 1)), charts[0].max((0, 1))
        charts[:] = charts[0]
        charts[::2, ..., 0] = (low + high)[0] - charts[::2, ..., 0]
        uv[which] = charts.reshape(-1, 3, 2)
    return replace(mesh, uv=uv)


@pytest.mark.parametrize("size_px", [32, 96])
@pytest.mark.parametrize("change", [roll, overlap])
def test_charts_that_repeat_or_overlap(change: Callable[[Mesh], Mesh], size_px: int) -> None:
    assert worst_colour(change(make_atlas(Layout(offset=0.3), (0, 0, 0))), size_px) <= 2


@pytest.mark.parametrize("size_px", [32, 224])
def test_charts_smaller_than_a_texel(size_px: int) -> None:
    mesh = make_atlas(Layout(cells=12, quads=1, texels=1, padding=1), (0, 0, 0))
    assert mesh.uv is not None
    texel = np.floor((mesh.uv * 36).mean(axis=1, keepdims=True)) + 0.5
    small = (texel + 0.3 * (mesh.uv * 36 - texel)) / 36
    assert worst_colour(replace(mesh, uv=small.astype(np.float32)), size_px) <= 2


@pytest.mark.parametrize("scale", [1, 100, 1e6])
def test_garbled_coordinates_take_no_longer(scale: float) -> None:
    rng = np.random.default_rng(0)
    mesh = make_atlas(Layout(cells=12, quads=10, texels=20), (0, 0, 0))
    uv = rng.uniform(-scale, scale, (len(mesh.triangles), 3, 2)).astype(np.float32)
    mesh = replace(mesh, uv=uv, texture=np.zeros((2048, 2048, 3), np.uint8))
    assert (draw_textures(mesh, 64) <= 1).all()  # and ends


@pytest.mark.parametrize("size_px", [32, 224])
def test_triangles_without_texture_have_their_vertices_colours_or_grey(size_px: int) -> None:
    """The right half of the sheet has no texture coordinates; its neighbours' texture does not bleed into it, nor back."""
    mesh = make_atlas(Layout(cells=2, quads=12, texels=300), (0, 0, 0))
    assert mesh.uv is not None
    blue = mesh.vertices_mm[mesh.triangles].mean(axis=1)[:, 0] > 0
    uv = mesh.uv.copy()
    uv[blue] = np.nan
    colors = np.full((len(mesh.vertices_mm), 3), BLUE, np.uint8)
    assert worst_colour(replace(mesh, uv=uv, colors=colors), size_px) <= 1
    images = render_views(replace(mesh, uv=uv), CAMERAS, size_px=size_px).texture
    plain = render_views(replace(mesh, uv=None, texture=None, colors=colors), CAMERAS, size_px=size_px).texture
    none = render_views(replace(mesh, uv=np.full_like(uv, np.nan), colors=colors), CAMERAS, size_px=size_px).texture
    assert images is not None
    assert (images[0, size_px // 2, size_px * 5 // 8] == UNTEXTURED_GREY).all()
    assert (images[0, size_px // 2, size_px * 3 // 8] == RED).all()
    np.testing.assert_array_equal(none, plain)


def test_untextured_triangles_shade_between_their_vertices() -> None:
    mesh = make_atlas(Layout(cells=2, quads=3, texels=30), (0, 0, 0))
    ramp = (mesh.vertices_mm[:, :1] + HALF_MM) / (2 * HALF_MM) * 255
    colors = np.rint(np.broadcast_to(ramp, mesh.vertices_mm.shape)).astype(np.uint8)
    images = render_views(
        replace(mesh, uv=np.full((len(mesh.triangles), 3, 2), np.nan, np.float32), colors=colors), CAMERAS, size_px=96
    ).texture
    assert images is not None
    x, _ = pixel_centres_mm(96)
    drawn = np.abs(x) < HALF_MM - 3
    expected = (x[drawn, None] + HALF_MM) / (2 * HALF_MM) * 255
    assert np.abs(images[0, 40, drawn].astype(float) - expected).max() < 1.5
