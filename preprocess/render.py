"""Draws a mesh from every camera by casting rays with Open3D's Embree scene: no GL, no display, the same bytes each time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from preprocess.cameras import Cameras, pixel_centres_mm
from preprocess.mesh import Mesh
from preprocess.texture import TextureSampler
from shared.errors import ScanError
from shared.schema import DEPTH_STEP_MM, DEPTH_ZERO, FIELD_OF_VIEW_MM

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
    """Which of a bundle of parallel rays met the mesh, and where: index of the ray, triangle, weights of its corners."""

    ray: np.ndarray  # i64 (K,)
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
    columns, rows = pixel_centres_mm(size_px)
    centre_y, centre_x = (axis.ravel() for axis in np.meshgrid(rows, columns, indexing="ij"))
    offsets = _sample_offsets_mm(size_px, supersampling)
    for k, (view, rotation) in enumerate(zip(cameras.views, cameras.world_to_view, strict=True)):
        view_vertices = mesh.vertices_mm.astype(np.float64) @ rotation.T
        for first in range(0, size_px**2, MAX_RAYS):
            part = slice(first, first + MAX_RAYS)
            hits = _cast_rays(scene, rotation, view_vertices, centre_x[part], centre_y[part])
            drawn = _shade_geometry(mesh, normals, rotation, view_vertices, hits)
            normal[k].reshape(-1, 3)[first + hits.ray], depth[k].reshape(-1)[first + hits.ray] = drawn
        surface = np.flatnonzero(depth[k])
        coverage = len(surface) / size_px**2
        if coverage < MIN_COVERAGE:
            raise ScanError(
                f"view {view}: only {coverage:.1%} of the image shows a surface (at least {MIN_COVERAGE:.0%} needed); "
                "is the scan upright, in mm, and its face complete?"
            )
        if texture is None or sampler is None:
            continue
        texels_per_px = sampler.footprints(mesh, view_vertices, size_px) if mesh.texture is not None else None
        step = MAX_RAYS // len(offsets)
        for first in range(0, len(surface), step):  # only pixels that show the surface need to know its colour
            pixels = surface[first : first + step]
            x = (centre_x[pixels, None] + offsets[:, 0]).ravel()
            y = (centre_y[pixels, None] + offsets[:, 1]).ravel()
            hits = _cast_rays(scene, rotation, view_vertices, x, y)
            colors = sampler.sample(hits.triangle, hits.weights, texels_per_px, supersampling)
            texture[k].reshape(-1, 3)[pixels] = _mean_of_pixels(colors, hits.ray // len(offsets), len(pixels))
    return Views(texture, normal, depth)


def _sample_offsets_mm(size_px: int, samples: int) -> np.ndarray:
    """Where a pixel's samples² rays stand around its centre, f64 (samples², 2), x and y in mm."""
    steps = ((np.arange(samples) + 0.5) / samples - 0.5) * FIELD_OF_VIEW_MM / size_px
    return np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)


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


def _cast_rays(scene: object, rotation: np.ndarray, view_vertices: np.ndarray, x: np.ndarray, y: np.ndarray) -> _Hits:
    """Casts rays along the view's axis through view x and y, f64 (R,) mm each."""
    import open3d as o3d

    start_z = float(view_vertices[:, 2].max()) + 10.0  # in front of everything
    rays = np.empty((len(x), 6), np.float32)
    rays[:, :3] = x[:, None] * rotation[0] + y[:, None] * rotation[1] + start_z * rotation[2]
    rays[:, 3:] = -rotation[2]
    answer = scene.cast_rays(o3d.core.Tensor.from_numpy(rays), nthreads=1)  # type: ignore[attr-defined]
    index = np.flatnonzero(np.isfinite(answer["t_hit"].numpy()))
    uv = answer["primitive_uvs"].numpy()[index]
    weights = np.stack([1 - uv[:, 0] - uv[:, 1], uv[:, 0], uv[:, 1]], axis=1)
    return _Hits(index, answer["primitive_ids"].numpy()[index].astype(np.int64), weights)


def _shade_geometry(
    mesh: Mesh, normals: np.ndarray, rotation: np.ndarray, view_vertices: np.ndarray, hits: _Hits
) -> tuple[np.ndarray, np.ndarray]:
    """Encoded normals u8 (K, 3) and depths u16 (K,) of the hits."""
    corners = mesh.triangles[hits.triangle]
    z_mm = np.einsum("kc,kc->k", view_vertices[corners, 2], hits.weights)
    steps = np.clip(np.rint(z_mm / DEPTH_STEP_MM) + DEPTH_ZERO, 1, 65535)

    n = np.einsum("kcd,kc->kd", normals[corners], hits.weights) @ rotation.T
    # A surface seen from behind (or wound the other way round) shows its other side: normals face the viewer.
    placed = view_vertices[corners]
    a, b = placed[:, 1] - placed[:, 0], placed[:, 2] - placed[:, 0]
    n[a[:, 0] * b[:, 1] < a[:, 1] * b[:, 0]] *= -1
    n[:, 2] = np.maximum(n[:, 2], 0)  # interpolated normals may lean past the horizon
    lengths = np.linalg.norm(n, axis=1, keepdims=True)
    n = np.where(lengths > 1e-6, n / np.maximum(lengths, 1e-6), [0.0, 0.0, 1.0])
    return (np.rint(127 * n) + 128).astype(np.uint8), steps.astype(np.uint16)


def _mean_of_pixels(colors: np.ndarray, pixel: np.ndarray, num_pixels: int) -> np.ndarray:
    """Mean colours u8 (P, 3) of the rays (K, 3) that hit, by the pixel (K,) each belongs to; every pixel has its centre's."""
    count = np.maximum(np.bincount(pixel, minlength=num_pixels), 1)
    means = [np.bincount(pixel, colors[:, channel], minlength=num_pixels) / count for channel in range(3)]
    return np.rint(np.stack(means, axis=1)).astype(np.uint8)
