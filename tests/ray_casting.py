"""An independent renderer, the truth that pixels are held to: Open3D's Embree scene casts a ray a sample, NumPy shades."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from preprocess.geometry.mesh import Mesh
from shared.schema import FIELD_OF_VIEW_MM


@dataclass(frozen=True)
class CastView:
    """One view: hit bool (H, W), z_mm f64 (H, W) and normal f64 (H, W, 3) of the surface at pixel centres, NaN off it;
    texture f64 (H, W, 3), the mean over the samples that hit, NaN where the centre does not."""

    hit: np.ndarray
    z_mm: np.ndarray
    normal: np.ndarray
    texture: np.ndarray | None


def cast_view(mesh: Mesh, rotation: np.ndarray, size_px: int, samples: int) -> CastView:
    import open3d as o3d  # takes seconds

    scene = o3d.t.geometry.RaycastingScene(nthreads=1)
    scene.add_triangles(
        o3d.core.Tensor.from_numpy(np.ascontiguousarray(mesh.vertices_mm)),
        o3d.core.Tensor.from_numpy(mesh.triangles.astype(np.uint32)),
    )
    count = size_px * samples
    place = (np.arange(count) + 0.5) * (FIELD_OF_VIEW_MM / count) - FIELD_OF_VIEW_MM / 2
    start_z = float((mesh.vertices_mm @ rotation[2]).max()) + 10.0
    rays = np.empty((count, count, 6), np.float32)
    x, y = place[None, :, None], -place[:, None, None]
    rays[..., :3] = x * rotation[0] + y * rotation[1] + start_z * rotation[2]
    rays[..., 3:] = -rotation[2]
    answer = scene.cast_rays(o3d.core.Tensor.from_numpy(rays), nthreads=1)
    distance = answer["t_hit"].numpy().astype(np.float64)
    met = np.isfinite(distance)
    triangle = np.where(met, answer["primitive_ids"].numpy().astype(np.int64), 0)
    uv = answer["primitive_uvs"].numpy().astype(np.float64)
    weights = np.stack([1 - uv.sum(-1), uv[..., 0], uv[..., 1]], axis=-1)
    centre = slice(samples // 2, None, samples)
    hit = met[centre, centre]
    normals = answer["primitive_normals"].numpy().astype(np.float64)[centre, centre] @ rotation.T
    normals *= np.where(normals[..., 2:] < 0, -1, 1)
    texture = None
    if mesh.texture is not None and mesh.uv is not None:
        points = np.einsum("hwcd,hwc->hwd", mesh.uv[triangle], weights)
        colors = _look_up(mesh.texture, points)
        shape = (size_px, samples, size_px, samples)
        total = np.where(met[..., None], colors, 0).reshape(*shape, 3).sum((1, 3))
        texture = total / np.maximum(met.reshape(shape).sum((1, 3)), 1)[..., None]
        texture[~hit] = np.nan
    z = np.where(hit, start_z - distance[centre, centre], np.nan)
    return CastView(hit, z, np.where(hit[..., None], normals, np.nan), texture)


def _look_up(image: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Bilinear between the four nearest texels of the full-sized texture."""
    height, width = image.shape[:2]
    x = np.clip(uv[..., 0] * width - 0.5, 0, width - 1)
    y = np.clip((1 - uv[..., 1]) * height - 0.5, 0, height - 1)
    x0, y0 = x.astype(int), y.astype(int)
    x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
    fx, fy = (x - x0)[..., None], (y - y0)[..., None]
    texels = image.astype(np.float64)
    top = texels[y0, x0] * (1 - fx) + texels[y0, x1] * fx
    bottom = texels[y1, x0] * (1 - fx) + texels[y1, x1] * fx
    mean: np.ndarray = top * (1 - fy) + bottom * fy
    return mean
