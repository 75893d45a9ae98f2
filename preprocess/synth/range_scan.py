"""A head as a structured-light scanner in front of it sees it: a grid of points with holes, and an upright photograph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import map_coordinates

from preprocess.geometry.mesh import Mesh
from shared.errors import FacetError, first_line

POINT_SPACING_MM = 0.8
PHOTO_PX_PER_MM = 2.2
PHOTO_MARGIN_MM = 12.0
BACKDROP_RGB = (58, 62, 70)
STEEPEST = 0.16  # cosine of the angle to the viewer below which no light comes back
HIDDEN_MM = 8.0  # a landmark this far behind the surface that is seen is hidden


@dataclass(frozen=True)
class RangeScan:
    """Planes of the grid, f64 (rows, columns), rows from the bottom up, columns to the subject's left.

    x, y, z in mm, NaN where there is no point; a, b in 0…1, the point's position in the photograph from its upper left corner,
    known everywhere. photo u8 (H, W, 3), row 0 on top; left and top: where its upper left corner lies, mm. visible: bool (L,),
    which of the mesh's landmarks the scanner sees.
    """

    x_mm: np.ndarray
    y_mm: np.ndarray
    z_mm: np.ndarray
    a: np.ndarray
    b: np.ndarray
    photo: np.ndarray
    left_mm: float
    top_mm: float
    visible: np.ndarray

    def place_px(self, points_mm: np.ndarray) -> np.ndarray:
        """Return the position of points (K, 3) in the photograph, f64 (K, 2): from its upper left corner to the right and
        down."""
        return (points_mm[:, :2] - [self.left_mm, self.top_mm]) * [PHOTO_PX_PER_MM, -PHOTO_PX_PER_MM]


@dataclass(frozen=True)
class _Hits:
    z_mm: np.ndarray  # NaN where a ray meets nothing
    facing: np.ndarray  # cosine between the surface's normal and the viewer's direction
    rgb: np.ndarray  # u8 (..., 3)


def scan_from_front(mesh: Mesh, occluder: Mesh | None = None) -> RangeScan:
    """Scan a textured mesh along −z, orthographically.

    Args:
        occluder: something with colours per vertex that stands in front of the face.
    """
    assert mesh.landmarks_mm is not None
    cast = _Caster(mesh, occluder)
    low, high = mesh.vertices_mm.min(0).astype(np.float64), mesh.vertices_mm.max(0).astype(np.float64)
    columns, rows = (np.floor((high - low)[:2] / POINT_SPACING_MM) + 1).astype(int)
    x, y = np.meshgrid(low[0] + POINT_SPACING_MM * np.arange(columns), low[1] + POINT_SPACING_MM * np.arange(rows))
    points = cast(x, y)
    seen = np.isfinite(points.z_mm) & (points.facing > STEEPEST)

    left, top = low[0] - PHOTO_MARGIN_MM, high[1] + PHOTO_MARGIN_MM
    size = np.ceil(((high - low)[:2] + 2 * PHOTO_MARGIN_MM) * PHOTO_PX_PER_MM).astype(int)  # W, H
    pixel_x = left + (np.arange(size[0]) + 0.5) / PHOTO_PX_PER_MM
    pixel_y = top - (np.arange(size[1]) + 0.5) / PHOTO_PX_PER_MM

    landmarks = mesh.landmarks_mm.astype(np.float64)
    in_front = cast(landmarks[:, 0], landmarks[:, 1]).z_mm
    return RangeScan(
        x_mm=np.where(seen, x, np.nan),
        y_mm=np.where(seen, y, np.nan),
        z_mm=np.where(seen, points.z_mm, np.nan),
        a=(x - left) * PHOTO_PX_PER_MM / size[0],
        b=(top - y) * PHOTO_PX_PER_MM / size[1],
        photo=cast(*np.meshgrid(pixel_x, pixel_y)).rgb,
        left_mm=left,
        top_mm=top,
        visible=~(in_front - landmarks[:, 2] > HIDDEN_MM),
    )


class _Caster:
    """Rays from the viewer straight back onto a mesh and what stands before it."""

    def __init__(self, mesh: Mesh, occluder: Mesh | None) -> None:
        try:
            import open3d
        except ImportError as error:
            raise FacetError(f"synth bosphorus: needs open3d ({first_line(error)}); pip install open3d") from error

        self._tensor = open3d.core.Tensor.from_numpy
        self._scene = open3d.t.geometry.RaycastingScene(nthreads=1)
        self._mesh, self._occluder = mesh, occluder
        for part in (mesh, occluder):
            if part is not None:
                self._scene.add_triangles(
                    self._tensor(np.ascontiguousarray(part.vertices_mm)), self._tensor(part.triangles.astype(np.uint32))
                )
        self._start_z = max(float(part.vertices_mm[:, 2].max()) for part in (mesh, occluder) if part is not None) + 10.0

    def __call__(self, x_mm: np.ndarray, y_mm: np.ndarray) -> _Hits:
        rays = np.zeros((*x_mm.shape, 6), np.float32)
        rays[..., 0], rays[..., 1], rays[..., 2], rays[..., 5] = x_mm, y_mm, self._start_z, -1.0
        answer = {k: v.numpy() for k, v in self._scene.cast_rays(self._tensor(rays), nthreads=1).items()}
        distance = answer["t_hit"].astype(np.float64)
        hit = np.isfinite(distance)
        rgb = np.empty((*x_mm.shape, 3), np.uint8)
        rgb[:] = BACKDROP_RGB
        on_mesh = hit & (answer["geometry_ids"] == 0)
        rgb[on_mesh] = _texture_at(self._mesh, answer["primitive_ids"][on_mesh], answer["primitive_uvs"][on_mesh])
        on_other = hit & ~on_mesh
        if self._occluder is not None and on_other.any():
            assert self._occluder.colors is not None
            rgb[on_other] = self._occluder.colors[self._occluder.triangles[answer["primitive_ids"][on_other], 0]]
        return _Hits(np.where(hit, self._start_z - distance, np.nan), np.abs(answer["primitive_normals"][..., 2]), rgb)


def _texture_at(mesh: Mesh, triangles: np.ndarray, barycentric: np.ndarray) -> np.ndarray:
    """Return texture colours u8 (K, 3) at points of triangles, bilinear. barycentric (K, 2): weights of corners 1 and 2."""
    assert mesh.uv is not None and mesh.texture is not None
    weights = np.concatenate([1.0 - barycentric.sum(1, keepdims=True), barycentric], 1)
    u, v = np.einsum("kc,kcd->dk", weights, mesh.uv[triangles])
    height, width = mesh.texture.shape[:2]
    position = np.stack([(1.0 - v) * height - 0.5, u * width - 0.5])
    channels = [map_coordinates(mesh.texture[..., c], position, np.float32, order=1, mode="nearest") for c in range(3)]
    return np.rint(np.stack(channels, -1)).astype(np.uint8)
