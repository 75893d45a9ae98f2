"""Tables as CSV, a dataclass a row: samples.csv, sequences.csv, failures.csv."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from shared.errors import CacheError, first_line, shorten
from shared.store.paths import read_bytes

Row = TypeVar("Row")


def encode_table(row_type: type, rows: Iterable[Any]) -> bytes:
    """Dataclass rows as CSV: a header, empty fields for None, 1 and 0 for booleans."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = [f.name for f in dataclasses.fields(row_type)]
    writer.writerow(names)
    for row in rows:
        values = (getattr(row, name) for name in names)
        writer.writerow(["" if v is None else int(v) if isinstance(v, bool) else v for v in values])
    return buffer.getvalue().encode()


def read_table(path: Path, row_type: type[Row]) -> list[Row]:
    """The inverse of `encode_table`. The last columns may be missing, as in older tables, where their fields have defaults.

    Raises:
        CacheError: the file is missing, its columns are not the schema's, or a field cannot be read.
    """
    fields = dataclasses.fields(row_type)  # type: ignore[arg-type]
    names = [f.name for f in fields]
    parsers = [_PARSERS[str(f.type)] for f in fields]
    rows: list[Row] = []
    try:
        reader = csv.reader(io.StringIO(read_bytes(path).decode(), newline=""))
        header = next(reader, [])
        num_needed = sum(f.default is dataclasses.MISSING for f in fields)
        if header != names[: max(len(header), num_needed)]:
            raise CacheError(f"{path}: expected columns {','.join(names)}, found {shorten(', '.join(header), 200)!r}")
        for values in reader:
            if len(values) != len(header):
                raise ValueError(f"{len(values)} fields, expected {len(header)}")
            rows.append(row_type(*(parse(value) for parse, value in zip(parsers, values, strict=False))))
    except FileNotFoundError as error:
        raise CacheError(f"{path}: missing; run `python -m preprocess build` again") from error
    except (ValueError, csv.Error) as error:
        raise CacheError(
            f"{path}: row {len(rows) + 2} cannot be read ({first_line(error)}); run build again"
        ) from error
    return rows


_PARSERS: dict[str, Any] = {
    "str": str,
    "int": int,
    "bool": lambda text: {"1": True, "0": False}[text] if text in ("0", "1") else _refuse(text),
    "int | None": lambda text: int(text) if text else None,
    "float | None": lambda text: float(text) if text else None,
}


def _refuse(text: str) -> bool:
    raise ValueError(f"expected 0 or 1, found {text!r}")
