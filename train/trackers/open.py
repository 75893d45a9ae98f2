"""Open the trackers that `--log` names, and show them the result of a test."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from shared.errors import FacetError
from shared.runs import CONFUSION_PNG, read_log
from train.config import RunConfig, without_folders
from train.runs.results import FoldResult
from train.trackers.mlflow import MLflow
from train.trackers.tensorboard import TensorBoard
from train.trackers.tracker import Tracker
from train.trackers.wandb import WeightsAndBiases

TRACKERS: dict[str, type[Tracker]] = {kind.option: kind for kind in (TensorBoard, MLflow, WeightsAndBiases)}


def check_trackers(names: Sequence[str]) -> None:
    """Check that the programs of --log can be used.

    Raises:
        FacetError: no such program, a package is not installed, or a program refuses its settings.
    """
    for name in names:
        if name not in TRACKERS:
            raise FacetError(f"--log {name}: expected some of {', '.join(TRACKERS)}")
        TRACKERS[name].check()


def list_settings(config: RunConfig) -> dict[str, Any]:
    """Return what the programs show of a run's settings."""
    shown = without_folders(config)
    return dataclasses.asdict(shown.recipe) | {
        "dataset": shown.dataset,
        "cache": shown.content_hash[:16],
        "tower": shown.tower.name,
        "random_weights": shown.is_random,
    }


@contextmanager
def open_trackers(run: Path, names: Sequence[str], settings: dict[str, Any]) -> Iterator[list[Tracker]]:
    """Begin or continue a run in each program of --log.

    Raises:
        FacetError: a program refuses.
    """
    trackers: list[Tracker] = []
    with ExitStack() as stack:
        for name in names:
            tracker = TRACKERS[name](run)
            tracker.begin(settings)
            stack.callback(tracker.close)
            trackers.append(tracker)
        yield trackers


def show_result(trackers: Sequence[Tracker], run: Path, result: FoldResult | None) -> None:
    """Show the scores of a test, and its confusion matrix. result: None if nobody was tested."""
    scores: dict[str, float] = {}
    if result is not None:
        metrics, shown = result.metrics, result.task.class_score.name
        named = {f"test/{name}": value for name, value in metrics.overall.items()}
        each = zip(result.class_names, metrics.per_class[shown], strict=True)
        named |= {f"test/{shown}/{class_name}": value for class_name, value in each}
        scores = {name: value for name, value in named.items() if value is not None}
    pictures = [path for path in (run / CONFUSION_PNG,) if path.is_file()]
    last = max((int(line["step"]) for line in read_log(run)), default=0) if trackers else 0
    for tracker in trackers:
        tracker.finish(last, scores, pictures)


def show_crossval(
    out: Path, names: Sequence[str], settings: dict[str, Any], scores: dict[str, float | None], *, is_changed: bool
) -> None:
    """Show the scores and the confusion matrix of a finished cross-validation as a run of its own, beside its folds.

    Args:
        is_changed: a fold was trained since it was shown; else only programs that do not know it get it.
    Raises:
        FacetError: a program refuses.
    """
    known = {name: value for name, value in scores.items() if value is not None}
    for name in names:
        with open_trackers(out, [name], settings) as (tracker,):
            if tracker.is_new or is_changed:
                tracker.start(-1, [])
                tracker.finish(0, known, [path for path in (out / CONFUSION_PNG,) if path.is_file()])
            tracker.is_finished = True
