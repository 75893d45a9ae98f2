"""Add up the colours of samples at the borders of texture charts: texel by texel, without what lies beyond. Compiled."""

from __future__ import annotations

import numpy as np

from preprocess.compiled import compile_kernel, prefetch
from preprocess.geometry.rasterise import STEPS
from preprocess.rendering.charts import COVERED, CROSSED, NEAR
from preprocess.rendering.texels import pack

_MOST_READ = 8  # points along a footprint's longer side: of a level that has about so many texels
_AHEAD = 4  # samples whose texels are fetched from memory while others are read


@compile_kernel
def add_border_samples(
    mixed: np.ndarray,
    footprints: np.ndarray,
    column: np.ndarray,
    row: np.ndarray,
    triangles: np.ndarray,
    texture: np.ndarray,
    coarser: np.ndarray,
    starts: np.ndarray,
    widths: np.ndarray,
    marks: np.ndarray,
    mark_starts: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Add to `sums` the mean colour of the covered texels in each listed sample's footprint, within its triangle.

    A footprint at the full size is but a point, which is read between its four nearest texels.

    Args:
        mixed, footprints, sums: of `add_edge_samples`.
    """
    height, width = texture.shape[0], texture.shape[1]
    texture_address, marks_address = np.int64(texture.ctypes.data), np.int64(marks.ctypes.data)
    for s in range(len(mixed)):
        ahead = footprints[min(s + _AHEAD, len(mixed) - 1)]
        near = np.int64(ahead[3]) * width + np.int64(ahead[0])
        for line in range(-2, 3):
            prefetch(texture_address + 3 * (near + line * width))
            prefetch(marks_address + near + line * width)
        n, i, j, t, level = mixed[s, 0], mixed[s, 1], mixed[s, 2], mixed[s, 3], mixed[s, 4]
        x, column_x, row_x = footprints[s, 0], footprints[s, 1], footprints[s, 2]
        y, column_y, row_y = footprints[s, 3], footprints[s, 4], footprints[s, 5]
        red = green = blue = total = 0.0
        if level > 0:
            # Barycentric weights at the grid point, and what they gain by a column and by a row.
            ia, ib, ic = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            xb, yb = (column[ib] - column[ia]) * STEPS, (row[ib] - row[ia]) * STEPS
            xc, yc = (column[ic] - column[ia]) * STEPS, (row[ic] - row[ia]) * STEPS
            scale = 1.0 / (xb * yc - yb * xc)
            xs, ys = j + 0.5 - column[ia] * STEPS, i + 0.5 - row[ia] * STEPS
            b, b_column, b_row = (xs * yc - ys * xc) * scale, yc * scale, -xc * scale
            c, c_column, c_row = (xb * ys - yb * xs) * scale, -yb * scale, xb * scale
            columns, rows = max(np.hypot(column_x, column_y), 1.0), max(np.hypot(row_x, row_y), 1.0)
            level = 0
            while level < len(widths) - 1 and max(columns, rows) > _MOST_READ:
                level += 1
                columns, rows = max(columns / 2, 1.0), max(rows / 2, 1.0)
            num_columns, num_rows = int(min(np.ceil(columns), _MOST_READ)), int(min(np.ceil(rows), _MOST_READ))
            for m in range(num_rows):
                di = (m + 0.5) / num_rows - 0.5
                for k in range(num_columns):
                    dj = (k + 0.5) / num_columns - 0.5
                    wb, wc = b + b_column * dj + b_row * di, c + c_column * dj + c_row * di
                    if wb < 0 or wc < 0 or wb + wc > 1:
                        continue
                    texel_x = _keep_within(x + column_x * dj + row_x * di, width)
                    texel_y = _keep_within(y + column_y * dj + row_y * di, height)
                    index = (texel_y >> level) * widths[level] + (texel_x >> level)
                    if level > 0 and not marks[mark_starts[level] + index] & CROSSED:
                        texel = coarser[starts[level] + index]
                        red += texel & np.uint32(255)
                        green += texel >> np.uint32(8) & np.uint32(255)
                        blue += texel >> np.uint32(16) & np.uint32(255)
                        total += 1
                    elif marks[texel_y * width + texel_x] & (NEAR | COVERED) != NEAR:
                        red += texture[texel_y, texel_x, 0]
                        green += texture[texel_y, texel_x, 1]
                        blue += texture[texel_y, texel_x, 2]
                        total += 1
        if total == 0:
            left, top = np.floor(x - 0.5), np.floor(y - 0.5)
            fx, fy = x - 0.5 - left, y - 0.5 - top
            for m in range(2):
                for k in range(2):
                    # Not between the image's edges: the border repeats its last texel.
                    texel_x = min(max(np.int64(left) + k, 0), width - 1)
                    texel_y = min(max(np.int64(top) + m, 0), height - 1)
                    weight = (fx if k else 1 - fx) * (fy if m else 1 - fy)
                    if marks[texel_y * width + texel_x] & (NEAR | COVERED) != NEAR:
                        red += weight * texture[texel_y, texel_x, 0]
                        green += weight * texture[texel_y, texel_x, 1]
                        blue += weight * texture[texel_y, texel_x, 2]
                        total += weight
        if total < 1e-6:  # no middle of a texel is covered: the one it lies in
            texel_x, texel_y = _keep_within(x, width), _keep_within(y, height)
            red, green, blue = (
                float(texture[texel_y, texel_x, 0]),
                float(texture[texel_y, texel_x, 1]),
                float(texture[texel_y, texel_x, 2]),
            )
            total = 1.0
        add_red_green, add_blue = pack(red / total, green / total, blue / total)
        sums[n, 0] += add_red_green
        sums[n, 1] += add_blue


@compile_kernel
def _keep_within(x: float, size: int) -> int:
    """Return the texel index at x of a repeating texture, safe against rounding to the other edge."""
    at = int(np.floor(x))
    if at < 0 or at >= size:
        at = min(max(at, 0), size - 1) if -1e-6 * size <= x <= (1 + 1e-6) * size else at % size
    return at
