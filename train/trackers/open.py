"""Open the trackers that `--log` names, and show them the result of a test."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

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
        FacetError: a package is not installed, or a program refuses its settings.
    """
    for name in names:
        TRACKERS[name].check()


@contextmanager
def open_trackers(run: Path, names: Sequence[str], config: RunConfig) -> Iterator[list[Tracker]]:
    """Begin or continue a run in each program of --log.

    Raises:
        FacetError: a program refuses.
    """
    shown = without_folders(config)
    settings = dataclasses.asdict(shown.recipe) | {
        "dataset": shown.dataset,
        "cache": shown.content_hash[:16],
        "tower": shown.tower.name,
        "random_weights": shown.is_random,
    }
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
