"""Add up the colours of samples, several to a pixel, each filtered to its own footprint in the texture. Compiled."""

from __future__ import annotations

import numpy as np

from preprocess.compiled import compile_kernel
from preprocess.geometry.rasterise import STEPS
from preprocess.rendering.texels import is_mixed, mean_colour, mix_four, pack, read_between, three_bytes_at

UNTEXTURED_GREY = 128  # of triangles without texture coordinates, where the mesh has no colours


@compile_kernel
def add_edge_samples(
    numbers: np.ndarray,
    triangle: np.ndarray,
    column: np.ndarray,
    row: np.ndarray,
    triangles: np.ndarray,
    uv: np.ndarray,
    texture: np.ndarray,
    coarser: np.ndarray,
    starts: np.ndarray,
    heights: np.ndarray,
    widths: np.ndarray,
    marks: np.ndarray,
    mark_starts: np.ndarray,
    colors: np.ndarray,
    samples: int,
    sums: np.ndarray,
    mixed: np.ndarray,
    footprints: np.ndarray,
) -> int:
    """Add up the samples of the numbered pixels, except those whose texels hold more than one chart: list these.

    A triangle reads the last level that is still as fine as its samples, between the four nearest texels.

    Args:
        sums: u64 (K, 3), per numbered pixel: the sums of colours as in texels.py, and the number of samples.
        mixed: i32 (≥ K samples², 5): of a listed sample its pixel's number, grid row and column, triangle and level.
        footprints: f64 (≥ K samples², 6): x in texels of the full size, what it gains by a column and by a row of the
            grid, and y likewise, downward.
    Returns:
        How many are listed.
    """
    last, num_mixed = -1, 0
    at_x = per_column_x = per_row_x = at_y = per_column_y = per_row_y = 0.0
    full_size, others = np.int64(texture.ctypes.data), np.int64(coarser.ctypes.data)
    begin, height, width = full_size, 0, 0
    stride, beside = 3, np.uint64(24)
    inside = untextured = False
    k = 0
    for r in range(numbers.shape[0]):
        for c in range(numbers.shape[1]):
            if numbers[r, c] < 0:
                continue
            red_green = blue = np.uint64(0)
            count = 0
            m = -1
            for i in range(r * samples, (r + 1) * samples):
                for j in range(c * samples, (c + 1) * samples):
                    m += 1
                    t = triangle[numbers[r, c], m]
                    if t < 0:
                        continue
                    count += 1
                    if t != last:
                        last = t
                        untextured = np.isnan(uv[t, 0, 0])
                        if not untextured:
                            a, b, d = triangles[t, 0], triangles[t, 1], triangles[t, 2]
                            at_x, per_column_x, per_row_x, at_y, per_column_y, per_row_y, k, inside = _map_triangle(
                                (column[a], row[a], np.float64(uv[t, 0, 0]), np.float64(uv[t, 0, 1])),
                                (column[b], row[b], np.float64(uv[t, 1, 0]), np.float64(uv[t, 1, 1])),
                                (column[d], row[d], np.float64(uv[t, 2, 0]), np.float64(uv[t, 2, 1])),
                                heights,
                                widths,
                            )
                            height, width = heights[k], widths[k]
                            begin, stride, beside = full_size, 3, np.uint64(24)
                            if k > 0:
                                begin, stride, beside = others + 4 * starts[k], 4, np.uint64(32)
                    if untextured:
                        add_red_green, add_blue = _mix_colors(column, row, triangles, colors, t, i, j)
                        red_green += add_red_green
                        blue += add_blue
                        continue
                    x = at_x + per_column_x * j + per_row_x * i
                    y = at_y + per_column_y * j + per_row_y * i
                    right = down = 1
                    if inside:
                        column_256, row_256 = np.int64(x), np.int64(y)
                    else:
                        # Textures repeat, as VRML and OBJ say; but a rounding error must not lead to the other edge.
                        fine = (1 << k) / 256.0
                        u, v = (x + 127.5) * fine / widths[0], (y + 127.5) * fine / heights[0]
                        if u < -1e-6 or u > 1 + 1e-6:
                            x -= np.floor(u) * widths[0] / fine
                        if v < -1e-6 or v > 1 + 1e-6:
                            y -= np.floor(v) * heights[0] / fine
                        # The border repeats its last texel.
                        column_256 = np.int64(min(max(x, 0.5), 256 * (width - 1.0) + 0.5))
                        row_256 = np.int64(min(max(y, 0.5), 256 * (height - 1.0) + 0.5))
                        right = 1 if (column_256 >> 8) + 1 < width else 0
                        down = 1 if (row_256 >> 8) + 1 < height else 0
                    texel = (row_256 >> 8) * width + (column_256 >> 8)
                    if is_mixed(marks, mark_starts[k] + texel, right, down * width, k):
                        fine = (1 << k) / 256.0
                        sample, footprint = mixed[num_mixed], footprints[num_mixed]
                        sample[0], sample[1], sample[2], sample[3], sample[4] = numbers[r, c], i, j, t, k
                        footprint[0], footprint[3] = (x + 127.5) * fine, (y + 127.5) * fine
                        footprint[1], footprint[2] = per_column_x * fine, per_row_x * fine
                        footprint[4], footprint[5] = per_column_y * fine, per_row_y * fine
                        num_mixed += 1
                        continue
                    if inside:
                        add_red_green, add_blue = read_between(
                            begin + stride * texel, stride * width, beside, column_256, row_256
                        )
                    else:
                        at = begin + stride * texel
                        right, down = right * stride, down * stride * width
                        add_red_green, add_blue = mix_four(
                            *(three_bytes_at(at), three_bytes_at(at + right)),
                            *(three_bytes_at(at + down), three_bytes_at(at + down + right)),
                            *(column_256, row_256),
                        )
                    red_green += add_red_green
                    blue += add_blue
            total = sums[numbers[r, c]]
            total[0], total[1], total[2] = red_green, blue, count
    return num_mixed


@compile_kernel
def write_means(numbers: np.ndarray, sums: np.ndarray, image: np.ndarray) -> None:
    """Write the means of the numbered pixels' samples, as `add_edge_samples` adds them up, into u8 (H, W, 3)."""
    for r in range(numbers.shape[0]):
        for c in range(numbers.shape[1]):
            if numbers[r, c] >= 0:
                total = sums[numbers[r, c]]
                image[r, c, 0], image[r, c, 1], image[r, c, 2] = mean_colour(total[0], total[1], np.int64(total[2]))


@compile_kernel
def _mix_colors(
    column: np.ndarray, row: np.ndarray, triangles: np.ndarray, colors: np.ndarray, t: int, i: int, j: int
) -> tuple[np.uint64, np.uint64]:
    """Return 256 times the vertex colour of a triangle without texture at a grid point."""
    if len(colors) == 0:
        return pack(UNTEXTURED_GREY, UNTEXTURED_GREY, UNTEXTURED_GREY)
    a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
    xb, yb = (column[b] - column[a]) * STEPS, (row[b] - row[a]) * STEPS
    xc, yc = (column[c] - column[a]) * STEPS, (row[c] - row[a]) * STEPS
    scale = 1.0 / (xb * yc - yb * xc)
    x, y = j + 0.5 - column[a] * STEPS, i + 0.5 - row[a] * STEPS
    wb, wc = (x * yc - y * xc) * scale, (xb * y - yb * x) * scale
    wa = 1.0 - wb - wc
    return pack(
        max(wa * colors[a, 0] + wb * colors[b, 0] + wc * colors[c, 0], 0.0),
        max(wa * colors[a, 1] + wb * colors[b, 1] + wc * colors[c, 1], 0.0),
        max(wa * colors[a, 2] + wb * colors[b, 2] + wc * colors[c, 2], 0.0),
    )


@compile_kernel
def _map_triangle(
    a: tuple[int, int, float, float],
    b: tuple[int, int, float, float],
    c: tuple[int, int, float, float],
    heights: np.ndarray,
    widths: np.ndarray,
) -> tuple[float, float, float, float, float, float, int, bool]:
    """Return the affine map from a triangle's grid points to the level that it reads; that level; whether no point of the
    triangle is nearer to the level's border than the middle of a texel.

    x = m₀ + m₁ j + m₂ i is in 1/256 of a texel from the middle of the first one, plus ½ to round; y = m₃ + m₄ j + m₅ i
    likewise, downward. Corners are column, row, u, v.
    """
    (column_a, row_a, ua, va), (column_b, row_b, ub, vb), (column_c, row_c, uc, vc) = a, b, c
    ax, ay = (column_b - column_a) * STEPS, (row_b - row_a) * STEPS
    bx, by = (column_c - column_a) * STEPS, (row_c - row_a) * STEPS
    scale = 1.0 / (ax * by - ay * bx)  # the triangle was seen: not over 0
    x0, y0 = column_a * STEPS - 0.5, row_a * STEPS - 0.5
    u_column, u_row = ((ub - ua) * by - (uc - ua) * ay) * scale, ((uc - ua) * ax - (ub - ua) * bx) * scale
    v_column, v_row = ((vb - va) * by - (vc - va) * ay) * scale, ((vc - va) * ax - (vb - va) * bx) * scale
    # Texels that one step of the grid spans along its footprint's longer axis: the largest singular value of the map, squared.
    xx, xy, yx, yy = u_column * widths[0], u_row * widths[0], v_column * heights[0], v_row * heights[0]
    squares = xx * xx + xy * xy + yx * yx + yy * yy
    area = xx * yy - xy * yx
    spanned = (squares + np.sqrt(max(squares * squares - 4 * area * area, 0.0))) / 2
    level = 0
    while level < len(widths) - 1 and spanned >= 4.0:
        spanned *= 0.25
        level += 1
    # A level's texels are as large as 2^level of the texture's; of an odd number, the last one reaches beyond its edge.
    size = 256.0 / (1 << level)
    width, height = size * widths[0], size * heights[0]
    inside = min(ua, ub, uc) * width > 129 and max(ua, ub, uc) * width < width - 129
    # v is up: the last row of texels, behind whose end nothing may be read, is that of the smallest.
    inside = inside and min(va, vb, vc) * height > 129 + 256 and max(va, vb, vc) * height < height - 129
    x, y = (ua - u_column * x0 - u_row * y0) * width - 127.5, (1 - va + v_column * x0 + v_row * y0) * height - 127.5
    return x, u_column * width, u_row * width, y, -v_column * height, -v_row * height, level, inside
