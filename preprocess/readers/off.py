"""Object File Format text (OFF with colours, normals and texture coordinates), read here: Open3D 0.20 crashes on an index
without its vertex.

Layout after Geomview's manual, "OFF Files": [ST][C][N][4][n]OFF.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from preprocess.geometry.mesh import Mesh
from preprocess.geometry.triangles import cut_polygons, triangulate
from preprocess.readers.appearance import add_texture, check_finite, describe_alpha, read_colors
from preprocess.readers.file_bytes import CUT, MORE_FOLLOWS, name_errors, read_text
from preprocess.readers.text_numbers import parse_table, to_float32
from shared.errors import ScanError

_MAX_BYTES = 1 << 25  # lines are objects here, 60 times the size of the tightest text
# The counts may follow in the same line, or without a blank (OFF490 518 0, as in ModelNet40).
_KEYWORD = re.compile(rb"(?P<prefix>(?:ST)?C?N?4?n?)(?:OFF|off)(?P<binary>\s+BINARY)?(?![A-Za-z])")
_COUNTS = re.compile(rb"(\d+)\s+(\d+)(\s.*)?")


def read_off(path: Path, *, texture: Path | None = None) -> Mesh:
    """Read an OFF file: `OFF`, the counts, a line per vertex, a line per face (`n i j …`).

    A vertex is `x y z`, in NOFF with `nx ny nz`, in COFF with `r g b [a]`, in STOFF with `s t`, in this order. The keyword may
    be missing. The format names no image; STOFF has texture coordinates for a given one.

    Raises:
        ScanError: missing, cut off, garbled, binary, of four dimensions, no faces, an index without its vertex.
    """
    data = read_text(path, max_bytes=_MAX_BYTES)
    with name_errors(path):
        mesh = _parse(data)
    return add_texture(mesh, path, (), texture)


def _parse(data: bytes) -> Mesh:
    lines = [line.strip() for line in re.sub(rb"#[^\r\n]*", b"", data).splitlines() if line.strip()]
    keyword = _KEYWORD.match(lines[0]) if lines else None
    if keyword is None and not (lines and re.fullmatch(rb"\d+\s+\d+(\s+-?\d+)?", lines[0])):
        raise ScanError(f"expected OFF or COFF text at its beginning; {CUT}")
    prefix = keyword["prefix"] if keyword else b""
    if keyword and keyword["binary"]:
        raise ScanError("a binary OFF file; save it as text")
    if b"4" in prefix or b"n" in prefix:
        raise ScanError(f"{prefix.decode()}OFF: vertices that are not x y z; save it as OFF or COFF")
    if keyword and (rest := lines[0][keyword.end() :].strip()):
        lines[0] = rest
    elif keyword:
        del lines[0]
    counts = _COUNTS.fullmatch(lines[0]) if lines else None
    if counts is None or len(lines[0]) > 100:
        raise ScanError(f"expected two counts behind {prefix.decode()}OFF; {CUT}")
    num_vertices, num_faces = int(counts[1]), int(counts[2])
    if 1 + num_vertices + num_faces > len(lines):
        raise ScanError(
            f"promises {num_vertices} vertices and {num_faces} faces, found {len(lines) - 1} lines for them; {CUT}"
        )
    table = parse_table(lines[1 : 1 + num_vertices])
    if table.shape[1] < 3:
        raise ScanError(f"its vertices are not rows of x y z; {CUT}")
    triangles, has_colors = _read_faces(lines[1 + num_vertices : 1 + num_vertices + num_faces], table)
    colors, uv_points, notes = _split_columns(prefix, table[:, 3:])
    if has_colors and colors is None:
        notes += ("its faces have colours, which are not drawn: give them to its vertices (COFF)",)
    if len(lines) > 1 + num_vertices + num_faces:
        notes += (MORE_FOLLOWS,)
    uv = None if uv_points is None else to_float32(uv_points)[triangles]
    return Mesh(to_float32(table[:, :3]), triangles, uv, colors=colors, notes=notes)


def _read_faces(rows: list[bytes], vertices: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return the triangles, i32 (M, 3), and whether the faces differ in what follows their corners (a colour)."""
    corners: list[np.ndarray] = []
    colors: set[bytes] = set()
    try:
        for row in rows:
            words = row.split()
            size = int(words[0])
            if size < 0 or size >= len(words):
                raise ScanError(f"a face of {size} corners with {len(words) - 1} numbers; {CUT}")
            corners.append(np.array(words[1 : 1 + size], np.int64))
            if len(words) > 1 + size and len(colors) < 2:
                colors.add(b" ".join(words[1 + size :]))
    except (ValueError, OverflowError):  # no whole number, or one of more than 64 bits
        raise ScanError(f"its faces are not rows of whole numbers; {CUT}") from None
    joined = np.concatenate(corners or [np.empty(0, np.int64)])
    if len(joined) and (joined.min() < 0 or joined.max() >= len(vertices)):
        raise ScanError(f"a face names vertex {joined.max()}, there are {len(vertices)}; {CUT}")
    cut = triangulate(np.array([len(c) for c in corners], np.int64), joined, vertices)
    return cut_polygons(joined.astype(np.int32), cut), len(colors) > 1


def _split_columns(prefix: bytes, table: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None, tuple[str, ...]]:
    """Split the numbers behind x y z: colours u8 (N, 3), texture coordinates (N, 2), notes."""
    uv_points: np.ndarray | None = None
    if b"N" in prefix:
        table = table[:, 3:]
    if b"ST" in prefix and table.shape[1] >= 2:
        table, uv_points = table[:, :-2], table[:, -2:]
        check_finite(uv_points)
    if b"C" in prefix and table.shape[1] >= 3:
        colors, notes = read_colors(table[:, :3])
        return colors, uv_points, notes + (describe_alpha(table[:, 3]) if table.shape[1] > 3 else ())
    if b"C" in prefix:
        return None, uv_points, ("its vertices lack the three numbers of a colour that COFF says",)
    extra = f"its vertices have {table.shape[1]} numbers more than its keyword says; colours need the keyword COFF"
    return None, uv_points, (extra,) if table.shape[1] else ()
