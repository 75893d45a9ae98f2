"""Find the borders of texture charts, so that no texel from beyond them gets into an image.

Texels that no triangle covers hold padding: black, white, or whatever a program left there. Charts side by side show parts of a
face that lie far apart. Filtering reads whole blocks of texels and would mix both in. Here the texels at the borders are
marked; border_samples.py reads closely what lies near them, and everything else is read as if there were no borders.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from preprocess.compiled import compile_kernel
from preprocess.geometry.mesh import Mesh
from preprocess.geometry.triangles import weld_equal

# Of a texel: a border passes through it or a neighbour; through itself; its middle is covered (looked at near borders only).
NEAR, CROSSED, COVERED = 1, 2, 4
# So many steps a texel of the texture, and some more, may marking take: only garbled coordinates need as many.
_STEPS_PER_TEXEL, _MORE_STEPS = 4, 1_000_000


@dataclass(frozen=True)
class Charts:
    """marks u8 (n,): NEAR, CROSSED and COVERED for the texels of each level of a `MipChain`, one level behind the other.

    starts i64: where each level begins.
    """

    marks: np.ndarray
    starts: np.ndarray


def find_charts(
    mesh: Mesh, incident: tuple[np.ndarray, np.ndarray], closed: np.ndarray, heights: np.ndarray, widths: np.ndarray
) -> Charts:
    """Find the borders of texture charts: edges beyond which no triangle continues at the same texture coordinates.

    Args:
        incident: starts and corners by `find_corners`. closed: by `fan_normals`.
        heights, widths: i64, of the texture and its half-sized levels.
    """
    assert mesh.uv is not None
    side, is_open = _find_open_edges(mesh.triangles, mesh.uv, *incident, closed)
    edges = np.flatnonzero(is_open)  # 3 t + c: from corner c of triangle t to the next
    counts = heights * widths
    starts = np.cumsum(counts) - counts
    marks = np.zeros(int(counts.sum()), np.uint8)
    if len(edges):
        edges = edges[~_continues(mesh, edges, side[edges // 3])]
        num_borders = np.bincount(edges // 3, minlength=len(mesh.triangles))
        if not (
            _mark_borders(mesh.uv, edges, heights, widths, starts, marks)
            and _cover_middles(mesh.uv, num_borders, heights, widths, starts, marks)
        ):
            marks[:] = 0
    return Charts(marks, starts)


def _continues(mesh: Mesh, edges: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Return bool (E,): whether another edge has the same ends, on the surface and in the texture, with its triangle beyond.

    Files may part triangles that belong together, by vertices of their own.
    """
    assert mesh.uv is not None
    vertex, point = mesh.triangles.ravel(), mesh.uv.reshape(-1, 2)
    begin, end = (
        np.concatenate([point[corners], mesh.vertices_mm[vertex[corners]]], axis=1) + np.float32(0)  # −0 becomes 0
        for corners in (edges, edges // 3 * 3 + (edges + 1) % 3)
    )
    differs = begin != end
    first = differs.argmax(axis=1)[:, None]
    turned = np.take_along_axis(begin, first, 1) > np.take_along_axis(end, first, 1)
    keys = np.concatenate([np.where(turned, end, begin), np.where(turned, begin, end)], axis=1).view(np.uint32)
    _, kind = weld_equal(keys)
    side = np.where(turned[:, 0], -side, side)
    left, right = (np.bincount(kind, side == sign) > 0 for sign in (1, -1))
    found: np.ndarray = (left & right)[kind] & (side != 0)
    return found


@compile_kernel
def _find_open_edges(
    triangles: np.ndarray, uv: np.ndarray, starts: np.ndarray, corners: np.ndarray, closed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the orientation of triangles in the texture, ±1 or 0, i8 (M,), and bool (3 M,): edges without a continuation by a
    triangle with the same vertices."""
    side = np.zeros(len(triangles), np.int8)
    is_open = np.zeros(3 * len(triangles), np.bool_)
    # Vertices in the middle of a chart: one circle of triangles around them, all on one side, one point of the texture.
    is_inner = closed.copy()
    met_before = np.zeros(len(closed), np.int8)
    first_uv = np.empty((len(closed), 2), np.float32)
    for t in range(len(triangles)):
        if np.isnan(uv[t, 0, 0]):
            for c in range(3):
                is_inner[triangles[t, c]] = False
            continue
        ax, ay = np.float64(uv[t, 1, 0]) - uv[t, 0, 0], np.float64(uv[t, 1, 1]) - uv[t, 0, 1]
        bx, by = np.float64(uv[t, 2, 0]) - uv[t, 0, 0], np.float64(uv[t, 2, 1]) - uv[t, 0, 1]
        area = ax * by - ay * bx
        side[t] = 1 if area > 0 else (-1 if area < 0 else 0)
        mark = np.int8(2 + side[t])
        for c in range(3):
            k = np.uintp(triangles[t, c])
            if met_before[k] == 0:
                met_before[k] = mark
                first_uv[k, 0], first_uv[k, 1] = uv[t, c, 0], uv[t, c, 1]
            elif met_before[k] != mark or first_uv[k, 0] != uv[t, c, 0] or first_uv[k, 1] != uv[t, c, 1]:
                is_inner[k] = False
    vertex, point = triangles.ravel(), uv.reshape(-1, 2)
    for v in range(len(closed)):
        if is_inner[v]:
            continue
        for at in range(starts[v], starts[v + 1]):
            here = np.uintp(corners[at])
            if not np.isnan(point[here, 0]):
                is_open[here] = is_open[here + np.uintp(2) if here % np.uintp(3) < 1 else here - np.uintp(1)] = True
    waiting = np.full(len(closed), -1, np.int64)  # for each other vertex: the edge to it that was met, 2 · index + role
    for v in range(len(closed)):
        if is_inner[v]:
            continue
        for at in range(starts[v], starts[v + 1]):
            here = np.uintp(corners[at])
            own_side, corner = side[here // np.uintp(3)], here % np.uintp(3)
            if own_side == 0:
                continue
            for role in range(2):  # to the next corner, and from the one before
                there = (
                    (here + np.uintp(1) if corner < 2 else here - np.uintp(2))
                    if role == 0
                    else (here + np.uintp(2) if corner < 1 else here - np.uintp(1))
                )
                w = np.uintp(vertex[there])
                met = waiting[w]
                waiting[w] = 2 * at + role
                if met < 2 * starts[v]:  # indices rise with the vertices: of an earlier one
                    continue
                other = np.uintp(corners[met >> 1])
                d = other % np.uintp(3)
                if met & 1 == 0:
                    beyond = other + np.uintp(1) if d < 2 else other - np.uintp(2)
                else:
                    beyond = other + np.uintp(2) if d < 1 else other - np.uintp(1)
                turned = own_side if met & 1 == role else -own_side
                if (
                    side[other // np.uintp(3)] == -turned
                    and point[here, 0] == point[other, 0]
                    and point[here, 1] == point[other, 1]
                    and point[there, 0] == point[beyond, 0]
                    and point[there, 1] == point[beyond, 1]
                ):
                    is_open[here if role == 0 else there] = False
                    is_open[other if met & 1 == 0 else beyond] = False
    return side, is_open


@compile_kernel
def _mark_borders(
    uv: np.ndarray, edges: np.ndarray, heights: np.ndarray, widths: np.ndarray, starts: np.ndarray, marks: np.ndarray
) -> bool:
    """Fill the marks of `Charts` except COVERED; return False if that would take too long."""
    height, width = heights[0], widths[0]
    length_left = np.float64(height * width + _MORE_STEPS)
    for e in edges:
        t, c, d = e // 3, e % 3, (e % 3 + 1) % 3
        along_x, along_y = (uv[t, d, 0] - uv[t, c, 0]) * width, (uv[t, d, 1] - uv[t, c, 1]) * height
        length = max(abs(along_x), abs(along_y))
        if length <= 2 * (width + height):
            length_left -= 2 * length + 1
    if length_left < 0:
        return False
    for e in edges:
        t, c = e // 3, e % 3
        d = (c + 1) % 3
        x, y = np.float64(uv[t, c, 0]) * width, (1 - np.float64(uv[t, c, 1])) * height
        along_x, along_y = np.float64(uv[t, d, 0]) * width - x, (1 - np.float64(uv[t, d, 1])) * height - y
        length = max(abs(along_x), abs(along_y))
        if length > 2 * (width + height):
            continue  # repeats the texture
        num = np.int64(2 * length) + 1
        for k in range(num + 1):
            column = np.int64(np.floor(x + along_x * k / num)) % width
            row = np.int64(np.floor(y + along_y * k / num)) % height
            for level in range(len(widths)):
                w, h, begin = widths[level], heights[level], starts[level]
                if marks[begin + row * w + column] & CROSSED:
                    break
                marks[begin + row * w + column] |= CROSSED
                for i in range(row - 1, row + 2):
                    for j in range(column - 1, column + 2):
                        marks[begin + _wrap(i, h) * w + _wrap(j, w)] |= NEAR
                column, row = column >> 1, row >> 1
    return True


@compile_kernel
def _wrap(at: int, size: int) -> int:
    """Return at % size of an index at most one off, without a division."""
    return at + size if at < 0 else (at - size if at >= size else at)


@compile_kernel
def _cover_middles(
    uv: np.ndarray,
    num_borders: np.ndarray,
    heights: np.ndarray,
    widths: np.ndarray,
    starts: np.ndarray,
    marks: np.ndarray,
) -> bool:
    """Mark as COVERED the full-size texels near borders whose centres lie in a triangle; return False if it takes too long."""
    height, width = heights[0], widths[0]
    steps_left = _STEPS_PER_TEXEL * height * width + _MORE_STEPS
    for t in range(len(uv)):
        if np.isnan(uv[t, 0, 0]):
            continue
        ua, va = np.float64(uv[t, 0, 0]), np.float64(uv[t, 0, 1])
        x, y = ua * width, (1 - va) * height
        if not (0 <= x < width and 0 <= y < height):
            x, y = x % width, y % height
        column, row = min(np.int64(x), width - 1), min(np.int64(y), height - 1)
        reach_x = max(abs(uv[t, 1, 0] - ua), abs(uv[t, 2, 0] - ua)) * width
        reach_y = max(abs(uv[t, 1, 1] - va), abs(uv[t, 2, 1] - va)) * height
        # A mark speaks for its texel and the eight around it: no texel of the triangle is near a border if they are larger.
        level = 3
        while level < len(widths) and max(reach_x, reach_y) + 2 > 1 << level:
            level += 1
        if level < len(widths) and not (
            marks[starts[level] + (row >> level) * widths[level] + (column >> level)] & NEAR
        ):
            continue
        steps_left -= np.int64(min((reach_x + 1) * (reach_y + 1), 1e15))  # about the texels that it will be laid over
        if steps_left < 0:
            return False
        xa, ya = np.float64(uv[t, 0, 0]) * width, (1 - np.float64(uv[t, 0, 1])) * height
        xb, yb = np.float64(uv[t, 1, 0]) * width, (1 - np.float64(uv[t, 1, 1])) * height
        xc, yc = np.float64(uv[t, 2, 0]) * width, (1 - np.float64(uv[t, 2, 1])) * height
        area = (xb - xa) * (yc - ya) - (yb - ya) * (xc - xa)
        if area < 0:
            xb, yb, xc, yc = xc, yc, xb, yb
        first_column, last_column = np.int64(np.ceil(min(xa, xb, xc) - 0.5)), np.int64(np.floor(max(xa, xb, xc) - 0.5))
        first_row, last_row = np.int64(np.ceil(min(ya, yb, yc) - 0.5)), np.int64(np.floor(max(ya, yb, yc) - 0.5))
        num_met = 0
        if area != 0 and first_column <= last_column and first_row <= last_row:
            for i in range(first_row, last_row + 1):
                line = (i if 0 <= i < height else i % height) * width
                for j in range(first_column, last_column + 1):
                    at = line + (j if 0 <= j < width else j % width)
                    if not marks[at] & NEAR:
                        continue
                    x, y = j + 0.5, i + 0.5
                    if (
                        (xb - xa) * (y - ya) - (yb - ya) * (x - xa) > -1e-6
                        and (xc - xb) * (y - yb) - (yc - yb) * (x - xb) > -1e-6
                        and (xa - xc) * (y - yc) - (ya - yc) * (x - xc) > -1e-6
                    ):
                        num_met += 1
                        marks[at] |= COVERED
        if num_met == 0 and num_borders[t] >= 2:  # a chart below a texel: what colour it has is in the one it lies in
            column, row = np.int64(np.floor((xa + xb + xc) / 3)), np.int64(np.floor((ya + yb + yc) / 3))
            marks[row % height * width + column % width] |= COVERED
    return True
