"""A z-buffer: which triangle a viewer on +z sees at each point of a regular grid. On one thread, the same bytes each time.

Vertices are snapped to 1/4096 of the grid's step and tested with integers, so that no point on an edge that two triangles
share is missed by both (Pineda 1988, "A parallel algorithm for polygon rasterization"). The kernels that read the z-buffer
pixel by pixel are here, too, for a kernel may only call kernels of its own file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from preprocess.compiled import compile_kernel
from shared.modalities import DEPTH_STEP_MM, DEPTH_ZERO

NOTHING = -1
_IDENTITY = np.eye(3)
_BITS = 12  # of a grid step below the point: 0.00007 mm at 224 px with 3 × 3 samples
_ONE = 1 << _BITS
_HALF = _ONE >> 1
# A vertex further out, in grid steps, would overflow the integers: its triangles, 40 m away and more, are not drawn.
_FARTHEST = 1 << 17
STEPS = 1.0 / _ONE  # from the vertices' grid coordinates to steps of the grid


@dataclass(frozen=True)
class Fragments:
    """The nearest triangle at each point of a grid.

    triangle i32 (rows, columns): its index, or NOTHING (−1); of equally near ones the first.
    z f32 (rows, columns): its height toward the viewer, −inf without a triangle.
    column, row i32 (N,): the vertices in 1/4096 of a step; grid point (r, c) is at row 4096 r + 2048, column 4096 c + 2048.
    height f64 (N,): the vertices' z toward the viewer, in their unit.
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
    rotation: np.ndarray = _IDENTITY,
    radius: float = np.inf,
    reuse: Fragments | None = None,
) -> Fragments:
    """Cast parallel rays along −z through the cells of a grid.

    Args:
        vertices: f32 or f64 (N, 3); triangles with a corner that is not finite, or 131,072 steps off, are not drawn.
        triangles: i32 (M, 3).
        left, top: the grid's outer edge; the first ray is half a step inside. step: between rays, in units of the vertices.
        shape: rows (downward) and columns.
        rotation: (3, 3), vertices → x to the right, y up, z toward the viewer.
        radius: what lies outside a sphere about the origin is not drawn: each ray meets the surface within it.
        reuse: an earlier view of the same shape, whose grids are overwritten: new memory costs as much as filling it.
    """
    rotation = np.ascontiguousarray(rotation, np.float64)
    column, row, height, is_outside = snap_vertices(vertices, rotation, left, top, 1.0 / step, radius)
    triangle = np.empty(shape, np.int32) if reuse is None else reuse.triangle
    z = np.empty(shape, np.float32) if reuse is None else reuse.z
    rasterise_triangles(column, row, height, is_outside, triangles, left, top, step, radius, triangle, z)
    return Fragments(triangle, z, column, row, height)


@compile_kernel
def snap_vertices(
    vertices: np.ndarray, rotation: np.ndarray, left: float, top: float, per_step: float, radius: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rotate vertices; return grid coordinates i32, heights f64, and whether they lie outside a sphere about the origin.

    Too far out, or not finite: on the farthest line.
    """
    count = len(vertices)
    column, row, height = np.empty(count, np.int32), np.empty(count, np.int32), np.empty(count)
    is_outside = np.empty(count, np.bool_)
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
    return column, row, height, is_outside


@compile_kernel
def rasterise_triangles(
    column: np.ndarray,
    row: np.ndarray,
    height: np.ndarray,
    is_outside: np.ndarray,
    triangles: np.ndarray,
    left: float,
    top: float,
    step: float,
    radius: float,
    triangle: np.ndarray,
    nearest: np.ndarray,
) -> None:
    """Fill the z-buffer: `triangle` i32 and `nearest` f32, both (rows, columns)."""
    rows, columns = triangle.shape
    outside = np.int64(_FARTHEST) * _ONE
    triangle[:] = -1
    nearest[:] = -np.inf
    for t in range(len(triangles)):
        # Unsigned: NumPy's negative indices would need a test.
        a, b, c = np.uintp(triangles[t, 0]), np.uintp(triangles[t, 1]), np.uintp(triangles[t, 2])
        xa, xb, xc = np.int64(column[a]), np.int64(column[b]), np.int64(column[c])
        first_column = max((min(xa, xb, xc) - _HALF + _ONE - 1) >> _BITS, np.int64(0))
        last_column = min((max(xa, xb, xc) - _HALF) >> _BITS, np.int64(columns - 1))
        if first_column > last_column:
            continue
        ya, yb, yc = np.int64(row[a]), np.int64(row[b]), np.int64(row[c])
        first_row = max((min(ya, yb, yc) - _HALF + _ONE - 1) >> _BITS, np.int64(0))
        last_row = min((max(ya, yb, yc) - _HALF) >> _BITS, np.int64(rows - 1))
        if first_row > last_row or xa == outside or xb == outside or xc == outside:
            continue
        area = (xb - xa) * (yc - ya) - (yb - ya) * (xc - xa)
        if area == 0:
            continue
        za, zb, zc = height[a], height[b], height[c]
        if area < 0:
            area, xb, xc, yb, yc, zb, zc = -area, xc, xb, yc, yb, zc, zb
        # Twice the areas opposite each corner, ≥ 0 inside; they change by these steps from point to point.
        step_a, step_b, step_c = (yb - yc) * _ONE, (yc - ya) * _ONE, (ya - yb) * _ONE
        x, y = first_column * _ONE + _HALF, first_row * _ONE + _HALF
        row_a = (xc - xb) * (y - yb) - (yc - yb) * (x - xb)
        row_b = (xa - xc) * (y - yc) - (ya - yc) * (x - xc)
        row_c = (xb - xa) * (y - ya) - (yb - ya) * (x - xa)
        scale = 1.0 / area
        is_cut = is_outside[a] or is_outside[b] or is_outside[c]
        for i in range(first_row, last_row + 1):
            in_a, in_b, in_c = row_a, row_b, row_c
            for j in range(first_column, last_column + 1):
                if (in_a | in_b | in_c) >= 0:
                    z = np.float32((in_a * za + in_b * zb + in_c * zc) * scale)
                    if z > nearest[i, j]:
                        across, up = left + (j + 0.5) * step, top - (i + 0.5) * step
                        if not is_cut or across * across + up * up + z * z <= radius * radius:
                            nearest[i, j] = z
                            triangle[i, j] = t
                in_a, in_b, in_c = in_a + step_a, in_b + step_b, in_c + step_c
            row_a += (xc - xb) * _ONE
            row_b += (xa - xc) * _ONE
            row_c += (xb - xa) * _ONE


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


@compile_kernel
def draw_geometry(
    triangle: np.ndarray,
    column: np.ndarray,
    row: np.ndarray,
    triangles: np.ndarray,
    z_mm: np.ndarray,
    normals: np.ndarray,
    normal_of: np.ndarray,
    rotation: np.ndarray,
    samples: int,
    normal: np.ndarray,
    depth: np.ndarray,
) -> None:
    """Write normal and depth at each pixel's middle sample into `normal` u8 (H, W, 3) and `depth` u16 (H, W), encoded.

    normals and normal_of are as `fan_normals` returns them.
    """
    for r in range(depth.shape[0]):
        i = r * samples + samples // 2
        for c in range(depth.shape[1]):
            j = c * samples + samples // 2
            t = triangle[i, j]
            if t < 0:
                continue
            ia, ib, ic = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            wa, wb, wc = corner_weights(column, row, ia, ib, ic, i, j)
            z = z_mm[ia] * wa + z_mm[ib] * wb + z_mm[ic] * wc
            depth[r, c] = np.uint16(min(max(np.rint(z / DEPTH_STEP_MM) + DEPTH_ZERO, 1.0), 65535.0))
            na, nb, nc = normal_of[t, 0], normal_of[t, 1], normal_of[t, 2]
            if na < 0:
                na, wa = ~na, -wa
            if nb < 0:
                nb, wb = ~nb, -wb
            if nc < 0:
                nc, wc = ~nc, -wc
            x = normals[na, 0] * wa + normals[nb, 0] * wb + normals[nc, 0] * wc
            y = normals[na, 1] * wa + normals[nb, 1] * wb + normals[nc, 1] * wc
            w = normals[na, 2] * wa + normals[nb, 2] * wb + normals[nc, 2] * wc
            nx = rotation[0, 0] * x + rotation[0, 1] * y + rotation[0, 2] * w
            ny = rotation[1, 0] * x + rotation[1, 1] * y + rotation[1, 2] * w
            nz = rotation[2, 0] * x + rotation[2, 1] * y + rotation[2, 2] * w
            # A surface seen from behind (or wound the other way round) shows its other side: normals face the viewer.
            # Rows count downward: seen from the front, corners run clockwise in the grid.
            area = np.int64(column[ib] - column[ia]) * np.int64(row[ic] - row[ia]) - np.int64(
                row[ib] - row[ia]
            ) * np.int64(column[ic] - column[ia])
            if area > 0:
                nx, ny, nz = -nx, -ny, -nz
            nz = max(nz, 0.0)  # interpolated normals may lean past the horizon
            length = np.sqrt(nx * nx + ny * ny + nz * nz)
            if length > 1e-6:
                nx, ny, nz = nx / length, ny / length, nz / length
            else:
                nx, ny, nz = 0.0, 0.0, 1.0
            normal[r, c, 0] = np.uint8(np.rint(127 * nx) + 128)
            normal[r, c, 1] = np.uint8(np.rint(127 * ny) + 128)
            normal[r, c, 2] = np.uint8(np.rint(127 * nz) + 128)


@compile_kernel
def draw_vertex_colors(
    triangle: np.ndarray,
    column: np.ndarray,
    row: np.ndarray,
    triangles: np.ndarray,
    colors: np.ndarray,
    samples: int,
    covered: np.ndarray,
    image: np.ndarray,
) -> None:
    """Write the mean interpolated colour of each covered pixel's samples into `image` u8 (H, W, 3)."""
    for r in range(covered.shape[0]):
        for c in range(covered.shape[1]):
            if not covered[r, c]:
                continue
            for k in range(3):
                total = 0.0
                count = 0
                for i in range(r * samples, (r + 1) * samples):
                    for j in range(c * samples, (c + 1) * samples):
                        t = triangle[i, j]
                        if t < 0:
                            continue
                        ia, ib, ic = triangles[t, 0], triangles[t, 1], triangles[t, 2]
                        wa, wb, wc = corner_weights(column, row, ia, ib, ic, i, j)
                        total += wa * colors[ia, k] + wb * colors[ib, k] + wc * colors[ic, k]
                        count += 1
                image[r, c, k] = np.uint8(np.rint(total / count))
