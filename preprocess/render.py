"""Draws a mesh from every camera by casting rays with Open3D's Embree scene: no GL, no display, the same bytes each time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from preprocess.cameras import Cameras, pixel_centres_mm
from preprocess.mesh import Mesh
from preprocess.texture import TextureSampler
from shared.errors import ScanError
from shared.schema import DEPTH_STEP_MM, DEPTH_ZERO

# A face fills about half of the frontal image; a view with less surface than this shows none.
MIN_COVERAGE = 0.03
# Rays in flight at once: bounds memory at large image sizes (24 bytes a ray and a few times that while shading).
MAX_RAYS = 1 << 20


@dataclass(frozen=True)
class Views:
    """Images of one mesh; the nearest surface wins. Where the centre of a pixel meets no surface, all are 0.

    texture u8 (V, H, W, 3), sRGB, or None where the mesh has no texture; normal u8 (V, H, W, 3) = round(127 n) + 128 in the
    camera frame, n_z ≥ 0; depth u16 (V, H, W) = round(z_mm / 0.02) + 32768, larger is nearer.
    """

    texture: np.ndarray | None
    normal: np.ndarray
    depth: np.ndarray


@dataclass(frozen=True)
class _Hits:
    """Where a bundle of parallel rays met the mesh: index into the bundle, triangle, weights of its three corners."""

    index: np.ndarray  # i64 (K,)
    triangle: np.ndarray  # i64 (K,)
    weights: np.ndarray  # f32 (K, 3)


def render_views(mesh: Mesh, cameras: Cameras, *, size_px: int, supersampling: int = 3) -> Views:
    """Draws one aligned mesh from every camera; the nearest surface wins.

    Geometry (normal, depth) is what the ray through a pixel's centre meets. Texture is the mean of supersampling² rays,
    each of them reading the texture filtered to its own footprint.

    Args:
        mesh: in the face frame; vertices_mm (N, 3).
        size_px: side of the square images; they show 201.6 mm whatever their size.
        supersampling: rays a pixel along each side, odd, so that one of them is the centre.
    Raises:
        ScanError: a view shows almost no surface; names the view.
    """
    if supersampling % 2 != 1:
        raise ValueError(f"supersampling must be odd, found {supersampling}")
    scene = _build_scene(mesh)
    normals = vertex_normals(mesh)
    num_views = len(cameras.views)
    normal = np.zeros((num_views, size_px, size_px, 3), np.uint8)
    depth = np.zeros((num_views, size_px, size_px), np.uint16)
    texture = np.zeros((num_views, size_px, size_px, 3), np.uint8) if mesh.has_appearance else None
    sampler = TextureSampler(mesh) if texture is not None else None
    for k, (view, rotation) in enumerate(zip(cameras.views, cameras.world_to_view, strict=True)):
        view_vertices = mesh.vertices_mm.astype(np.float64) @ rotation.T
        for rows, hits in _cast_rays(scene, rotation, view_vertices, size_px, 1):
            _draw_geometry(mesh, normals, rotation, view_vertices, hits, normal[k, rows], depth[k, rows])
        coverage = np.count_nonzero(depth[k]) / depth[k].size
        if coverage < MIN_COVERAGE:
            raise ScanError(
                f"view {view}: only {coverage:.1%} of the image shows a surface (at least {MIN_COVERAGE:.0%} needed); "
                "is the scan upright, in mm, and its face complete?"
            )
        if texture is None or sampler is None:
            continue
        texels_per_px = sampler.footprints(mesh, view_vertices, size_px) if mesh.texture is not None else None
        for rows, hits in _cast_rays(scene, rotation, view_vertices, size_px, supersampling):
            colors = sampler.sample(hits.triangle, hits.weights, texels_per_px, supersampling)
            _draw_mean(colors, hits.index, supersampling, depth[k, rows] > 0, texture[k, rows])
    return Views(texture, normal, depth)


def vertex_normals(mesh: Mesh) -> np.ndarray:
    """Area-weighted mean normal of the triangles around each vertex, f32 (N, 3), not normalised; 0 where there is none."""
    corners = mesh.vertices_mm[mesh.triangles].astype(np.float64)
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])  # length = 2 · area
    count = len(mesh.vertices_mm)
    index = mesh.triangles.ravel()
    summed = [np.bincount(index, np.repeat(face_normals[:, axis], 3), count) for axis in range(3)]
    normals = np.stack(summed, axis=1)
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    return (normals / np.maximum(lengths, 1e-30)).astype(np.float32)


def _build_scene(mesh: Mesh) -> object:
    import open3d as o3d

    # One thread: builds run a process a core, and more threads would change nothing but the load.
    scene = o3d.t.geometry.RaycastingScene(nthreads=1)
    scene.add_triangles(
        o3d.core.Tensor.from_numpy(np.ascontiguousarray(mesh.vertices_mm)),
        o3d.core.Tensor.from_numpy(np.ascontiguousarray(mesh.triangles.astype(np.uint32))),
    )
    return scene


def _cast_rays(
    scene: object, rotation: np.ndarray, view_vertices: np.ndarray, size_px: int, samples: int
) -> Iterator[tuple[slice, _Hits]]:
    """Casts samples² parallel rays a pixel, a band of pixel rows at a time; hits are indexed within their band."""
    import open3d as o3d

    x, y = pixel_centres_mm(size_px, samples)
    start_z = float(view_vertices[:, 2].max()) + 10.0  # in front of everything
    band = max(1, MAX_RAYS // (len(x) * samples))
    for first in range(0, size_px, band):
        rows = slice(first, min(size_px, first + band))
        grid_y, grid_x = np.meshgrid(y[rows.start * samples : rows.stop * samples], x, indexing="ij")
        origins = np.stack([grid_x.ravel(), grid_y.ravel(), np.full(grid_x.size, start_z)], axis=1) @ rotation
        rays = np.empty((grid_x.size, 6), np.float32)
        rays[:, :3] = origins
        rays[:, 3:] = -rotation[2]
        answer = scene.cast_rays(o3d.core.Tensor.from_numpy(rays), nthreads=1)  # type: ignore[attr-defined]
        index = np.flatnonzero(np.isfinite(answer["t_hit"].numpy()))
        uv = answer["primitive_uvs"].numpy()[index]
        weights = np.stack([1 - uv[:, 0] - uv[:, 1], uv[:, 0], uv[:, 1]], axis=1)
        yield rows, _Hits(index, answer["primitive_ids"].numpy()[index].astype(np.int64), weights)


def _draw_geometry(
    mesh: Mesh,
    normals: np.ndarray,
    rotation: np.ndarray,
    view_vertices: np.ndarray,
    hits: _Hits,
    normal_out: np.ndarray,
    depth_out: np.ndarray,
) -> None:
    corners = mesh.triangles[hits.triangle]
    z_mm = np.einsum("kc,kc->k", view_vertices[corners, 2], hits.weights)
    steps = np.rint(z_mm / DEPTH_STEP_MM) + DEPTH_ZERO
    depth_out.reshape(-1)[hits.index] = np.clip(steps, 1, 65535).astype(np.uint16)

    n = np.einsum("kcd,kc->kd", normals[corners], hits.weights) @ rotation.T
    # A surface seen from behind (or wound the other way round) shows its other side: normals face the viewer.
    edges = view_vertices[corners]
    winding = np.cross(edges[:, 1] - edges[:, 0], edges[:, 2] - edges[:, 0])[:, 2]
    n[winding < 0] *= -1
    n[:, 2] = np.maximum(n[:, 2], 0)  # interpolated normals may lean past the horizon
    lengths = np.linalg.norm(n, axis=1, keepdims=True)
    n = np.where(lengths > 1e-6, n / np.maximum(lengths, 1e-6), [0.0, 0.0, 1.0])
    normal_out.reshape(-1, 3)[hits.index] = (np.rint(127 * n) + 128).astype(np.uint8)


def _draw_mean(colors: np.ndarray, index: np.ndarray, samples: int, surface: np.ndarray, out: np.ndarray) -> None:
    """Means the samples² rays of each pixel; only pixels whose centre lies on the surface are drawn."""
    height, width = surface.shape
    fine_row, fine_column = np.divmod(index, width * samples)
    pixel = (fine_row // samples) * width + fine_column // samples
    count = np.bincount(pixel, minlength=height * width)
    drawn = surface.ravel() & (count > 0)
    flat = out.reshape(-1, 3)
    for channel in range(3):
        total = np.bincount(pixel, colors[:, channel], minlength=height * width)
        flat[drawn, channel] = np.rint(total[drawn] / count[drawn]).astype(np.uint8)
