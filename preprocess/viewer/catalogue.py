"""The rows of a cache as columns of codes: a filter over 100,000 rows is a comparison of integers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from preprocess.viewer.address import FILTERS, NONE, Address
from shared.cache import Cache


@dataclass(frozen=True)
class Column:
    """One field of every row: values sorted, codes i32 (N,) into them."""

    values: tuple[str, ...]
    codes: np.ndarray

    def matches(self, value: str) -> np.ndarray:
        """bool (N,): the rows that have this value; NONE stands for the empty one."""
        wanted = "" if value == NONE else value
        code = self.values.index(wanted) if wanted in self.values else -1
        result: np.ndarray = self.codes == code
        return result

    def rows(self, value: str) -> np.ndarray:
        """The numbers of those rows, ascending."""
        return np.flatnonzero(self.matches(value))

    def options(self) -> list[str]:
        """What a filter offers: every value, NONE last where some row has none."""
        return [v for v in self.values if v] + ([NONE] if "" in self.values and len(self.values) > 1 else [])


@dataclass(frozen=True)
class Prediction:
    """What a run says of a row: a class name and how probable it takes it to be, 0…1."""

    class_name: str
    probability: float


@dataclass(frozen=True)
class Catalogue:
    """A cache's rows, ready to be filtered."""

    cache: Cache
    columns: dict[str, Column]
    predictions: Mapping[int, Prediction] = field(default_factory=dict)  # by row; empty without a run

    def find_rows(self, address: Address) -> np.ndarray:
        """The rows that pass every filter of an address, ascending, i64 (n,)."""
        keep = np.ones(len(self.cache.samples), bool)
        for name in FILTERS:
            value = getattr(address, name)
            if value:
                keep &= self.columns[name].matches(value)
        return np.flatnonzero(keep)


def build_catalogue(cache: Cache, predictions: Mapping[int, Prediction] | None = None) -> Catalogue:
    """Reads nothing but the tables, which are in memory already."""
    samples, said = cache.samples, predictions or {}
    fields = {
        "subject": (s.subject for s in samples),
        "label": (s.label for s in samples),
        "intensity": (s.intensity for s in samples),
        "sequence": (s.sequence for s in samples),
        "validity": ("valid" if s.valid else "invalid" for s in samples),
        "predicted": (said[row].class_name if row in said else "" for row in range(len(samples))),
    }
    return Catalogue(cache, {name: _column(values) for name, values in fields.items()}, said)


def _column(values: Iterable[str]) -> Column:
    order: dict[str, int] = {}
    raw = np.fromiter((order.setdefault(value, len(order)) for value in values), np.int32)
    names = sorted(order)
    rank = np.zeros(max(len(order), 1), np.int32)
    rank[[order[name] for name in names]] = np.arange(len(names))
    return Column(tuple(names), rank[raw])
