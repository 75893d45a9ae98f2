"""Reads a mesh's colour where the viewer sees it, filtered to the footprint of what one sample stands for. Compiled.

A face scan has about five texels to a pixel at 224 px: read at one point they alias. Hence a pyramid of half-sized textures
(Williams 1983, "Pyramidal parametrics"), of which each triangle in each view reads one level, the last that is still as fine as
its samples. With several samples a pixel, blending two levels would only blur (tests/benchmarks/RESULTS.md).
"""

from __future__ import annotations

import numpy as np

from preprocess.compiled import compile_kernel
from preprocess.mesh import Mesh
from preprocess.raster_kernels import STEPS, draw_vertex_colors
from preprocess.rasterise import Visible

_UNKNOWN = -1
# Red and blue of a packed texel, far enough apart for 16 bits of weight and 8 of sum over samples.
_RED_BLUE = np.uint32(0x00FF00FF)
_GREEN = np.uint32(0x0000FF00)


class Pyramid:
    """A texture u8 (h, w, 3) and its half-sized means down to 1 × 1, each rounded to 8 bits.

    texels u32, red + 256 green + 65536 blue, all levels row by row, the full size first; starts, heights, widths i64, one a
    level.
    """

    def __init__(self, texture: np.ndarray) -> None:
        sizes = [texture.shape[:2]]
        while max(sizes[-1]) > 1:
            sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
        self.heights, self.widths = (np.array(side, np.int64) for side in zip(*sizes, strict=True))
        counts = self.heights * self.widths
        self.starts = np.cumsum(counts) - counts
        self.texels = np.empty(int(counts.sum()), np.uint32)
        _pack(np.ascontiguousarray(texture), self._packed(0))
        for k in range(len(sizes) - 1):
            _halve(self._packed(k), self._packed(k + 1))

    def __len__(self) -> int:
        return len(self.starts)

    def _packed(self, k: int) -> np.ndarray:
        height, width = int(self.heights[k]), int(self.widths[k])
        return self.texels[self.starts[k] : self.starts[k] + height * width].reshape(height, width)

    def level(self, k: int) -> np.ndarray:
        """u8 (h, w, 3)."""
        packed = self._packed(k)
        return np.stack([packed & 255, packed >> 8 & 255, packed >> 16], axis=-1).astype(np.uint8)


def draw_texture(
    mesh: Mesh, pyramid: Pyramid | None, visible: Visible, samples_per_px: int, covered: np.ndarray
) -> np.ndarray:
    """The mean colour of each pixel's samples, u8 (H, W, 3); 0 where the pixel is not covered.

    Args:
        pyramid: of the mesh's texture; None: vertex colours are interpolated.
        visible: of samples_per_px² samples a pixel, at most 15²; those that meet no surface do not count.
        covered: bool (H, W), the pixels to draw: those whose centre meets the surface.
    """
    image = np.zeros((*covered.shape, 3), np.uint8)
    seen = (visible.triangle, visible.column, visible.row, mesh.triangles)
    if pyramid is None:
        assert mesh.colors is not None
        draw_vertex_colors(*seen, mesh.colors, samples_per_px, covered, image)
        return image
    assert mesh.uv is not None
    levels = np.full(len(mesh.triangles), _UNKNOWN, np.int8)
    maps = np.empty((len(mesh.triangles), 6))
    picture = (pyramid.texels, pyramid.starts, pyramid.heights, pyramid.widths)
    _draw_texture(*seen, mesh.uv, *picture, levels, maps, samples_per_px, covered, image)
    return image


@compile_kernel
def _pack(texture: np.ndarray, packed: np.ndarray) -> None:
    for i in range(packed.shape[0]):
        for j in range(packed.shape[1]):
            packed[i, j] = (
                np.uint32(texture[i, j, 0]) | np.uint32(texture[i, j, 1]) << 8 | np.uint32(texture[i, j, 2]) << 16
            )


@compile_kernel
def _halve(fine: np.ndarray, coarse: np.ndarray) -> None:
    """Means of two by two texels, rounded; the last row or column counts twice where there is an odd number."""
    last_row, last_column = fine.shape[0] - 1, fine.shape[1] - 1
    for i in range(coarse.shape[0]):
        top, bottom = 2 * i, min(2 * i + 1, last_row)
        for j in range(coarse.shape[1]):
            left, right = 2 * j, min(2 * j + 1, last_column)
            a, b, c, d = fine[top, left], fine[top, right], fine[bottom, left], fine[bottom, right]
            red_blue = (a & _RED_BLUE) + (b & _RED_BLUE) + (c & _RED_BLUE) + (d & _RED_BLUE) + np.uint32(0x00020002)
            green = (a & _GREEN) + (b & _GREEN) + (c & _GREEN) + (d & _GREEN) + np.uint32(0x00000200)
            coarse[i, j] = (red_blue >> np.uint32(2) & _RED_BLUE) | (green >> np.uint32(2) & _GREEN)


@compile_kernel
def _draw_texture(
    triangle: np.ndarray,
    column: np.ndarray,
    row: np.ndarray,
    triangles: np.ndarray,
    uv: np.ndarray,
    texels: np.ndarray,
    starts: np.ndarray,
    heights: np.ndarray,
    widths: np.ndarray,
    levels: np.ndarray,
    maps: np.ndarray,
    samples: int,
    covered: np.ndarray,
    image: np.ndarray,
) -> None:
    for r in range(covered.shape[0]):
        for c in range(covered.shape[1]):
            if not covered[r, c]:
                continue
            red_blue = green = np.uint64(0)
            count = 0
            for i in range(r * samples, (r + 1) * samples):
                for j in range(c * samples, (c + 1) * samples):
                    t = triangle[i, j]
                    if t < 0:
                        continue
                    if levels[t] == _UNKNOWN:
                        _map_triangle(column, row, triangles[t], uv[t], heights[0], widths[0], maps[t])
                        spanned = _texels_per_step(maps[t], heights[0], widths[0])
                        finest = 0
                        while finest < len(starts) - 1 and spanned >= 2.0:
                            spanned *= 0.5
                            finest += 1
                        levels[t] = finest
                    u = maps[t, 0] + maps[t, 1] * j + maps[t, 2] * i
                    v = maps[t, 3] + maps[t, 4] * j + maps[t, 5] * i
                    # Textures repeat, as VRML and OBJ say; but a rounding error must not lead to the other edge.
                    if u < -1e-6 or u > 1 + 1e-6:
                        u -= np.floor(u)
                    if v < -1e-6 or v > 1 + 1e-6:
                        v -= np.floor(v)
                    k = levels[t]
                    height, width = heights[k], widths[k]
                    # Between the four nearest texel centres, in 1/256; v is up, the border repeats its last texel.
                    x = np.int64(256 * min(max(u * width - 0.5, 0.0), width - 1.0) + 0.5)
                    y = np.int64(256 * min(max((1 - v) * height - 0.5, 0.0), height - 1.0) + 0.5)
                    x0, y0, fx, fy = x >> 8, y >> 8, np.uint64(x & 255), np.uint64(y & 255)
                    right = 1 if x0 + 1 < width else 0
                    down = width if y0 + 1 < height else 0
                    place = starts[k] + y0 * width + x0
                    gx, gy = np.uint64(256) - fx, np.uint64(256) - fy
                    for offset, weight in ((0, gx * gy), (right, fx * gy), (down, gx * fy), (right + down, fx * fy)):
                        texel = np.uint64(texels[np.uintp(place + offset)])
                        red_blue += ((texel & np.uint64(255)) | (texel & np.uint64(0xFF0000)) << np.uint64(16)) * weight
                        green += (texel >> np.uint64(8) & np.uint64(255)) * weight
                    count += 1
            scale = 1.0 / (65536.0 * count)
            image[r, c, 0] = np.uint8(np.rint((red_blue & np.uint64(0xFFFFFFFF)) * scale))
            image[r, c, 1] = np.uint8(np.rint(green * scale))
            image[r, c, 2] = np.uint8(np.rint((red_blue >> np.uint64(32)) * scale))


@compile_kernel
def _map_triangle(
    column: np.ndarray, row: np.ndarray, corners: np.ndarray, uv: np.ndarray, height: int, width: int, out: np.ndarray
) -> None:
    """The affine map from a triangle's grid points to its texture: u = out[0] + out[1] j + out[2] i, v likewise from out[3]."""
    a, b, c = corners[0], corners[1], corners[2]
    ax, ay = (column[b] - column[a]) * STEPS, (row[b] - row[a]) * STEPS
    bx, by = (column[c] - column[a]) * STEPS, (row[c] - row[a]) * STEPS
    scale = 1.0 / (ax * by - ay * bx)  # the triangle was seen: not over 0
    x0, y0 = column[a] * STEPS - 0.5, row[a] * STEPS - 0.5
    for k in range(2):
        origin = np.float64(uv[0, k])
        s, t = uv[1, k] - origin, uv[2, k] - origin
        per_column, per_row = (s * by - t * ay) * scale, (t * ax - s * bx) * scale
        out[3 * k] = origin - per_column * x0 - per_row * y0
        out[3 * k + 1], out[3 * k + 2] = per_column, per_row


@compile_kernel
def _texels_per_step(triangle_map: np.ndarray, height: int, width: int) -> float:
    """Texels that one step of the grid spans along its footprint's longer axis: the largest singular value of the map."""
    xx, xy = triangle_map[1] * width, triangle_map[2] * width
    yx, yy = triangle_map[4] * height, triangle_map[5] * height
    squares = xx * xx + xy * xy + yx * yx + yy * yy
    area = xx * yy - xy * yx
    return float(np.sqrt((squares + np.sqrt(max(squares * squares - 4 * area * area, 0.0))) / 2))
