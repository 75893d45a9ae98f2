"""Several classes at once, each yes, no or unknown: action units, mixed emotions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from shared.runs import Prediction
from train.tasks.task import (
    ALWAYS_YES,
    AUC,
    F1,
    MACRO_F1,
    MICRO_F1,
    PRECISION,
    UAR,
    Counts,
    Score,
    Task,
    divide,
    mean_known,
)

if TYPE_CHECKING:
    from torch import Tensor

    from shared.schema import CacheInfo
    from train.tasks.criterion import Criterion
    from train.tasks.item import Item

MAX_POSITIVE_WEIGHT = 20.0
_COUNTS = ("true_positives", "false_positives", "false_negatives", "true_negatives")


class MultiLabel(Task):
    """Items with targets 1, 0 or -1 = unknown. Counts: true and false positives and negatives of each class."""

    several = True
    has_thresholds = True
    scores = (MACRO_F1, MICRO_F1, UAR)
    references: ClassVar[tuple[Score, ...]] = (ALWAYS_YES,)
    class_scores: ClassVar[tuple[Score, ...]] = (
        Score("num_known", "known", kind="count"),
        Score("support", kind="count"),
        Score("prevalence", "positive"),
        F1,
        Score("always_yes_f1", "always yes"),
        PRECISION,
        Score("recall", "recall", spread=True),
        Score("balanced_accuracy"),
        AUC,
    )
    class_score = F1
    count_dims = dict.fromkeys(_COUNTS, 1)
    conventions = (
        "Pooled F1 comes from counts summed over all folds (Forman & Scholz 2010); unknown targets count nowhere; UAR is the "
        "mean of the classes' balanced accuracies.",
        "'always yes' is the F1 of predicting the class every time, 2p / (1 + p): what an F1 must exceed.",
    )

    @property
    def compared(self) -> tuple[Score, ...]:
        return MACRO_F1, AUC

    def build_criterion(self, class_weight: Tensor | None) -> Criterion:
        from train.tasks.criterion import BinaryCrossEntropy

        return BinaryCrossEntropy(class_weight)

    def balance_classes(self, labels: np.ndarray, num_classes: int) -> np.ndarray:
        """Return the weight of a yes against a no: no's / yes's, at most MAX_POSITIVE_WEIGHT; labels: i8 (n, C)."""
        yes, no = (labels == 1).sum(0), (labels == 0).sum(0)
        weight = np.where(yes > 0, no / np.maximum(yes, 1), 1.0)
        return weight.clip(1 / MAX_POSITIVE_WEIGHT, MAX_POSITIVE_WEIGHT).astype(np.float32)

    def start_rates(self, labels: np.ndarray) -> np.ndarray:
        """Return how often the training labels say yes, never 0 or 1."""
        return ((labels == 1).sum(0) + 0.5) / ((labels >= 0).sum(0) + 1.0)

    def compute_probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def choose_thresholds(self, labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Return the threshold of each class with the highest F1; 0.5 without a known positive or a known negative.

        All thresholds between two neighbouring scores decide alike. Of the best such intervals the one nearest to 0.5 is
        taken: 0.5 itself where it lies inside, else the middle, which leaves both neighbours the same margin.

        Args:
            labels: i8 (n, C): 1, 0, -1 = unknown. probabilities: f32 (n, C) in 0…1.
        """
        assert labels.shape == probabilities.shape and labels.ndim == 2
        thresholds = np.full(labels.shape[1], 0.5, np.float32)
        for c in range(labels.shape[1]):
            known = labels[:, c] >= 0
            positive = labels[known, c] == 1
            if positive.any() and not positive.all():
                thresholds[c] = _best_threshold(positive, probabilities[known, c].astype(np.float32))
        return thresholds

    def predict(
        self, item: Item, probabilities: np.ndarray, thresholds: np.ndarray | None, classes: Sequence[str]
    ) -> Prediction:
        assert thresholds is not None
        values = item.targets or (-1,) * len(classes)
        labels, unknown = (tuple(n for n, v in zip(classes, values, strict=True) if v == w) for w in (1, -1))
        predicted = tuple(n for n, p, t in zip(classes, probabilities, thresholds, strict=True) if p >= t)
        return Prediction(item.name, item.subject, labels, predicted, tuple(probabilities.tolist()), unknown)

    def count(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> Counts:
        targets = read_targets(predictions, classes)
        predicted = np.array([[name in one.predicted for name in classes] for one in predictions], bool)
        predicted = predicted.reshape(targets.shape)
        positive, negative = targets == 1, targets == 0
        tables = positive & predicted, negative & predicted, positive & ~predicted, negative & ~predicted
        return {name: table.sum(0) for name, table in zip(_COUNTS, tables, strict=True)}

    def rank(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> dict[str, tuple[float | None, ...]]:
        """Return the area under the ROC curve of each class; None where all known samples are alike."""
        from sklearn.metrics import roc_auc_score

        targets = read_targets(predictions, classes)
        probabilities = np.array([one.probabilities for one in predictions]).reshape(targets.shape)
        areas: list[float | None] = []
        for c in range(len(classes)):
            known = targets[:, c] >= 0
            positive = targets[known, c] == 1
            both = positive.any() and not positive.all()
            areas.append(float(roc_auc_score(positive, probabilities[known, c])) if both else None)
        return {"auc": tuple(areas)}

    def compute_overall(self, counts: Counts) -> dict[str, np.ndarray]:
        """Return macro-F1 over the classes of which something is known, micro-F1, UAR, and macro-F1 of always saying yes."""
        classes = self.compute_per_class(counts)
        true = 2 * counts["true_positives"].sum(-1)
        errors = (counts["false_positives"] + counts["false_negatives"]).sum(-1)
        return {
            "macro_f1": np.nan_to_num(mean_known(classes["f1"])),
            "micro_f1": divide(true, true + errors),
            "uar": mean_known(classes["balanced_accuracy"]),
            "always_yes": np.nan_to_num(mean_known(classes["always_yes_f1"])),
        }

    def compute_per_class(self, counts: Counts) -> dict[str, np.ndarray]:
        """Return counts and scores; F1 and precision are NaN where nothing is known, and 0 without a denominator."""
        true, false, missed, absent = (counts[name] for name in _COUNTS)
        support, negatives = true + missed, false + absent
        known = support + negatives
        recall = divide(true, support, support > 0)
        prevalence = divide(support, known, known > 0)
        return {
            "num_known": known,
            "support": support,
            "prevalence": prevalence,
            "f1": divide(2 * true, 2 * true + false + missed, known > 0),
            "always_yes_f1": 2 * prevalence / (1 + prevalence),
            "precision": divide(true, true + false, known > 0),
            "recall": recall,
            "balanced_accuracy": (recall + divide(absent, negatives, negatives > 0)) / 2,
        }


class Emotions(MultiLabel):
    """Mixed emotions of a sequence."""

    name = "targets"
    noun = "multi-label emotions"
    array = "targets"

    def known_classes(self, info: CacheInfo) -> tuple[str, ...]:
        return info.target_names


class ActionUnits(MultiLabel):
    """Action units of a frame."""

    name = "aus"
    noun = "action units"
    array = "aus"
    every_frame: ClassVar[bool] = True

    def known_classes(self, info: CacheInfo) -> tuple[str, ...]:
        return tuple(name for name in info.au_names if "_" not in name)  # not AU12_intensity, AU12_side


def read_targets(predictions: Sequence[Prediction], classes: Sequence[str]) -> np.ndarray:
    """Return targets i8 (n, C) of rows of predictions.csv: 1, 0 or -1 = unknown."""
    rows = [[-1 if name in one.unknown else int(name in one.labels) for name in classes] for one in predictions]
    return np.array(rows, np.int8).reshape(len(rows), len(classes))


def _best_threshold(positive: np.ndarray, scores: np.ndarray) -> np.float32:
    order = np.argsort(-scores, kind="stable")
    scores, positive = scores[order], positive[order]
    last = np.append(scores[1:] < scores[:-1], True)  # equal scores are predicted together or not at all
    num_predicted = np.arange(1, len(scores) + 1)[last]
    f1 = 2 * positive.cumsum()[last] / (num_predicted + positive.sum())
    high = scores[last]  # predicting all down to high[k] holds for thresholds in (low[k], high[k]]
    low = np.append(high[1:], np.float32(0))
    best = np.flatnonzero(f1 == f1.max())  # exact: equal ratios of small integers are equal floats
    low, high = low[best], high[best]
    if ((low < 0.5) & (high >= 0.5)).any():
        return np.float32(0.5)
    k = np.maximum(low - 0.5, 0.5 - high).argmin()
    middle = np.float32((np.float64(low[k]) + np.float64(high[k])) / 2)
    return middle if middle > low[k] else high[k]
