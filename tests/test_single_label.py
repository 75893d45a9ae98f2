"""Every score against scikit-learn's."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from crossval_results import compute_metrics
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score, recall_score

from train.tasks.single_label import SingleLabel, wilson_interval


def random_predictions(seed: int, num_samples: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Class indices, true and predicted; about half are right, and some classes are often absent."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, rng.integers(1, num_classes + 1), num_samples)
    return true, np.where(rng.random(num_samples) < 0.5, true, rng.integers(0, num_classes, num_samples))


@given(
    num_classes=st.integers(2, 7),
    num_samples=st.integers(1, 60),
    seed=st.integers(0, 10**6),
)
def test_scores_are_those_of_scikit_learn(num_classes: int, num_samples: int, seed: int) -> None:
    true, predicted = random_predictions(seed, num_samples, num_classes)
    metrics = compute_metrics(true, predicted, num_classes)
    labels = np.arange(num_classes)
    there = np.unique(true)
    recall = recall_score(true, predicted, labels=labels, average=None, zero_division=0)
    assert np.array_equal(metrics.counts["confusion"], confusion_matrix(true, predicted, labels=labels))
    assert metrics["accuracy"] == pytest.approx(accuracy_score(true, predicted))
    assert metrics["macro_f1"] == pytest.approx(
        f1_score(true, predicted, labels=labels, average="macro", zero_division=0)
    )
    assert metrics["uar"] == pytest.approx(
        recall_score(true, predicted, labels=there, average="macro", zero_division=0)
    )
    with warnings.catch_warnings():  # "y_pred contains classes not in y_true" and the like: the point of the test
        warnings.simplefilter("ignore", UserWarning)
        assert metrics["uar"] == pytest.approx(balanced_accuracy_score(true, predicted))
    f1 = f1_score(true, predicted, labels=labels, average=None, zero_division=0)
    assert metrics.per_class["f1"] == pytest.approx(tuple(f1))
    assert metrics.num_samples == num_samples and metrics["chance"] == 1 / num_classes
    for label in labels:
        found = metrics.per_class["recall"][label]
        assert found == (pytest.approx(recall[label]) if label in there else None)
    assert metrics["majority"] == pytest.approx(np.bincount(true).max() / num_samples)


@given(seed=st.integers(0, 10**6), nums=st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_pooled_folds_are_the_concatenated_predictions(seed: int, nums: list[int]) -> None:
    true, predicted = random_predictions(seed, sum(nums), 4)
    cuts = np.cumsum(nums)[:-1]
    parts = zip(np.split(true, cuts), np.split(predicted, cuts), strict=True)
    folds = [compute_metrics(t, p, 4) for t, p in parts]
    assert SingleLabel().pool(folds) == compute_metrics(true, predicted, 4)


def test_wilson_interval_is_the_textbook_one() -> None:
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)
