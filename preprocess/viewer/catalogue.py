"""The rows of a cache as columns of codes: a filter over 100,000 rows is a comparison of integers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from preprocess.viewer.address import FILTERS, NONE, Address
from shared.cache import Cache
from shared.groups import part_columns


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
class SetColumn:
    """A field that has any number of values in a row: values in the order they are offered in, members the rows of each,
    ascending."""

    values: tuple[str, ...]
    members: tuple[np.ndarray, ...]
    num_rows: int

    def matches(self, value: str) -> np.ndarray:
        """As `Column.matches`; NONE stands for the rows without any value."""
        result = np.full(self.num_rows, value == NONE)
        for name, rows in zip(self.values, self.members, strict=True):
            if value in (name, NONE):
                result[rows] = name == value
        return result

    def rows(self, value: str) -> np.ndarray:
        return np.flatnonzero(self.matches(value))

    def options(self) -> list[str]:
        return [*self.values, NONE] if self.values else []


TRUE_POSITIVE, FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_NEGATIVE = "TP", "FN", "FP", "TN"
DECISIONS = (TRUE_POSITIVE, FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_NEGATIVE)


@dataclass(frozen=True)
class Prediction:
    """What a run says of a row: a class name and how probable it takes it to be, 0…1.

    Where several classes may hold at once, class_name names all that are said, and decisions tells of each class whose truth is
    known how it was said: (class, one of DECISIONS).
    """

    class_name: str
    probability: float
    class_names: tuple[str, ...] = ()  # of the run
    probabilities: tuple[float, ...] = ()  # of each
    several: bool = False
    decisions: tuple[tuple[str, str], ...] = ()
    label: str = ""  # the true class as the run knows it, empty where it is not known
    of_sequence: bool = False  # one prediction for all frames of a sequence

    def summary(self) -> str:
        """What is said, in a few words."""
        if not self.several:
            return self.class_name
        decisions = [decision for _, decision in self.decisions]
        told = [f"{num} {kind}" for kind in (FALSE_NEGATIVE, FALSE_POSITIVE) if (num := decisions.count(kind))]
        return ", ".join(told) or ("all right" if decisions else "not known")

    def num_wrong(self, label: str) -> int:
        """How many decisions are wrong about a row with this label, empty where it is not known."""
        if self.several:
            return sum(decision in (FALSE_NEGATIVE, FALSE_POSITIVE) for _, decision in self.decisions)
        return int(bool(label) and self.class_name != label)


@dataclass(frozen=True)
class Catalogue:
    """A cache's rows, ready to be filtered."""

    cache: Cache
    columns: dict[str, Column | SetColumn]
    predictions: Mapping[int, Prediction] = field(default_factory=dict)  # by row; empty without a run
    tested: tuple[Prediction, ...] = ()  # each once, as the run's own scores count them

    def find_rows(self, address: Address) -> np.ndarray:
        """The rows that pass every filter of an address, ascending, i64 (n,)."""
        keep = np.ones(len(self.cache.samples), bool)
        for name in FILTERS:
            value = getattr(address, name)
            if value:
                keep &= self.columns[name].matches(value)
        return np.flatnonzero(keep)


def build_catalogue(
    cache: Cache, predictions: Mapping[int, Prediction] | None = None, tested: Sequence[Prediction] | None = None
) -> Catalogue:
    """Reads nothing but the tables, which are in memory already.

    Args:
        tested: the predictions that count; None: those of the rows, one of a sequence once.
    """
    samples, said = cache.samples, predictions or {}
    fields = {
        "subject": (s.subject for s in samples),
        "label": (s.label for s in samples),
        "intensity": (s.intensity for s in samples),
        "sequence": (s.sequence for s in samples),
        "validity": ("valid" if s.valid else "invalid" for s in samples),
        "predicted": (said[row].class_name if row in said else "" for row in range(len(samples))),
    }
    columns: dict[str, Column | SetColumn] = {name: _column(values) for name, values in fields.items()}
    if any(prediction.several for prediction in said.values()):
        columns["predicted"] = _decisions(said, len(samples))
    columns["group"] = _groups(cache)
    if tested is None:
        tested = list({id(prediction): prediction for prediction in said.values()}.values())
    return Catalogue(cache, columns, said, tuple(tested))


def _groups(cache: Cache) -> SetColumn:
    """Values like `sex F`, and `age 18 to 24` where a column has many numbers."""
    members: dict[str, list[int]] = {}
    for name, values in part_columns(
        cache.groups, [row for row, sample in enumerate(cache.samples) if sample.valid]
    ).items():
        for value, row in sorted((value, row) for row, value in enumerate(values) if value):
            members.setdefault(f"{name} {value}", []).append(row)
    return SetColumn(tuple(members), tuple(np.array(rows) for rows in members.values()), len(cache.samples))


def _decisions(said: Mapping[int, Prediction], num_rows: int) -> SetColumn:
    """Values like `AU4 FN`; true negatives are no value: nobody looks for them."""
    members: dict[str, list[int]] = {}
    for row in sorted(said):
        for name, decision in said[row].decisions:
            if decision != TRUE_NEGATIVE:
                members.setdefault(f"{name} {decision}", []).append(row)
    classes = next(iter(said.values())).class_names
    names = [name for one in classes for decision in DECISIONS if (name := f"{one} {decision}") in members]
    return SetColumn(tuple(names), tuple(np.array(members[name]) for name in names), num_rows)


def _column(values: Iterable[str]) -> Column:
    order: dict[str, int] = {}
    raw = np.fromiter((order.setdefault(value, len(order)) for value in values), np.int32)
    names = sorted(order)
    rank = np.zeros(max(len(order), 1), np.int32)
    rank[[order[name] for name in names]] = np.arange(len(names))
    return Column(tuple(names), rank[raw])
