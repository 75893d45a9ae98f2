"""Results of folds for the tests of the cross-validation report, scored from random predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from shared.runs import Prediction
from train.reporting.summary import CrossvalAbout
from train.runs.results import FoldResult, TestInfo
from train.tasks.multi_label import ActionUnits
from train.tasks.single_label import SingleLabel
from train.tasks.task import Metrics, Task

CLASSES = ("anger", "disgust", "fear", "happiness")
ABOUT = CrossvalAbout(
    protocol="bu3dfe-subset1",
    title="BU-3DFE Subset I",
    source="the two highest intensities",
    datasets=["bu3dfe"],
    licence="licensed: show no face",
    unit="scan",
    model="ViT-B-32",
    pretrained="laion2b_s34b_b79k",
    modalities=["texture", "depth"],
    views="0,20,-20",
    seed=0,
    epochs=30,
    num_folds=3,
    missing_folds=[],
    num_rounds=1,
    num_rounds_published=1,
    label_map=None,
    notes=[],
)


def about_with(**changes: Any) -> CrossvalAbout:
    return dataclasses.replace(ABOUT, **changes)


def name_classes(num: int) -> tuple[str, ...]:
    return tuple(f"class-{label}" for label in range(num))


def single_rows(true: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> list[Prediction]:
    """Rows of predictions.csv of class indices."""
    pairs = enumerate(zip(true, predicted, strict=True))
    return [Prediction(f"s{n}", "S0", (names[t],), (names[p],), (0.0,) * len(names)) for n, (t, p) in pairs]


def multi_rows(
    targets: np.ndarray, probabilities: np.ndarray, thresholds: np.ndarray, names: Sequence[str]
) -> list[Prediction]:
    """Rows of predictions.csv of targets 1, 0 or -1 = unknown."""

    def chosen(flags: np.ndarray) -> tuple[str, ...]:
        return tuple(name for name, flag in zip(names, flags, strict=True) if flag)

    return [
        Prediction(f"s{n}", "S0", chosen(t == 1), chosen(p >= thresholds), tuple(p.tolist()), chosen(t == -1))
        for n, (t, p) in enumerate(zip(targets, probabilities, strict=True))
    ]


def compute_metrics(true: np.ndarray, predicted: np.ndarray, num_classes: int) -> Metrics:
    names = name_classes(num_classes)
    return SingleLabel().test(single_rows(true, predicted, names), names)


def compute_multilabel_metrics(targets: np.ndarray, probabilities: np.ndarray, thresholds: np.ndarray) -> Metrics:
    names = name_classes(targets.shape[1])
    return ActionUnits().test(multi_rows(targets, probabilities, thresholds, names), names)


def fold_result(
    name: str, task: Task, metrics: Metrics, names: Sequence[str], seconds: float | None = None
) -> FoldResult:
    return FoldResult(name, TestInfo(task.name, tuple(names)), metrics, seconds=seconds)


def metrics_json(result: FoldResult) -> dict[str, Any]:
    """What metrics.json holds of a result."""
    return {**dataclasses.asdict(result.info), **result.metrics.to_json(result.task)}


def single_fold(name: str, true: np.ndarray, predicted: np.ndarray, names: tuple[str, ...] = CLASSES) -> FoldResult:
    return fold_result(name, SingleLabel(), compute_metrics(true, predicted, len(names)), names)


def random_folds(seed: int, nums: list[int]) -> tuple[list[FoldResult], list[np.ndarray], list[np.ndarray]]:
    """Folds of the given sizes, in which classes are often absent."""
    rng = np.random.default_rng(seed)
    true = [rng.choice(4, num, p=(0.6, 0.2, 0.15, 0.05)) for num in nums]
    predicted = [np.where(rng.random(len(t)) < 0.6, t, rng.integers(0, 4, len(t))) for t in true]
    results = [single_fold(f"fold-{k:02d}", t, p) for k, (t, p) in enumerate(zip(true, predicted, strict=True))]
    return results, true, predicted


def multilabel_folds(seed: int, nums: list[int], names: tuple[str, ...] = ("AU1", "AU2", "AU12")) -> list[FoldResult]:
    rng = np.random.default_rng(seed)
    results = []
    for k, num in enumerate(nums):
        targets = rng.integers(-1, 2, (num, len(names))).astype(np.int8)
        probabilities = rng.random(targets.shape).astype(np.float32)
        metrics = compute_multilabel_metrics(targets, probabilities, np.full(len(names), 0.5, np.float32))
        results.append(fold_result(f"fold-{k:02d}", ActionUnits(), metrics, names, 2.0))
    return results
