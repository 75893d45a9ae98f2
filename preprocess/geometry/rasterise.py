"""A z-buffer: which triangle a viewer on +z sees at each point of a regular grid. On one thread, the same bytes each time.

Vertices are snapped to 1/4096 of the grid's step and tested with integers, so that no point on an edge that two triangles
share is missed by both (Pineda 1988, "A parallel algorithm for polygon rasterization"). Cells of the grid that show an edge can
be looked at again at several points each (`sample_cells`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from preprocess.compiled import compile_kernel

NOTHING = -1
_IDENTITY = np.eye(3)
_BITS = 12  # of a step below the point: 0.00007 mm at 224 px with 3 × 3 samples
_ONE = 1 << _BITS
_HALF = _ONE >> 1
# A vertex further out, in steps, would overflow the integers: its triangles, 40 m away and more, are not drawn.
_FARTHEST = 1 << 17
STEPS = 1.0 / _ONE  # from the vertices' grid coordinates to steps of the grid


@dataclass(frozen=True)
class Fragments:
    """The nearest triangle in the middle of each cell of a grid.

    triangle i32 (rows, columns): its index, or NOTHING (−1); of equally near ones the first.
    z f32 (rows, columns): its height toward the viewer, −inf without a triangle.
    place i32 (M,): near which cell a triangle lies that is at most two cells large, as an index of a grid with three more cells
        on each side; the index behind its last cell: a larger one.
    column, row i32 (N,): the vertices in 1/4096 of a step; point (r, c) is at row 4096 r + 2048, column 4096 c + 2048.
    height f64 (N,): the vertices' z toward the viewer, in their unit. is_outside bool (N,): they are outside the sphere.
    frame: left and top edge of the grid, a step, and the radius of the sphere, in the vertices' unit.
    samples: steps along each side of a cell.
    """

    triangle: np.ndarray
    z: np.ndarray
    place: np.ndarray
    column: np.ndarray
    row: np.ndarray
    height: np.ndarray
    is_outside: np.ndarray
    frame: tuple[float, float, float, float]
    samples: int


def rasterise(
    vertices: np.ndarray,
    triangles: np.ndarray,
    *,
    left: float,
    top: float,
    cell: float,
    shape: tuple[int, int],
    samples: int = 1,
    rotation: np.ndarray = _IDENTITY,
    radius: float = np.inf,
    reuse: Fragments | None = None,
) -> Fragments:
    """Cast a ray along −z through the middle of each cell of a grid.

    Args:
        vertices: f32 or f64 (N, 3); triangles with a corner that is not finite, or 131,072 steps off, are not drawn.
        triangles: i32 (M, 3).
        left, top: the grid's outer edge. cell: the side of a cell; all in units of the vertices.
        shape: rows (downward) and columns.
        samples: points along each side of a cell that `sample_cells` shall look at, odd: the middle is one of them.
        rotation: (3, 3), vertices → x to the right, y up, z toward the viewer.
        radius: what lies outside a sphere about the origin is not drawn: each ray meets the surface within it.
        reuse: an earlier view of the same triangles and shape, whose arrays are overwritten: new memory costs as much as
            filling it.
    """
    frame = (float(left), float(top), cell / samples, float(radius))
    rotation = np.ascontiguousarray(rotation, np.float64)
    column, row, cells, height, is_outside = snap_vertices(vertices, rotation, *frame, samples)
    triangle = np.empty(shape, np.int32) if reuse is None else reuse.triangle
    z = np.empty(shape, np.float32) if reuse is None else reuse.z
    place = np.empty(len(triangles), np.int32) if reuse is None else reuse.place
    grid = (*frame, samples, triangle, z, place)
    rasterise_middles(column, row, cells, height, is_outside, triangles, *grid)
    return Fragments(triangle, z, place, column, row, height, is_outside, frame, samples)


def sample_cells(fragments: Fragments, triangles: np.ndarray, numbers: np.ndarray, num: int) -> np.ndarray:
    """Cast samples × samples rays through some cells: the nearest triangle of each, or NOTHING, i32 (num, samples²).

    Args:
        triangles: as in `rasterise`.
        numbers: i32 (rows, columns): which row of the result a cell goes to, 0 to num − 1, each once; −1: none.
    """
    triangle = np.full((num, fragments.samples**2), NOTHING, np.int32)
    z = np.full(triangle.shape, -np.inf, np.float32)
    vertex = (fragments.column, fragments.row, fragments.height, fragments.is_outside)
    rasterise_samples(*vertex, triangles, *fragments.frame, fragments.samples, fragments.place, numbers, triangle, z)
    return triangle


@compile_kernel
def snap_vertices(
    vertices: np.ndarray, rotation: np.ndarray, left: float, top: float, step: float, radius: float, samples: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rotate vertices; return column, row, cells, height and is_outside, all but cells as in `Fragments`.

    cells i32 (N, 2) are column and row of the cell: 2 k in the middle of cell k, 2 k + 1 between it and the next one's.
    Vertices too far out, or not finite, are on the farthest line.
    """
    count = len(vertices)
    column, row, height = np.empty(count, np.int32), np.empty(count, np.int32), np.empty(count)
    cells, is_outside = np.empty((count, 2), np.int32), np.empty(count, np.bool_)
    per_step = 1.0 / step
    size, half, per_cell = samples * _ONE, samples * _HALF, 1.0 / (samples * _ONE)
    for k in range(count):
        x, y, z = np.float64(vertices[k, 0]), np.float64(vertices[k, 1]), np.float64(vertices[k, 2])
        across = rotation[0, 0] * x + rotation[0, 1] * y + rotation[0, 2] * z
        up = rotation[1, 0] * x + rotation[1, 1] * y + rotation[1, 2] * z
        height[k] = rotation[2, 0] * x + rotation[2, 1] * y + rotation[2, 2] * z
        is_outside[k] = across * across + up * up + height[k] * height[k] > radius * radius
        c, r = (across - left) * per_step, (top - up) * per_step
        if abs(c) < _FARTHEST and abs(r) < _FARTHEST and np.isfinite(height[k]):
            column[k], row[k] = np.int32(np.rint(c * _ONE)), np.int32(np.rint(r * _ONE))
        else:
            column[k] = row[k] = np.int32(_FARTHEST * _ONE)
    for k in range(count):  # as a loop of its own it takes a quarter less time
        for axis in range(2):
            past = (column[k] if axis == 0 else row[k]) - half  # the first cell's middle
            # Quotients of whole numbers are 1 / size apart: 1e-6 makes up for their rounding.
            last = np.int64(np.floor(past * per_cell + 1e-6))
            cells[k, axis] = 2 * last + (past != last * size)
    return column, row, cells, height, is_outside


@compile_kernel
def rasterise_middles(
    column: np.ndarray,
    row: np.ndarray,
    cells: np.ndarray,
    height: np.ndarray,
    is_outside: np.ndarray,
    triangles: np.ndarray,
    left: float,
    top: float,
    step: float,
    radius: float,
    samples: int,
    triangle: np.ndarray,
    nearest: np.ndarray,
    place: np.ndarray,
) -> None:
    """Fill the z-buffer of the cells' middles: `triangle` i32 and `nearest` f32, both (rows, columns); and `place`."""
    rows, columns = triangle.shape
    none, end_row, end_column = np.int64(-3), np.int64(rows + 2), np.int64(columns + 2)  # around the grid
    outside = np.int64(_FARTHEST) * _ONE
    cell = np.int64(samples) * _ONE
    half = cell >> 1
    triangle[:] = -1
    nearest[:] = -np.inf
    for t in range(len(triangles)):
        # Unsigned: NumPy's negative indices would need a test.
        a, b, c = np.uintp(triangles[t, 0]), np.uintp(triangles[t, 1]), np.uintp(triangles[t, 2])
        # The cells whose middles are in its bounding box.
        ca, cb, cc = np.int64(cells[a, 0]), np.int64(cells[b, 0]), np.int64(cells[c, 0])
        ra, rb, rc = np.int64(cells[a, 1]), np.int64(cells[b, 1]), np.int64(cells[c, 1])
        first_column, last_column = (min(ca, cb, cc) + 1) >> 1, max(ca, cb, cc) >> 1
        first_row, last_row = (min(ra, rb, rc) + 1) >> 1, max(ra, rb, rc) >> 1
        place[t] = (rows + 6) * (columns + 6)
        if (
            last_column <= first_column + 1 and last_row <= first_row + 1
        ):  # it reaches from one cell before to two after
            near_column, near_row = min(max(first_column, none), end_column), min(max(first_row, none), end_row)
            place[t] = (near_row + 3) * (columns + 6) + near_column + 3
        first_column, last_column = max(first_column, np.int64(0)), min(last_column, np.int64(columns - 1))
        first_row, last_row = max(first_row, np.int64(0)), min(last_row, np.int64(rows - 1))
        if first_column > last_column or first_row > last_row:
            continue
        xa, xb, xc = np.int64(column[a]), np.int64(column[b]), np.int64(column[c])
        ya, yb, yc = np.int64(row[a]), np.int64(row[b]), np.int64(row[c])
        if xa == outside or xb == outside or xc == outside:
            continue
        area = (xb - xa) * (yc - ya) - (yb - ya) * (xc - xa)
        if area == 0:
            continue
        is_cut = is_outside[a] or is_outside[b] or is_outside[c]
        za, zb, zc = height[a], height[b], height[c]
        if area < 0:
            area, xb, xc, yb, yc, zb, zc = -area, xc, xb, yc, yb, zc, zb
        # Twice the areas opposite each corner, ≥ 0 inside; they change by these steps from cell to cell.
        step_a, step_b, step_c = (yb - yc) * cell, (yc - ya) * cell, (ya - yb) * cell
        x, y = first_column * cell + half, first_row * cell + half
        row_a = (xc - xb) * (y - yb) - (yc - yb) * (x - xb)
        row_b = (xa - xc) * (y - yc) - (ya - yc) * (x - xc)
        row_c = (xb - xa) * (y - ya) - (yb - ya) * (x - xa)
        scale = 1.0 / area
        for i in range(first_row, last_row + 1):
            in_a, in_b, in_c = row_a, row_b, row_c
            for j in range(first_column, last_column + 1):
                if (in_a | in_b | in_c) >= 0:
                    z = np.float32((in_a * za + in_b * zb + in_c * zc) * scale)
                    if z > nearest[i, j]:
                        across = left + (j * samples + samples // 2 + 0.5) * step
                        up = top - (i * samples + samples // 2 + 0.5) * step
                        if not is_cut or across * across + up * up + z * z <= radius * radius:
                            nearest[i, j] = z
                            triangle[i, j] = t
                in_a, in_b, in_c = in_a + step_a, in_b + step_b, in_c + step_c
            row_a += (xc - xb) * cell
            row_b += (xa - xc) * cell
            row_c += (xb - xa) * cell


@compile_kernel
def rasterise_samples(
    column: np.ndarray,
    row: np.ndarray,
    height: np.ndarray,
    is_outside: np.ndarray,
    triangles: np.ndarray,
    left: float,
    top: float,
    step: float,
    radius: float,
    samples: int,
    place: np.ndarray,
    numbers: np.ndarray,
    triangle: np.ndarray,
    nearest: np.ndarray,
) -> None:
    """Fill the z-buffer of the samples of numbered cells: `triangle` i32 and `nearest` f32, both (cells, samples²)."""
    rows, columns = numbers.shape
    outside = np.int64(_FARTHEST) * _ONE
    is_near = np.zeros((rows + 6) * (columns + 6) + 1, np.bool_)
    is_near[-1] = True  # large triangles are looked at in any case
    for r in range(rows):
        for q in range(columns):
            if numbers[r, q] >= 0:
                for near_row in range(r + 1, r + 5):
                    for near in range(near_row * (columns + 6) + q + 1, near_row * (columns + 6) + q + 5):
                        is_near[near] = True
    cell_of = np.arange(max(rows, columns) * samples) // samples
    found = np.empty(len(triangles), np.int32)
    num_found = np.uintp(0)
    for index in range(len(triangles)):  # a loop of its own, without a branch: none here could be foreseen
        found[num_found] = index
        num_found += np.uintp(is_near[np.uintp(place[index])])
    for n in range(num_found):
        t = np.uintp(found[n])
        a, b, c = np.uintp(triangles[t, 0]), np.uintp(triangles[t, 1]), np.uintp(triangles[t, 2])
        xa, xb, xc = np.int64(column[a]), np.int64(column[b]), np.int64(column[c])
        ya, yb, yc = np.int64(row[a]), np.int64(row[b]), np.int64(row[c])
        first_column = max((min(xa, xb, xc) - _HALF + _ONE - 1) >> _BITS, np.int64(0))
        last_column = min((max(xa, xb, xc) - _HALF) >> _BITS, np.int64(columns * samples - 1))
        first_row = max((min(ya, yb, yc) - _HALF + _ONE - 1) >> _BITS, np.int64(0))
        last_row = min((max(ya, yb, yc) - _HALF) >> _BITS, np.int64(rows * samples - 1))
        if first_column > last_column or first_row > last_row:
            continue
        if xa == outside or xb == outside or xc == outside:
            continue
        if place[t] == len(is_near) - 1 and not _has_number(
            *(numbers, cell_of[first_row], cell_of[last_row], cell_of[first_column], cell_of[last_column])
        ):
            continue
        area = (xb - xa) * (yc - ya) - (yb - ya) * (xc - xa)
        if area == 0:
            continue
        is_cut = is_outside[a] or is_outside[b] or is_outside[c]
        za, zb, zc = height[a], height[b], height[c]
        if area < 0:
            area, xb, xc, yb, yc, zb, zc = -area, xc, xb, yc, yb, zc, zb
        step_a, step_b, step_c = (yb - yc) << _BITS, (yc - ya) << _BITS, (ya - yb) << _BITS
        x, y = (first_column << _BITS) + _HALF, (first_row << _BITS) + _HALF
        row_a = (xc - xb) * (y - yb) - (yc - yb) * (x - xb)
        row_b = (xa - xc) * (y - yc) - (ya - yc) * (x - xc)
        row_c = (xb - xa) * (y - ya) - (yb - ya) * (x - xa)
        scale = 1.0 / area
        for i in range(first_row, last_row + 1):
            in_a, in_b, in_c = row_a, row_b, row_c
            cell_row = np.uintp(cell_of[np.uintp(i)])
            for j in range(first_column, last_column + 1):
                cell_column = np.uintp(cell_of[np.uintp(j)])
                k = np.int64(numbers[cell_row, cell_column])
                if (in_a | in_b | in_c | k) >= 0:  # inside, and in a numbered cell
                    z = np.float32((in_a * za + in_b * zb + in_c * zc) * scale)
                    m = (i - np.int64(cell_row) * samples) * samples + j - np.int64(cell_column) * samples
                    if z > nearest[k, m]:
                        across, up = left + (j + 0.5) * step, top - (i + 0.5) * step
                        if not is_cut or across * across + up * up + z * z <= radius * radius:
                            nearest[k, m] = z
                            triangle[k, m] = t
                in_a, in_b, in_c = in_a + step_a, in_b + step_b, in_c + step_c
            row_a += (xc - xb) << _BITS
            row_b += (xa - xc) << _BITS
            row_c += (xb - xa) << _BITS


@compile_kernel
def _has_number(numbers: np.ndarray, first_row: int, last_row: int, first_column: int, last_column: int) -> bool:
    """Whether a rectangle of cells holds a numbered one."""
    for r in range(first_row, last_row + 1):
        for q in range(first_column, last_column + 1):
            if numbers[r, q] >= 0:
                return True
    return False


@compile_kernel
def corner_weights(
    column: np.ndarray, row: np.ndarray, a: int, b: int, c: int, i: int, j: int
) -> tuple[float, float, float]:
    """Return the barycentric weights of a triangle's corners a, b, c at grid point (i, j) inside it; their sum is 1."""
    x, y = np.int64(j) * _ONE + _HALF, np.int64(i) * _ONE + _HALF
    xa, ya = np.int64(column[a]), np.int64(row[a])
    xb, yb = np.int64(column[b]) - xa, np.int64(row[b]) - ya
    xc, yc = np.int64(column[c]) - xa, np.int64(row[c]) - ya
    scale = 1.0 / (xb * yc - yb * xc)
    x, y = x - xa, y - ya
    weight_b = (x * yc - y * xc) * scale
    weight_c = (xb * y - yb * x) * scale
    return 1.0 - weight_b - weight_c, weight_b, weight_c
