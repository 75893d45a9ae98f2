"""Compiled loops over the vertices and triangles of a mesh."""

from __future__ import annotations

import numpy as np

from preprocess.compiled import compile_kernel


@compile_kernel
def find_inside(vertices: np.ndarray, triangles: np.ndarray, radius: float) -> np.ndarray:
    """i64 (K,): the triangles whose three corners lie within a sphere about the origin."""
    inside = np.empty(len(vertices), np.bool_)
    for k in range(len(vertices)):
        x, y, z = np.float64(vertices[k, 0]), np.float64(vertices[k, 1]), np.float64(vertices[k, 2])
        inside[k] = x * x + y * y + z * z <= radius * radius
    found = np.empty(len(triangles), np.int64)
    count = 0
    for t in range(len(triangles)):
        if inside[triangles[t, 0]] and inside[triangles[t, 1]] and inside[triangles[t, 2]]:
            found[count] = t
            count += 1
    return found[:count].copy()


@compile_kernel
def renumber(triangles: np.ndarray, num_vertices: int) -> tuple[np.ndarray, np.ndarray]:
    """The vertices that triangles use, i64 (U,) in rising order, and the triangles as indices into these, i32 (M, 3)."""
    new = np.full(num_vertices, -1, np.int32)
    for t in range(len(triangles)):
        for corner in range(3):
            new[triangles[t, corner]] = 0
    used = np.flatnonzero(new == 0)
    for k in range(len(used)):
        new[used[k]] = k
    renumbered = np.empty((len(triangles), 3), np.int32)
    for t in range(len(triangles)):
        for corner in range(3):
            renumbered[t, corner] = new[triangles[t, corner]]
    return used, renumbered


@compile_kernel
def triangle_areas(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """f64 (M,), in the square of the vertices' unit."""
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
    """i64 (M,): the same number for triangles that hang together by their vertices (union-find, Tarjan 1975)."""
    parent = np.arange(num_vertices)
    for t in range(len(triangles)):
        root = triangles[t, 0]
        while parent[root] != root:
            parent[root] = parent[parent[root]]
            root = parent[root]
        for corner in range(1, 3):
            other = triangles[t, corner]
            while parent[other] != other:
                parent[other] = parent[parent[other]]
                other = parent[other]
            if other != root:  # the smaller number stays: no randomness
                low, high = min(root, other), max(root, other)
                parent[high] = low
                root = low
    piece = np.empty(len(triangles), np.int64)
    for t in range(len(triangles)):
        root = triangles[t, 0]
        while parent[root] != root:
            parent[root] = parent[parent[root]]
            root = parent[root]
        piece[t] = root
    return piece


@compile_kernel
def weld_equal(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows u32 (N, K) that are equal get one place: the first of each kind i64 (U,), and row → place i64 (N,)."""
    size = 16
    while size < 2 * len(keys):
        size *= 2
    table = np.full(size, -1, np.int64)  # open addressing: place, or −1
    first = np.empty(len(keys), np.int64)
    place = np.empty(len(keys), np.int64)
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
                if keys[first[table[slot]], part] != keys[k, part]:
                    same = False
                    break
            if same:
                break
            slot = (slot + 1) & (size - 1)
        if table[slot] < 0:
            table[slot] = count
            first[count] = k
            count += 1
        place[k] = table[slot]
    return first[:count].copy(), place


@compile_kernel
def neighbour_means(vertices: np.ndarray, triangles: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """f64 (N, 3): each vertex's mean neighbour, once a triangle and without those left out; NaN where it has none."""
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
