"""Scores of a multi-label classifier: a yes or no for each class, some of them unknown (action units, mixed emotions)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class MultiLabelMetrics:
    """Scores over a test set, a tuple entry a class; fractions in 0…1; unknown targets count nowhere.

    The four counts are what folds are pooled by. F1 is 0 where a class is neither there nor named, as scikit-learn has
    it, and None where nothing is known of the class.
    """

    num_samples: int
    macro_f1: float  # UF1: F1 averaged over the classes of which something is known
    micro_f1: float  # F1 of all decisions together
    uar: float | None  # balanced accuracy averaged over the classes that have positives and negatives
    per_class_f1: tuple[float | None, ...]
    per_class_precision: tuple[float | None, ...]  # 0 where the class is never named; None where nothing is known
    per_class_recall: tuple[float | None, ...]  # None where no sample is positive
    per_class_balanced_accuracy: tuple[float | None, ...]  # None where all known samples are alike
    per_class_auc: tuple[float | None, ...]  # None where all known samples are alike; of pooled folds always
    support: tuple[int, ...]  # positives
    num_known: tuple[int, ...]
    prevalence: tuple[float | None, ...]  # positives among the known
    true_positives: tuple[int, ...]
    false_positives: tuple[int, ...]
    false_negatives: tuple[int, ...]
    true_negatives: tuple[int, ...]


def compute_multilabel_metrics(
    targets: np.ndarray, probabilities: np.ndarray, thresholds: np.ndarray
) -> MultiLabelMetrics:
    """All scores of one test; a class is named where its probability reaches its threshold.

    Args:
        targets: i8 (n, C), n ≥ 1: 1 = there, 0 = not there, -1 = unknown.
        probabilities: f32 (n, C).
        thresholds: f32 (C,).
    """
    assert targets.shape == probabilities.shape and targets.ndim == 2 and len(targets) > 0
    assert thresholds.shape == targets.shape[1:]
    there, absent, named = targets == 1, targets == 0, probabilities >= thresholds
    assert (there | absent | (targets == -1)).all()
    columns = [(targets[:, c] >= 0, c) for c in range(targets.shape[1])]
    return _from_counts(
        len(targets),
        true_positives=(there & named).sum(0),
        false_positives=(absent & named).sum(0),
        false_negatives=(there & ~named).sum(0),
        true_negatives=(absent & ~named).sum(0),
        auc=[area_under_roc(targets[known, c] == 1, probabilities[known, c]) for known, c in columns],
    )


def pool_multilabel(tests: Sequence[MultiLabelMetrics]) -> MultiLabelMetrics:
    """All scores of several tests taken as one, from the sums of their counts.

    F1 of summed counts is the estimate over folds with the least bias (Forman & Scholz 2010, "Apples-to-apples in
    cross-validation studies"). There is no AUC: probabilities of different models are on different scales.
    """
    return pool_counts([vars(test) for test in tests])


def pool_counts(tests: Sequence[Mapping[str, Any]]) -> MultiLabelMetrics:
    """As `pool_multilabel`, from num_samples and the four counts of each test by their names."""
    assert tests

    def total(name: str) -> np.ndarray:
        return np.array([test[name] for test in tests], np.int64).sum(0)

    return _from_counts(
        sum(test["num_samples"] for test in tests),
        true_positives=total("true_positives"),
        false_positives=total("false_positives"),
        false_negatives=total("false_negatives"),
        true_negatives=total("true_negatives"),
        auc=[None] * len(tests[0]["true_positives"]),
    )


def choose_thresholds(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The threshold of each class with the highest F1 on these predictions, which must be of training subjects.

    All thresholds between two neighbouring scores decide alike. Of the best such intervals the one nearest to 0.5 is
    taken: 0.5 itself where it lies inside, else the middle, which leaves both neighbours the same margin.

    Args:
        targets: i8 (n, C): 1, 0, -1 = unknown.
        probabilities: f32 (n, C) in 0…1.
    Returns:
        f32 (C,); 0.5 for a class without a known positive or without a known negative.
    """
    assert targets.shape == probabilities.shape and targets.ndim == 2
    thresholds = np.full(targets.shape[1], 0.5, np.float32)
    for c in range(targets.shape[1]):
        known = targets[:, c] >= 0
        there = targets[known, c] == 1
        if there.any() and not there.all():
            thresholds[c] = _best_threshold(there, probabilities[known, c].astype(np.float32))
    return thresholds


def _best_threshold(there: np.ndarray, scores: np.ndarray) -> np.float32:
    order = np.argsort(-scores, kind="stable")
    scores, there = scores[order], there[order]
    last = np.append(scores[1:] < scores[:-1], True)  # equal scores are named together or not at all
    num_named = np.arange(1, len(scores) + 1)[last]
    f1 = 2 * there.cumsum()[last] / (num_named + there.sum())
    high = scores[last]  # naming all down to high[k] holds for thresholds in (low[k], high[k]]
    low = np.append(high[1:], np.float32(0))
    best = np.flatnonzero(f1 == f1.max())  # exact: equal ratios of small integers are equal floats
    low, high = low[best], high[best]
    if ((low < 0.5) & (high >= 0.5)).any():
        return np.float32(0.5)
    k = np.maximum(low - 0.5, 0.5 - high).argmin()
    middle = np.float32((np.float64(low[k]) + np.float64(high[k])) / 2)
    return middle if middle > low[k] else high[k]


def area_under_roc(there: np.ndarray, scores: np.ndarray) -> float | None:
    """The part of (positive, negative) pairs in which the positive scores higher, ties half: Mann-Whitney U / (n₊ n₋).

    Args:
        there: bool (n,). scores: (n,).
    Returns:
        None where there is no such pair.
    """
    num_there = int(there.sum())
    num_pairs = num_there * (len(there) - num_there)
    if not num_pairs:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle_ranks = counts.cumsum() - (counts - 1) / 2
    return float((middle_ranks[inverse][there].sum() - num_there * (num_there + 1) / 2) / num_pairs)


def _from_counts(
    num_samples: int,
    *,
    true_positives: np.ndarray,
    false_positives: np.ndarray,
    false_negatives: np.ndarray,
    true_negatives: np.ndarray,
    auc: Sequence[float | None],
) -> MultiLabelMetrics:
    support, negatives = true_positives + false_negatives, false_positives + true_negatives
    known = support + negatives
    errors = false_positives + false_negatives
    f1 = _divide(2 * true_positives, 2 * true_positives + errors, known)
    recall = _divide(true_positives, support, support)
    specificity = _divide(true_negatives, negatives, negatives)
    balanced = tuple(None if r is None or s is None else (r + s) / 2 for r, s in zip(recall, specificity, strict=True))
    return MultiLabelMetrics(
        num_samples=num_samples,
        macro_f1=_mean(f1) or 0.0,
        micro_f1=float(2 * true_positives.sum() / max(2 * true_positives.sum() + errors.sum(), 1)),
        uar=_mean(balanced),
        per_class_f1=f1,
        per_class_precision=_divide(true_positives, true_positives + false_positives, known),
        per_class_recall=recall,
        per_class_balanced_accuracy=balanced,
        per_class_auc=tuple(auc),
        support=_integers(support),
        num_known=_integers(known),
        prevalence=_divide(support, known, known),
        true_positives=_integers(true_positives),
        false_positives=_integers(false_positives),
        false_negatives=_integers(false_negatives),
        true_negatives=_integers(true_negatives),
    )


def _divide(above: np.ndarray, below: np.ndarray, defined: np.ndarray) -> tuple[float | None, ...]:
    """above / below, 0 where below is 0, None where `defined` is 0."""
    return tuple(float(a / max(b, 1)) if d else None for a, b, d in zip(above, below, defined, strict=True))


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None


def _integers(values: np.ndarray) -> tuple[int, ...]:
    return tuple(int(value) for value in values)
