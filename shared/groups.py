"""groups.csv: columns beside samples.csv, such as sex, race or the user's own; for filters and for scores by group.

Layout: UTF-8, a header `sample_id,<column>,…` and a line per row of samples.csv, in its order; an empty field is unknown.
The file exists only where there is a column; its hash is in cache.json's file_hashes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from shared.csv_tables import encode_csv, read_csv
from shared.errors import CacheError

GROUPS_CSV = "groups.csv"
MOST_VALUES = 12  # of a column that is shown value by value
NUM_RANGES = 4  # that the numbers of a longer column are divided into
Groups = Mapping[str, tuple[str, ...]]  # column → its value in each row of the cache, "" where it is unknown


def gather_groups(rows: Sequence[Iterable[tuple[str, str]]]) -> dict[str, tuple[str, ...]]:
    """Return columns from the (column, value) pairs of each row, in the order in which columns first occur."""
    known = [dict(row) for row in rows]
    return {name: tuple(row.get(name, "") for row in known) for name in dict.fromkeys(n for row in known for n in row)}


def encode_groups(sample_ids: Sequence[str], groups: Groups) -> bytes:
    """Encode groups.csv."""
    return encode_csv([["sample_id", *groups], *zip(sample_ids, *groups.values(), strict=True)])


def read_groups(path: Path, sample_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Read what `encode_groups` wrote.

    Raises:
        CacheError: missing, not such a table, or of other rows.
    """
    header, *rows = read_csv(path) or [[]]
    if header[:1] != ["sample_id"] or len(set(header)) != len(header) or any(len(row) != len(header) for row in rows):
        raise CacheError(f"{path}: expected sample_id and a column per group, each once; run build again")
    if [row[0] for row in rows] != list(sample_ids):
        raise CacheError(f"{path}: its rows are not those of samples.csv; run build again")
    return {name: tuple(row[column] for row in rows) for column, name in enumerate(header) if column}


def part_columns(groups: Groups, rows: Sequence[int]) -> dict[str, tuple[str, ...]]:
    """Return the columns in which some of these rows have few values, one value per row of the cache.

    Numbers of more than MOST_VALUES values are divided into ranges of about as many of these rows each; longer columns of
    words, and empty ones, are left out.
    """
    columns: dict[str, tuple[str, ...]] = {}
    for name, values in groups.items():
        known = [values[row] for row in rows if values[row]]
        if 0 < len(set(known)) <= MOST_VALUES:
            columns[name] = values
        elif ranges := _part_numbers(known):
            columns[name] = tuple(ranges.get(value, "") for value in values)
    return columns


def _part_numbers(values: Sequence[str]) -> dict[str, str]:
    """Return the range of each value, such as "18 to 24"; {} where some are no numbers."""
    try:
        numbers = {value: float(value.replace(",", ".")) for value in values}
    except ValueError:
        return {}
    found = np.array([numbers[value] for value in values])
    if not len(found) or not np.isfinite(found).all():
        return {}
    edges = np.unique(np.quantile(found, np.linspace(0, 1, NUM_RANGES + 1)[1:], method="inverted_cdf"))
    index = np.searchsorted(edges, found)
    names = {int(i): f"{found[index == i].min():g} to {found[index == i].max():g}" for i in np.unique(index)}
    return {value: names[int(i)] for value, i in zip(values, index, strict=True)}
