"""Scores of groups of people or scans: for each column of a cache's groups, each of its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.cache import Cache
from shared.errors import FacetError
from shared.groups import Groups, part_columns
from shared.labels import plain_word
from train.data.items import Item
from train.protocols.folds import list_some
from train.tasks.metrics import Metrics, confusion_matrix, pool_confusions
from train.tasks.multilabel import MultiLabelMetrics, compute_multilabel_metrics, pool_counts

NOT_KNOWN, SEVERAL = "(not given)", "(several)"  # the second of a sequence whose frames differ
OWN_COLUMNS = ("subject", "task", "intensity", "label")  # of samples.csv, that --where takes, too
COUNTS = ("true_positives", "false_positives", "false_negatives", "true_negatives")


@dataclass(frozen=True)
class GroupScore:
    """One value of one column. num_subjects: of the fold, or of all folds together."""

    column: str
    value: str
    num_subjects: int
    metrics: Metrics | MultiLabelMetrics


def report_columns(cache: Cache) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """The columns that scores are reported by, a value a row of the cache; notes on those that are not."""
    columns = part_columns(cache.groups, [row for row, sample in enumerate(cache.samples) if sample.valid])
    left_out = [name for name, values in cache.groups.items() if name not in columns and any(values)]
    return columns, [
        f"scores are not reported by {name}: it has many values, and they are no numbers" for name in left_out
    ]


def value_of(item: Item, values: Sequence[str]) -> str:
    """An item's value of a column."""
    found = {values[row] for row in item.rows}
    return SEVERAL if len(found) > 1 else next(iter(found)) or NOT_KNOWN


def score_groups(
    cache: Cache, items: Sequence[Item], labels: np.ndarray, probabilities: np.ndarray, thresholds: np.ndarray | None
) -> dict[str, dict[str, dict[str, Any]]]:
    """Column → value → num_subjects and counts, as metrics.json holds them; every item counts in every column.

    Args:
        labels, probabilities, thresholds: as compute_metrics and compute_multilabel_metrics take them.
    """
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for column, values in report_columns(cache)[0].items():
        shown = np.array([value_of(item, values) for item in items])
        result[column] = {}
        for value in sorted(set(shown.tolist())):
            mine = shown == value
            subjects = {item.subject for item, is_mine in zip(items, mine, strict=True) if is_mine}
            entry: dict[str, Any] = {"num_subjects": len(subjects)}
            if thresholds is None:
                num_classes = probabilities.shape[1]
                entry["confusion"] = confusion_matrix(labels[mine], probabilities[mine].argmax(1), num_classes).tolist()
            else:
                counts = compute_multilabel_metrics(labels[mine], probabilities[mine], thresholds)
                entry |= {name: list(getattr(counts, name)) for name in COUNTS}
                entry["num_samples"] = int(mine.sum())
            result[column][value] = entry
    return result


def pool_groups(rounds: Sequence[Sequence[Mapping[str, Any]]]) -> list[GroupScore]:
    """The groups of the folds of each round, taken together; by column and value, those not given last.

    Args:
        rounds: metrics.json of each fold. A subject is tested once a round; num_subjects is that of the fullest round.
    """
    found: dict[tuple[str, str], list[list[dict[str, Any]]]] = {}
    for index, folds in enumerate(rounds):
        for metrics in folds:
            for column, values in metrics.get("groups", {}).items():
                for value, entry in values.items():
                    found.setdefault((column, value), [[] for _ in rounds])[index].append(entry)
    order = sorted(found, key=lambda key: (key[0], key[1] in (NOT_KNOWN, SEVERAL), _sort_key(key[1])))
    scores = []
    for column, value in order:
        entries = found[column, value]
        num_subjects = max(sum(entry["num_subjects"] for entry in one) for one in entries)
        scores.append(GroupScore(column, value, num_subjects, _pool([entry for one in entries for entry in one])))
    return scores


def _sort_key(value: str) -> tuple[float, str]:
    try:
        return float(value.split(" to ")[0]), value
    except ValueError:
        return float("inf"), value


def _pool(entries: Sequence[dict[str, Any]]) -> Metrics | MultiLabelMetrics:
    if "confusion" in entries[0]:
        return pool_confusions([entry["confusion"] for entry in entries])
    return pool_counts(entries)


# --- choosing items by a group ---


def keep_where(cache: Cache, items: Sequence[Item], where: Sequence[str]) -> list[Item]:
    """The items that every condition holds for.

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
