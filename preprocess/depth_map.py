"""The front of a mesh as a height field: what lies nearest to a viewer on +z, over a regular grid of x and y."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class DepthMap:
    """z_mm f64 (h, w), NaN where there is no surface; row r is y = y0 + r·step, column c is x = x0 + c·step (y grows!)."""

    z_mm: np.ndarray
    x0_mm: float
    y0_mm: float
    step_mm: float

    def sample(self, x_mm: np.ndarray, y_mm: np.ndarray) -> np.ndarray:
        """z by bilinear interpolation; NaN off the map and beside holes."""
        return _bilinear(self.z_mm, (x_mm - self.x0_mm) / self.step_mm, (y_mm - self.y0_mm) / self.step_mm)

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """x and y of every cell, each (h, w)."""
        rows, columns = np.indices(self.z_mm.shape)
        return np.add(self.x0_mm, columns * self.step_mm), np.add(self.y0_mm, rows * self.step_mm)


class Surface:
    """A mesh prepared for casting depth maps of it, seen from any direction. Vertices f32 (N, 3), triangles i32 (M, 3)."""

    def __init__(self, vertices_mm: np.ndarray, triangles: np.ndarray) -> None:
        import open3d

        self._open3d = open3d
        self._scene = open3d.t.geometry.RaycastingScene(nthreads=1)
        self._scene.add_triangles(
            open3d.core.Tensor.from_numpy(np.ascontiguousarray(vertices_mm, np.float32)),
            open3d.core.Tensor.from_numpy(np.ascontiguousarray(triangles, np.uint32)),
        )
        # Where rays must begin to be in front of the surface. Shards far off do not count: float32 rays lose their precision.
        low, high = np.percentile(vertices_mm[triangles[::4, 0]].astype(np.float64), [1, 99], axis=0)
        self._center = (low + high) / 2
        self._reach = float(np.linalg.norm(high - low)) + 50.0

    def cast(
        self, pose: np.ndarray, *, x_mm: tuple[float, float], y_mm: tuple[float, float], step_mm: float
    ) -> DepthMap:
        """The depth map in a frame.

        Args:
            pose: (4, 4) rigid, mesh → frame. x_mm, y_mm: the range of the map in that frame.
        """
        xs = np.arange(x_mm[0], x_mm[1] + step_mm / 2, step_mm)
        ys = np.arange(y_mm[0], y_mm[1] + step_mm / 2, step_mm)
        rotation, shift = pose[:3, :3], pose[:3, 3]
        start_z = float((rotation @ self._center + shift)[2]) + self._reach  # in front of everything
        origins = np.stack([*np.meshgrid(xs, ys), np.full((len(ys), len(xs)), start_z)], axis=-1)
        rays = np.empty((*origins.shape[:2], 6), np.float32)
        rays[..., :3] = (origins - shift) @ rotation
        rays[..., 3:] = -rotation[2]
        hit = self._scene.cast_rays(self._open3d.core.Tensor.from_numpy(rays), nthreads=1)["t_hit"].numpy()
        z = np.where(np.isfinite(hit), start_z - hit.astype(np.float64), np.nan)
        return DepthMap(z, float(xs[0]), float(ys[0]), step_mm)


def _bilinear(values: np.ndarray, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    h, w = values.shape
    inside = (column >= 0) & (row >= 0) & (column <= w - 1) & (row <= h - 1)
    c = np.clip(np.nan_to_num(np.floor(column)), 0, max(w - 2, 0)).astype(np.intp)
    r = np.clip(np.nan_to_num(np.floor(row)), 0, max(h - 2, 0)).astype(np.intp)
    fc, fr = column - c, row - r
    c1, r1 = np.minimum(c + 1, w - 1), np.minimum(r + 1, h - 1)
    top = values[r, c] * (1 - fc) + values[r, c1] * fc
    bottom = values[r1, c] * (1 - fc) + values[r1, c1] * fc
    return np.where(inside, top * (1 - fr) + bottom * fr, np.nan)
