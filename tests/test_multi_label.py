"""Scores against scikit-learn's, thresholds against trying every one."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from crossval_results import compute_multilabel_metrics
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
    roc_auc_score,
)

from train.tasks.multi_label import ActionUnits

choose_thresholds = ActionUnits().choose_thresholds


def random_predictions(
    seed: int, num: int, num_classes: int, *, unknown: float = 0.2, digits: int = 8
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets with unknowns, probabilities that know something (rounded: many ties), thresholds."""
    rng = np.random.default_rng(seed)
    there = rng.random((num, num_classes)) < rng.random(num_classes)
    targets = np.where(rng.random(there.shape) < unknown, -1, there).astype(np.int8)
    probabilities = np.clip(0.25 * there + 0.75 * rng.random(there.shape), 0, 1).round(digits).astype(np.float32)
    return targets, probabilities, rng.random(num_classes).round(digits).astype(np.float32)


@given(
    seed=st.integers(0, 10**6),
    num=st.integers(1, 60),
    num_classes=st.integers(1, 5),
    unknown=st.sampled_from([0.0, 0.2, 0.9]),
    digits=st.sampled_from([1, 8]),
)
def test_scores_are_those_of_scikit_learn(seed: int, num: int, num_classes: int, unknown: float, digits: int) -> None:
    targets, probabilities, thresholds = random_predictions(seed, num, num_classes, unknown=unknown, digits=digits)
    metrics = compute_multilabel_metrics(targets, probabilities, thresholds)
    f1s, balances, all_true, all_named = [], [], [], []
    for c in range(num_classes):
        known = targets[:, c] >= 0
        true, named = targets[known, c] == 1, probabilities[known, c] >= thresholds[c]
        assert metrics.per_class["num_known"][c] == known.sum()
        assert metrics.per_class["support"][c] == true.sum()
        if not known.any():
            assert metrics.per_class["f1"][c] is None and metrics.per_class["prevalence"][c] is None
            assert metrics.per_class["precision"][c] is None and metrics.per_class["recall"][c] is None
            continue
        (tn, fp), (fn, tp) = confusion_matrix(true, named, labels=[False, True])
        assert [table[c] for table in metrics.counts.values()] == [tp, fp, fn, tn]
        precision, recall, f1, _ = precision_recall_fscore_support(true, named, average="binary", zero_division=0)
        assert metrics.per_class["precision"][c] == pytest.approx(precision)
        assert metrics.per_class["f1"][c] == pytest.approx(f1)
        assert metrics.per_class["recall"][c] == (pytest.approx(recall) if true.any() else None)
        assert metrics.per_class["prevalence"][c] == pytest.approx(true.mean())
        if true.any() and not true.all():
            balances.append(balanced_accuracy_score(true, named))
            assert metrics.per_class["balanced_accuracy"][c] == pytest.approx(balances[-1])
            assert metrics.per_class["auc"][c] == pytest.approx(roc_auc_score(true, probabilities[known, c]))
        else:
            assert metrics.per_class["balanced_accuracy"][c] is None and metrics.per_class["auc"][c] is None
        f1s.append(f1)
        all_true.append(true)
        all_named.append(named)
    assert metrics["macro_f1"] == pytest.approx(np.mean(f1s) if f1s else 0)
    assert metrics["uar"] == (pytest.approx(np.mean(balances)) if balances else None)
    if all_true:
        whole = f1_score(np.concatenate(all_true), np.concatenate(all_named), zero_division=0)
        assert metrics["micro_f1"] == pytest.approx(whole)


@given(seed=st.integers(0, 10**6), num=st.integers(1, 60), num_classes=st.integers(1, 5))
def test_without_unknowns_macro_and_micro_are_scikit_learns(seed: int, num: int, num_classes: int) -> None:
    targets, probabilities, thresholds = random_predictions(seed, num, num_classes, unknown=0)
    named = probabilities >= thresholds
    metrics = compute_multilabel_metrics(targets, probabilities, thresholds)
    columns = (targets[:, 0], named[:, 0]) if num_classes == 1 else (targets, named)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        for found, average in ((metrics["macro_f1"], "macro"), (metrics["micro_f1"], "micro")):
            kind = "binary" if num_classes == 1 else average
            assert found == pytest.approx(f1_score(*columns, average=kind, zero_division=0))


@given(seed=st.integers(0, 10**6), nums=st.lists(st.integers(1, 30), min_size=1, max_size=5))
def test_pooled_folds_are_the_concatenated_predictions(seed: int, nums: list[int]) -> None:
    targets, probabilities, thresholds = random_predictions(seed, sum(nums), 4)
    cuts = np.cumsum(nums)[:-1]
    folds = [
        compute_multilabel_metrics(t, p, thresholds)
        for t, p in zip(np.split(targets, cuts), np.split(probabilities, cuts), strict=True)
    ]
    whole = compute_multilabel_metrics(targets, probabilities, thresholds)
    pooled = ActionUnits().pool(folds)
    assert pooled.per_class["auc"] == (None,) * 4
    assert pooled.overall == pytest.approx(whole.overall)
    for name, values in whole.per_class.items():
        if name != "auc":
            assert pooled.per_class[name] == pytest.approx(values), name


def f1_at(there: np.ndarray, scores: np.ndarray, threshold: float) -> float:
    return float(f1_score(there, scores >= np.float32(threshold), zero_division=0))


@given(seed=st.integers(0, 10**6), num=st.integers(2, 14), digits=st.sampled_from([1, 8]))
@example(seed=826, num=7, digits=1)  # 0.5 is itself a score: (…, 0.5] holds it, (0.5, …] does not
def test_thresholds_are_the_best_of_all(seed: int, num: int, digits: int) -> None:
    targets, probabilities, _ = random_predictions(seed, num, 3, digits=digits)
    thresholds = choose_thresholds(targets, probabilities)
    assert thresholds.dtype == np.float32
    for c in range(3):
        known = targets[:, c] >= 0
        there, scores = targets[known, c] == 1, probabilities[known, c]
        if not there.any() or there.all():
            assert thresholds[c] == 0.5
            continue
        values = np.unique(scores)
        candidates = [0.5, *values, *(values[1:].astype(float) + values[:-1]) / 2]
        best = max(f1_at(there, scores, threshold) for threshold in candidates)
        assert f1_at(there, scores, thresholds[c]) == pytest.approx(best)
        if f1_at(there, scores, 0.5) == pytest.approx(best):
            assert thresholds[c] == 0.5
        else:  # nothing as good lies nearer to 0.5 than the scores that bound the chosen threshold
            above = values[values >= thresholds[c]].min()
            below = max([0.0, *values[values < thresholds[c]]])
            reach = max(below - 0.5, 0.5 - above)
            for threshold in candidates:
                if abs(threshold - 0.5) < reach - 1e-6:
                    assert f1_at(there, scores, threshold) < best


def test_a_threshold_between_neighbouring_floats_still_parts_them() -> None:
    high = np.float32(0.25)
    low = np.nextafter(high, np.float32(0))
    thresholds = choose_thresholds(np.array([[1], [0]], np.int8), np.array([[high], [low]], np.float32))
    assert thresholds[0] == high


def test_the_threshold_leaves_the_same_margin_on_both_sides() -> None:
    targets = np.array([[0], [0], [1], [1]], np.int8)
    probabilities = np.array([[0.05], [0.1], [0.3], [0.4]], np.float32)
    assert choose_thresholds(targets, probabilities)[0] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("scores", "wanted"),
    [((0.4, 0.3, 0.2, 0.1, 0.05), 0.35), ((0.95, 0.9, 0.8, 0.7, 0.6), 0.65), ((0.9, 0.8, 0.45, 0.3, 0.2), 0.25)],
)
def test_of_equally_good_thresholds_the_one_nearest_to_a_half_is_taken(
    scores: tuple[float, ...], wanted: float
) -> None:
    """Naming the first or the first four gives F1 = 2/3, any other number less."""
    targets = np.array([[1], [0], [0], [1], [0]], np.int8)
    assert choose_thresholds(targets, np.array(scores, np.float32)[:, None])[0] == pytest.approx(wanted)
