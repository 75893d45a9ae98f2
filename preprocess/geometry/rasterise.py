"""A z-buffer: which triangle a viewer on +z sees at each point of a regular grid. On one thread, the same bytes each time.

Vertices are snapped to 1/4096 of the grid's step and tested with integers, so that no point on an edge that two triangles
share is missed by both (Pineda 1988, "A parallel algorithm for polygon rasterization").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from preprocess.geometry.raster_kernels import rasterise_triangles, snap_vertices

NOTHING = -1
_AS_THEY_ARE = np.eye(3)


@dataclass(frozen=True)
class Fragments:
    """What is seen at each point of a grid.

    triangle i32 (rows, columns), NOTHING (−1) where no triangle is met; the nearest wins, of equally near ones the first.
    z f32 (rows, columns): how near it is, −inf where nothing is met.
    column, row i32 (N,): the vertices in 1/4096 of a step, a grid point (r, c) being at 4096 c + 2048 and 4096 r + 2048.
    height f64 (N,): how near the vertices are, in their unit.
    """

    triangle: np.ndarray
    z: np.ndarray
    column: np.ndarray
    row: np.ndarray
    height: np.ndarray


def rasterise(
    vertices: np.ndarray,
    triangles: np.ndarray,
    *,
    left: float,
    top: float,
    step: float,
    shape: tuple[int, int],
    rotation: np.ndarray = _AS_THEY_ARE,
    reuse: Fragments | None = None,
) -> Fragments:
    """Casts parallel rays along −z through the cells of a grid.

    Args:
        vertices: f32 or f64 (N, 3); triangles with a corner that is not finite, or 131,072 steps off, are not drawn.
        triangles: i32 (M, 3).
        left, top: the grid's outer edge; the first ray is half a step inside. step: between rays, in units of the vertices.
        shape: rows (downward) and columns.
        rotation: (3, 3), vertices → x to the right, y up, z toward the viewer.
        reuse: an earlier view of the same shape, whose grids are overwritten: new memory costs as much as filling it.
    """
    column, row, height = snap_vertices(vertices, np.ascontiguousarray(rotation, np.float64), left, top, 1.0 / step)
    triangle = np.empty(shape, np.int32) if reuse is None else reuse.triangle
    z = np.empty(shape, np.float32) if reuse is None else reuse.z
    rasterise_triangles(column, row, height, triangles, triangle, z)
    return Fragments(triangle, z, column, row, height)
