"""Draw the pixels whose neighbours continue their texture: each one is the mean over its footprint there. Compiled."""

from __future__ import annotations

import numpy as np

from preprocess.compiled import compile_kernel, prefetch
from preprocess.rendering.charts import NEAR
from preprocess.rendering.texels import is_mixed, mean_colour, read_between

_MOST_READ = 8  # points along a footprint's longer side
_LONG = 25  # squared: of so many texels and more, a side of a footprint is read at three points or more, not at two
_MOST_BENT = 0.25  # squared: how much the ways to opposite neighbours may differ, as a part of their mean


@compile_kernel
def draw_smooth_pixels(
    triangle: np.ndarray,
    place: np.ndarray,
    texture: np.ndarray,
    coarser: np.ndarray,
    starts: np.ndarray,
    heights: np.ndarray,
    widths: np.ndarray,
    marks: np.ndarray,
    mark_starts: np.ndarray,
    image: np.ndarray,
    numbers: np.ndarray,
) -> int:
    """Draw the pixels that show one piece of the texture; number the others that show a surface, in `numbers` i32 (H, W).

    place f32 (H, W, 2) is u and v in the middle of each pixel. Half the way to the left and right neighbour and half the way up
    and down span the pixel's footprint in the texture, a parallelogram; beside the background, the ways between the next pixels
    serve. It is read at a grid of points, mostly 2 × 2, each between its four nearest texels of the level where it covers 4 to
    16 texels.
    """
    rows, columns = triangle.shape
    num = 0
    # A row's smooth pixels, whose texels are fetched from memory while the rest of the row is looked at.
    waiting = np.empty((columns, 12), np.int64)
    full_width, full_height = np.float64(widths[0]), np.float64(heights[0])
    full_size, others = np.int64(texture.ctypes.data), np.int64(coarser.ctypes.data)
    for r in range(rows):
        num_waiting = 0
        for c in range(columns):
            numbers[r, c] = -1
            if triangle[r, c] < 0:
                continue
            is_smooth = 1 < r < rows - 2 and 1 < c < columns - 2
            x = y = right_x = right_y = down_x = down_y = 0.0
            if is_smooth:
                # The middle of three pixels in this row, and in this column: the next one, if the one before has no surface.
                q, p = c, r
                if np.isnan(place[r, c - 1, 0]):
                    q = c + 1
                elif np.isnan(place[r, c + 1, 0]):
                    q = c - 1
                if np.isnan(place[r - 1, c, 0]):
                    p = r + 1
                elif np.isnan(place[r + 1, c, 0]):
                    p = r - 1
                u, v = np.float64(place[r, q, 0]), np.float64(place[r, q, 1])
                left_x, left_y = (u - place[r, q - 1, 0]) * full_width, (place[r, q - 1, 1] - v) * full_height
                right_x, right_y = (place[r, q + 1, 0] - u) * full_width, (v - place[r, q + 1, 1]) * full_height
                u, v = np.float64(place[p, c, 0]), np.float64(place[p, c, 1])
                up_x, up_y = (u - place[p - 1, c, 0]) * full_width, (place[p - 1, c, 1] - v) * full_height
                down_x, down_y = (place[p + 1, c, 0] - u) * full_width, (v - place[p + 1, c, 1]) * full_height
                bend = (right_x - left_x) ** 2 + (right_y - left_y) ** 2 + (down_x - up_x) ** 2 + (down_y - up_y) ** 2
                right_x, right_y = 0.5 * (right_x + left_x), 0.5 * (right_y + left_y)
                down_x, down_y = 0.5 * (down_x + up_x), 0.5 * (down_y + up_y)
                # Not where still a neighbour has no texture: NaN is not less.
                is_smooth = bend < _MOST_BENT * (right_x**2 + right_y**2 + down_x**2 + down_y**2)
            if is_smooth:
                u, v = np.float64(place[r, c, 0]), np.float64(place[r, c, 1])
                x, y = u * full_width, (1.0 - v) * full_height  # in texels, y downward
                level, size, num_columns, num_rows = _choose_points(
                    right_x**2 + right_y**2, down_x**2 + down_y**2, len(widths)
                )
                reach_x, reach_y = 0.5 * (abs(right_x) + abs(down_x)), 0.5 * (abs(right_y) + abs(down_y))
                margin = 2 * size  # eight bytes are read at once
                is_smooth = (
                    (x - reach_x > margin and x + reach_x < full_width - margin)
                    and (y - reach_y > margin and y + reach_y < full_height - margin)
                    and num_columns <= _MOST_READ
                    and num_rows <= _MOST_READ
                )
            if is_smooth:
                width, begin, stride = widths[level], full_size, 3
                if level > 0:
                    begin, stride = others + 4 * starts[level], 4
                # Steps of the grid and its first point, in 1/65536 of a texel from the middle of the level's first one.
                scale = 65536.0 / size
                right_x, right_y = right_x * scale / num_columns, right_y * scale / num_columns
                down_x, down_y = down_x * scale / num_rows, down_y * scale / num_rows
                first_x = x * scale - 32640.0 - 0.5 * ((num_columns - 1) * right_x + (num_rows - 1) * down_x)
                first_y = y * scale - 32640.0 - 0.5 * ((num_columns - 1) * right_y + (num_rows - 1) * down_y)
                at_x, at_y = np.int64(first_x), np.int64(first_y)
                step_right_x, step_right_y = np.int64(right_x), np.int64(right_y)
                step_down_x, step_down_y = np.int64(down_x), np.int64(down_y)
                # A mark speaks for its texel and the eight around it: one is enough if they are larger than all that is read.
                coarse = min(level + 3, len(widths) - 1)
                mark = mark_starts[coarse] + (int(y) >> coarse) * widths[coarse] + (int(x) >> coarse)
                if max(reach_x, reach_y) > 6.5 * size or marks[mark] & NEAR:
                    for m in range(num_rows):
                        for n in range(num_columns):
                            column_256 = (at_x + n * step_right_x + m * step_down_x) >> 8
                            row_256 = (at_y + n * step_right_y + m * step_down_y) >> 8
                            texel = (row_256 >> 8) * width + (column_256 >> 8)
                            is_smooth = is_smooth and not is_mixed(marks, mark_starts[level] + texel, 1, width, level)
            if is_smooth:
                pixel, line = waiting[num_waiting], stride * width
                num_waiting += 1
                pixel[0], pixel[1], pixel[2], pixel[3] = c, begin, stride, line
                pixel[4], pixel[5], pixel[6], pixel[7] = num_columns, num_rows, at_x, at_y
                pixel[8], pixel[9], pixel[10], pixel[11] = step_right_x, step_right_y, step_down_x, step_down_y
                corner = begin + stride * (at_x >> 16) + line * (at_y >> 16)
                for k in range(4):  # mostly all that the grid reads
                    prefetch(corner + k * line)
            else:
                numbers[r, c] = num
                num += 1
        _filter_pixels(waiting[:num_waiting], image[r])
    return num


@compile_kernel
def _choose_points(across: float, down: float, num_levels: int) -> tuple[int, float, int, int]:
    """Return the level to read, the size of its texels, and the points along both sides of a footprint.

    Args:
        across, down: squared lengths of the footprint's sides, in texels of the full size.
    """
    level, size = 0, 1.0
    while level < num_levels - 1 and across * down >= 256 * size**4:
        level, size = level + 1, 2 * size
    num_columns = num_rows = 2
    if across < size * size or across >= _LONG * size * size:
        num_columns = 1 + int(np.sqrt(across) / (2 * size))
    if down < size * size or down >= _LONG * size * size:
        num_rows = 1 + int(np.sqrt(down) / (2 * size))
    return level, size, num_columns, num_rows


@compile_kernel
def _filter_pixels(pixels: np.ndarray, line_of_image: np.ndarray) -> None:
    """Write the means of the grids of points that `draw_smooth_pixels` has noted for one row of the image."""
    for k in range(len(pixels)):
        pixel = pixels[k]
        c, begin, stride, line, num_columns, num_rows = pixel[0], pixel[1], pixel[2], pixel[3], pixel[4], pixel[5]
        red_green = blue = np.uint64(0)
        for m in range(num_rows):
            at_x, at_y = pixel[6] + m * pixel[10], pixel[7] + m * pixel[11]
            for _ in range(num_columns):
                column_256, row_256 = at_x >> 8, at_y >> 8
                address = begin + stride * (column_256 >> 8) + line * (row_256 >> 8)
                add_red_green, add_blue = read_between(address, line, np.uint64(8 * stride), column_256, row_256)
                red_green += add_red_green
                blue += add_blue
                at_x, at_y = at_x + pixel[8], at_y + pixel[9]
        red, green, blue_mean = mean_colour(red_green, blue, num_rows * num_columns)
        line_of_image[c, 0], line_of_image[c, 1], line_of_image[c, 2] = red, green, blue_mean
