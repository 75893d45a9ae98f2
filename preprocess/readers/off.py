"""Object File Format (OFF, COFF) text, read here: Open3D 0.20 crashes on an index without its vertex."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from preprocess.mesh import Mesh
from preprocess.readers.file_bytes import parse_numbers, read_bytes, to_float32
from preprocess.readers.polygons import fan_triangulation
from shared.errors import ScanError

_MAX_BYTES = 1 << 25  # lines are objects here, 60 times the size of the tightest text
_CUT = "the file is cut off or garbled; copy it again"


def read_off(path: Path) -> Mesh:
    """Reads an OFF file: `OFF`, the counts, a line a vertex (`x y z`, in COFF with `r g b [a]`), a line a face (`n i j …`).

    Raises:
        ScanError: missing, cut off, garbled, binary, no faces, an index without its vertex.
    """
    data = read_bytes(path, max_bytes=_MAX_BYTES)
    try:
        return _parse(data)
    except (ScanError, ValueError) as error:
        raise ScanError(f"{path}: {error}") from error


def _parse(data: bytes) -> Mesh:
    lines = [line for line in re.sub(rb"#[^\r\n]*", b"", data).splitlines() if line.strip()]
    keyword, _, rest = lines[0].strip().partition(b" ") if lines else (b"", b"", b"")
    if keyword not in (b"OFF", b"COFF", b"NOFF", b"CNOFF") or b"BINARY" in rest:
        raise ScanError(f"expected OFF or COFF text at its beginning; {_CUT}")
    lines = [rest, *lines[1:]] if rest.strip() else lines[1:]
    try:
        num_vertices, num_faces = (int(word) for word in lines[0].split()[:2])
    except (ValueError, IndexError):
        raise ScanError(f"expected two counts behind {keyword.decode()}; {_CUT}") from None
    if min(num_vertices, num_faces) < 0 or 1 + num_vertices + num_faces > len(lines):
        raise ScanError(
            f"promises {num_vertices} vertices and {num_faces} faces, found {len(lines) - 1} lines for them; {_CUT}"
        )
    rows = lines[1 : 1 + num_vertices]
    numbers = parse_numbers(b" inf ".join(rows) + b" inf", np.float64) if rows else np.empty(0)  # inf ends a row
    columns = len(numbers) // max(num_vertices, 1)
    if columns < 4 or len(numbers) % columns or not np.isposinf(numbers[columns - 1 :: columns]).all():
        raise ScanError(f"its vertices are not rows of x y z; {_CUT}")
    table = numbers.reshape(num_vertices, columns)[:, :-1]
    try:
        sizes, corners = _read_faces(lines[1 + num_vertices : 1 + num_vertices + num_faces])
    except (ValueError, OverflowError):  # no whole number, or one of more than 64 bits
        raise ScanError(f"its faces are not rows of whole numbers; {_CUT}") from None
    if len(corners) and (corners.min() < 0 or corners.max() >= num_vertices):
        raise ScanError(f"a face names vertex {corners.max()}, there are {num_vertices}; {_CUT}")
    fan = fan_triangulation(sizes)
    return Mesh(to_float32(table[:, :3]), corners[fan].astype(np.int32), colors=_colors(keyword, table))


def _read_faces(rows: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Corners of each face, and all of them one after another; a colour behind them is passed over."""
    corners: list[np.ndarray] = []
    for row in rows:
        words = row.split()
        size = int(words[0])
        if size < 0 or size >= len(words):
            raise ScanError(f"a face of {size} corners with {len(words) - 1} numbers; {_CUT}")
        corners.append(np.array(words[1 : 1 + size], np.int64))
    return np.array([len(c) for c in corners], np.int64), np.concatenate(corners or [np.empty(0, np.int64)])


def _colors(keyword: bytes, table: np.ndarray) -> np.ndarray | None:
    first = 6 if b"N" in keyword else 3  # behind the normals, where there are some
    if b"C" not in keyword or table.shape[1] < first + 3 or not np.isfinite(table).all():
        return None
    rgb = table[:, first : first + 3]
    return np.rint(np.clip(rgb * (255 if rgb.max(initial=0) <= 1 else 1), 0, 255)).astype(np.uint8)
