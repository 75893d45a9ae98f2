"""Action units as BP4D-Spontaneous codes them: occurrence for every frame of a sequence, intensity for some units.

Coders counted frames from 1, the models are numbered from 0: **model frame N is AU frame N + 1** (the data set's guide).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from preprocess.readers.file_bytes import parse_numbers
from preprocess.readers.label_text import read_label_text
from shared.errors import ScanError

UNKNOWN = -1
_FILE_UNKNOWN = 9
_MAX_BYTES = 1 << 26
_COPY = "copy it again or remove it"
_MAX_FRAME = 1 << 24
_FIRST_AU_FRAME = 1
_SEPARATORS = bytes.maketrans(b',;"', b"   ")
# Heads of an occurrence file's columns; programs that met an empty cell once write 12.0.
_FRAME_HEAD = re.compile(r"[01](\.0)?|#?frames?#?", re.IGNORECASE)
_FRAME_OR_UNIT = re.compile(r"1(\.0)?")
_UNIT_HEAD = re.compile(r"(?:AU)?0*([0-9]{1,2})(?:\.0)?", re.IGNORECASE)


def read_au_occurrence(path: Path, units: tuple[int, ...]) -> dict[int, np.ndarray]:
    """Reads AU_OCC/F001_T1.csv: a header, then a line a frame: the frame, then 0, 1 or 9 for each coded unit.

    The header numbers the units of the columns: 0,1,…,99, or 1,1,2,4,5,6,7,9,… in the data set's second form, where the first
    column is the frame all the same. A unit that has no column is unknown.

    Args:
        units: the AUs to keep, 1 to 99.
    Returns:
        Model frame → int8 (len(units),): 0, 1 or -1 = unknown.
    Raises:
        ScanError: missing, another header, a line of another length, another value, or a frame twice.
    """
    rows = _read_rows(path)
    header = [word.decode("latin-1") for word in rows[0].split()] if rows else []
    columns = _number_columns(header[1:])
    if columns is None or _FRAME_HEAD.fullmatch(header[0]) is None:
        raise ScanError(
            f"{path}: its first line is neither 0,1,…,99 nor the numbers of the units (1,1,2,4,5,…); {_COPY}"
        )
    table = _parse_table(path, rows[1:], len(header))
    frames = table[:, 0]
    if _FRAME_OR_UNIT.fullmatch(header[0]) and 1 not in columns and len(frames) and not _are_frames(frames):
        raise ScanError(f"{path}: its first column, headed {header[0]!r}, holds no frame numbers; {_COPY}")
    values = np.full((len(table), len(units)), _FILE_UNKNOWN, np.int64)
    for place, unit in enumerate(units):
        if unit in columns:
            values[:, place] = table[:, columns[unit]]
    return _by_model_frame(path, frames, values, largest=1)


def find_uncoded_units(path: Path, units: tuple[int, ...]) -> tuple[int, ...]:
    """Those of the units that an occurrence file has no column for; none where its header is another one.

    Raises:
        ScanError: it cannot be read.
    """
    rows = _read_rows(path)
    columns = _number_columns([word.decode("latin-1") for word in rows[0].split()][1:]) if rows else None
    return () if columns is None else tuple(unit for unit in units if unit not in columns)


def _number_columns(heads: list[str]) -> dict[int, int] | None:
    """Unit → its column, from the heads behind the frame's; None where these are not units' numbers, each once."""
    columns: dict[int, int] = {}
    for place, head in enumerate(heads, start=1):
        match = _UNIT_HEAD.fullmatch(head)
        if match is None or int(match[1]) in columns or int(match[1]) == 0:
            return None
        columns[int(match[1])] = place
    return columns or None


def _are_frames(column: np.ndarray) -> bool:
    """Whether a column headed 1 beside no other of that head holds frames and not what AU1 shows: it counts up."""
    return bool((np.diff(column) > 0).all() and (len(column) > 2 or not np.isin(column, (0, 1, _FILE_UNKNOWN)).all()))


def read_au_intensity(path: Path) -> dict[int, int]:
    """Reads AU_INT/F001_T1_AU12.csv: without a header, a line a frame; the frame and 0 to 5 (A to E are 1 to 5) or 9.

    Returns:
        Model frame → 0 to 5, or -1 = unknown.
    Raises:
        ScanError: as read_au_occurrence.
    """
    table = _parse_table(path, _read_rows(path), 2)
    return {
        frame: int(value[0]) for frame, value in _by_model_frame(path, table[:, 0], table[:, 1:], largest=5).items()
    }


def _read_rows(path: Path) -> list[bytes]:
    text = read_label_text(path, max_bytes=_MAX_BYTES).translate(_SEPARATORS)
    return [row for row in text.splitlines() if row.strip()]


def _parse_table(path: Path, rows: list[bytes], columns: int) -> np.ndarray:
    """int64 (n, columns)."""
    end = -7  # no value of these files: marks each row's end
    try:
        numbers = _parse_whole_numbers(b" -7 ".join(rows) + b" -7" if rows else b"")
    except ValueError as error:
        raise ScanError(f"{path}: {error}; {_COPY}") from error
    if len(numbers) != len(rows) * (columns + 1) or (numbers[columns :: columns + 1] != end).any():
        wrong = next((row for row in rows if len(row.split()) != columns), b"").split()
        raise ScanError(
            f"{path}: a line does not hold {columns} numbers (the first has {len(wrong)}, and begins with "
            f"{b' '.join(wrong[:2])[:20].decode('latin-1')!r}); {_COPY}"
        )
    return numbers.reshape(-1, columns + 1)[:, :columns]


def _parse_whole_numbers(text: bytes) -> np.ndarray:
    """int64 (n,); 12.0 is a whole number, too: programs that met an empty cell once write them so.

    Raises:
        ValueError: something is none; names it.
    """
    try:
        return parse_numbers(text, np.int64)
    except ValueError:
        numbers = parse_numbers(text, np.float64)
        whole = np.isfinite(numbers) & (numbers == np.rint(numbers)) & (np.abs(numbers) < _MAX_FRAME)
        if not whole.all():
            raise ValueError(f"expected whole numbers, found {numbers[~whole][0]:g}") from None
        return numbers.astype(np.int64)


def _by_model_frame(path: Path, frames: np.ndarray, values: np.ndarray, *, largest: int) -> dict[int, np.ndarray]:
    if len(frames) and not (frames.min() >= 0 and frames.max() < _MAX_FRAME):
        raise ScanError(f"{path}: frame {frames.min()} or {frames.max()} is no frame of a sequence; {_COPY}")
    if len(np.unique(frames)) != len(frames):
        raise ScanError(f"{path}: a frame stands twice; {_COPY}")
    bad = ((values < 0) | (values > largest)) & (values != _FILE_UNKNOWN)
    if bad.any():
        allowed = f"0 to {largest}" if largest > 1 else "0, 1"
        raise ScanError(f"{path}: the value {values[bad][0]}, expected {allowed} or 9 (unknown); {_COPY}")
    table = np.where(values == _FILE_UNKNOWN, UNKNOWN, values).astype(np.int8)
    return dict(zip((frames - _FIRST_AU_FRAME).tolist(), table, strict=True))
