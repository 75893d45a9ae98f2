"""Action units as BP4D-Spontaneous codes them: occurrence for every frame of a sequence, intensity for some units.

Coders counted frames from 1, the models are numbered from 0: **model frame N is AU frame N + 1** (the data set's guide).
Spreadsheet programs save whole numbers as 12.0 in columns that once had an empty cell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from preprocess.readers.file_bytes import COPY, read_rows
from preprocess.readers.text_numbers import parse_table
from shared.errors import ScanError

UNKNOWN = -1
_FILE_UNKNOWN = 9
_MAX_BYTES = 1 << 26
_MAX_FRAME = 1 << 24
_FIRST_AU_FRAME = 1
# Headers of an occurrence file's columns.
_FRAME_HEADER = re.compile(r"[01](\.0)?|#?frames?#?", re.IGNORECASE)
_FRAME_OR_UNIT = re.compile(r"1(\.0)?")
_UNIT_HEADER = re.compile(r"(?:AU)?0*([0-9]{1,2})(?:\.0)?", re.IGNORECASE)


def read_au_occurrence(path: Path, units: tuple[int, ...]) -> dict[int, np.ndarray]:
    """Read AU_OCC/F001_T1.csv: a header, then a line per frame: the frame, then 0, 1 or 9 for each coded unit.

    The header numbers the units of the columns: 0,1,…,99, or 1,1,2,4,5,6,7,9,… in the data set's second form, where the first
    column is the frame all the same. A unit that has no column is unknown.

    Args:
        units: the wanted AUs, 1 to 99.
    Returns:
        Model frame → int8 (len(units),): 0, 1 or -1 = unknown.
    Raises:
        ScanError: missing, another header, a line of another length, another value, or a frame twice.
    """
    rows = _read_rows(path)
    header = _split_header(rows)
    columns = _number_columns(header)
    if columns is None or _FRAME_HEADER.fullmatch(header[0]) is None:
        raise ScanError(
            f"{path}: its first line is neither 0,1,…,99 nor the numbers of the units (1,1,2,4,5,…); {COPY}"
        )
    table = _parse_table(path, rows[1:], len(header))
    frames = table[:, 0]
    if _FRAME_OR_UNIT.fullmatch(header[0]) and 1 not in columns and len(frames) and not _are_frames(frames):
        raise ScanError(f"{path}: its first column, headed {header[0]!r}, holds no frame numbers; {COPY}")
    values = np.full((len(table), len(units)), _FILE_UNKNOWN, np.int64)
    for k, unit in enumerate(units):
        if unit in columns:
            values[:, k] = table[:, columns[unit]]
    return _by_model_frame(path, frames, values, largest=1)


def find_uncoded_units(path: Path, units: tuple[int, ...]) -> tuple[int, ...]:
    """Return the units that an occurrence file has no column for; none if it has another header.

    Raises:
        ScanError: it cannot be read.
    """
    columns = _number_columns(_split_header(_read_rows(path)))
    return () if columns is None else tuple(unit for unit in units if unit not in columns)


def read_au_intensity(path: Path) -> dict[int, int]:
    """Read AU_INT/F001_T1_AU12.csv: without a header, a line per frame; the frame and 0 to 5 (A to E are 1 to 5) or 9.

    Returns:
        Model frame → 0 to 5, or -1 = unknown.
    Raises:
        ScanError: as read_au_occurrence.
    """
    table = _parse_table(path, _read_rows(path), 2)
    values = _by_model_frame(path, table[:, 0], table[:, 1:], largest=5)
    return {frame: int(value[0]) for frame, value in values.items()}


def _read_rows(path: Path) -> list[bytes]:
    return read_rows(path, max_bytes=_MAX_BYTES, separators=b',;"')


def _split_header(rows: Sequence[bytes]) -> list[str]:
    return [word.decode("latin-1") for word in rows[0].split()] if rows else []


def _number_columns(header: list[str]) -> dict[int, int] | None:
    """Return unit → column, from the headers behind the frame's; None if these are not units' numbers, each once."""
    columns: dict[int, int] = {}
    for column, text in enumerate(header[1:], start=1):
        match = _UNIT_HEADER.fullmatch(text)
        if match is None or int(match[1]) in columns or int(match[1]) == 0:
            return None
        columns[int(match[1])] = column
    return columns or None


def _are_frames(column: np.ndarray) -> bool:
    """Return whether a column headed 1, beside no other of that header, holds frames and not AU1: it counts up."""
    return bool((np.diff(column) > 0).all() and (len(column) > 2 or not np.isin(column, (0, 1, _FILE_UNKNOWN)).all()))


def _parse_table(path: Path, rows: Sequence[bytes], columns: int) -> np.ndarray:
    """Return int64 (n, columns)."""
    try:
        numbers = parse_table(rows, columns)
    except ValueError as error:
        raise ScanError(f"{path}: {error}; {COPY}") from error
    whole = (numbers == np.rint(numbers)) & (np.abs(numbers) < 1 << 53)
    if not whole.all():
        raise ScanError(f"{path}: expected whole numbers, found {numbers[~whole][0]:g}; {COPY}")
    return numbers.astype(np.int64)


def _by_model_frame(path: Path, frames: np.ndarray, values: np.ndarray, *, largest: int) -> dict[int, np.ndarray]:
    if len(frames) and not (frames.min() >= 0 and frames.max() < _MAX_FRAME):
        raise ScanError(f"{path}: frame {frames.min()} or {frames.max()} is no frame of a sequence; {COPY}")
    if len(np.unique(frames)) != len(frames):
        raise ScanError(f"{path}: a frame stands twice; {COPY}")
    bad = ((values < 0) | (values > largest)) & (values != _FILE_UNKNOWN)
    if bad.any():
        allowed = f"0 to {largest}" if largest > 1 else "0, 1"
        raise ScanError(f"{path}: the value {values[bad][0]}, expected {allowed} or 9 (unknown); {COPY}")
    table = np.where(values == _FILE_UNKNOWN, UNKNOWN, values).astype(np.int8)
    return dict(zip((frames - _FIRST_AU_FRAME).tolist(), table, strict=True))
