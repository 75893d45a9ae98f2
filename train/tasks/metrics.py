"""Scores of a classifier, per class and balanced over classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Metrics:
    """Scores over a test set; fractions in 0…1.

    confusion i64 (C, C), row = true class, column = predicted class.
    """

    num_samples: int
    accuracy: float
    accuracy_95: tuple[float, float]  # Wilson interval; takes the samples as independent
    chance: float  # of a guess among the classes
    majority: float  # of always naming the most frequent class
    uar: float  # unweighted average recall = balanced accuracy, over the classes that occur
    macro_f1: float  # UF1: F1 of each class, averaged over all classes
    per_class_recall: tuple[float | None, ...]  # None where a class does not occur
    per_class_f1: tuple[float, ...]
    confusion: tuple[tuple[int, ...], ...]


def confusion_matrix(true: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts i64 (C, C): row = true class, column = predicted class; both given as class indices."""
    return np.bincount(true * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def compute_metrics(true: np.ndarray, predicted: np.ndarray, num_classes: int) -> Metrics:
    """All scores from class indices i64 (n,), n ≥ 1. Zero where a ratio has no denominator, as scikit-learn does."""
    assert true.shape == predicted.shape and len(true) > 0
    return pool_confusions([confusion_matrix(true, predicted, num_classes)])


def pool_confusions(confusions: Sequence[npt.ArrayLike]) -> Metrics:
    """All scores of several tests taken as one: of the sum of their confusion matrices, each counts (C, C), not all zero.

    uar and macro_f1 of folds pooled so are UAR and UF1 as See et al. 2019 define them ("MEGC 2019 – the second facial
    micro-expressions grand challenge"), where most folds lack some class.
    """
    counts = np.sum([np.asarray(confusion, np.int64) for confusion in confusions], axis=0)
    assert counts.ndim == 2 and counts.shape[0] == counts.shape[1] and counts.sum() > 0
    hits, support, named = counts.diagonal(), counts.sum(1), counts.sum(0)
    recall = hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(support + named, 1)
    num = int(counts.sum())
    return Metrics(
        num_samples=num,
        accuracy=float(hits.sum() / num),
        accuracy_95=wilson_interval(int(hits.sum()), num),
        chance=1 / len(counts),
        majority=float(support.max() / num),
        uar=float(recall[support > 0].mean()),
        macro_f1=float(f1.mean()),
        per_class_recall=tuple(float(r) if s else None for r, s in zip(recall, support, strict=True)),
        per_class_f1=tuple(float(f) for f in f1),
        confusion=tuple(tuple(int(c) for c in row) for row in counts),
    )


def wilson_interval(num_hits: float, num: float, z: float = 1.959964) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927, "Probable inference, the law of succession")."""
    p, square = num_hits / num, z * z / num
    centre = (p + square / 2) / (1 + square)
    half = z * math.sqrt(p * (1 - p) / num + square / (4 * num)) / (1 + square)
    return max(0.0, centre - half), min(1.0, centre + half)
