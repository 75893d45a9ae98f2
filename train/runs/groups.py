"""Scores of groups of people or scans: for each column of a cache's groups, each of its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.cache import Cache
from shared.pairs import group_pairs
from shared.runs import Prediction
from train.protocols.where import NOT_KNOWN, SEVERAL, report_columns, value_of
from train.tasks.item import Item
from train.tasks.task import Metrics, Task, read_count


@dataclass(frozen=True)
class GroupScore:
    """One value of one column. num_subjects: of the fold, or of all folds together; subjects: their names, of one fold."""

    column: str
    value: str
    num_subjects: int
    metrics: Metrics
    subjects: frozenset[str] = frozenset()  # empty also in a metrics.json of an earlier version

    def to_json(self) -> dict[str, Any]:
        """Return what metrics.json holds: counts and names alone."""
        counts = {name: table.tolist() for name, table in self.metrics.counts.items()}
        names = {"subjects": sorted(self.subjects)} if self.subjects else {}
        return {"num_subjects": self.num_subjects, "num_samples": self.metrics.num_samples, **names, **counts}


def score_groups(
    cache: Cache, items: Sequence[Item], predictions: Sequence[Prediction], task: Task, classes: Sequence[str]
) -> list[GroupScore]:
    """Score each value of each column; every item, with its prediction, counts in every column."""
    groups = []
    for column, values in report_columns(cache)[0].items():
        pairs = zip(items, predictions, strict=True)
        members = group_pairs((value_of(item, values), prediction) for item, prediction in pairs)
        for value, own in sorted(members.items()):
            metrics = task.compute_metrics(len(own), task.count(own, classes))
            subjects = frozenset(one.subject for one in own)
            groups.append(GroupScore(column, value, len(subjects), metrics, subjects))
    return groups


def write_groups(groups: Sequence[GroupScore]) -> dict[str, dict[str, Any]]:
    """Return column → value → counts, as metrics.json holds them."""
    found: dict[str, dict[str, Any]] = {}
    for one in groups:
        found.setdefault(one.column, {})[one.value] = one.to_json()
    return found


def read_groups(value: Mapping[str, Mapping[str, Any]], task: Task, num_classes: int) -> tuple[GroupScore, ...]:
    """Return the inverse of `write_groups`.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it holds no such counts.
    """
    groups = []
    for column, values in value.items():
        for name, entry in values.items():
            if not (column.isprintable() and name.isprintable()):
                raise ValueError("groups holds a name that cannot be printed")
            num = int(read_count(entry, "num_subjects", ()))
            subjects = frozenset(map(str, entry.get("subjects", ())))
            groups.append(GroupScore(column, name, num, task.read_metrics(entry, num_classes), subjects))
    return tuple(groups)


def pool_groups(rounds: Sequence[Sequence[GroupScore]], task: Task) -> tuple[GroupScore, ...]:
    """Pool the groups of all folds, sorted by column and value, those not given last.

    Args:
        rounds: groups of all folds of each round; num_subjects is that of the fullest one. A subject is tested once a
            round, but for folds that test other classes.
    """
    found: dict[tuple[str, str], list[list[GroupScore]]] = {}
    for index, groups in enumerate(rounds):
        for one in groups:
            found.setdefault((one.column, one.value), [[] for _ in rounds])[index].append(one)
    pooled = []
    for (column, value), parts in sorted(found.items(), key=lambda pair: _sort_key(*pair[0])):
        num_subjects = max(_count_subjects(part) for part in parts)
        metrics = task.pool([one.metrics for part in parts for one in part])
        pooled.append(GroupScore(column, value, num_subjects, metrics))
    return tuple(pooled)


def _count_subjects(groups: Sequence[GroupScore]) -> int:
    names = frozenset[str]().union(*(one.subjects for one in groups))
    return len(names) + sum(one.num_subjects for one in groups if not one.subjects)


def _sort_key(column: str, value: str) -> tuple[str, bool, float, str]:
    try:
        number = float(value.split(" to ")[0])
    except ValueError:
        number = float("inf")
    return column, value in (NOT_KNOWN, SEVERAL), number, value
