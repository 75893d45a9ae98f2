"""The files of a test: metrics.json, predictions.csv, a confusion matrix; and its lines on the console."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared.attention_file import ATTENTION_FILE
from shared.errors import count
from shared.runs import (
    CONFIG_JSON,
    CONFUSION_PDF,
    CONFUSION_PNG,
    METRICS_JSON,
    PREDICTIONS_CSV,
    SPLIT_JSON,
    THRESHOLDS_JSON,
    Predictions,
    read_predictions,
    record_hashes,
    write_predictions,
)
from shared.schema import canonical_json
from shared.store.storage import write_file
from train.reporting.calibration import measure_test
from train.reporting.figures import draw_confusion
from train.reporting.limits import list_limits
from train.reporting.scores import format_confusion, list_classes, list_groups, percent_note
from train.reporting.table import format_number
from train.runs.groups import write_groups
from train.runs.results import FoldResult
from train.tasks.task import Metrics, Task

_SETTINGS = (CONFIG_JSON, SPLIT_JSON, THRESHOLDS_JSON)


def write_report(folder: Path, result: FoldResult, predictions: Predictions, more: dict[str, Any]) -> None:
    """Write the files of a test, metrics.json last: with it the run is finished.

    Args:
        more: further fields of metrics.json.
    """
    write_predictions(folder / PREDICTIONS_CSV, predictions)
    if "confusion" in result.metrics.counts:
        write_file(folder / CONFUSION_PNG, _draw_test(result, "png"))
    value = {**more, **describe_result(result, predictions)}
    if result.groups:
        value["groups"] = write_groups(result.groups)
    if result.frame_votes:
        value["frame_votes"] = write_groups(result.frame_votes)
        primary = result.task.primary.name
        for key, one in zip(("majority", "frame_mean"), result.frame_votes, strict=True):
            value[f"{primary}_{key}"] = one.metrics[primary]
    record_hashes(folder, (*(name for name in _SETTINGS if (folder / name).is_file()), PREDICTIONS_CSV, ATTENTION_FILE))
    write_file(folder / METRICS_JSON, canonical_json(value).encode())
    record_hashes(folder, (METRICS_JSON,))


def describe_result(result: FoldResult, predictions: Predictions) -> dict[str, Any]:
    """Return what metrics.json says of any test: its data and model, scores and counts, and calibration."""
    value = {**dataclasses.asdict(result.info), **result.metrics.to_json(result.task)}
    if (calibration := measure_test(result.task, predictions.rows, result.class_names)) is not None:
        value["calibration"] = calibration.to_json()
    return value


def _draw_test(result: FoldResult, form: str) -> bytes:
    return draw_confusion(result.metrics, result.class_names, list_limits(result.info), form)


def _describe_references(task: Task, metrics: Metrics) -> str:
    return ", ".join(f"{score.title} {metrics[score.name] or 0:.3f}" for score in task.references)


def describe_absent(metrics: Metrics, class_names: Sequence[str]) -> str:
    """Return how averages over classes count those that no test sample shows; empty where all are shown."""
    known = zip(class_names, metrics.per_class["support"], metrics.per_class["num_known"], strict=True)
    absent = [name for name, support, num_known in known if num_known and not support]
    if not absent:
        return ""
    each, them = ("each", "them") if len(absent) > 1 else ("it", "it")
    return f"no test sample shows {', '.join(absent)}: macro-F1 counts {each} as 0, UAR leaves {them} out"


def print_scores(result: FoldResult, predictions: Predictions) -> None:
    """Print the scores of a test beside those of guesses, and what qualifies them."""
    task, metrics, classes = result.task, result.metrics, result.class_names
    if note := percent_note(task):
        print(note)
    print(*list_classes(task, classes, metrics).format_text(), sep="\n")
    if "confusion" in metrics.counts:
        print("", *format_confusion(metrics, classes), sep="\n")
    first, *others = (f"{score.short_title}{{}} {format_number(metrics[score.name])}" for score in task.scores)
    interval = "" if metrics.interval_95 is None else "; 95 % {:.3f} to {:.3f}".format(*metrics.interval_95)
    first = first.format(f" on {count(result.info.num_test_subjects or 0, 'unseen subject')}")
    about = f" ({_describe_references(task, metrics)}{interval})" if task.references else ""
    print(f"{first}{about}, {', '.join(other.format('') for other in others)}")
    if (calibration := measure_test(task, predictions.rows, classes)) is not None:
        print(f"expected calibration error {calibration.ece:.3f}, negative log likelihood {calibration.nll:.3f}")
    if note := describe_absent(metrics, classes):
        print(f"note: {note}")
    for groups in (result.frame_votes, result.groups):
        if groups:
            print(*list_groups(groups, task).format_text(), sep="\n")
    for line in list_limits(result.info):
        print(line)


def print_result(folder: Path, result: FoldResult) -> None:
    """Print the last lines of a run: its scores, and the path of each file.

    The confusion matrix is also written as PDF.
    """
    print_scores(result, read_predictions(folder / PREDICTIONS_CSV))
    if "confusion" in result.metrics.counts:
        write_file(folder / CONFUSION_PDF, _draw_test(result, "pdf"))
        print(f"confusion matrix  {folder / CONFUSION_PNG}, .pdf")
    print(f"attention         {folder / ATTENTION_FILE}")
    print(f"every prediction  {folder / PREDICTIONS_CSV}")
    print(f"all scores        {folder / METRICS_JSON}")
