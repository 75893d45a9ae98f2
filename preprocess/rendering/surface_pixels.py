"""Write what each pixel shows of a surface: normal, depth and place in the texture, or the colour of its vertices. Compiled."""

from __future__ import annotations

import numpy as np

from preprocess.compiled import compile_kernel, prefetch
from preprocess.geometry.rasterise import corner_weights
from shared.modalities import DEPTH_STEP_MM, DEPTH_ZERO


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
    uv: np.ndarray,
    samples: int,
    normal: np.ndarray,
    depth: np.ndarray,
    place: np.ndarray,
) -> None:
    """Write what is in the middle of each cell: normal u8 (H, W, 3) and depth u16 (H, W), encoded; place f32 (H, W, 2).

    Args:
        normals, normal_of: as `fan_normals` returns them.
        uv: f32 (M, 3, 2), and `place` between its values; NaN where there is no surface. Of length 0: not wanted.
    """
    has_uv = len(uv) > 0
    uv_address, normals_address = np.int64(uv.ctypes.data), np.int64(normals.ctypes.data)
    last_column = depth.shape[1] - 1
    for r in range(depth.shape[0]):
        i = r * samples + samples // 2
        for c in range(depth.shape[1]):
            j = c * samples + samples // 2
            if triangle[r, min(c + 8, last_column)] >= 0:  # what will be read soon is fetched from memory meanwhile
                ahead = np.uintp(triangle[r, min(c + 8, last_column)])
                prefetch(uv_address + 24 * np.int64(ahead))
                prefetch(normals_address + 12 * np.int64(triangles[ahead, 0]))
                prefetch(normals_address + 12 * np.int64(triangles[ahead, 1]))
            if triangle[r, c] < 0:
                if has_uv:
                    place[r, c, 0] = place[r, c, 1] = np.nan
                continue
            t = np.uintp(triangle[r, c])
            ia, ib, ic = np.uintp(triangles[t, 0]), np.uintp(triangles[t, 1]), np.uintp(triangles[t, 2])
            wa, wb, wc = corner_weights(column, row, ia, ib, ic, i, j)
            if has_uv:
                place[r, c, 0] = uv[t, 0, 0] * wa + uv[t, 1, 0] * wb + uv[t, 2, 0] * wc
                place[r, c, 1] = uv[t, 0, 1] * wa + uv[t, 1, 1] * wb + uv[t, 2, 1] * wc
            z = z_mm[ia] * wa + z_mm[ib] * wb + z_mm[ic] * wc
            depth[r, c] = np.uint16(min(max(np.rint(z / DEPTH_STEP_MM) + DEPTH_ZERO, 1.0), 65535.0))
            na, nb, nc = normal_of[t, 0], normal_of[t, 1], normal_of[t, 2]
            if na < 0:
                na, wa = ~na, -wa
            if nb < 0:
                nb, wb = ~nb, -wb
            if nc < 0:
                nc, wc = ~nc, -wc
            na, nb, nc = np.uintp(na), np.uintp(nb), np.uintp(nc)
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
    numbers: np.ndarray,
    triangle: np.ndarray,
    column: np.ndarray,
    row: np.ndarray,
    triangles: np.ndarray,
    colors: np.ndarray,
    samples: int,
    image: np.ndarray,
) -> None:
    """Write the mean interpolated colour of the samples of numbered cells into `image` u8 (H, W, 3)."""
    for r in range(numbers.shape[0]):
        for c in range(numbers.shape[1]):
            if numbers[r, c] < 0:
                continue
            red = green = blue = 0.0
            count = 0
            for m in range(samples * samples):
                t = triangle[numbers[r, c], m]
                if t < 0:
                    continue
                a, b, d = triangles[t, 0], triangles[t, 1], triangles[t, 2]
                i, j = r * samples + m // samples, c * samples + m % samples
                wa, wb, wc = corner_weights(column, row, a, b, d, i, j)
                red += wa * colors[a, 0] + wb * colors[b, 0] + wc * colors[d, 0]
                green += wa * colors[a, 1] + wb * colors[b, 1] + wc * colors[d, 1]
                blue += wa * colors[a, 2] + wb * colors[b, 2] + wc * colors[d, 2]
                count += 1
            red, green, blue = np.rint(red / count), np.rint(green / count), np.rint(blue / count)
            if red + green + blue < 1:
                red = green = blue = 1.0  # 0,0,0 is no surface
            image[r, c, 0], image[r, c, 1], image[r, c, 2] = np.uint8(red), np.uint8(green), np.uint8(blue)
