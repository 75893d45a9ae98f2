"""Reads a mesh's colour where the viewer sees it, filtered to the footprint of what one sample stands for. Compiled.

A face scan has about five texels to a pixel at 224 px: read at one point they alias. Hence a pyramid of half-sized textures
(Williams 1983, "Pyramidal parametrics"), of which each triangle in each view reads one level, the last that is still as fine as
its samples. With several samples a pixel, blending two levels would only blur (tests/benchmarks/RESULTS.md).
"""

from __future__ import annotations

import numpy as np

from preprocess.compiled import compile_kernel
from preprocess.mesh import Mesh
from preprocess.raw_bytes import byte_at, eight_bytes_at
from preprocess.render.raster_kernels import STEPS, draw_vertex_colors
from preprocess.render.rasterise import Visible

_UNKNOWN = -1
_INSIDE = 32  # added to a level
_RED_BLUE, _GREEN = np.uint32(0x00FF00FF), np.uint32(0x0000FF00)  # of a packed texel: room for sums of four


class Pyramid:
    """A texture u8 (h, w, 3) and its half-sized means down to 1 × 1, each rounded to 8 bits.

    texture: the full size itself, not a copy. coarser u32 (n,), red + 256 green + 65536 blue: all other levels one behind the
    other, row by row. starts, heights, widths i64, one a level: starts say where it begins in `coarser` (0 for the full size).
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
        """u8 (h, w, 3)."""
        if k == 0:
            return self.texture
        packed = self._packed(k)
        return np.stack([packed & 255, packed >> 8 & 255, packed >> 16], axis=-1).astype(np.uint8)


class SurfaceColours:
    """A mesh's colours, made ready to be drawn from several directions."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._pyramid = Pyramid(mesh.texture) if mesh.texture is not None else None
        # What a view works out for each triangle it shows; for all views the same memory.
        num = len(mesh.triangles) if self._pyramid is not None else 0
        self._levels, self._maps = np.empty(num, np.int8), np.empty((num, 6))

    def draw(self, visible: Visible, samples_per_px: int, covered: np.ndarray, image: np.ndarray) -> None:
        """The mean colour of each pixel's samples, into u8 (H, W, 3), which is left as it is where the pixel is not covered.

        Args:
            visible: of samples_per_px² samples a pixel, at most 15²; those that meet no surface do not count.
            covered: bool (H, W), the pixels to draw: those whose centre meets the surface.
        """
        mesh = self._mesh
        seen = (visible.triangle, visible.column, visible.row, mesh.triangles)
        if self._pyramid is None:
            assert mesh.colors is not None
            draw_vertex_colors(*seen, mesh.colors, samples_per_px, covered, image)
            return
        assert mesh.uv is not None
        pyramid = self._pyramid
        picture = (pyramid.texture, pyramid.coarser, pyramid.starts, pyramid.heights, pyramid.widths)
        _draw_texture(*seen, mesh.uv, *picture, self._levels, self._maps, samples_per_px, covered, image)


@compile_kernel
def _halve_full_size(fine: np.ndarray, coarse: np.ndarray) -> None:
    """Means of two by two texels, rounded; the last row or column counts twice where there is an odd number."""
    height, width = fine.shape[0], fine.shape[1]
    begin, pitch = fine.ctypes.data, 3 * width
    for i in range(coarse.shape[0]):
        top, bottom, out = begin + 2 * i * pitch, begin + min(2 * i + 1, height - 1) * pitch, coarse[i]
        # Two texels are six bytes of the eight that are read: not at the end of the last row.
        pairs = width // 2 if 2 * i + 2 < height else max(width // 2 - 1, 0)
        for j in range(pairs):
            a, b = eight_bytes_at(top + 6 * j), eight_bytes_at(bottom + 6 * j)
            out[j] = _mean(a, a >> np.uint64(24), b, b >> np.uint64(24))
        for j in range(pairs, len(out)):
            left, right = 6 * j, 3 * min(2 * j + 1, width - 1)
            out[j] = _mean(
                *(_three_bytes_at(top + left), _three_bytes_at(top + right)),
                *(_three_bytes_at(bottom + left), _three_bytes_at(bottom + right)),
            )


@compile_kernel
def _halve(fine: np.ndarray, coarse: np.ndarray) -> None:
    """As `_halve_full_size`."""
    for i in range(coarse.shape[0]):
        top, bottom, out = fine[2 * i], fine[min(2 * i + 1, fine.shape[0] - 1)], coarse[i]
        pairs = fine.shape[1] // 2
        for j in range(pairs):
            out[j] = _mean(top[2 * j], top[2 * j + 1], bottom[2 * j], bottom[2 * j + 1])
        if pairs < len(out):
            out[pairs] = _mean(top[2 * pairs], top[2 * pairs], bottom[2 * pairs], bottom[2 * pairs])


@compile_kernel
def _mean(a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64) -> np.uint32:
    """Of packed texels; what stands above their 24 bits is not looked at."""
    red_blue = (a & _RED_BLUE) + (b & _RED_BLUE) + (c & _RED_BLUE) + (d & _RED_BLUE) + np.uint32(0x00020002)
    green = (a & _GREEN) + (b & _GREEN) + (c & _GREEN) + (d & _GREEN) + np.uint32(0x00000200)
    return np.uint32((red_blue >> np.uint32(2) & _RED_BLUE) | (green >> np.uint32(2) & _GREEN))


@compile_kernel
def _three_bytes_at(address: int) -> np.uint64:
    return np.uint64(byte_at(address) | byte_at(address + 1) << 8 | byte_at(address + 2) << 16)


@compile_kernel
def _apart(texel: np.uint64) -> np.uint64:
    """Red, and blue 32 bits above it: room for sums of both."""
    return (texel & np.uint64(0xFF)) | (texel & np.uint64(0xFF0000)) << np.uint64(16)


@compile_kernel
def _middle(texel: np.uint64) -> np.uint64:
    """Green."""
    return texel >> np.uint64(8) & np.uint64(0xFF)


@compile_kernel
def _draw_texture(
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
    levels: np.ndarray,
    maps: np.ndarray,
    samples: int,
    covered: np.ndarray,
    image: np.ndarray,
) -> None:
    # What was worked out for a triangle is kept, where more than one sample of it is to be expected.
    keeps = samples > 1
    levels[:] = _UNKNOWN
    columns = covered.shape[1]
    # Sums of a row of pixels, red and blue in one: samples are read line by line, for neighbours mostly show one triangle.
    red_blue, green, count = np.empty(columns, np.uint64), np.empty(columns, np.uint64), np.empty(columns, np.int64)
    last = -1
    at_x = per_column_x = per_row_x = at_y = per_column_y = per_row_y = 0.0
    full_size, others = texture.ctypes.data, coarser.ctypes.data
    begin = height = width = 0
    stride, beside = 3, np.uint64(24)
    inside = False
    for r in range(covered.shape[0]):
        red_blue[:] = 0
        green[:] = 0
        count[:] = 0
        for i in range(r * samples, (r + 1) * samples):
            for c in range(columns):
                if not covered[r, c]:
                    continue
                sum_red_blue = sum_green = np.uint64(0)
                seen = 0
                for j in range(c * samples, (c + 1) * samples):
                    t = triangle[i, j]
                    if t < 0:
                        continue
                    if t != last:
                        last = t
                        if not keeps or levels[t] == _UNKNOWN:
                            a, b, d = triangles[t, 0], triangles[t, 1], triangles[t, 2]
                            at_x, per_column_x, per_row_x, at_y, per_column_y, per_row_y, k, inside = _map_triangle(
                                (column[a], row[a], np.float64(uv[t, 0, 0]), np.float64(uv[t, 0, 1])),
                                (column[b], row[b], np.float64(uv[t, 1, 0]), np.float64(uv[t, 1, 1])),
                                (column[d], row[d], np.float64(uv[t, 2, 0]), np.float64(uv[t, 2, 1])),
                                heights,
                                widths,
                            )
                            if keeps:
                                maps[t, 0], maps[t, 1], maps[t, 2] = at_x, per_column_x, per_row_x
                                maps[t, 3], maps[t, 4], maps[t, 5] = at_y, per_column_y, per_row_y
                                levels[t] = k | _INSIDE if inside else k
                        else:
                            at_x, per_column_x, per_row_x = maps[t, 0], maps[t, 1], maps[t, 2]
                            at_y, per_column_y, per_row_y = maps[t, 3], maps[t, 4], maps[t, 5]
                            k, inside = levels[t] & ~_INSIDE, levels[t] >= _INSIDE
                        height, width = heights[k], widths[k]
                        begin, stride, beside = full_size, 3, np.uint64(24)
                        if k > 0:
                            begin, stride, beside = others + 4 * starts[k], 4, np.uint64(32)
                    x = at_x + per_column_x * j + per_row_x * i
                    y = at_y + per_column_y * j + per_row_y * i
                    if inside:
                        column_256, row_256 = np.int64(x), np.int64(y)
                        at = begin + stride * ((row_256 >> 8) * width + (column_256 >> 8))
                        # Two texels beside each other, in six bytes or in eight.
                        p, s = eight_bytes_at(at), eight_bytes_at(at + stride * width)
                        q, t4 = p >> beside, s >> beside
                    else:
                        # Textures repeat, as VRML and OBJ say; but a rounding error must not lead to the other edge.
                        u, v = (x + 127.5) / (256 * width), (y + 127.5) / (256 * height)
                        if u < -1e-6 or u > 1 + 1e-6:
                            x -= np.floor(u) * 256 * width
                        if v < -1e-6 or v > 1 + 1e-6:
                            y -= np.floor(v) * 256 * height
                        # The border repeats its last texel.
                        column_256 = np.int64(min(max(x, 0.5), 256 * (width - 1.0) + 0.5))
                        row_256 = np.int64(min(max(y, 0.5), 256 * (height - 1.0) + 0.5))
                        at = begin + stride * ((row_256 >> 8) * width + (column_256 >> 8))
                        right = stride if (column_256 >> 8) + 1 < width else 0
                        down = stride * width if (row_256 >> 8) + 1 < height else 0
                        p, q = _three_bytes_at(at), _three_bytes_at(at + right)
                        s, t4 = _three_bytes_at(at + down), _three_bytes_at(at + down + right)
                    # Between the four nearest texel centres, in 1/256.
                    fx, fy = np.uint64(column_256 & 255), np.uint64(row_256 & 255)
                    gx, gy = np.uint64(256) - fx, np.uint64(256) - fy
                    wp, wq, ws, wt = gx * gy, fx * gy, gx * fy, fx * fy
                    sum_red_blue += _apart(p) * wp + _apart(q) * wq + _apart(s) * ws + _apart(t4) * wt
                    sum_green += _middle(p) * wp + _middle(q) * wq + _middle(s) * ws + _middle(t4) * wt
                    seen += 1
                red_blue[c] += sum_red_blue
                green[c] += sum_green
                count[c] += seen
        for c in range(columns):
            if covered[r, c]:
                scale = 1.0 / (65536.0 * count[c])
                image[r, c, 0] = np.uint8(np.rint((red_blue[c] & np.uint64(0xFFFFFFFF)) * scale))
                image[r, c, 1] = np.uint8(np.rint(green[c] * scale))
                image[r, c, 2] = np.uint8(np.rint((red_blue[c] >> np.uint64(32)) * scale))


@compile_kernel
def _map_triangle(
    a: tuple[int, int, float, float],
    b: tuple[int, int, float, float],
    c: tuple[int, int, float, float],
    heights: np.ndarray,
    widths: np.ndarray,
) -> tuple[float, float, float, float, float, float, int, bool]:
    """The affine map from a triangle's grid points to its place in the level that it reads; that level; whether no point of the
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
    width, height = 256.0 * widths[level], 256.0 * heights[level]
    inside = min(ua, ub, uc) * width > 129 and max(ua, ub, uc) * width < width - 129
    # v is up: the last row of texels, behind whose end nothing may be read, is that of the smallest.
    inside = inside and min(va, vb, vc) * height > 129 + 256 and max(va, vb, vc) * height < height - 129
    x, y = (ua - u_column * x0 - u_row * y0) * width - 127.5, (1 - va + v_column * x0 + v_row * y0) * height - 127.5
    return x, u_column * width, u_row * width, y, -v_column * height, -v_row * height, level, inside
