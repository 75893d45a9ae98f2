"""A z-buffer: which triangle a viewer on +z sees at each point of a regular grid. On one thread, the same bytes each time.

Vertices are snapped to 1/4096 of the grid's step and tested with integers, so that no point on an edge that two triangles
share is missed by both (Pineda 1988, "A parallel algorithm for polygon rasterization").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from preprocess.raster_kernels import rasterise_triangles, snap_vertices

NOTHING = -1


@dataclass(frozen=True)
class Visible:
    """What is seen at each point of a grid.

    triangle i32 (rows, columns), NOTHING (−1) where no triangle is met; the nearest wins, of equally near ones the first.
    z f32 (rows, columns): how near it is, −inf where nothing is met.
    column, row i32 (N,): the vertices in 1/4096 of a step, a grid point (r, c) being at 4096 c + 2048 and 4096 r + 2048.
    """

    triangle: np.ndarray
    z: np.ndarray
    column: np.ndarray
    row: np.ndarray


def rasterise(
    view_vertices: np.ndarray, triangles: np.ndarray, *, left: float, top: float, step: float, shape: tuple[int, int]
) -> Visible:
    """Casts parallel rays along −z through the cells of a grid.

    Args:
        view_vertices: f64 (N, 3), x to the right, y up, z toward the viewer; triangles with a corner that is not finite, or
            131,072 steps off, are not drawn. triangles: i32 (M, 3).
        left, top: the grid's outer edge; the first ray is half a step inside. step: between rays, in units of the vertices.
        shape: rows (downward) and columns.
    """
    column, row = snap_vertices(view_vertices, left, top, 1.0 / step)
    triangle = np.full(shape, NOTHING, np.int32)
    z = np.full(shape, -np.inf, np.float32)
    rasterise_triangles(column, row, view_vertices, triangles, triangle, z)
    return Visible(triangle, z, column, row)
