"""groups.csv: what is known of each row beside its label: sex and race in some data sets, the user's own columns.

Layout: UTF-8, a header `sample_id,<column>,…` and a line a row of samples.csv, in its order; an empty field is not known.
There only where some column is; cache.json's file_hashes then vouches for it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from shared.errors import CacheError, first_line
from shared.store.paths import read_bytes

GROUPS_CSV = "groups.csv"
MOST_VALUES = 12  # of a column that is shown value by value
NUM_RANGES = 4  # that the numbers of a longer column are parted into
Groups = Mapping[str, tuple[str, ...]]  # column → its value in each row of the cache, "" where it is not known


def gather_groups(rows: Sequence[Iterable[tuple[str, str]]]) -> dict[str, tuple[str, ...]]:
    """Columns of the (column, value) pairs of each row, in the order in which columns first occur."""
    known = [dict(row) for row in rows]
    return {name: tuple(row.get(name, "") for row in known) for name in dict.fromkeys(n for row in known for n in row)}


def encode_groups(sample_ids: Sequence[str], groups: Groups) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["sample_id", *groups])
    writer.writerows(zip(sample_ids, *groups.values(), strict=True))
    return buffer.getvalue().encode()


def read_groups(path: Path, sample_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The inverse of `encode_groups`.

    Raises:
        CacheError: missing, not such a table, or of other rows.
    """
    try:
        rows = list(csv.reader(io.StringIO(read_bytes(path).decode(), newline=""), strict=True))
    except FileNotFoundError as error:
        raise CacheError(f"{path}: missing; run `python -m preprocess build` again") from error
    except (ValueError, csv.Error) as error:
        raise CacheError(f"{path}: cannot be read ({first_line(error)}); run build again") from error
    header = rows[0] if rows else []
    if header[:1] != ["sample_id"] or len(set(header)) != len(header) or any(len(row) != len(header) for row in rows):
        raise CacheError(f"{path}: expected sample_id and a column a group, each once; run build again")
    if [row[0] for row in rows[1:]] != list(sample_ids):
        raise CacheError(f"{path}: its rows are not those of samples.csv; run build again")
    return {name: tuple(row[place] for row in rows[1:]) for place, name in enumerate(header) if place}


def part_columns(groups: Groups, rows: Sequence[int]) -> dict[str, tuple[str, ...]]:
    """The columns of few values that some of these rows have, a value a row of the cache.

    Numbers of more than MOST_VALUES values are parted into ranges that hold about as many of these rows each; longer columns
    of words, and empty ones, are left out.
    """
    columns: dict[str, tuple[str, ...]] = {}
    for name, values in groups.items():
        there = [values[row] for row in rows if values[row]]
        if 0 < len(set(there)) <= MOST_VALUES:
            columns[name] = values
        elif ranges := _part_numbers(there):
            columns[name] = tuple(ranges.get(value, "") for value in values)
    return columns


def _part_numbers(values: Sequence[str]) -> dict[str, str]:
    """Each value → its range, such as "18 to 24"; empty where some are no numbers."""
    try:
        numbers = {value: float(value.replace(",", ".")) for value in values}
    except ValueError:
        return {}
    found = np.array([numbers[value] for value in values])
    if not len(found) or not np.isfinite(found).all():
        return {}
    edges = np.unique(np.quantile(found, np.linspace(0, 1, NUM_RANGES + 1)[1:], method="inverted_cdf"))
    place = np.searchsorted(edges, found)
    names = {int(p): f"{found[place == p].min():g} to {found[place == p].max():g}" for p in np.unique(place)}
    return {value: names[int(p)] for value, p in zip(values, place, strict=True)}
