"""Check whose texture a scan has, and how it lies on the aligned face: nobody sees a wrong one among thousands."""

from __future__ import annotations

import numpy as np
from blake3 import blake3

from preprocess.compiled import compile_kernel
from preprocess.datasets.scan import ScanRecord
from preprocess.geometry.mesh import Mesh

_RADIUS_MM, _DEPTH_MM = 60.0, 60.0  # about and behind the tip of the nose: the front of a face
# Of the face's area as seen from the front. Right textures measured: 0.00 of it mirrored, 0.00 black.
_MIRRORED_SHARE, _BLACK_SHARE = 0.8, 0.02
_COMPARED_ROWS = 64  # of an image: enough to distinguish two photographs
_SPAN = 1.5  # of texture coordinates on a face; one image has 1


def describe_texture(mesh: Mesh) -> tuple[str, ...]:
    """Return notes on the texture of a mesh in the face frame: mirrored, repeated, or black in whole rows.

    A triangle's corners run the same way round in a photograph or a chart as on the surface seen from outside. They do not
    where v is measured from the wrong edge, or where the scan was mirrored without its texture.
    """
    if mesh.texture is None or mesh.uv is None:
        return ()
    seen, mirrored, black, span = _measure(mesh.vertices_mm, mesh.triangles, mesh.uv, mesh.texture)
    notes: tuple[str, ...] = ()
    if mirrored > _MIRRORED_SHARE * seen:
        notes += (
            "its texture lies mirrored on the face: v = 0 may be at the other edge of the image (column texture_origin), or "
            "the scan was mirrored, with left and right exchanged",
        )
    if span > _SPAN:
        notes += (
            f"its texture is repeated {span:.3g} times across the face: its coordinates may be pixels, or belong to several "
            "images (UDIM)",
        )
    if black > _BLACK_SHARE * seen:
        notes += (
            f"{black / seen:.0%} of the face is painted with rows of its texture that are black from edge to edge; perhaps "
            "the image was not copied to its end",
        )
    return notes


class SeenTextures:
    """Who is shown with which image, of the scans read so far."""

    def __init__(self) -> None:
        self._first: dict[bytes, ScanRecord] = {}

    def describe(self, scan: ScanRecord, texture: np.ndarray | None) -> tuple[str, ...]:
        """Return a note if another person's scan has the same image: it was written over, or a file names a wrong one."""
        if texture is None:
            return ()
        rows = np.ascontiguousarray(texture[:: max(len(texture) // _COMPARED_ROWS, 1)])
        first = self._first.setdefault(blake3(rows.data).digest(), scan)
        if first.subject == scan.subject:
            return ()
        return (f"its texture is also that of {first.sample_id}, of subject {first.subject}",)


@compile_kernel
def _measure(
    vertices: np.ndarray, triangles: np.ndarray, uv: np.ndarray, texture: np.ndarray
) -> tuple[float, float, float, float]:
    """Return the area of the face's textured front, of its mirrored part, and of the part with black rows of the texture;
    and the span of its texture coordinates.

    Areas are seen from the front, mm². However a mesh is wound, its outside is the side that more of the area shows: the
    inside of a mouth, or of a mask of two layers, is left out.
    """
    height, width = texture.shape[0], texture.shape[1]
    row_color = np.zeros(height, np.int8)  # 0: not looked at, 1: black, 2: something else
    sums = np.zeros((2, 3))
    low_u = low_v = np.inf
    high_u = high_v = -np.inf
    for t in range(len(triangles)):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        x, y, z = np.float64(vertices[a, 0]), np.float64(vertices[a, 1]), vertices[a, 2]
        if x * x + y * y > _RADIUS_MM * _RADIUS_MM or z < -_DEPTH_MM:
            continue
        area = (vertices[b, 0] - x) * (vertices[c, 1] - y) - (vertices[b, 1] - y) * (vertices[c, 0] - x)
        u, v = np.float64(uv[t, 0, 0]), np.float64(uv[t, 0, 1])
        uv_area = (uv[t, 1, 0] - u) * (uv[t, 2, 1] - v) - (uv[t, 1, 1] - v) * (uv[t, 2, 0] - u)
        if not (uv_area < 0 or uv_area > 0):  # no texture (NaN), or a single texel
            continue
        low_u, high_u, low_v, high_v = min(low_u, u), max(high_u, u), min(low_v, v), max(high_v, v)
        side = 0 if area > 0 else 1
        sums[side, 0] += abs(area) / 2
        if (area < 0) != (uv_area < 0):
            sums[side, 1] += abs(area) / 2
        middle = 1 - (v + uv[t, 1, 1] + uv[t, 2, 1]) / 3
        row = min(int((middle - np.floor(middle)) * height), height - 1)
        if row_color[row] == 0:
            row_color[row] = 1
            for column in range(width):
                if texture[row, column, 0] or texture[row, column, 1] or texture[row, column, 2]:
                    row_color[row] = 2
                    break
        if row_color[row] == 1:
            sums[side, 2] += abs(area) / 2
    outside = 0 if sums[0, 0] > sums[1, 0] else 1
    return sums[outside, 0], sums[outside, 1], sums[outside, 2], max(high_u - low_u, high_v - low_v)
