"""Object File Format (OFF with colours, normals and texture coordinates) text, read here: Open3D 0.20 crashes on an index
without its vertex.

Layout after Geomview's manual, "OFF Files": [ST][C][N][4][n]OFF.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from preprocess.geometry.mesh import Mesh
from preprocess.geometry.triangles import fan_triangulation
from preprocess.readers.appearance import add_texture, check_finite, describe_alpha, read_colors
from preprocess.readers.file_bytes import read_text
from preprocess.readers.text_numbers import parse_table, to_float32
from shared.errors import ScanError

_MAX_BYTES = 1 << 25  # lines are objects here, 60 times the size of the tightest text
_CUT = "the file is cut off or garbled; copy it again"
# The counts may follow in the same line, or without a blank (OFF490 518 0, as in ModelNet40).
_KEYWORD = re.compile(rb"(?P<prefix>(?:ST)?C?N?4?n?)(?:OFF|off)(?P<binary>\s+BINARY)?(?![A-Za-z])")


def read_off(path: Path, *, texture: Path | None = None) -> Mesh:
    """Reads an OFF file: `OFF`, the counts, a line a vertex, a line a face (`n i j …`).

    A vertex is `x y z`, in NOFF with `nx ny nz`, in COFF with `r g b [a]`, in STOFF with `s t`, in this order. The keyword may
    be left out. The format names no image; STOFF has texture coordinates for a given one.

    Raises:
        ScanError: missing, cut off, garbled, binary, of four dimensions, no faces, an index without its vertex.
    """
    data = read_text(path, max_bytes=_MAX_BYTES)
    try:
        mesh = _parse(data)
    except (ScanError, ValueError) as error:
        raise ScanError(f"{path}: {error}") from error
    return add_texture(mesh, path, (), texture)


def _parse(data: bytes) -> Mesh:
    lines = [line.strip() for line in re.sub(rb"#[^\r\n]*", b"", data).splitlines() if line.strip()]
    keyword = _KEYWORD.match(lines[0]) if lines else None
    if keyword is None and not (lines and re.fullmatch(rb"\d+\s+\d+(\s+-?\d+)?", lines[0])):
        raise ScanError(f"expected OFF or COFF text at its beginning; {_CUT}")
    prefix = keyword["prefix"] if keyword else b""
    if keyword and keyword["binary"]:
        raise ScanError("a binary OFF file; save it as text")
    if b"4" in prefix or b"n" in prefix:
        raise ScanError(f"{keyword and keyword[0].decode()}: vertices that are not x y z; save it as OFF or COFF")
    rest = lines[0][keyword.end() :].strip() if keyword else lines[0]
    lines = [rest, *lines[1:]] if rest else lines[1:]
    try:
        num_vertices, num_faces = (int(word) for word in lines[0].split()[:2])
    except (ValueError, IndexError):
        raise ScanError(f"expected two counts behind {(prefix + b'OFF').decode()}; {_CUT}") from None
    if min(num_vertices, num_faces) < 0 or 1 + num_vertices + num_faces > len(lines):
        raise ScanError(
            f"promises {num_vertices} vertices and {num_faces} faces, found {len(lines) - 1} lines for them; {_CUT}"
        )
    rows = lines[1 : 1 + num_vertices]
    table = parse_table(rows)
    if table.shape[1] < 3:
        raise ScanError(f"its vertices are not rows of x y z; {_CUT}")
    try:
        sizes, corners, has_colors = _read_faces(lines[1 + num_vertices : 1 + num_vertices + num_faces])
    except (ValueError, OverflowError):  # no whole number, or one of more than 64 bits
        raise ScanError(f"its faces are not rows of whole numbers; {_CUT}") from None
    if len(corners) and (corners.min() < 0 or corners.max() >= num_vertices):
        raise ScanError(f"a face names vertex {corners.max()}, there are {num_vertices}; {_CUT}")
    triangles = corners[fan_triangulation(sizes)].astype(np.int32)
    colors, uv_points, notes = _part_columns(prefix, table[:, 3:])
    if has_colors and colors is None:
        notes += ("its faces have colours, which are not drawn: give them to its vertices (COFF)",)
    uv = None if uv_points is None else to_float32(uv_points)[triangles]
    return Mesh(to_float32(table[:, :3]), triangles, uv, colors=colors, notes=notes)


def _read_faces(rows: list[bytes]) -> tuple[np.ndarray, np.ndarray, bool]:
    """Corners of each face, all of them one after another, and whether the faces differ in what stands behind (a colour)."""
    corners: list[np.ndarray] = []
    colors: set[bytes] = set()
    for row in rows:
        words = row.split()
        size = int(words[0])
        if size < 0 or size >= len(words):
            raise ScanError(f"a face of {size} corners with {len(words) - 1} numbers; {_CUT}")
        corners.append(np.array(words[1 : 1 + size], np.int64))
        if len(words) > 1 + size and len(colors) < 2:
            colors.add(b" ".join(words[1 + size :]))
    return (
        np.array([len(c) for c in corners], np.int64),
        np.concatenate(corners or [np.empty(0, np.int64)]),
        len(colors) > 1,
    )


def _part_columns(prefix: bytes, table: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None, tuple[str, ...]]:
    """What stands behind x y z: colours u8 (N, 3), texture coordinates (N, 2), notes."""
    uv_points: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    if b"N" in prefix:
        table = table[:, 3:]
    if b"ST" in prefix and table.shape[1] >= 2:
        table, uv_points = table[:, :-2], table[:, -2:]
        check_finite(uv_points)
    if b"C" not in prefix:
        extra = f"its vertices have {table.shape[1]} numbers more than its keyword says; colours need the keyword COFF"
        return None, uv_points, (extra,) if table.shape[1] else notes
    if table.shape[1] < 3:
        return None, uv_points, ("its vertices lack the three numbers of a colour that COFF says",)
    colors, notes = read_colors(table[:, :3])
    return colors, uv_points, notes + (describe_alpha(table[:, 3]) if table.shape[1] > 3 else ())
