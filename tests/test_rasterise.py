"""The rasteriser against Open3D's ray casting, and its own rules: no cracks, no triangle lost, odd meshes harmless."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ray_casting import cast_view
from scipy import ndimage

from preprocess.geometry.mesh import Mesh
from preprocess.geometry.rasterise import NOTHING, rasterise, sample_cells
from preprocess.rendering.cameras import build_cameras
from preprocess.rendering.views import render_views
from preprocess.synth.action_units import draw_activation
from preprocess.synth.head import Person
from preprocess.synth.population import draw_person
from shared.modalities import DEPTH_STEP_MM, DEPTH_ZERO
from shared.schema import parse_views

CAMERAS = build_cameras(parse_views("0,20,-20,45,0:20"))


def make_face() -> Mesh:
    """A synthetic smile whose texture is fine enough to need filtering, yet not so fine that one sample cannot read it."""
    identity, rng = draw_person(3, 0, female=True)
    return Person(identity).scan(draw_activation("happiness", 0.9, rng), 0.05, 1)


@pytest.mark.parametrize(("size", "samples"), [(160, 3), (448, 1)])  # about one texel a sample
def test_agrees_with_ray_casting(size: int, samples: int) -> None:
    mesh = make_face()
    views = render_views(mesh, CAMERAS, size_px=size, supersampling=samples)
    assert views.texture is not None
    for k, rotation in enumerate(CAMERAS.world_to_view):
        truth = cast_view(mesh, rotation, size, samples)
        hit = views.depth[k] > 0
        other = hit != truth.hit
        assert other.mean() <= 0.001
        silhouette = ndimage.binary_dilation(truth.hit) & ~ndimage.binary_erosion(truth.hit)
        assert not (other & ~silhouette).any()
        both = hit & truth.hit
        depth = (views.depth[k].astype(float) - DEPTH_ZERO) * DEPTH_STEP_MM
        off = np.abs(depth - truth.z_mm)[both]
        # Where one surface hides another, a ray along the edge may meet either.
        assert (off > 0.05).mean() <= 0.001
        # Shading normals lean from the triangle's own by less than its neighbours do.
        normal = (views.normal[k].astype(float) - 128) / 127
        assert np.median(np.abs(normal - truth.normal)[both]) < 0.05
        assert truth.texture is not None
        error = (views.texture[k].astype(float) - truth.texture)[both]
        assert 10 * np.log10(255**2 / (error**2).mean()) >= 40


def test_texture_is_the_mean_of_64_rays_a_pixel() -> None:
    size, fine = 112, 8
    identity, rng = draw_person(3, 0, female=True)
    mesh = Person(identity).scan(draw_activation("happiness", 0.9, rng), 0.05, 4)  # about five texels a pixel
    images = render_views(mesh, CAMERAS, size_px=size).texture
    assert images is not None
    errors: dict[str, list[np.ndarray]] = {"inside": [], "edges": []}
    for image, rotation in list(zip(images, CAMERAS.world_to_view, strict=True))[1::2]:
        truth = cast_view(mesh, rotation, size * fine, 1)
        assert truth.texture is not None
        blocks = (size, fine, size, fine)
        num = truth.hit.reshape(blocks).sum((1, 3))
        mean = np.nansum(truth.texture.reshape(*blocks, 3), (1, 3)) / np.maximum(num, 1)[..., None]
        whole = num == fine**2
        errors["inside"].append((image - mean)[ndimage.binary_erosion(whole)])
        errors["edges"].append((image - mean)[~whole & image.any(-1) & (num > 0)])
    psnr = {name: 10 * np.log10(255**2 / (np.concatenate(error) ** 2).mean()) for name, error in errors.items()}
    assert psnr["inside"] >= 46 and psnr["edges"] >= 34, psnr


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 5]), st.floats(0.3, 40.0))
def test_samples_of_cells_are_those_of_a_finer_grid(seed: int, samples: int, scale: float) -> None:
    """With triangles of all sizes, some cut by the sphere and some outside the grid; every second cell is looked at."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-14, 14, (60, 1, 3))
    vertices = (corner + rng.normal(size=(60, 3, 3)) * rng.choice([0.2, 1, 9], (60, 1, 1))).reshape(-1, 3)
    triangles = np.arange(180, dtype=np.int32).reshape(-1, 3)
    look = partial(rasterise, vertices * scale, triangles, left=-8 * scale, top=9 * scale, radius=12 * scale)
    cells = look(cell=scale, shape=(18, 16), samples=samples)
    wanted = rng.random((18, 16)) < 0.5
    numbers = np.full(wanted.shape, -1, np.int32)
    numbers[wanted] = rng.permutation(wanted.sum())
    found = sample_cells(cells, triangles, numbers, int(wanted.sum()))
    fine = look(cell=scale / samples, shape=(18 * samples, 16 * samples)).triangle.reshape(18, samples, 16, samples)
    np.testing.assert_array_equal(cells.triangle, fine[:, samples // 2, :, samples // 2])
    np.testing.assert_array_equal(found[numbers[wanted]], fine.swapaxes(1, 2)[wanted].reshape(-1, samples**2))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 40.0), st.integers(3, 60))
def test_a_triangulated_sheet_has_no_cracks(seed: int, spacing: float, side: int) -> None:
    """Every point inside the outline of a jittered sheet is covered, however thin its triangles are."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(side, dtype=float), np.arange(side, dtype=float))
    points = np.stack([x, y, rng.normal(size=x.shape)], -1)
    points[1:-1, 1:-1, :2] += rng.uniform(-0.45, 0.45, (side - 2, side - 2, 2))
    points = points.reshape(-1, 3) * [spacing, spacing, 1]
    index = np.arange(side * side).reshape(side, side)
    a, b, c, d = index[:-1, :-1].ravel(), index[:-1, 1:].ravel(), index[1:, :-1].ravel(), index[1:, 1:].ravel()
    triangles = np.concatenate([np.stack([a, b, d], 1), np.stack([a, d, c], 1)]).astype(np.int32)
    triangles = rng.permutation(triangles)[:, rng.permutation(3)]
    extent = (side - 1) * spacing
    shape = (97, 101)
    left, top, step = 0.2 * extent, 0.8 * extent, 0.6 * extent / 101
    # A jittered quadrilateral may fold over its own diagonal, but its outline stays convex enough to hold no hole.
    visible = rasterise(points, triangles, left=left, top=top, cell=step, shape=shape)
    covered = visible.triangle != NOTHING
    assert covered.all()
    assert np.isfinite(visible.z).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
@example(3396816469)  # a triangle seen nearly edge-on
def test_brute_force_finds_the_same_nearest_triangle(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vertices = rng.uniform(-12, 12, (24, 3))
    vertices[:, 2] = rng.permutation(24)
    triangles = rng.integers(0, 24, (12, 3)).astype(np.int32)
    visible = rasterise(vertices, triangles, left=-8, top=8, cell=1.0, shape=(16, 16))
    for row in range(16):
        for column in range(16):
            point = np.array([-7.5 + column, 7.5 - row])
            found = [
                (z, t) for t, corners in enumerate(vertices[triangles]) if (z := _height(corners, point)) is not None
            ]
            if any(abs(margin) < 1e-3 for margin in _margins(vertices[triangles], point)):
                continue  # too near an edge to say which side
            if not found:
                assert visible.triangle[row, column] == NOTHING
                continue
            best = max(z for z, _ in found)
            # Vertices are moved by up to 1/8192 of a step each way: so much the height changes on what is seen edge-on.
            steepest = max(_slope(vertices[triangles[t]]) for _, t in found)
            assert visible.z[row, column] == pytest.approx(best, abs=1e-5 + 2 * steepest / 8192)


def _slope(corners: np.ndarray) -> float:
    """How much a triangle rises over a step, along its steepest line."""
    x, y, z = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    return float(np.hypot(x, y) / abs(z))


def _margins(corners: np.ndarray, point: np.ndarray) -> list[float]:
    """Distances of a point from the lines of all edges."""
    start = corners[..., :2].reshape(-1, 2)
    end = np.roll(corners[..., :2], -1, axis=1).reshape(-1, 2)
    along = end - start
    length = np.linalg.norm(along, axis=1)
    cross = along[:, 0] * (point[1] - start[:, 1]) - along[:, 1] * (point[0] - start[:, 0])
    margins: list[float] = (cross[length > 0] / length[length > 0]).tolist()
    return margins


def _height(corners: np.ndarray, point: np.ndarray) -> float | None:
    system = np.vstack([corners[:, :2].T, np.ones(3)])
    if abs(np.linalg.det(system)) < 1e-9:
        return None
    weights = np.linalg.solve(system, [*point, 1])
    return float(weights @ corners[:, 2]) if (weights >= 0).all() else None


def test_what_is_not_finite_or_far_beyond_everything_is_not_drawn() -> None:
    vertices = np.array([[-4, -4, 0], [4, -4, 0], [0, 4, 0], [np.nan, 0, 5], [3e30, 0, 5], [-4, 4, np.inf]], float)
    triangles = np.array([[0, 1, 3], [0, 1, 4], [0, 1, 5], [0, 0, 0], [0, 1, 2]], np.int32)
    visible = rasterise(vertices, triangles, left=-5, top=5, cell=1.0, shape=(10, 10))
    assert set(np.unique(visible.triangle)) == {NOTHING, 4}
