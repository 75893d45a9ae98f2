"""Triangles: cutting polygons, welding vertices, and compiled loops over a mesh."""

from __future__ import annotations

import numpy as np

from preprocess.compiled import compile_kernel
from shared.errors import ScanError

_MOST_WORK = 1_000_000_000  # steps: some seconds


def fan_triangulation(polygon_sizes: np.ndarray) -> np.ndarray:
    """Cut convex polygons into triangles that share each polygon's first corner.

    Args:
        polygon_sizes: int (P,), corners of each polygon; those with fewer than three make no triangle.
    Returns:
        int64 (M, 3): indices into the list of all corners, one polygon after another.
    """
    sizes = np.asarray(polygon_sizes, np.int64)
    num_triangles = np.maximum(sizes - 2, 0)
    first = np.repeat(np.cumsum(sizes) - sizes, num_triangles)
    step = np.arange(len(first)) - np.repeat(np.cumsum(num_triangles) - num_triangles, num_triangles)
    return np.stack([first, first + step + 1, first + step + 2], axis=1)


def triangulate(polygon_sizes: np.ndarray, corners: np.ndarray, vertices: np.ndarray) -> np.ndarray | None:
    """Cut polygons into triangles: as fans, and concave ones ear by ear (Meisters 1975).

    Args:
        corners: int (C,), the vertex of each corner, one polygon after another. vertices: (N, 3 or more).
    Returns:
        int64 (M, 3), indices into `corners`, for `cut_polygons`; None if all polygons are triangles already.
    Raises:
        ScanError: concave polygons of very many corners.
    """
    if (polygon_sizes == 3).all():
        return None
    triangles = fan_triangulation(polygon_sizes)
    points = np.ascontiguousarray(vertices[:, :3], np.float64)
    if not _cut_concave(triangles, polygon_sizes.astype(np.int64), corners.astype(np.int64), points):
        raise ScanError("concave faces of very many corners; export triangles")
    return triangles


def cut_polygons(corners: np.ndarray, triangles: np.ndarray | None) -> np.ndarray:
    """Return the corners (M, 3, …) of the triangles that `triangulate` found among (C, …); without a copy for None."""
    return corners.reshape(-1, 3, *corners.shape[1:]) if triangles is None else corners[triangles]


@compile_kernel
def _normal(vertices: np.ndarray, corners: np.ndarray, a: int, b: int, c: int) -> np.ndarray:
    """Return the normal of a triangle of three corners, f64 (3,), as long as twice its area."""
    p, q, r = vertices[corners[a]], vertices[corners[b]], vertices[corners[c]]
    x1, y1, z1 = q[0] - p[0], q[1] - p[1], q[2] - p[2]
    x2, y2, z2 = r[0] - p[0], r[1] - p[1], r[2] - p[2]
    return np.array([y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2])


@compile_kernel
def _cut_concave(triangles: np.ndarray, sizes: np.ndarray, corners: np.ndarray, vertices: np.ndarray) -> bool:
    """Cut those polygons anew whose fan has a triangle that faces the other way; False if that takes too long."""
    start = row = 0
    work = 0
    for polygon in range(len(sizes)):
        size = sizes[polygon]
        if size > 3:
            normal = np.zeros(3)  # Newell's
            for k in range(1, size - 1):
                normal += _normal(vertices, corners, start, start + k, start + k + 1)
            for k in range(1, size - 1):
                if np.dot(_normal(vertices, corners, start, start + k, start + k + 1), normal) < 0:
                    work += _cut_ears(triangles[row : row + size - 2], start, size, corners, vertices, normal)
                    break
        if work > _MOST_WORK:
            return False
        start += size
        row += max(size - 2, 0)
    return True


@compile_kernel
def _cut_ears(
    triangles: np.ndarray, start: int, size: int, corners: np.ndarray, vertices: np.ndarray, normal: np.ndarray
) -> int:
    """Write the triangles of a polygon: cut off a corner that bulges and has no other one inside, again and again.

    Where there is none, as the polygon crosses itself, the next corner is cut off. Returns the number of steps taken.
    """
    left = np.arange(start, start + size)
    work = 0
    at = 0
    for row in range(size - 3):
        num = size - row
        for turn in range(num + 1):
            if turn < num:
                at = (at + 1) % num
            a, b, c = left[(at - 1) % num], left[at], left[(at + 1) % num]
            work += num
            if work > _MOST_WORK:
                return work
            is_ear = np.dot(_normal(vertices, corners, a, b, c), normal) > 0
            for k in range(num if is_ear else 0):
                p = left[k]
                if corners[p] != corners[a] and corners[p] != corners[b] and corners[p] != corners[c]:
                    is_ear = (
                        np.dot(_normal(vertices, corners, a, b, p), normal) < 0
                        or np.dot(_normal(vertices, corners, b, c, p), normal) < 0
                        or np.dot(_normal(vertices, corners, c, a, p), normal) < 0
                    )
                    if not is_ear:
                        break
            if is_ear:
                break
        triangles[row, 0], triangles[row, 1], triangles[row, 2] = left[(at - 1) % num], left[at], left[(at + 1) % num]
        left[at : num - 1] = left[at + 1 : num].copy()
        at %= num - 1
    triangles[size - 3, 0], triangles[size - 3, 1], triangles[size - 3, 2] = left[0], left[1], left[2]
    return work


@compile_kernel
def split_triangles(indices: np.ndarray, num_points: int) -> np.ndarray:
    """Return the corners, i32 (3 M,), of i64 (4 M,): three indices below num_points, then −1; empty if any is otherwise."""
    corners = np.empty(len(indices) // 4 * 3, np.int32)
    is_fine = len(indices) % 4 == 0
    for t in range(len(indices) // 4):
        for c in range(3):
            index = indices[4 * t + c]
            is_fine &= 0 <= index < num_points
            corners[3 * t + c] = index
        is_fine &= indices[4 * t + 3] == -1
    return corners if is_fine else corners[:0]


def weld(vertices: np.ndarray, colors: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Find vertices of exactly the same coordinates (and colour), as files have them at texture seams.

    Args:
        vertices: f32 (N, 3). colors: u8 (N, 3) or None.
    Returns:
        unique: int (K,), the first of each kind, in the order of the file.
        index: int (N,), vertex → its index in `unique`.
    """
    with np.errstate(invalid="ignore"):  # garbled bytes may be signalling NaNs
        parts = [np.ascontiguousarray(vertices + np.float32(0), np.float32).view(np.uint32)]  # + 0: -0.0 equals 0.0
    if colors is not None:
        parts.append(colors.astype(np.uint32))
    unique, index = weld_equal(np.ascontiguousarray(np.concatenate(parts, axis=1)))
    return unique, index


@compile_kernel
def count_inside(vertices: np.ndarray, triangles: np.ndarray, radius: float) -> np.ndarray:
    """Count the corners of each triangle within a sphere about the origin: i8 (M,); −1: its bounding box is outside."""
    is_inside = np.empty(len(vertices), np.bool_)
    for k in range(len(vertices)):
        x, y, z = np.float64(vertices[k, 0]), np.float64(vertices[k, 1]), np.float64(vertices[k, 2])
        is_inside[k] = x * x + y * y + z * z <= radius * radius
    count = np.zeros(len(triangles), np.int8)
    for t in range(len(triangles)):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        count[t] = np.int8(is_inside[a]) + np.int8(is_inside[b]) + np.int8(is_inside[c])
        if count[t] == 0:
            square = 0.0  # of the distance from the origin to the box
            for axis in range(3):
                p, q, r = vertices[a, axis], vertices[b, axis], vertices[c, axis]
                square += max(np.float64(min(p, q, r)), -np.float64(max(p, q, r)), 0.0) ** 2
            if square > radius * radius:
                count[t] = -1
    return count


@compile_kernel
def renumber(triangles: np.ndarray, num_vertices: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the vertices that triangles use, i64 (U,), rising, and the triangles as indices into these, i32 (M, 3)."""
    new = np.full(num_vertices, -1, np.int32)
    for t in range(len(triangles)):
        for c in range(3):
            new[triangles[t, c]] = 0
    used = np.flatnonzero(new == 0)
    for k in range(len(used)):
        new[used[k]] = k
    renumbered = np.empty(triangles.shape, np.int32)
    for t in range(len(triangles)):
        for c in range(3):
            renumbered[t, c] = new[triangles[t, c]]
    return used, renumbered


@compile_kernel
def triangle_areas(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Return the areas, f64 (M,), in the square of the vertices' unit."""
    areas = np.empty(len(triangles))
    for t in range(len(triangles)):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        px, qx = np.float64(vertices[b, 0]) - vertices[a, 0], np.float64(vertices[c, 0]) - vertices[a, 0]
        py, qy = np.float64(vertices[b, 1]) - vertices[a, 1], np.float64(vertices[c, 1]) - vertices[a, 1]
        pz, qz = np.float64(vertices[b, 2]) - vertices[a, 2], np.float64(vertices[c, 2]) - vertices[a, 2]
        x, y, z = py * qz - pz * qy, pz * qx - px * qz, px * qy - py * qx
        areas[t] = 0.5 * np.sqrt(x * x + y * y + z * z)
    return areas


@compile_kernel
def find_pieces(triangles: np.ndarray, num_vertices: int) -> np.ndarray:
    """Return each triangle's connected component, i32 (M,), as its first vertex (union-find, Tarjan 1975)."""
    parent = np.arange(num_vertices, dtype=np.int32)
    for t in range(len(triangles)):
        root = np.uintp(triangles[t, 0])
        while parent[root] != root:
            parent[root] = parent[parent[root]]
            root = np.uintp(parent[root])
        for corner in range(1, 3):
            other = np.uintp(triangles[t, corner])
            while parent[other] != other:
                parent[other] = parent[parent[other]]
                other = np.uintp(parent[other])
            if other != root:  # the smaller number stays: no randomness
                low, high = min(root, other), max(root, other)
                parent[high] = low
                root = low
    for k in range(num_vertices):
        parent[k] = parent[parent[k]]  # of a smaller number: that is a root already
    piece = np.empty(len(triangles), np.int32)
    for t in range(len(triangles)):
        piece[t] = parent[triangles[t, 0]]
    return piece


@compile_kernel
def weld_equal(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the distinct rows of keys u32 (N, K): the first row of each kind, i64 (U,), and each row's number, i64 (N,)."""
    size = 16
    while size < 2 * len(keys):
        size *= 2
    table = np.full(size, -1, np.int64)  # open addressing: number, or −1
    first = np.empty(len(keys), np.int64)
    number = np.empty(len(keys), np.int64)
    count = 0
    for k in range(len(keys)):
        mixed = np.uint64(14695981039346656037)
        for part in keys[k]:  # FNV-1a over words, then the finaliser of MurmurHash3
            mixed = (mixed ^ np.uint64(part)) * np.uint64(1099511628211)
        mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(18397679294719823053)
        slot = np.int64((mixed ^ (mixed >> np.uint64(33))) & np.uint64(size - 1))
        while table[slot] >= 0:
            same = True
            for part in range(keys.shape[1]):
                same = same and keys[first[table[slot]], part] == keys[k, part]
            if same:
                break
            slot = (slot + 1) & (size - 1)
        if table[slot] < 0:
            table[slot] = count
            first[count] = k
            count += 1
        number[k] = table[slot]
    return first[:count].copy(), number


@compile_kernel
def neighbour_means(vertices: np.ndarray, triangles: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """Return each vertex's mean neighbour, f64 (N, 3), once a triangle and without those left out; NaN without any."""
    sums, counts = np.zeros((len(vertices), 3)), np.zeros(len(vertices))
    for t in range(len(triangles)):
        for corner in range(3):
            a = triangles[t, corner]
            for other in range(1, 3):
                b = triangles[t, (corner + other) % 3]
                if not left_out[b]:
                    counts[a] += 1.0
                    for axis in range(3):
                        sums[a, axis] += vertices[b, axis]
    for k in range(len(vertices)):
        for axis in range(3):
            sums[k, axis] = sums[k, axis] / counts[k] if counts[k] > 0 else np.nan
    return sums
