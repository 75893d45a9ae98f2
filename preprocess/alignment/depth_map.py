"""The front of a mesh as a height field: what lies nearest to a viewer on +z, over a regular grid of x and y."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from preprocess.compiled import compile_kernel
from preprocess.geometry.rasterise import rasterise

_SAMPLED = 4000  # triangles, to see where the surface is


@dataclass(frozen=True)
class DepthMap:
    """z_mm f64 (h, w), NaN where there is no surface; row r is y = y0 + r·step, column c is x = x0 + c·step (y grows!)."""

    z_mm: np.ndarray
    x0_mm: float
    y0_mm: float
    step_mm: float

    def sample(self, x_mm: np.ndarray, y_mm: np.ndarray) -> np.ndarray:
        """Interpolate z bilinearly; NaN off the map and beside holes."""
        columns, rows = (x_mm - self.x0_mm) / self.step_mm, (y_mm - self.y0_mm) / self.step_mm
        return np.reshape(_bilinear(self.z_mm, columns.ravel(), rows.ravel()), x_mm.shape)

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y of the centre of every cell in mm, each f64 (h, w)."""
        rows, columns = np.indices(self.z_mm.shape)
        return np.add(self.x0_mm, columns * self.step_mm), np.add(self.y0_mm, rows * self.step_mm)


class Surface:
    """A mesh prepared for depth maps of it, seen from any direction. Vertices f32 (N, 3), triangles i32 (M, 3)."""

    def __init__(self, vertices_mm: np.ndarray, triangles: np.ndarray) -> None:
        self._vertices = vertices_mm.astype(np.float64)
        self._triangles = triangles
        # Shards of noise far off, in front of everything, must not hide the surface.
        some = triangles[:: max(len(triangles) // _SAMPLED, 1), 0]
        low, high = np.percentile(self._vertices[some], [1, 99], axis=0)
        self._center = (low + high) / 2
        self._reach = float(np.linalg.norm(high - low)) + 50.0

    def bounds(self, pose: np.ndarray) -> np.ndarray:
        """Return (2, 3), the lowest and highest coordinates in a frame, without the 0.1 % farthest vertices (scanner noise)."""
        moved = self._vertices @ pose[:3, :3].T + pose[:3, 3]
        return np.asarray(np.percentile(moved, [0.1, 99.9], axis=0))

    def cast(
        self, pose: np.ndarray, *, x_mm: tuple[float, float], y_mm: tuple[float, float], step_mm: float
    ) -> DepthMap:
        """Return the depth map in a frame.

        Args:
            pose: (4, 4) rigid, mesh → frame. x_mm, y_mm: the range of the map in that frame.
        """
        columns, rows = (int((high - low) / step_mm + 1.5) for low, high in (x_mm, y_mm))
        moved = self._vertices @ pose[:3, :3].T + pose[:3, 3]
        farthest = float(pose[2, :3] @ self._center + pose[2, 3]) + self._reach
        moved[moved[:, 2] > farthest, 2] = np.nan
        fragments = rasterise(
            *(moved, self._triangles),
            left=x_mm[0] - step_mm / 2,
            top=y_mm[0] + (rows - 0.5) * step_mm,
            cell=step_mm,
            shape=(rows, columns),
        )
        z = np.where(fragments.triangle >= 0, fragments.z.astype(np.float64), np.nan)[::-1]  # y grows with the row here
        return DepthMap(np.ascontiguousarray(z), x_mm[0], y_mm[0], step_mm)


@compile_kernel
def _bilinear(values: np.ndarray, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the values between cells, f64 (n,), at columns and rows f64 (n,); NaN outside and at NaN."""
    h, w = values.shape
    found = np.full(len(columns), np.nan)
    for i in range(len(columns)):
        column, row = columns[i], rows[i]
        if column >= 0 and row >= 0 and column <= w - 1 and row <= h - 1:
            c, r = min(int(column), max(w - 2, 0)), min(int(row), max(h - 2, 0))
            fc, fr = column - c, row - r
            c1, r1 = min(c + 1, w - 1), min(r + 1, h - 1)
            top = values[r, c] * (1 - fc) + values[r, c1] * fc
            bottom = values[r1, c] * (1 - fc) + values[r1, c1] * fc
            found[i] = top * (1 - fr) + bottom * fr
    return found
