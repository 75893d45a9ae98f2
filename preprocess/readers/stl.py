"""STL, binary and ASCII, in one or several solids, with the colours that VisCAM and Magics write into binary files.

Layout after 3D Systems' StereoLithography Interface Specification (1989); colours as Wikipedia's article on STL gives them.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from preprocess.geometry.mesh import Mesh
from preprocess.geometry.triangles import weld
from preprocess.readers.file_bytes import CUT, name_errors, read_bytes
from preprocess.readers.text_numbers import parse_numbers, to_float32
from shared.errors import ScanError

_FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("color", "<u2")])
_VERTEX = re.compile(rb"vertex\s+(\S+\s+\S+\s+\S+)")
_END = re.compile(rb"\bend\s*solid\b")


def read_stl(path: Path, *, texture: Path | None = None) -> Mesh:
    """Read an STL file; equal corners become one vertex, of the mean colour of their triangles.

    The format has no texture coordinates: no image can be used.

    Raises:
        ScanError: missing, cut off, garbled, a count that the file does not hold, no triangles.
    """
    data = read_bytes(path)
    notes: tuple[str, ...] = ()
    if texture:
        notes = (f"an STL file has no texture coordinates to place {texture.name[-60:]} with",)
    facet_colors = None
    with name_errors(path):
        num_facets = int.from_bytes(data[80:84], "little")
        if num_facets and (len(data) - 84) // _FACET.itemsize == num_facets:  # less than a triangle may follow
            facets = np.frombuffer(data, _FACET, num_facets, offset=84)  # also where the header begins with `solid`
            corners = facets["corners"].reshape(-1, 3)
            facet_colors, color_notes = _read_colors(data[:80], facets["color"])
            notes += color_notes
        elif data[:200].removeprefix(b"\xef\xbb\xbf").lstrip()[:5].lower() == b"solid" and b"\0" not in data:
            corners = _read_text(data.lower())
        else:
            raise ScanError(_describe(data, num_facets))
        vertices = to_float32(corners)
        unique, index = weld(vertices)
        triangles = index.reshape(-1, 3)
        colors = None if facet_colors is None else _mean_colors(facet_colors, triangles, len(unique))
        return Mesh(vertices[unique], triangles.astype(np.int32), colors=colors, notes=notes)


def _read_text(data: bytes) -> np.ndarray:
    """Return the corners float64 (3 m, 3) of lower-case text, whatever else its lines hold, and whatever ends them."""
    points = _VERTEX.findall(data)
    num_facets = data.count(b"endloop")
    if not points or len(points) != 3 * num_facets:
        raise ScanError(f"{num_facets} facets with {len(points)} vertices, expected 3 each; {CUT}")
    if not _END.search(data, max(len(data) - 1024, 0)):
        raise ScanError(f"ends without `endsolid`; {CUT}")
    return parse_numbers(b"\n".join(points), np.float64).reshape(-1, 3)


def _read_colors(header: bytes, color: np.ndarray) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return colours u8 (m, 3) of a binary file's triangles, five bits a channel; None, with a note if only some have one."""
    levels = np.rint(np.stack([color >> shift & 31 for shift in (10, 5, 0)], axis=1) * (255 / 31)).astype(np.uint8)
    has_own = color & 0x8000 != 0
    _, magics, rest = header.partition(b"COLOR=")
    if magics and len(rest) >= 3:  # red in the lowest bits; the highest says that the triangle has the file's colour
        colors = np.where(has_own[:, None], np.frombuffer(rest[:3], np.uint8), levels[:, ::-1])
    elif has_own.all():
        colors = levels
    else:
        return None, ("only some of its triangles have a colour: none is drawn",) if has_own.any() else ()
    return (None, ()) if (colors == colors[0]).all() else (colors, ())


def _mean_colors(facet_colors: np.ndarray, triangles: np.ndarray, num_vertices: int) -> np.ndarray:
    """Return each vertex's mean colour, u8 (N, 3)."""
    sums = np.zeros((num_vertices, 3))
    np.add.at(sums, triangles.ravel(), np.repeat(facet_colors, 3, axis=0))
    return np.rint(sums / np.bincount(triangles.ravel(), minlength=num_vertices)[:, None]).astype(np.uint8)


def _describe(data: bytes, num_facets: int) -> str:
    following, rest = divmod(len(data) - 84, _FACET.itemsize)
    if following > 0 and rest == 0 and num_facets in (0, 2**32 - 1):
        return f"its header counts {num_facets} triangles, {following} follow; export it again"
    return f"{len(data)} bytes, its header promises {num_facets} triangles; {CUT}"
