"""Write and read the CSV tables of a cache: rows of dataclasses (samples.csv, …) and of plain values (groups.csv)."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from shared.errors import CacheError, first_line, shorten
from shared.store.paths import read_bytes

Row = TypeVar("Row")


def encode_csv(rows: Iterable[Iterable[Any]]) -> bytes:
    """Encode rows as UTF-8 CSV: None as an empty field, booleans as 1 and 0."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for row in rows:
        writer.writerow(["" if v is None else int(v) if isinstance(v, bool) else v for v in row])
    return buffer.getvalue().encode()


def read_csv(path: Path) -> list[list[str]]:
    """Read all rows, the header first.

    Raises:
        CacheError: missing, not UTF-8, or not CSV.
    """
    try:
        return list(csv.reader(io.StringIO(read_bytes(path).decode(), newline=""), strict=True))
    except FileNotFoundError as error:
        raise CacheError(f"{path}: missing; run `python -m preprocess build` again") from error
    except (ValueError, csv.Error) as error:
        raise CacheError(f"{path}: cannot be read ({first_line(error)}); run build again") from error


def encode_table(row_type: type, rows: Iterable[Any]) -> bytes:
    """Encode dataclass rows as CSV, with a header of the field names."""
    names = [f.name for f in dataclasses.fields(row_type)]
    return encode_csv([names, *([getattr(row, name) for name in names] for row in rows)])


def read_table(path: Path, row_type: type[Row]) -> list[Row]:
    """Read what `encode_table` wrote. The last columns may be missing, as in older tables, where their fields have defaults.

    Raises:
        CacheError: the file is missing, its columns are not the dataclass's, or a field cannot be read.
    """
    fields = dataclasses.fields(row_type)  # type: ignore[arg-type]
    names, parsers = [f.name for f in fields], [_PARSERS[str(f.type)] for f in fields]
    num_needed = sum(f.default is dataclasses.MISSING for f in fields)
    header, *lines = read_csv(path) or [[]]
    if header != names[: max(len(header), num_needed)]:
        raise CacheError(f"{path}: expected columns {','.join(names)}, found {shorten(', '.join(header), 200)!r}")
    rows = []
    for number, values in enumerate(lines, start=2):
        try:
            if len(values) != len(header):
                raise ValueError(f"{len(values)} fields, expected {len(header)}")
            rows.append(row_type(*(parse(value) for parse, value in zip(parsers, values, strict=False))))
        except ValueError as error:
            raise CacheError(f"{path}: row {number} cannot be read ({first_line(error)}); run build again") from error
    return rows


def _parse_bool(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(f"expected 0 or 1, found {text!r}")
    return text == "1"


_PARSERS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "bool": _parse_bool,
    "int | None": lambda text: int(text) if text else None,
    "float | None": lambda text: float(text) if text else None,
}
