"""Polygons to triangles, and vertices that stand twice to one."""

from __future__ import annotations

import numpy as np

from preprocess.geometry.mesh_kernels import weld_equal


def fan_triangulation(polygon_sizes: np.ndarray) -> np.ndarray:
    """Cuts convex polygons into triangles that share each polygon's first corner.

    Args:
        polygon_sizes: int (P,), corners of each polygon; those with fewer than three make no triangle.
    Returns:
        int64 (M, 3): positions in the list of all corners, the polygons' corners standing one after another.
    """
    sizes = np.asarray(polygon_sizes, np.int64)
    starts = np.cumsum(sizes) - sizes
    if (sizes == 3).all():
        return np.arange(3 * len(sizes), dtype=np.int64).reshape(-1, 3)
    num_triangles = np.maximum(sizes - 2, 0)
    first = np.repeat(starts, num_triangles)
    step = np.arange(len(first)) - np.repeat(np.cumsum(num_triangles) - num_triangles, num_triangles)
    return np.stack([first, first + step + 1, first + step + 2], axis=1)


def cut_polygons(corners: np.ndarray, polygon_sizes: np.ndarray) -> np.ndarray:
    """The triangles of polygons: `corners` (C, …), one polygon after another, by `fan_triangulation` (M, 3, …).

    Where all are triangles already, nothing is copied.
    """
    if (polygon_sizes == 3).all():
        return corners.reshape(-1, 3, *corners.shape[1:])
    return corners[fan_triangulation(polygon_sizes)]


def weld(vertices: np.ndarray, colors: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Finds vertices at exactly the same place (and of the same colour), as files leave them at texture seams.

    Args:
        vertices: f32 (N, 3). colors: u8 (N, 3) or None.
    Returns:
        kept: int (K,), the first of each kind, in the order of the file.
        place: int (N,), vertex → its index in `kept`.
    """
    with np.errstate(invalid="ignore"):  # garbled bytes may be signalling NaNs
        parts = [np.ascontiguousarray(vertices + np.float32(0), np.float32).view(np.uint32)]  # + 0: -0.0 equals 0.0
    if colors is not None:
        parts.append(colors.astype(np.uint32))
    kept, place = weld_equal(np.ascontiguousarray(np.concatenate(parts, axis=1)))
    return kept, place
