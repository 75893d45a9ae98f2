"""A scan's file as bytes, and the numbers in its text."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from shared.errors import ScanError, describe_os_error

MAX_SCAN_BYTES = 1 << 30  # far above any face scan (a dense one has 100 MB); keeps a stray film from filling the memory


def read_bytes(path: Path, *, max_bytes: int = MAX_SCAN_BYTES) -> bytes:
    """A whole file.

    Raises:
        ScanError: missing, empty, no regular file, too large, or the system refuses.
    """
    try:
        if not path.is_file():
            kind = "is not a file" if path.exists() else "no such file; copy it there or take it from the list"
            raise ScanError(f"{path}: {kind}")
        size = path.stat().st_size
        if size > max_bytes:
            raise ScanError(f"{path}: {size / 1e6:.0f} MB, expected at most {max_bytes / 1e6:.0f} MB; is this a scan?")
        data = path.read_bytes()
    except OSError as error:
        raise ScanError(describe_os_error(error)) from error
    if not data.strip(b"\0 \t\r\n"):
        raise ScanError(f"{path}: the file is empty; copy it again")
    return data


def parse_numbers(text: bytes, dtype: type[np.float64] | type[np.int64]) -> np.ndarray:
    """Numbers separated by white space, as a flat array. np.fromstring reads 735,000 of them in 20 ms.

    Raises:
        ValueError: something in the text is no such number; names it.
    """
    text = text.strip()
    if not text:  # np.fromstring would read one number out of nothing
        return np.empty(0, dtype)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # NumPy before 2.3 warns and stops where later ones raise
            numbers: np.ndarray = np.fromstring(text, dtype, sep=" ")
    except (ValueError, DeprecationWarning):
        raise ValueError(f"expected numbers, found {_first_bad_token(text, dtype)!r}") from None
    return numbers


def _first_bad_token(text: bytes, dtype: type) -> str:
    kind = int if dtype is np.int64 else float
    for token in text.split():
        try:
            kind(token)
        except ValueError:
            return token[:40].decode("latin-1")
    return text[:40].decode("latin-1")


def to_float32(array: np.ndarray) -> np.ndarray:
    """float32, where what is too large becomes infinite without a warning (Mesh then refuses it)."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(array, np.float32)
