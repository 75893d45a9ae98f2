"""A table of labels in an .xlsx file, read as text. The file is a ZIP archive of XML: sizes are checked before anything is
unpacked, entities are refused, formulas are not calculated (their last result stands in the file)."""

from __future__ import annotations

import datetime
import functools
import io
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from preprocess.readers.file_bytes import read_bytes
from shared.errors import FacetError, ScanError

_MAX_BYTES = 1 << 25
_MAX_UNPACKED_BYTES = 1 << 27
_MAX_MEMBERS = 2000
_MAX_ROWS, _MAX_COLUMNS = 100_000, 256
_HEADER_ROWS = 20  # the header stands in one of the first rows: some sheets begin with a title
_CHUNK_BYTES = 1 << 16
_ENTITIES = re.compile(rb"<!(DOCTYPE|ENTITY)", re.IGNORECASE)
_SAVE = "open it in a spreadsheet program and save it as .xlsx again"


Result = TypeVar("Result")


@dataclass(frozen=True)
class SheetRow:
    """One row: its number in the sheet, counted from 1, and its fields as text, blanks trimmed, one per column asked for."""

    line: int
    fields: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.fields[column]


def read_label_sheet(path: Path, columns: tuple[str, ...]) -> list[SheetRow] | None:
    """Read the rows under the header, from the first worksheet that has all columns; None if none has.

    Args:
        columns: names to look for; case, blanks and punctuation do not count; further columns are left out.
    Returns:
        Rows that hold anything in these columns. Whole numbers are written without a point: 12, not 12.0.
    Raises:
        FacetError: missing, not an .xlsx file, too large when unpacked, or a column twice.
    """
    return _read_sheets(path, lambda data: _find_table(data, columns))


def read_first_sheet(path: Path) -> list[tuple[int, list[str]]]:
    """Read (line, fields) of each row of the first worksheet, as text; as `read_label_sheet` writes it.

    Raises:
        FacetError: missing, not an .xlsx file, or too large when unpacked.
    """
    return _read_sheets(path, _read_first)


def _read_sheets(path: Path, read: Callable[[bytes], Result]) -> Result:
    try:
        data = read_bytes(path, max_bytes=_MAX_BYTES, packed=True)
    except ScanError as error:
        raise FacetError(str(error)) from error
    try:
        return read(_repack(data))
    except FacetError as error:
        raise FacetError(f"{path}: {error}") from error
    except MemoryError as error:
        raise FacetError(f"{path}: needs more memory than there is; {_SAVE}") from error
    except Exception as error:  # zipfile, zlib and openpyxl raise KeyError, ValueError, BadZipFile, ParseError …
        raise FacetError(f"{path}: not a readable .xlsx file ({type(error).__name__}); {_SAVE}") from error


def _repack(data: bytes) -> bytes:
    """Return the archive's XML parts, unpacked: an archive in which every size is true.

    zipfile unpacks whatever a part holds, up to 2 GB at a time, in spite of its directory; asked for some bytes, it unpacks
    no more. XML that defines entities, which can grow without end, is refused.
    """
    repacked = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(repacked, "w") as parts:
        members = archive.infolist()
        unpacked = sum(member.file_size for member in members)
        if len(members) > _MAX_MEMBERS or unpacked > _MAX_UNPACKED_BYTES:
            raise FacetError(
                f"{len(members)} parts of {unpacked / 1e6:.0f} MB unpacked, expected a table of at most "
                f"{_MAX_UNPACKED_BYTES / 1e6:.0f} MB; is this the label sheet?"
            )
        for member in {member.filename: member for member in members}.values():  # of two, the last counts
            if member.filename.lower().endswith((".xml", ".rels", ".vml")):
                with archive.open(member) as part:
                    text = b"".join(iter(functools.partial(part.read, _CHUNK_BYTES), b""))
                if _ENTITIES.search(text.replace(b"\0", b"")):  # UTF-16 has every second byte 0
                    raise FacetError(f"{member.filename[:60]!r} defines entities; {_SAVE}")
                parts.writestr(member.filename, text)
    return repacked.getvalue()


def _find_table(data: bytes, columns: tuple[str, ...]) -> list[SheetRow] | None:
    found = (_read_rows(rows, columns) for rows in _open_sheets(data))
    return next((rows for rows in found if rows is not None), None)


def _read_first(data: bytes) -> list[tuple[int, list[str]]]:
    rows = [(line, [_text(value) for value in row]) for line, row in enumerate(next(_open_sheets(data), ()), start=1)]
    width = max((k + 1 for _, row in rows for k, text in enumerate(row) if text), default=0)
    return [(line, (row + [""] * width)[:width]) for line, row in rows]


def _open_sheets(data: bytes) -> Iterator[Iterable[Iterable[object]]]:
    """Yield the rows of each worksheet."""
    import openpyxl

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # openpyxl's notes on styles and validation that it does not read
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
        for sheet in book.worksheets:
            if hasattr(sheet, "reset_dimensions"):  # else a chart
                sheet.reset_dimensions()  # the size that the sheet declares is often wrong
                yield sheet.iter_rows(max_row=_MAX_ROWS, max_col=_MAX_COLUMNS, values_only=True)


def _read_rows(rows: Iterable[Iterable[object]], columns: tuple[str, ...]) -> list[SheetRow] | None:
    index: dict[str, int] = {}
    result: list[SheetRow] = []
    for line, row in enumerate(rows, start=1):
        cells = [_text(value) for value in row]
        if index:
            fields = {column: cells[k] if k < len(cells) else "" for column, k in index.items()}
            if any(fields.values()):
                result.append(SheetRow(line, fields))
            continue
        if line > _HEADER_ROWS:
            return None
        keys = [_key(cell) for cell in cells]
        if all(_key(column) in keys for column in columns):
            if twice := [column for column in columns if keys.count(_key(column)) > 1]:
                raise FacetError(f"the column {twice[0]} stands twice; remove one")
            index = {column: keys.index(_key(column)) for column in columns}
    return result if index else None


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        value = value.date()
    return " ".join(str(value).split())
