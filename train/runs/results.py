"""The result of one fold, as its metrics.json tells it: read with nothing taken on trust."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.errors import FacetError, first_line
from shared.runs import METRICS_JSON, read_timing
from train.tasks.metrics import Metrics, pool_confusions
from train.tasks.multilabel import MultiLabelMetrics, pool_multilabel

LARGEST_BYTES = 16 << 20  # a metrics.json is a few kilobytes
LARGEST_COUNT = 10**9
MULTILABEL_TASKS = ("targets", "aus")
_COUNTS = ("true_positives", "false_positives", "false_negatives", "true_negatives")


@dataclass(frozen=True)
class FoldResult:
    """One tested fold. `metrics` is what metrics.json holds: the fields of Metrics, or of MultiLabelMetrics where "task" is
    "targets" or "aus"; "class_names"; and what else was said of the run."""

    name: str  # "fold-03", "subject-S07"; "round-017/fold-03" where a protocol repeats its folds
    metrics: dict[str, Any]
    seconds: float | None = None  # that training and testing took

    @property
    def is_multilabel(self) -> bool:
        return self.metrics.get("task") in MULTILABEL_TASKS

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.metrics["class_names"])

    @property
    def round_name(self) -> str:
        """ "round-017" of "round-017/fold-03", empty for folds that are not repeated."""
        return self.name.rpartition("/")[0]


def pool_folds(results: Sequence[FoldResult]) -> Metrics | MultiLabelMetrics:
    """The scores of some folds taken as one test, all of the same kind and classes."""
    if results[0].is_multilabel:
        return pool_multilabel([_to_multilabel(result.metrics) for result in results])
    return pool_confusions([result.metrics["confusion"] for result in results])


def read_fold_result(run: Path, name: str | None = None) -> FoldResult | None:
    """What a fold's run folder holds.

    Args:
        name: the fold's name; without one, the folder's own, with its round's ("round-017/fold-03") where it lies in one.
    Returns:
        None where the fold has not been tested yet.
    Raises:
        FacetError: metrics.json is damaged, or its scores are not those of its own counts.
    """
    path = run / METRICS_JSON
    if not path.is_file():
        return None
    if name is None:
        name = f"{run.parent.name}/{run.name}" if run.parent.name.startswith("round-") else run.name
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise ValueError(f"larger than {LARGEST_BYTES >> 20} MiB")
        value = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
        if not isinstance(value, dict):
            raise ValueError("holds no object")
        result = FoldResult(name, value, read_timing(run).seconds)
        _check_result(result)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else first_line(error)
        raise FacetError(f"{path}: damaged ({reason}); delete this fold's folder and run crossval again") from error
    return result


def _check_result(result: FoldResult) -> None:
    """Refuses a file whose counts are impossible, or whose scores do not follow from its counts."""
    value = result.metrics
    names = value["class_names"]
    at_least = 1 if result.is_multilabel else 2
    if not isinstance(names, list) or len(names) < at_least or not all(isinstance(n, str) for n in names):
        raise ValueError("class_names is no list of class names")
    if len(set(names)) != len(names) or not all(n.isprintable() and n.strip() for n in names):
        raise ValueError("class_names holds a name twice, or one that cannot be printed")
    num = _check_counts("num_samples", [value["num_samples"]], 1)[0]
    if result.is_multilabel:
        columns = [_check_counts(name, value[name], len(names)) for name in _COUNTS]
        if any(sum(column) > num for column in zip(*columns, strict=True)):
            raise ValueError("more decisions than samples")
        for auc in _check_list("per_class_auc", value["per_class_auc"], len(names)):
            if auc is not None and not _is_number(auc, 0, 1):
                raise ValueError("per_class_auc must lie in 0…1")
        true: Metrics | MultiLabelMetrics = _to_multilabel(value)
    else:
        rows = _check_list("confusion", value["confusion"], len(names))
        if sum(sum(_check_counts("confusion", row, len(names))) for row in rows) != num or num < 1:
            raise ValueError("confusion does not add up to num_samples")
        true = pool_confusions([rows])
    _check_groups(value, len(names), multilabel=result.is_multilabel)
    for name, expected in dataclasses.asdict(true).items():
        if not _is_close(value[name], expected):
            raise ValueError(f"{name} is not what its counts give")


def _check_groups(value: dict[str, Any], num_classes: int, *, multilabel: bool) -> None:
    """Refuses groups whose counts are impossible, or more than the test's."""
    groups = value.get("groups", {})
    if not isinstance(groups, dict) or not all(isinstance(values, dict) for values in groups.values()):
        raise ValueError("groups is no table of columns")
    for column, values in groups.items():
        total = 0
        for name, entry in values.items():
            if not (column.isprintable() and name.isprintable()):
                raise ValueError("groups holds a name that cannot be printed")
            _check_counts("num_subjects", [entry["num_subjects"]], 1)
            if multilabel:
                total += _check_counts("num_samples", [entry["num_samples"]], 1)[0]
                for kind in _COUNTS:
                    _check_counts(kind, entry[kind], num_classes)
            else:
                rows = _check_list("confusion", entry["confusion"], num_classes)
                total += (own := sum(sum(_check_counts("confusion", row, num_classes)) for row in rows))
                if own < 1:
                    raise ValueError("groups holds one without samples")
        if total != value["num_samples"]:
            raise ValueError(f"the groups of {column} do not add up to num_samples")


def _to_multilabel(value: dict[str, Any]) -> MultiLabelMetrics:
    names = [field.name for field in dataclasses.fields(MultiLabelMetrics)]
    fields: dict[str, Any] = {n: tuple(value[n]) if isinstance(value[n], list) else value[n] for n in names}
    stored = MultiLabelMetrics(**fields)
    return dataclasses.replace(pool_multilabel([stored]), per_class_auc=stored.per_class_auc)


def _check_list(name: str, value: Any, length: int) -> list[Any]:
    if not isinstance(value, list) or len(value) != length:
        raise ValueError(f"{name} must hold {length} entries")
    return value


def _check_counts(name: str, value: Any, length: int) -> list[int]:
    counts = _check_list(name, value, length)
    if not all(type(count) is int and 0 <= count <= LARGEST_COUNT for count in counts):
        raise ValueError(f"{name} must hold counts of 0 to {LARGEST_COUNT:,}")
    return counts


def _is_number(value: Any, low: float, high: float) -> bool:
    return type(value) in (int, float) and low <= value <= high  # false of NaN; no overflow, however large


def _is_close(found: Any, expected: Any) -> bool:
    """Whether two nested values are equal, numbers to within what text may have rounded off."""
    if isinstance(expected, list | tuple):
        same = isinstance(found, list | tuple) and len(found) == len(expected)
        return same and all(_is_close(f, e) for f, e in zip(found, expected, strict=True))
    if expected is None:
        return found is None
    return _is_number(found, expected - 1e-6, expected + 1e-6)


def _refuse_constant(text: str) -> float:
    raise ValueError(f"holds {text}")
