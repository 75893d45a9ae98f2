"""Filters over the rows of a cache, from its tables alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from preprocess.viewer.address import FILTERS, NONE, Address
from preprocess.viewer.labels import Labels
from preprocess.viewer.run_records import DECISIONS, TRUE_NEGATIVE, WRONG, RunRecords
from preprocess.viewer.tags import Tags
from shared.cache import Cache
from shared.groups import part_columns
from shared.pairs import group_pairs


@dataclass(frozen=True)
class Column:
    """Values that a filter offers, in their order; each with its rows, ascending. A row has any number of values."""

    members: dict[str, np.ndarray]
    num_rows: int

    def rows(self, value: str) -> np.ndarray:
        """Return the rows with a value, i64 (n,); for NONE, the rows without any."""
        if value != NONE:
            return self.members.get(value, np.empty(0, int))
        without = np.ones(self.num_rows, bool)
        for rows in self.members.values():
            without[rows] = False
        return np.flatnonzero(without)

    def options(self) -> list[str]:
        return [*self.members, NONE] if self.members and len(self.rows(NONE)) else [*self.members]


class Filter(Protocol):
    """What the wall is filtered by: a column, or action units and tags, which are read when they are asked for."""

    def rows(self, value: str) -> np.ndarray: ...

    def options(self) -> list[str]: ...


@dataclass(frozen=True)
class Catalogue:
    """The filters of a cache, by name (FILTERS)."""

    filters: dict[str, Filter]
    num_rows: int
    run: RunRecords

    def find_rows(self, address: Address) -> np.ndarray:
        """Return the rows that pass every filter of an address, i64 (n,): ascending, or sorted as the address says."""
        count = np.zeros(self.num_rows, int)
        chosen = [(name, value) for name in FILTERS if (value := getattr(address, name))]
        for name, value in chosen:
            count[self.filters[name].rows(value)] += 1
        rows = np.flatnonzero(count == len(chosen))
        return self._sort(rows, address) if address.sort else rows

    def _sort(self, rows: np.ndarray, address: Address) -> np.ndarray:
        """Sort rows by their predictions; rows without one come last.

        The confidence is that of the class of the filter `predicted`, if there is one.
        """
        predictions, name = self.run.predictions, address.predicted.rpartition(" ")[0]

        def key(row: int) -> tuple[bool, float]:
            if row not in predictions:
                return True, 0.0
            if address.sort == "errors":
                return False, -self.run.count_errors(predictions[row])
            confidence = self.run.confidence(predictions[row], name)
            return False, -confidence if address.sort == "high" else confidence

        return np.array(sorted(rows.tolist(), key=key), int)


def build_catalogue(cache: Cache, run: RunRecords, labels: Labels, tags: Tags) -> Catalogue:
    """Build every filter; reads no file."""
    samples, num_rows = cache.samples, len(cache.samples)

    def column(values: Iterable[tuple[int, str]], order: Iterable[str] | None = None) -> Column:
        members = group_pairs((value, row) for row, value in values if value)
        names = sorted(members) if order is None else [name for name in order if name in members]
        return Column({name: np.array(members[name]) for name in names}, num_rows)

    columns = {
        name: column(enumerate(getattr(sample, name) for sample in samples))
        for name in ("subject", "label", "intensity", "sequence", "task")
    }
    columns["validity"] = column(enumerate("valid" if sample.valid else "invalid" for sample in samples))
    predictions = sorted(run.predictions.items())
    if run.several:  # values such as `AU4 FN`; nobody searches for true negatives
        order = [f"{name} {decision}" for name in run.class_names for decision in DECISIONS]
        decided = [(row, f"{name} {d}") for row, one in predictions for name, d in run.decide(one).items()]
        columns["predicted"] = column(decided, [name for name in order if not name.endswith(TRUE_NEGATIVE)])
    else:
        columns["predicted"] = column((row, one.predicted[0]) for row, one in predictions)
    # values such as `right` and `wrong`; for several labels also `2 wrong`
    errors = [(row, {run.describe_error(one), *[WRONG] * (run.count_errors(one) > 0)}) for row, one in predictions]
    columns["error"] = column((row, word) for row, words in errors for word in words)
    # values such as `sex F`, or `age 18 to 24` where a column has many numbers
    parts = part_columns(cache.groups, [row for row, sample in enumerate(samples) if sample.valid])
    grouped = [(row, f"{name} {v}" if v else "") for name, values in parts.items() for row, v in enumerate(values)]
    order = [f"{name} {value}" for name, values in parts.items() for value in sorted(set(values))]
    columns["group"] = column(grouped, order)
    return Catalogue({**columns, "au": labels, "tag": tags}, num_rows, run)
