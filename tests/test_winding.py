"""Pictures do not depend on which way round triangles are wound, whatever the mesh is like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from analytic_face import FACE
from test_charts import split
from test_render import make_sphere

from preprocess.geometry.mesh import Mesh
from preprocess.geometry.normals import vertex_normals
from preprocess.rendering.cameras import build_cameras
from preprocess.rendering.views import Views, render_views
from shared.schema import parse_views

CAMERAS = build_cameras(parse_views("0,40,-20:30"))
SIZE_PX = 64


def draw(mesh: Mesh) -> Views:
    return render_views(mesh, CAMERAS, size_px=SIZE_PX)


def flip(mesh: Mesh, which: np.ndarray, order: tuple[int, int, int] = (0, 2, 1)) -> Mesh:
    triangles = mesh.triangles.copy()
    triangles[which] = triangles[which][:, order]
    uv = None
    if mesh.uv is not None:
        uv = mesh.uv.copy()
        uv[which] = uv[which][:, order]
    return replace(mesh, triangles=triangles, uv=uv)


def two_sided(mesh: Mesh) -> Mesh:
    return replace(mesh, triangles=np.concatenate([mesh.triangles, mesh.triangles[:, ::-1]]), uv=None, texture=None)


def quads(mesh: Mesh) -> Mesh:
    """Pairs of triangles that share no vertex with others."""
    rng = np.random.default_rng(0)
    pairs = mesh.triangles[: len(mesh.triangles) // 2 * 2].reshape(-1, 2, 3)
    vertices: list[np.ndarray] = []
    triangles: list[np.ndarray] = []
    for pair in pairs:
        used, index = np.unique(pair, return_inverse=True)
        triangles.append(index.reshape(2, 3) + sum(len(part) for part in vertices))
        vertices.append(mesh.vertices_mm[used])
    order = rng.permutation(len(triangles))
    return Mesh(np.concatenate(vertices), np.concatenate([triangles[k] for k in order]).astype(np.int32))


def box() -> Mesh:
    """Walls that stand on edges of a floor, three sheets at right angles to an edge, and two tetrahedra tip to tip."""
    vertices = [[x, y, z] for z in (0, 40) for y in (-60, 0, 60) for x in (-60, 0, 60)]

    def at(x: int, y: int, z: int) -> int:
        return 9 * z + 3 * y + x

    faces = []
    for x, y in np.ndindex(2, 2):
        faces.append([at(x, y, 0), at(x + 1, y, 0), at(x + 1, y + 1, 0), at(x, y + 1, 0)])
    for k in range(2):
        faces.append([at(1, k, 0), at(1, k + 1, 0), at(1, k + 1, 1), at(1, k, 1)])
        faces.append([at(k, 1, 0), at(k + 1, 1, 0), at(k + 1, 1, 1), at(k, 1, 1)])
    triangles = [[f[a], f[b], f[c]] for f in faces for a, b, c in ((0, 1, 2), (0, 2, 3))]
    tip = len(vertices)
    vertices += [[30, 30, 60], [10, 10, 20], [50, 20, 20], [20, 50, 20], [10, 10, 90], [50, 20, 90], [20, 50, 90]]
    for a, b, c in ((1, 2, 3), (4, 5, 6)):
        triangles += [[tip, tip + a, tip + b], [tip, tip + b, tip + c], [tip, tip + c, tip + a]]
    return Mesh(np.array(vertices, np.float32), np.array(triangles, np.int32))


def with_degenerate(mesh: Mesh) -> Mesh:
    rng = np.random.default_rng(0)
    a, b = mesh.triangles[:200, 0], mesh.triangles[:200, 1]
    more = np.concatenate([np.stack([a, a, b], 1), np.stack([b, b, b], 1)])
    triangles = rng.permutation(np.concatenate([mesh.triangles, more.astype(np.int32)]))
    return replace(mesh, triangles=triangles, uv=None, texture=None)


def random_soup(_: Mesh) -> Mesh:
    """Triangles between any vertices: edges of many triangles, and fans of all kinds."""
    rng = np.random.default_rng(3)
    vertices = rng.uniform(-70, 70, (40, 3)).astype(np.float32)
    return Mesh(vertices, rng.integers(0, 40, (300, 3)).astype(np.int32))


MESHES: dict[str, Callable[[Mesh], Mesh]] = {
    "face": lambda mesh: mesh,
    "every triangle alone": split,
    "quads": quads,
    "two-sided": two_sided,
    "walls": lambda mesh: box(),
    "degenerate triangles": with_degenerate,
    "soup": random_soup,
    "mirrored": lambda mesh: replace(mesh, vertices_mm=mesh.vertices_mm * np.array([-1, 1, 1], np.float32)),
}


@pytest.mark.parametrize("name", MESHES)
def test_any_triangles_may_be_flipped(name: str) -> None:
    mesh = MESHES[name](FACE)
    expected = draw(mesh)
    rng = np.random.default_rng(4)
    num = len(mesh.triangles)
    left = mesh.vertices_mm[mesh.triangles].mean(axis=1)[:, 0] > 0
    for which in (*(rng.random(num) < share for share in (0.02, 0.25, 0.5)), np.ones(num, bool), left):
        found = draw(flip(mesh, which))
        for modality in ("normal", "depth", "texture"):
            np.testing.assert_array_equal(getattr(found, modality), getattr(expected, modality))
        # Another corner first rounds otherwise.
        found = draw(flip(mesh, which, (2, 1, 0)))
        assert (found.normal != expected.normal).mean() < 1e-3
        assert (found.depth != expected.depth).mean() < 1e-3


def test_normals_of_a_sphere_that_is_wound_at_random() -> None:
    mesh = make_sphere(60, 40)
    normals = vertex_normals(flip(mesh, np.random.default_rng(0).random(len(mesh.triangles)) < 0.4))
    radial = mesh.vertices_mm / np.linalg.norm(mesh.vertices_mm, axis=1, keepdims=True)
    assert (np.abs((normals * radial).sum(1))[80:-80] > 0.995).all()  # all but the poles


def test_consistent_winding_gives_the_area_weighted_mean() -> None:
    corners = FACE.vertices_mm.astype(np.float64)[FACE.triangles]
    area = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.zeros(FACE.vertices_mm.shape)
    for corner in range(3):
        np.add.at(total, FACE.triangles[:, corner], area)
    used = np.unique(FACE.triangles)
    expected = total[used] / np.linalg.norm(total[used], axis=1, keepdims=True)
    np.testing.assert_allclose(vertex_normals(FACE)[used], expected, atol=1e-6)


def test_a_sheet_is_drawn_alike_from_both_sides_and_twice() -> None:
    once = replace(FACE, uv=None, texture=None)
    for other in (two_sided(FACE), replace(once, triangles=np.concatenate([once.triangles, once.triangles]))):
        np.testing.assert_array_equal(draw(other).normal, draw(once).normal)


def test_many_triangles_around_a_vertex_take_no_longer() -> None:
    """A vertex of 60,000 triangles, all with one edge in common or pairwise the same."""
    num = 60_000
    rng = np.random.default_rng(0)
    vertices = rng.normal(0, 50, (num + 2, 3)).astype(np.float32)
    ends = np.arange(2, num + 2)
    shared_edge = np.stack([np.zeros(num, int), np.ones(num, int), ends], 1)
    pairs = np.array([[0, a, b] for a in range(1, 250) for b in range(1, 250) if a != b])
    for triangles in (shared_edge, pairs, np.tile([0, 1, 2], (num, 1))):
        assert np.isfinite(vertex_normals(Mesh(vertices, triangles.astype(np.int32)))).all()
