"""Vertex normals that do not depend on how the triangles are wound.

The triangles around a vertex are connected by the edges that they share: they form fans. Within a fan every triangle's side
follows from its neighbour's, so their normals are added as if all were wound alike. A fan's own sign is unknown: that of its
first triangle is used, and the renderer turns the normals of a triangle to the viewer.
"""

from __future__ import annotations

import numpy as np

from preprocess.compiled import compile_kernel
from preprocess.geometry.mesh import Mesh

_MERGING_COSINE = 0.5  # fans that meet in a vertex alone, within 60° of the largest, are one surface


def vertex_normals(mesh: Mesh) -> np.ndarray:
    """Return the area-weighted mean normal of the triangles around each vertex, f32 (N, 3), unit length; 0 without any.

    Triangles that share an edge count as wound alike, in any file; the sign is that of the vertex's first one.
    """
    normals, _, _ = fan_normals(mesh.vertices_mm, mesh.triangles, *find_corners(mesh.triangles, len(mesh.vertices_mm)))
    vertex: np.ndarray = normals[: len(mesh.vertices_mm)]
    return vertex


@compile_kernel
def find_corners(triangles: np.ndarray, num_vertices: int) -> tuple[np.ndarray, np.ndarray]:
    """Return starts i32 (N + 1,) and corners i32 (3 M,): those at vertex k, 3 t + c, are corners[starts[k] : starts[k + 1]]."""
    starts = np.zeros(num_vertices + 1, np.int32)
    for t in range(len(triangles)):
        for c in range(3):
            starts[triangles[t, c] + 1] += 1
    for k in range(num_vertices):
        starts[k + 1] += starts[k]
    next_free = starts[:-1].copy()
    corners = np.empty(3 * len(triangles), np.int32)
    for t in range(len(triangles)):
        for c in range(3):
            corners[next_free[triangles[t, c]]] = 3 * t + c
            next_free[triangles[t, c]] += 1
    return starts, corners


@compile_kernel
def _area_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Return the normals f64 (M, 3), as long as twice the area."""
    normals = np.empty((len(triangles), 3))
    for t in range(len(triangles)):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay, az = np.float64(vertices[a, 0]), np.float64(vertices[a, 1]), np.float64(vertices[a, 2])
        px, py, pz = vertices[b, 0] - ax, vertices[b, 1] - ay, vertices[b, 2] - az
        qx, qy, qz = vertices[c, 0] - ax, vertices[c, 1] - ay, vertices[c, 2] - az
        normals[t, 0], normals[t, 1], normals[t, 2] = py * qz - pz * qy, pz * qx - px * qz, px * qy - py * qx
    return normals


@compile_kernel
def fan_normals(
    vertices: np.ndarray, triangles: np.ndarray, starts: np.ndarray, corners: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute the area-weighted mean normals of the fans, and which of them each corner of a triangle has.

    Returns:
        normals: f32 (K, 3), unit length or 0; the first N are those of the vertices' largest fans, K − N of further ones.
        normal_of: i32 (M, 3): k for normals[k], ~k for −normals[k], to the side that the triangle is wound for. `triangles`
            itself if each corner has its vertex's normal.
        closed: bool (N,): the triangles around a vertex are one circle, all wound alike.
    """
    area_normals = _area_normals(vertices, triangles)
    num = len(vertices)
    normals = np.zeros((num, 3), np.float32)
    used = num
    closed = np.zeros(num, np.bool_)
    flat = triangles.ravel()
    normal_of, flat_of = triangles, flat  # until a corner has another
    most = 0
    for v in range(num):
        most = max(most, starts[v + 1] - starts[v])
    # Of each corner at one vertex: the vertices that follow and precede it (role 0 and 1), its fan and its sign there.
    others = np.empty((most, 2), np.int32)
    fan, twin = np.empty(most, np.int32), np.empty(most, np.int32)
    sign = np.empty(most)
    sums = np.empty((most, 3))
    slots = np.empty(most, np.int32)
    # Of each other vertex: how many of these corners touch it, and which, as 2 i + role: the first and each one's next.
    count, head = np.zeros(num, np.int32), np.empty(num, np.int32)
    following = np.empty(2 * most, np.int32)
    successor = np.empty(most, np.int32)
    met_at = np.full(num, -1, np.int32)
    for v in range(num):
        at, degree = starts[v], starts[v + 1] - starts[v]
        if degree == 0:
            continue
        # Mostly all are wound alike and make one circle: each one's preceding vertex follows in the next one.
        is_circle = degree > 2
        x = y = z = 0.0
        for i in range(degree):
            corner = np.uintp(corners[at + i])
            c = corner % np.uintp(3)
            # Unsigned: NumPy's negative indices would need a test.
            a = np.uintp(flat[corner + np.uintp(1) if c < 2 else corner - np.uintp(2)])
            b = np.uintp(flat[corner + np.uintp(2) if c < 1 else corner - np.uintp(1)])
            others[i, 0], others[i, 1] = a, b
            is_circle = is_circle and a != b and a != v and b != v
            met_at[a] = at + i
            t = corner // np.uintp(3)
            x, y, z = x + area_normals[t, 0], y + area_normals[t, 1], z + area_normals[t, 2]
        if is_circle:
            for i in range(degree):
                # Places in `corners` rise with the vertices: smaller ones are of earlier vertices.
                successor[i] = met_at[np.uintp(others[i, 1])] - at
            k = successor[0]
            for _ in range(2, degree):
                if k <= 0:
                    is_circle = False
                    break
                k = successor[k]
            is_circle = is_circle and k > 0 and successor[k] == 0
        if is_circle:
            length = max(np.sqrt(x**2 + y**2 + z**2), 1e-30)
            normals[v, 0], normals[v, 1], normals[v, 2] = x / length, y / length, z / length
            closed[v] = True
            continue
        x = y = z = 0.0
        for i in range(degree):
            a, b = others[i, 0], others[i, 1]
            fan[i] = twin[i] = -1
            sign[i] = 1.0
            if a == b or v in (a, b):
                twin[i] = i  # no triangle
                continue
            if count[a] > 0 and count[b] > 0:  # the same three vertices again, as two-sided scans have them
                shorter, other = (a, b) if count[a] < count[b] else (b, a)
                k = head[shorter]
                for _ in range(count[shorter]):
                    if others[k >> 1, 1 - (k & 1)] == other:
                        twin[i] = k >> 1
                        break
                    k = following[k]
                if twin[i] >= 0:
                    continue
            for role in range(2):
                w = others[i, role]
                following[2 * i + role] = head[w]
                head[w] = 2 * i + role
                count[w] += 1
        num_fans = 0
        for i in range(degree):
            if fan[i] >= 0 or twin[i] >= 0:
                continue
            fan[i] = num_fans
            for start_role in range(2):
                j, role = i, start_role
                while count[others[j, role]] == 2:  # over an edge of more triangles nobody knows who goes with whom
                    k = head[others[j, role]]
                    if k >> 1 == j:
                        k = following[k]
                    if fan[k >> 1] >= 0:
                        break
                    fan[k >> 1] = num_fans
                    sign[k >> 1] = -sign[j] if k & 1 == role else sign[j]
                    j, role = k >> 1, 1 - (k & 1)
            num_fans += 1
        for i in range(degree):
            if twin[i] < 0:
                count[others[i, 0]] = count[others[i, 1]] = 0
        # The fans' sums; the largest one's normal is the vertex's, and the sums of nearby ones are added.
        largest = 0
        if num_fans != 1:
            sums[:num_fans] = 0.0
            for i in range(degree):
                if twin[i] < 0:
                    for axis in range(3):
                        sums[fan[i], axis] += sign[i] * area_normals[corners[at + i] // 3, axis]
            longest = 0.0
            for f in range(num_fans):
                square = sums[f, 0] ** 2 + sums[f, 1] ** 2 + sums[f, 2] ** 2
                if square > longest:
                    longest, largest = square, f
            for f in range(num_fans):
                square = sums[f, 0] ** 2 + sums[f, 1] ** 2 + sums[f, 2] ** 2
                dot = sums[f, 0] * sums[largest, 0] + sums[f, 1] * sums[largest, 1] + sums[f, 2] * sums[largest, 2]
                slots[f] = v
                if f != largest and dot * dot <= _MERGING_COSINE**2 * square * longest:
                    if used == len(normals):
                        grown = np.zeros((2 * used, 3), np.float32)
                        for k in range(used):  # a slice would take three seconds longer to compile
                            grown[k, 0], grown[k, 1], grown[k, 2] = normals[k, 0], normals[k, 1], normals[k, 2]
                        normals = grown
                    _store_unit(sums[f, 0], sums[f, 1], sums[f, 2], normals[used])
                    slots[f] = used
                    used += 1
                elif dot < 0:
                    slots[f] = ~v
        else:
            slots[0] = v
        for i in range(degree):
            k = twin[i]
            if k >= 0:
                if k == i:
                    continue
                fan[i], sign[i] = fan[k], sign[k] if others[i, 0] == others[k, 0] else -sign[k]
            slot = slots[fan[i]]
            slot_here = slot if sign[i] > 0 else ~slot
            if slot_here != v:
                if normal_of is triangles:
                    normal_of = triangles.copy()
                    flat_of = normal_of.ravel()
                flat_of[corners[at + i]] = slot_here
            if k < 0 and (slot == v or slot == ~v):
                t, s = corners[at + i] // 3, sign[i] if slot == v else -sign[i]
                x, y, z = x + s * area_normals[t, 0], y + s * area_normals[t, 1], z + s * area_normals[t, 2]
        _store_unit(x, y, z, normals[v])
    return normals[:used], normal_of, closed


@compile_kernel
def _store_unit(x: float, y: float, z: float, out: np.ndarray) -> None:
    length = max(np.sqrt(x**2 + y**2 + z**2), 1e-30)
    out[0], out[1], out[2] = np.float32(x / length), np.float32(y / length), np.float32(z / length)
