"""What is said of all folds, against their predictions taken together, scikit-learn and NumPy."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from crossval_results import ABOUT, CLASSES, compute_metrics, multilabel_folds, random_folds, single_fold
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, recall_score

from shared.errors import FacetError
from train.reporting.crossval import format_crossval_report
from train.reporting.spread import measure_spread
from train.reporting.summary import summarise_folds
from train.tasks.single_label import wilson_interval


@given(seed=st.integers(0, 10**6), nums=st.lists(st.integers(1, 25), min_size=1, max_size=8))
def test_summary_is_that_of_all_predictions(seed: int, nums: list[int]) -> None:
    results, trues, predictions = random_folds(seed, nums)
    summary = summarise_folds(results)
    true, predicted = np.concatenate(trues), np.concatenate(predictions)
    assert summary.pooled == compute_metrics(true, predicted, 4)
    assert summary.pooled["macro_f1"] == pytest.approx(
        f1_score(true, predicted, labels=range(4), average="macro", zero_division=0)
    )
    accuracies = [accuracy_score(t, p) for t, p in zip(trues, predictions, strict=True)]
    uars = [recall_score(t, p, labels=np.unique(t), average="macro") for t, p in zip(trues, predictions, strict=True)]
    f1s = [
        f1_score(t, p, labels=range(4), average="macro", zero_division=0)
        for t, p in zip(trues, predictions, strict=True)
    ]
    for name, values in (("accuracy", accuracies), ("uar", uars), ("macro_f1", f1s)):
        spread = summary.over_folds[name]
        assert spread.mean == pytest.approx(np.mean(values))
        assert spread.std == (pytest.approx(np.std(values, ddof=1), abs=1e-9) if len(nums) > 1 else None)
        assert spread.num == len(nums)
    assert summary.best_fold[1] == pytest.approx(max(accuracies))
    assert summary.worst_fold[1] == pytest.approx(min(accuracies))
    pooled = summary.pooled.per_class
    for c in range(len(CLASSES)):
        recalls = [(p[t == c] == c).mean() for t, p in zip(trues, predictions, strict=True) if (t == c).any()]
        over_folds = summary.classes_over_folds["recall"][c]
        assert pooled["support"][c] == (true == c).sum()
        assert over_folds.num == len(recalls)
        assert over_folds.mean == (pytest.approx(np.mean(recalls)) if recalls else None)
        assert pooled["recall"][c] == (pytest.approx((predicted[true == c] == c).mean()) if recalls else None)
        precision = (true[predicted == c] == c).mean() if (predicted == c).any() else 0
        assert pooled["precision"][c] == pytest.approx(precision)
    lacking = sum(len(np.unique(t)) < 4 for t in trues)
    assert summary.num_folds_lacking_a_class == lacking


@given(seed=st.integers(0, 10**6), order=st.permutations(range(5)))
@settings(max_examples=20)
def test_order_of_folds_plays_no_part(seed: int, order: list[int]) -> None:
    results, _, _ = random_folds(seed, [9, 4, 7, 7, 2])
    shuffled = [results[k] for k in order]
    summary = summarise_folds(results)
    assert summarise_folds(shuffled) == summary
    assert format_crossval_report(summary, shuffled, ABOUT) == format_crossval_report(summary, results, ABOUT)


def test_accuracy_without_centring_is_pooled_over_samples() -> None:
    results, _, _ = random_folds(3, [9, 4])
    assert "--centre-scores none" not in format_crossval_report(summarise_folds(results), results, ABOUT)
    for number, accuracy in enumerate((0.5, 1)):
        info = dataclasses.replace(results[number].info, centred_scores="all", accuracy_uncentred=accuracy)
        results[number] = dataclasses.replace(results[number], info=info)
    summary = summarise_folds(results)
    assert summary.to_json()["accuracy_uncentred"] == pytest.approx((9 * 0.5 + 4) / 13)
    assert "accuracy with --centre-scores none 65.4" in format_crossval_report(summary, results, ABOUT)


def test_rounds_are_pooled_each_by_itself_and_count_a_sample_once() -> None:
    results, trues, predictions = random_folds(7, [20] * 8)
    named = [dataclasses.replace(r, name=f"round-{k // 2:03d}/fold-{k % 2:02d}") for k, r in enumerate(results)]
    summary = summarise_folds(named)
    accuracies = [
        accuracy_score(np.concatenate(trues[k : k + 2]), np.concatenate(predictions[k : k + 2])) for k in range(0, 8, 2)
    ]
    spread = summary.over_rounds["accuracy"]
    assert spread.num == 4
    assert spread.mean == pytest.approx(np.mean(accuracies))
    assert spread.std == pytest.approx(np.std(accuracies, ddof=1))
    assert summary.over_folds["accuracy"].num == 8
    assert summary.pooled.num_samples == 160
    assert summary.pooled.interval_95 == pytest.approx(wilson_interval((summary.pooled["accuracy"] or 0) * 40, 40))

    partial = summarise_folds(named[:-1])  # the last round lacks a fold
    assert partial.over_rounds["accuracy"].num == 3
    assert partial.over_rounds["accuracy"].mean == pytest.approx(np.mean(accuracies[:3]))
    assert partial.num_rounds_left_out == 1
    alone = summarise_folds(results)
    assert alone.over_rounds == {} and alone.num_rounds_left_out == 0


def test_multilabel_folds_are_pooled_by_their_counts() -> None:
    results = multilabel_folds(3, [40, 30, 50])
    summary = summarise_folds(results)
    assert summary.task.several
    pooled, over_folds = summary.pooled.per_class, summary.classes_over_folds
    for c in range(3):
        names = ("true_positives", "false_positives", "false_negatives")
        tp, fp, fn = (sum(r.metrics.counts[name][c] for r in results) for name in names)
        assert pooled["f1"][c] == pytest.approx(2 * tp / (2 * tp + fp + fn))
        f1s = np.array([result.metrics.per_class["f1"][c] for result in results], float)
        assert over_folds["f1"][c].mean == pytest.approx(np.mean(f1s))
        assert over_folds["f1"][c].std == pytest.approx(np.std(f1s, ddof=1))
        assert over_folds["auc"][c].mean == pytest.approx(np.mean([r.metrics.per_class["auc"][c] for r in results]))
        everything = np.arange(pooled["num_known"][c] or 0) < (pooled["support"][c] or 0)
        assert pooled["always_yes_f1"][c] == pytest.approx(f1_score(everything, np.ones(len(everything))))
    assert summary.over_folds["macro_f1"].mean == pytest.approx(np.mean([r.metrics["macro_f1"] for r in results]))


@given(values=st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=8))
def test_spread_is_numpys(values: list[float | None]) -> None:
    there = [value for value in values if value is not None]
    spread = measure_spread(values)
    assert spread.num == len(there)
    assert spread.mean == (pytest.approx(np.mean(there)) if there else None)
    assert spread.std == (pytest.approx(np.std(there, ddof=1), abs=1e-12) if len(there) > 1 else None)


def test_folds_that_do_not_belong_together_are_refused() -> None:
    results, true, predicted = random_folds(0, [5, 5])
    other = single_fold("fold-07", true[0], predicted[0], ("positive", "negative", "surprise", "others"))
    with pytest.raises(FacetError, match="no fold is finished"):
        summarise_folds([])
    with pytest.raises(FacetError, match="fold-01 is given twice"):
        summarise_folds([*results, results[1]])
    with pytest.raises(FacetError, match="fold-00 and fold-07 are of different classes"):
        summarise_folds([*results, other])


def test_no_number_of_the_report_is_not_a_number() -> None:
    results, _, _ = random_folds(9, [1, 1, 2])

    def walk(value: Any) -> None:
        if isinstance(value, float):
            assert math.isfinite(value)
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
            walk(inner)

    walk(summarise_folds(results).to_json())
