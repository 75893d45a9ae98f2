"""Draw the colour of a mesh: most pixels from one look at the texture, those at edges from several samples. Compiled.

A face scan has about five texels to a pixel at 224 px: read at one point they alias. Hence a pyramid of half-sized textures
(Williams 1983, "Pyramidal parametrics"). A pixel whose neighbours continue its texture is the mean over its footprint there,
read at a few points of one level. The others, where one surface hides another and at the borders of texture charts, are the
mean of several samples, each of its own triangle. Where a level's texels hold more than a triangle's own chart,
the footprint of a sample is averaged texel by texel (charts.py).
"""

from __future__ import annotations

import numpy as np

from preprocess.compiled import byte_at, compile_kernel, eight_bytes_at, prefetch
from preprocess.geometry.mesh import Mesh
from preprocess.geometry.rasterise import STEPS, Fragments, draw_vertex_colors, sample_cells
from preprocess.rendering.charts import COVERED, CROSSED, NEAR, find_charts

UNTEXTURED_GREY = 128  # of triangles without texture coordinates, where the mesh has no colours
_MOST_READ = 8  # points along a footprint's longer side: of a level that has about so many texels
_LONG = 25  # squared: of so many texels and more, a side of a footprint is read at three points or more, not at two
_MOST_BENT = 0.25  # squared: how much the ways to opposite neighbours may differ, as a part of their mean
_HALVES = np.uint64(0x000200020002)  # for rounding quarters of three sums
_RED_BLUE, _GREEN = np.uint32(0x00FF00FF), np.uint32(0x0000FF00)  # of a packed texel: room for sums of four


class MipChain:
    """A texture u8 (h, w, 3) and its half-sized means down to 1 × 1, each rounded to 8 bits.

    texture: the full size itself, not a copy. coarser u32 (n,), red + 256 green + 65536 blue: all other levels one behind the
    other, row by row. starts, heights, widths i64, one per level: starts: its begin in `coarser` (0 for the full size).
    """

    def __init__(self, texture: np.ndarray) -> None:
        sizes = [texture.shape[:2]]
        while max(sizes[-1]) > 1:
            sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
        self.texture = np.ascontiguousarray(texture)
        self.heights, self.widths = (np.array(side, np.int64) for side in zip(*sizes, strict=True))
        counts = self.heights * self.widths
        counts[0] = 0
        self.starts = np.cumsum(counts) - counts
        self.coarser = np.empty(int(counts.sum()), np.uint32)
        for k in range(1, len(sizes)):
            if k == 1:
                _halve_full_size(self.texture, self._packed(1))
            else:
                _halve(self._packed(k - 1), self._packed(k))

    def __len__(self) -> int:
        return len(self.starts)

    def _packed(self, k: int) -> np.ndarray:
        height, width = int(self.heights[k]), int(self.widths[k])
        return self.coarser[self.starts[k] : self.starts[k] + height * width].reshape(height, width)

    def level(self, k: int) -> np.ndarray:
        """Return level k, u8 (h, w, 3): 0 is the texture itself, not a copy; each further level is half as large."""
        if k == 0:
            return self.texture
        packed = self._packed(k)
        return np.stack([packed & 255, packed >> 8 & 255, packed >> 16], axis=-1).astype(np.uint8)


class SurfaceColours:
    """A mesh's colours, made ready to be drawn from several directions.

    A triangle without texture coordinates is drawn in its vertices' colours, else in UNTEXTURED_GREY.

    Args:
        incident: starts and corners of the mesh's triangles, by `find_corners`.
        closed: bool (N,), the vertices around which these are one circle, by `fan_normals`.
    """

    def __init__(self, mesh: Mesh, incident: tuple[np.ndarray, np.ndarray], closed: np.ndarray) -> None:
        self._mesh = mesh
        self._mips = MipChain(mesh.texture) if mesh.texture is not None else None
        if self._mips is not None:
            assert mesh.uv is not None
            charts = find_charts(mesh, incident, closed, self._mips.heights, self._mips.widths)
            self._charts = (charts.marks, charts.starts)
            self._colors = np.empty((0, 3), np.uint8) if mesh.colors is None else np.ascontiguousarray(mesh.colors)

    def draw(self, fragments: Fragments, place: np.ndarray, image: np.ndarray) -> None:
        """Write the colour of each pixel that shows a surface into u8 (H, W, 3).

        Where its neighbours continue its texture, it is filtered to the whole pixel. Elsewhere it is the mean of
        fragments.samples² samples, at most 15²; those that meet no surface do not count.

        Args:
            place: f32 (H, W, 2), u and v in the middle of each pixel, by `draw_geometry`.
        """
        mesh = self._mesh
        seen = (fragments.column, fragments.row, mesh.triangles)
        numbers = np.empty(fragments.triangle.shape, np.int32)
        if self._mips is None:
            assert mesh.colors is not None
            covered = fragments.triangle >= 0
            num = int(np.count_nonzero(covered))
            numbers[:] = -1
            numbers[covered] = np.arange(num)
            triangle = sample_cells(fragments, mesh.triangles, numbers, num)
            draw_vertex_colors(numbers, triangle, *seen, mesh.colors, fragments.samples, image)
            return
        assert mesh.uv is not None
        mips = self._mips
        picture = (mips.texture, mips.coarser, mips.starts, mips.heights, mips.widths)
        num = _draw_smooth(fragments.triangle, place, *picture, *self._charts, image, numbers)
        triangle = sample_cells(fragments, mesh.triangles, numbers, num)
        charts = (*self._charts, self._colors)
        _draw_samples(numbers, triangle, *seen, mesh.uv, *picture, *charts, fragments.samples, image)


@compile_kernel
def _halve_full_size(fine: np.ndarray, coarse: np.ndarray) -> None:
    """Average blocks of two by two texels, rounded; an odd last row or column counts twice."""
    height, width = fine.shape[0], fine.shape[1]
    flat = fine.reshape(height, 3 * width)
    pairs = np.zeros(3 * width + 8, np.uint16)  # sums of a row and the next one; eight bytes of them are read at once
    begin = np.int64(pairs.ctypes.data)
    for i in range(coarse.shape[0]):
        top, bottom, out = flat[2 * i], flat[min(2 * i + 1, height - 1)], coarse[i]
        for k in range(len(top)):
            pairs[k] = np.uint16(top[k]) + np.uint16(bottom[k])
        pairs[3 * width : 3 * width + 3] = pairs[3 * width - 3 : 3 * width]
        for j in range(len(out)):
            # Red, green and blue in 16 bits each.
            mean = (eight_bytes_at(begin + 12 * j) + eight_bytes_at(begin + 12 * j + 6) + _HALVES) >> np.uint64(2)
            red, green, blue = mean, mean >> np.uint64(8), mean >> np.uint64(16)
            out[j] = np.uint32((red & np.uint64(0xFF)) | (green & np.uint64(0xFF00)) | (blue & np.uint64(0xFF0000)))


@compile_kernel
def _halve(fine: np.ndarray, coarse: np.ndarray) -> None:
    """Halve a level, as `_halve_full_size`."""
    for i in range(coarse.shape[0]):
        top, bottom, out = fine[2 * i], fine[min(2 * i + 1, fine.shape[0] - 1)], coarse[i]
        pairs = fine.shape[1] // 2
        for j in range(pairs):
            out[j] = _mean(top[2 * j], top[2 * j + 1], bottom[2 * j], bottom[2 * j + 1])
        if pairs < len(out):
            out[pairs] = _mean(top[2 * pairs], top[2 * pairs], bottom[2 * pairs], bottom[2 * pairs])


@compile_kernel
def _mean(a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64) -> np.uint32:
    """Average packed texels; bits above the lower 24 are ignored."""
    red_green = (a & _RED_BLUE) + (b & _RED_BLUE) + (c & _RED_BLUE) + (d & _RED_BLUE) + np.uint32(0x00020002)
    green = (a & _GREEN) + (b & _GREEN) + (c & _GREEN) + (d & _GREEN) + np.uint32(0x00000200)
    return np.uint32((red_green >> np.uint32(2) & _RED_BLUE) | (green >> np.uint32(2) & _GREEN))


@compile_kernel
def _three_bytes_at(address: int) -> np.uint64:
    return np.uint64(byte_at(address) | byte_at(address + 1) << 8 | byte_at(address + 2) << 16)


@compile_kernel
def _spread(texel: np.uint64) -> np.uint64:
    """Return red, 2¹⁶ blue and 2³² green: 256 times as much still fits between them. Bits above the lower 24 are ignored."""
    return (texel & np.uint64(0xFF00FF)) | (texel & np.uint64(0xFF00)) << np.uint64(24)


@compile_kernel
def _draw_smooth(
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
                across, down = right_x**2 + right_y**2, down_x**2 + down_y**2  # squares of lengths
                level, size = 0, 1.0
                while level < len(widths) - 1 and across * down >= 256 * size**4:
                    level, size = level + 1, 2 * size
                num_columns = num_rows = 2
                if across < size * size or across >= _LONG * size * size:
                    num_columns = 1 + int(np.sqrt(across) / (2 * size))
                if down < size * size or down >= _LONG * size * size:
                    num_rows = 1 + int(np.sqrt(down) / (2 * size))
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
                            is_smooth = is_smooth and not _is_mixed(marks, mark_starts[level] + texel, 1, width, level)
            if is_smooth:
                pixel, line = waiting[num_waiting], stride * width
                num_waiting += 1
                pixel[0], pixel[1], pixel[2], pixel[3], pixel[4], pixel[5] = (
                    c,
                    begin,
                    stride,
                    line,
                    num_columns,
                    num_rows,
                )
                pixel[6], pixel[7], pixel[8], pixel[9] = at_x, at_y, step_right_x, step_right_y
                pixel[10], pixel[11] = step_down_x, step_down_y
                corner = begin + stride * (at_x >> 16) + line * (at_y >> 16)
                for k in range(4):  # mostly all that the grid reads
                    prefetch(corner + k * line)
            else:
                numbers[r, c] = num
                num += 1
        for k in range(num_waiting):
            pixel = waiting[k]
            c, begin, stride, line, num_columns, num_rows = pixel[0], pixel[1], pixel[2], pixel[3], pixel[4], pixel[5]
            red_green = blue = np.uint64(0)
            for m in range(num_rows):
                at_x, at_y = pixel[6] + m * pixel[10], pixel[7] + m * pixel[11]
                for _ in range(num_columns):
                    column_256, row_256 = at_x >> 8, at_y >> 8
                    address = begin + stride * (column_256 >> 8) + line * (row_256 >> 8)
                    add_red_green, add_blue = _read_between(address, line, np.uint64(8 * stride), column_256, row_256)
                    red_green += add_red_green
                    blue += add_blue
                    at_x, at_y = at_x + pixel[8], at_y + pixel[9]
            image[r, c, 0], image[r, c, 1], image[r, c, 2] = _mean_colour(red_green, blue, num_rows * num_columns)
    return num


@compile_kernel
def _draw_samples(
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
    image: np.ndarray,
) -> None:
    """Draw the numbered pixels: the mean of their samples, each of them filtered to its own footprint.

    A triangle reads the last level that is still as fine as its samples, between the four nearest texels.
    """
    last = -1
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
                    if _is_mixed(marks, mark_starts[k] + texel, right, down * width, k):
                        fine = (1 << k) / 256.0
                        add_red_green, add_blue = _look_closely(
                            (texture, coarser, marks),
                            (starts, mark_starts, widths, k == 0),
                            ((x + 127.5) * fine, per_column_x * fine, per_row_x * fine),
                            ((y + 127.5) * fine, per_column_y * fine, per_row_y * fine),
                            (column, row, triangles, t, i, j),
                        )
                    elif inside:
                        add_red_green, add_blue = _read_between(
                            begin + stride * texel, stride * width, beside, column_256, row_256
                        )
                    else:
                        at = begin + stride * texel
                        right, down = right * stride, down * stride * width
                        add_red_green, add_blue = _mix_four(
                            *(_three_bytes_at(at), _three_bytes_at(at + right)),
                            *(_three_bytes_at(at + down), _three_bytes_at(at + down + right)),
                            *(column_256, row_256),
                        )
                    red_green += add_red_green
                    blue += add_blue
            image[r, c, 0], image[r, c, 1], image[r, c, 2] = _mean_colour(red_green, blue, count)


@compile_kernel
def _read_between(
    address: int, line: int, beside: np.uint64, column_256: int, row_256: int
) -> tuple[np.uint64, np.uint64]:
    """Return 256 times the colour between four texels: two are in six or eight bytes at an address, two a line further."""
    upper, lower = eight_bytes_at(address), eight_bytes_at(address + line)
    return _mix_four(upper, upper >> beside, lower, lower >> beside, column_256, row_256)


@compile_kernel
def _mix_four(
    p: np.uint64, q: np.uint64, s: np.uint64, t: np.uint64, column_256: int, row_256: int
) -> tuple[np.uint64, np.uint64]:
    """Return 256 times the colour between four texels, p and q beside each other, s and t below."""
    x, y = np.uint64(column_256 & 255), np.uint64(row_256 & 255)
    both = (x * y + np.uint64(128)) >> np.uint64(8)  # the weights, of t first, are whole numbers; together they are 256
    p, q = _spread(p) * (np.uint64(256) + both - x - y), _spread(q) * (x - both)
    return _split(p + q + _spread(s) * (y - both) + _spread(t) * both)


@compile_kernel
def _split(colour: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Return red + 2³² green, and blue, with room for the sum of many colours."""
    return colour & np.uint64(0xFFFF0000FFFF), colour >> np.uint64(16) & np.uint64(0xFFFF)


@compile_kernel
def _pack(red: float, green: float, blue: float) -> tuple[np.uint64, np.uint64]:
    """Return 256 times a colour in the form of `_split`."""
    red_green = np.uint64(np.rint(256 * red)) | np.uint64(np.rint(256 * green)) << np.uint64(32)
    return red_green, np.uint64(np.rint(256 * blue))


@compile_kernel
def _mean_colour(red_green: np.uint64, blue: np.uint64, count: int) -> tuple[np.uint8, np.uint8, np.uint8]:
    """Return the mean of `count` colours, of which 256 times the sums are given; black is 1,1,1: 0,0,0 is no surface."""
    scale = 1.0 / (256.0 * count)
    r = np.rint((red_green & np.uint64(0xFFFFFFFF)) * scale)
    g, b = np.rint((red_green >> np.uint64(32)) * scale), np.rint(blue * scale)
    if r + g + b < 1:
        r = g = b = 1.0
    return np.uint8(r), np.uint8(g), np.uint8(b)


@compile_kernel
def _is_mixed(marks: np.ndarray, at: int, right: int, down: int, level: int) -> bool:
    """Whether one of four texels beside each other holds more than the chart that a sample between them is in."""
    mixed = False
    for mark in (marks[at], marks[at + right], marks[at + down], marks[at + down + right]):
        mixed = mixed or (mark & CROSSED > 0 if level > 0 else mark & (NEAR | COVERED) == NEAR)
    return mixed


@compile_kernel
def _look_closely(
    picture: tuple[np.ndarray, np.ndarray, np.ndarray],
    levels: tuple[np.ndarray, np.ndarray, np.ndarray, bool],
    across: tuple[float, float, float],
    down: tuple[float, float, float],
    sample: tuple[np.ndarray, np.ndarray, np.ndarray, int, int, int],
) -> tuple[np.uint64, np.uint64]:
    """Return 256 times the mean colour of the covered texels in a sample's footprint, within the triangle.

    Args:
        picture: the texture, its coarser levels and the marks.
        levels: where each begins in `coarser` and in the marks, its width, and whether the footprint is but a point, which is
            read between its four nearest texels.
        across, down: x and y of the sample in texels, and what a column and a row of the grid add.
        sample: grid coordinates of the vertices, triangles, which one, and the grid point.
    """
    (texture, coarser, marks), (starts, mark_starts, widths, is_point) = picture, levels
    (x, column_x, row_x), (y, column_y, row_y) = across, down
    column, row, triangles, t, i, j = sample
    height, width = texture.shape[0], texture.shape[1]
    red = green = blue = total = 0.0
    if not is_point:
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
            for n in range(num_columns):
                dj = (n + 0.5) / num_columns - 0.5
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
            for n in range(2):
                # Not between the image's edges: the border repeats its last texel.
                texel_x = min(max(np.int64(left) + n, 0), width - 1)
                texel_y = min(max(np.int64(top) + m, 0), height - 1)
                weight = (fx if n else 1 - fx) * (fy if m else 1 - fy)
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
    return _pack(red / total, green / total, blue / total)


@compile_kernel
def _keep_within(x: float, size: int) -> int:
    """Return the texel index at x of a repeating texture, safe against rounding to the other edge."""
    at = int(np.floor(x))
    if at < 0 or at >= size:
        at = min(max(at, 0), size - 1) if -1e-6 * size <= x <= (1 + 1e-6) * size else at % size
    return at


@compile_kernel
def _mix_colors(
    column: np.ndarray, row: np.ndarray, triangles: np.ndarray, colors: np.ndarray, t: int, i: int, j: int
) -> tuple[np.uint64, np.uint64]:
    """Return 256 times the vertex colour of a triangle without texture at a grid point."""
    if len(colors) == 0:
        return _pack(UNTEXTURED_GREY, UNTEXTURED_GREY, UNTEXTURED_GREY)
    a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
    xb, yb = (column[b] - column[a]) * STEPS, (row[b] - row[a]) * STEPS
    xc, yc = (column[c] - column[a]) * STEPS, (row[c] - row[a]) * STEPS
    scale = 1.0 / (xb * yc - yb * xc)
    x, y = j + 0.5 - column[a] * STEPS, i + 0.5 - row[a] * STEPS
    wb, wc = (x * yc - y * xc) * scale, (xb * y - yb * x) * scale
    wa = 1.0 - wb - wc
    return _pack(
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
