"""Scores of groups of people or scans: for each column of a cache's groups, each of its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.cache import Cache
from shared.errors import FacetError
from shared.groups import Groups, part_columns
from shared.labels import plain_word
from shared.runs import Prediction
from train.data.items import Item
from train.protocols.folds import list_some
from train.reporting.scores import score_columns
from train.reporting.table import COUNT, TEXT, Column, Table
from train.tasks.task import Metrics, Task, read_count

NOT_KNOWN, SEVERAL = "(not given)", "(several)"  # the second of a sequence whose frames differ
OWN_COLUMNS = ("subject", "task", "intensity", "label")  # of samples.csv, which --where takes, too


@dataclass(frozen=True)
class GroupScore:
    """One value of one column. num_subjects: of the fold, or of all folds together."""

    column: str
    value: str
    num_subjects: int
    metrics: Metrics

    def to_json(self) -> dict[str, Any]:
        """Return what metrics.json holds: counts alone."""
        counts = {name: table.tolist() for name, table in self.metrics.counts.items()}
        return {"num_subjects": self.num_subjects, "num_samples": self.metrics.num_samples, **counts}


def report_columns(cache: Cache) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Return the columns that scores are reported by, a value a row of the cache; notes on those that are not."""
    columns = part_columns(cache.groups, [row for row, sample in enumerate(cache.samples) if sample.valid])
    left_out = [name for name, values in cache.groups.items() if name not in columns and any(values)]
    return columns, [
        f"scores are not reported by {name}: it has many values, and they are no numbers" for name in left_out
    ]


def value_of(item: Item, values: Sequence[str]) -> str:
    """Return an item's value of a column."""
    found = {values[row] for row in item.rows}
    return SEVERAL if len(found) > 1 else next(iter(found)) or NOT_KNOWN


def score_groups(
    cache: Cache, items: Sequence[Item], predictions: Sequence[Prediction], task: Task, classes: Sequence[str]
) -> list[GroupScore]:
    """Score each value of each column; every item, with its prediction, counts in every column."""
    groups = []
    for column, values in report_columns(cache)[0].items():
        members: dict[str, list[Prediction]] = {}
        for item, prediction in zip(items, predictions, strict=True):
            members.setdefault(value_of(item, values), []).append(prediction)
        for value, own in sorted(members.items()):
            metrics = task.compute_metrics(len(own), task.count(own, classes))
            groups.append(GroupScore(column, value, len({one.subject for one in own}), metrics))
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
            groups.append(GroupScore(column, name, num, task.read_metrics(entry, num_classes)))
    return tuple(groups)


def pool_groups(rounds: Sequence[Sequence[GroupScore]], task: Task) -> tuple[GroupScore, ...]:
    """Pool the groups of all folds, sorted by column and value, those not given last.

    Args:
        rounds: groups of all folds of each round. A subject is tested once a round; num_subjects is that of the fullest one.
    """
    found: dict[tuple[str, str], list[list[GroupScore]]] = {}
    for index, groups in enumerate(rounds):
        for one in groups:
            found.setdefault((one.column, one.value), [[] for _ in rounds])[index].append(one)
    pooled = []
    for (column, value), parts in sorted(found.items(), key=lambda pair: _sort_key(*pair[0])):
        num_subjects = max(sum(one.num_subjects for one in part) for part in parts)
        metrics = task.pool([one.metrics for part in parts for one in part])
        pooled.append(GroupScore(column, value, num_subjects, metrics))
    return tuple(pooled)


def _sort_key(column: str, value: str) -> tuple[str, bool, float, str]:
    try:
        number = float(value.split(" to ")[0])
    except ValueError:
        number = float("inf")
    return column, value in (NOT_KNOWN, SEVERAL), number, value


def list_groups(groups: Sequence[GroupScore], task: Task) -> Table:
    """Return the table of groups, a row a value of a column."""
    columns = [
        Column(lambda one: f"{one.column} = {one.value}", TEXT, title="group"),
        Column(lambda one: one.column, TEXT, key="column"),
        Column(lambda one: one.value, TEXT, key="value"),
        Column(lambda one: one.metrics.num_samples, COUNT, key="num_samples", title="samples"),
        Column(lambda one: one.num_subjects, COUNT, key="num_subjects", title="subjects"),
        *score_columns(task.scores, lambda one: one.metrics),
    ]
    return Table(columns, groups)


# --- choosing items by a group ---


def keep_where(cache: Cache, items: Sequence[Item], where: Sequence[str]) -> list[Item]:
    """Return the items that meet every condition.

    Args:
        where: conditions such as "sex=F" or "site=A|B" (A or B), on a column of the cache's groups, or on subject, task,
            intensity or label; in any case.
    Raises:
        FacetError: no such condition, column or value.
    """
    kept = list(items)
    for condition in where:
        name, _, wanted = condition.partition("=")
        column, values = _find_column(cache, name.strip())
        choices = {plain_word(value): value for value in values if value}
        unknown = [value for value in wanted.split("|") if plain_word(value) not in choices]
        if unknown:
            there = list_some(sorted(choices.values())) or "none"
            raise FacetError(
                f"--where {condition}: no scan of {cache.path} has {column} {unknown[0]!r} (found: {there})"
            )
        plain = {plain_word(value) for value in wanted.split("|")}
        kept = [item for item in kept if all(plain_word(values[row]) in plain for row in item.rows)]
    if where and not kept:
        raise FacetError(f"--where {','.join(where)}: no usable sample of {cache.path} is left")
    return kept


def _find_column(cache: Cache, name: str) -> tuple[str, Sequence[str]]:
    columns: Groups = {**dict.fromkeys(OWN_COLUMNS, ()), **cache.groups}
    for column in columns:
        if column.casefold() == name.casefold():
            return column, cache.groups.get(column) or [getattr(sample, column) for sample in cache.samples]
    raise FacetError(f"--where {name}=…: {cache.path} has no column {name!r}; it has {', '.join(columns)}")
