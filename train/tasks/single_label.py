"""One of several classes: cross entropy, the class of the highest probability, scores of the confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from shared.labels import NEUTRAL
from shared.runs import Prediction
from train.tasks.task import (
    ACCURACY,
    CHANCE,
    F1,
    MACRO_F1,
    MAJORITY,
    PRECISION,
    RECALL,
    TINY,
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


class SingleLabel(Task):
    """Items with one class each. The count is the confusion matrix: row = true class, column = predicted class."""

    name = "classes"
    noun = "classes"
    scores = (ACCURACY, UAR, MACRO_F1)
    references = (CHANCE, MAJORITY)
    class_scores = (
        Score("num_known", kind="count"),
        Score("support", "samples", kind="count"),
        Score("prevalence"),
        RECALL,
        PRECISION,
        F1,
    )
    class_score = RECALL
    count_dims = {"confusion": 2}  # noqa: RUF012
    conventions = (
        "Pooled scores come from counts summed over all folds; UAR and macro-F1 (there UF1) as in MEGC 2019 (See et al. 2019).",
    )

    def known_classes(self, info: CacheInfo) -> tuple[str, ...]:
        return info.class_names

    def default_classes(self, known: tuple[str, ...]) -> tuple[str, ...]:
        others = tuple(name for name in known if name != NEUTRAL)
        return others if len(others) >= 2 else known

    def is_labelled(self, item: Item, classes: Sequence[str]) -> bool:
        return item.class_name in classes

    def shown_classes(self, item: Item, classes: Sequence[str]) -> tuple[str, ...]:
        return (item.class_name,)

    def label_items(self, items: Sequence[Item], classes: Sequence[str]) -> np.ndarray:
        return np.array([classes.index(item.class_name) for item in items], np.int64)

    def build_criterion(self, class_weight: Tensor | None) -> Criterion:
        from train.tasks.criterion import CrossEntropy

        return CrossEntropy(class_weight)

    def balance_classes(self, labels: np.ndarray, num_classes: int) -> np.ndarray:
        """Return n / (C n_c), as scikit-learn's "balanced"."""
        counts = np.bincount(labels, minlength=num_classes)
        return (len(labels) / (num_classes * np.maximum(counts, 1))).astype(np.float32)

    def compute_probabilities(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)

    def predict(
        self, item: Item, probabilities: np.ndarray, thresholds: np.ndarray | None, classes: Sequence[str]
    ) -> Prediction:
        labels = (item.class_name,) if item.class_name else ()
        predicted = (classes[int(probabilities.argmax())],)
        return Prediction(item.name, item.subject, labels, predicted, tuple(probabilities.tolist()))

    def count(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> Counts:
        index = {name: label for label, name in enumerate(classes)}
        confusion = np.zeros((len(classes), len(classes)), np.int64)
        for one in predictions:
            confusion[index[one.labels[0]], index[one.predicted[0]]] += 1
        return {"confusion": confusion}

    def compute_overall(self, counts: Counts) -> dict[str, np.ndarray]:
        """Return accuracy, UAR over the classes that occur, macro-F1 over all classes, chance and the majority class.

        UAR and macro-F1 (UF1) of pooled folds follow See et al. 2019, "MEGC 2019 – the second facial micro-expressions
        grand challenge".
        """
        hits, support, named = _sums(counts)
        total = support.sum(-1)
        f1 = divide(2 * hits, support + named).mean(-1)
        return {
            "accuracy": divide(hits.sum(-1), total, total > TINY),
            "uar": mean_known(divide(hits, support, support > TINY)),
            "macro_f1": np.where(total > TINY, f1, np.nan),
            "chance": np.full(total.shape, 1 / hits.shape[-1]),
            "majority": divide(support.max(-1), total, total > TINY),
        }

    def compute_per_class(self, counts: Counts) -> dict[str, np.ndarray]:
        """Return counts and scores; recall is NaN where a class does not occur, other ratios without denominator are 0."""
        hits, support, named = _sums(counts)
        total = np.full(support.shape, support.sum())
        return {
            "num_known": total,
            "support": support,
            "prevalence": divide(support, total),
            "recall": divide(hits, support, support > 0),
            "precision": divide(hits, named),
            "f1": divide(2 * hits, support + named),
        }

    def find_interval(self, overall: Mapping[str, float | None], num: float) -> tuple[float, float] | None:
        return wilson_interval((overall["accuracy"] or 0.0) * num, num)


def _sums(counts: Counts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return hits, true samples and predictions of each class, (…, C)."""
    confusion = counts["confusion"]
    return np.einsum("...cc->...c", confusion), confusion.sum(-1), confusion.sum(-2)


def wilson_interval(num_hits: float, num: float, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion (Wilson 1927, "Probable inference, the law of succession")."""
    p, square = num_hits / num, z * z / num
    centre = (p + square / 2) / (1 + square)
    half = z * math.sqrt(p * (1 - p) / num + square / (4 * num)) / (1 + square)
    return max(0.0, centre - half), min(1.0, centre + half)
