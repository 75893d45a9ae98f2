"""The text of a label or landmark file, as data sets ship it or as a spreadsheet program saved it again."""

from __future__ import annotations

import codecs
from pathlib import Path

from preprocess.readers.file_bytes import read_bytes

_UTF16 = ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_SAMPLE = 400


def read_label_text(path: Path, *, max_bytes: int) -> bytes:
    """The text in UTF-8 (or whatever one-byte encoding it is in), without a byte order mark; UTF-16 is recoded.

    Raises:
        ScanError: as file_bytes.read_bytes: missing, empty, too large.
    """
    data = read_bytes(path, max_bytes=max_bytes)
    encoding = next((name for mark, name in _UTF16 if data.startswith(mark)), "") or _guess_utf16(data)
    if encoding:
        data = data.decode(encoding, "replace").lstrip("\ufeff").encode("utf-8", "replace")
    return data.removeprefix(codecs.BOM_UTF8)


def is_blank(path: Path) -> bool:
    """Whether a file is there and holds nothing: some data sets mark so what could not be tracked."""
    try:
        if not path.is_file() or path.stat().st_size > _SAMPLE:
            return False
        return not path.read_bytes().strip(b"\0 \t\r\n")
    except OSError:
        return False


def _guess_utf16(data: bytes) -> str:
    """UTF-16 without its mark: in text of digits and Latin letters every other byte is 0."""
    start = data[:_SAMPLE]
    if len(start) < 4:
        return ""
    for offset, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        if not start[offset::2].strip(b"\0") and b"\0" not in start[1 - offset :: 2]:
            return name
    return ""
