"""Results of folds for the tests of the cross-validation report, scored from random predictions."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from train.runs.results import FoldResult
from train.studies.crossval.summary import CrossvalAbout
from train.tasks.metrics import compute_metrics
from train.tasks.multilabel import compute_multilabel_metrics

CLASSES = ("anger", "disgust", "fear", "happiness")
ABOUT: CrossvalAbout = {
    "protocol": "bu3dfe-subset1",
    "title": "BU-3DFE Subset I",
    "source": "the two highest intensities",
    "datasets": ["bu3dfe"],
    "licence": "licensed: show no face",
    "unit": "scan",
    "model": "ViT-B-32",
    "pretrained": "laion2b_s34b_b79k",
    "random_weights": False,
    "modalities": ["texture", "depth"],
    "views": "0,20,-20",
    "seed": 0,
    "epochs": 30,
    "num_folds": 3,
    "missing_folds": [],
    "num_rounds": 1,
    "num_rounds_published": 1,
    "label_map": None,
    "notes": [],
}


def about_with(**changes: Any) -> CrossvalAbout:
    return {**ABOUT, **changes}  # type: ignore[typeddict-item]


def single_fold(name: str, true: np.ndarray, predicted: np.ndarray, names: tuple[str, ...] = CLASSES) -> FoldResult:
    metrics = dataclasses.asdict(compute_metrics(true, predicted, len(names)))
    return FoldResult(name, {**metrics, "class_names": list(names), "task": "classes"})


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
        results.append(
            FoldResult(f"fold-{k:02d}", {**dataclasses.asdict(metrics), "class_names": list(names), "task": "aus"}, 2.0)
        )
    return results
