"""Intensity of action units: a number of 0 to 5 for each unit of a frame; ICC(3,1), MAE and MSE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from shared.errors import FacetError
from shared.runs import Prediction
from train.tasks.multi_label import ActionUnits
from train.tasks.task import TINY, Counts, Score, divide, mean_known

if TYPE_CHECKING:
    from torch import Tensor

    from shared.schema import CacheInfo
    from train.tasks.criterion import Criterion
    from train.tasks.item import Item

LARGEST = 5  # FACS intensity E; 0: the unit is absent
_SUFFIX = "_intensity"

ICC = Score("icc", "ICC(3,1)", "ICC(3,1)", kind="number", spread=True)
MAE = Score("mae", "MAE", "MAE", kind="number", spread=True)
MSE = Score("mse", "MSE", "MSE", kind="number", spread=True)


class Intensity(ActionUnits):
    """Items with targets of 0 to LARGEST, or -1 = unknown. The prediction is LARGEST times the probability.

    Counts are sums over the frames of known intensity, from which all scores follow, pooled over folds or not.
    """

    name = "au-intensity"
    noun = "intensities of action units"
    has_thresholds = False
    has_values = True
    scores = (ICC, MAE, MSE)
    references = ()
    class_scores = (Score("num_known", "known", kind="count"), Score("support", "above 0", kind="count"), ICC, MAE, MSE)
    class_score = ICC
    count_dims = dict.fromkeys(
        (
            "num_known", "support", "sum_true", "sum_predicted", "sum_true_squares", "sum_predicted_squares",
            "sum_products", "sum_errors",
        ),
        1,
    )  # fmt: skip
    conventions = (
        "ICC(3,1) is that of labels and predictions (Shrout & Fleiss 1979), over all frames together as in FERA 2015 (Valstar "
        "et al. 2015). It is not defined where the labels do not vary.",
        "MAE and MSE are in levels of intensity, 0 to 5; predictions are not rounded. Overall scores are means over action "
        "units. Unknown intensities count nowhere.",
    )

    @property
    def compared(self) -> tuple[Score, ...]:
        return self.scores

    def column(self, class_name: str) -> str:
        return class_name + _SUFFIX

    def known_classes(self, info: CacheInfo) -> tuple[str, ...]:
        return tuple(name.removesuffix(_SUFFIX) for name in info.au_names if name.endswith(_SUFFIX))

    def label_items(self, items: Sequence[Item], classes: Sequence[str]) -> np.ndarray:
        labels = super().label_items(items, classes)
        if labels.size and labels.max() > LARGEST:
            raise FacetError(f"the cache has an intensity of {labels.max()}; expected 0 to {LARGEST}; build it again")
        return labels

    def build_criterion(self, class_weight: Tensor | None) -> Criterion:
        from train.tasks.criterion import IntensityCrossEntropy

        return IntensityCrossEntropy(class_weight)

    def start_rates(self, labels: np.ndarray) -> np.ndarray:
        """Return the mean intensity of the training labels, over LARGEST; never 0 or 1."""
        known = labels >= 0
        return ((labels * known).sum(0) / LARGEST + 0.5) / (known.sum(0) + 1.0)

    def predict(
        self, item: Item, probabilities: np.ndarray, thresholds: np.ndarray | None, classes: Sequence[str]
    ) -> Prediction:
        values = item.targets or (-1,) * len(classes)
        labels = tuple(f"{name}={value}" for name, value in zip(classes, values, strict=True) if value >= 0)
        unknown = tuple(name for name, value in zip(classes, values, strict=True) if value < 0)
        predicted = tuple(f"{name}={LARGEST * p:.2f}" for name, p in zip(classes, probabilities, strict=True))
        return Prediction(item.name, item.subject, labels, predicted, tuple(probabilities.tolist()), unknown)

    def count(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> Counts:
        true = np.full((len(predictions), len(classes)), np.nan)
        for row, one in enumerate(predictions):
            for label in one.labels:
                name, _, value = label.partition("=")
                true[row, classes.index(name)] = int(value)
        # as f32, which predictions.csv holds exactly: sums are the same when they are read again
        predicted = np.array([one.probabilities for one in predictions], np.float32).reshape(true.shape)
        predicted = np.where(np.isnan(true), np.nan, LARGEST * predicted.astype(np.float64))
        return {
            "num_known": (~np.isnan(true)).sum(0),
            "support": (true > 0).sum(0),
            "sum_true": np.nansum(true, 0),
            "sum_predicted": np.nansum(predicted, 0),
            "sum_true_squares": np.nansum(true**2, 0),
            "sum_predicted_squares": np.nansum(predicted**2, 0),
            "sum_products": np.nansum(true * predicted, 0),
            "sum_errors": np.nansum(np.abs(true - predicted), 0),
        }

    def rank(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> dict[str, tuple[float | None, ...]]:
        return {}

    def compute_overall(self, counts: Counts) -> dict[str, np.ndarray]:
        """Return the mean over the action units of which something is known."""
        classes = self.compute_per_class(counts)
        return {score.name: mean_known(classes[score.name]) for score in self.scores}

    def compute_per_class(self, counts: Counts) -> dict[str, np.ndarray]:
        """Return counts and scores.

        With two raters, ICC(3,1) = (BMS − EMS) / (BMS + EMS) of the two-way analysis of variance is
        2 cov(x, y) / (var x + var y), x the labels and y the predictions.
        """
        num = counts["num_known"]
        mean_true, mean_predicted, squares_true, squares_predicted, products = (
            divide(counts[f"sum_{name}"], num)
            for name in ("true", "predicted", "true_squares", "predicted_squares", "products")
        )
        variance_true = squares_true - mean_true**2
        variance_predicted = (squares_predicted - mean_predicted**2).clip(0)
        covariance = products - mean_true * mean_predicted
        squared_error = (squares_true + squares_predicted - 2 * products).clip(0)
        return {
            "num_known": num,
            "support": counts["support"],
            "icc": divide(2 * covariance, variance_true + variance_predicted, variance_true > TINY),
            "mae": divide(counts["sum_errors"], num, num > TINY),
            "mse": np.where(num > TINY, squared_error, np.nan),
        }
