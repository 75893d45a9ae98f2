"""Read CSV files that users write, as spreadsheets save them: UTF-8 or UTF-16; comma, semicolon or tab; or .xlsx."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from preprocess.readers.label_sheet import read_first_sheet
from shared.errors import FacetError

_MAX_BYTES = 1 << 28


def read_csv_rows(path: Path, what: str) -> list[tuple[int, list[str]]]:
    """Read (line, fields) of each row: UTF-8 or UTF-16, separated by comma, semicolon or tab; or an .xlsx file's first sheet.

    Args:
        what: the file's kind, for messages: "manifest".
    Raises:
        FacetError: too large, not such a text, or no CSV.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise FacetError(f"{path}: {path.stat().st_size / 1e6:.0f} MB, too large for a {what}; is this the CSV file?")
    data = path.read_bytes()
    if data.startswith(b"PK\3\4"):
        return read_first_sheet(path)
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
        first = text.lstrip().split("\n", 1)[0].strip()
        declared = re.fullmatch(r"sep=([,;\t])", first)  # Excel's own first line
        delimiter = declared[1] if declared else max(",;\t", key=first.count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        rows = [(reader.line_num, row) for row in reader]
        return [row for row in rows if "".join(row[1]).strip() != "sep="] if declared else rows
    except UnicodeDecodeError as error:
        raise FacetError(f"{path}: not UTF-8 text (byte {error.start}); save the {what} as CSV in UTF-8") from error
    except csv.Error as error:
        raise FacetError(f"{path}: not a CSV file ({error}); save the {what} as CSV in UTF-8") from error
