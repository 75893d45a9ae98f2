"""Intervals and p-values over subjects: against scipy, scikit-learn and plain enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from crossval_results import compute_multilabel_metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap, permutation_test
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, roc_auc_score

from shared.runs import Prediction
from train.protocols.folds import Fold
from train.runs.results import RecordedFold
from train.studies.compare.resampling import (
    MOST_ENUMERATED,
    correct_holm,
    draw_resamples,
    draw_swaps,
    percentile_interval,
    sign_flip_p,
    smallest_p,
)
from train.studies.compare.runs import count_subjects
from train.studies.compare.scores import SubjectResults, difference_p, resample_score, score_run
from train.tasks.task import find_task

CLASSES = ("anger", "fear", "joy")
SEEDS = st.integers(0, 2**32 - 1)


class Tests:
    """Random predictions for some samples of each subject, and what `count_subjects` makes of them."""

    __test__ = False

    def __init__(self, seed: int, num_subjects: int, rate: float, *, truth: int = 0, num_folds: int = 1) -> None:
        samples, noise = np.random.default_rng(truth), np.random.default_rng(seed)
        self.subjects = [f"S{n:02d}" for n in range(num_subjects)]
        self.owners = np.repeat(np.arange(num_subjects), samples.integers(3, 7, num_subjects))
        self.true = samples.integers(0, 3, len(self.owners))
        self.said = np.where(noise.random(len(self.true)) < rate, self.true, noise.integers(0, 3, len(self.true)))
        self.targets = samples.integers(-1, 2, (len(self.owners), 3)).astype(np.int8)
        self.scores = np.round(noise.random(self.targets.shape) * 0.7 + 0.3 * rate * (self.targets == 1), 2)
        self.num_folds = num_folds

    def fold_of(self) -> np.ndarray:
        return self.owners % self.num_folds

    def count(self, *, multilabel: bool = False) -> SubjectResults:
        predictions = []
        for n, owner in enumerate(self.owners):
            labels, said, unknown = (CLASSES[self.true[n]],), (CLASSES[self.said[n]],), ()
            if multilabel:
                named = [self.targets[n] == 1, self.scores[n] >= 0.5, self.targets[n] == -1]
                labels, said, unknown = (tuple(itertools.compress(CLASSES, one)) for one in named)  # type: ignore[assignment]
            predictions.append(
                Prediction(f"{n}", self.subjects[owner], labels, said, tuple(map(float, self.scores[n])), unknown)
            )
        folds, tested = [], []
        for fold in range(self.num_folds):
            mine = [one for one, place in zip(predictions, self.fold_of(), strict=True) if place == fold]
            folds.append(Fold(f"fold-{fold:02d}", ("other",), tuple({one.subject for one in mine})))
            tested.append(RecordedFold(folds[-1].name, [], None, mine, {}))
        return count_subjects(folds, tested, self.subjects, CLASSES, find_task("aus" if multilabel else "classes"))


def macro_f1(true: np.ndarray, said: np.ndarray) -> float:
    return float(f1_score(true, said, labels=range(3), average="macro", zero_division=0))


TRUTHS = {"accuracy": accuracy_score, "uar": balanced_accuracy_score, "macro_f1": macro_f1}


@pytest.mark.parametrize("score", TRUTHS)
def test_scores_of_drawn_subjects_are_those_of_their_samples(score: str) -> None:
    tests = [Tests(seed, 6, 0.6) for seed in (1, 2)]
    runs = [one.count() for one in tests]
    assert score_run(runs[0], score) == pytest.approx(TRUTHS[score](tests[0].true, tests[0].said))
    resamples = draw_resamples(6, num=20)
    assert (resamples.sum(1) == 6).all() and len({*resamples[:, 0]}) > 2
    wanted = []
    for row in resamples.astype(int):
        chosen = np.repeat(np.arange(len(tests[0].owners)), row[tests[0].owners])
        wanted.append(np.mean([TRUTHS[score](one.true[chosen], one.said[chosen]) for one in tests]))
    np.testing.assert_allclose(resample_score(runs, score, resamples), wanted)


def test_several_classes_at_once_drawn_again() -> None:
    one = Tests(3, 6, 0.8, num_folds=2)
    run = one.count(multilabel=True)
    resamples = np.concatenate([np.ones((1, 6)), draw_resamples(6, num=20)])
    f1, auc = [], []
    for row in resamples.astype(int):
        chosen = np.repeat(np.arange(len(one.owners)), row[one.owners])
        half = np.full(3, 0.5, np.float32)
        metrics = compute_multilabel_metrics(one.targets[chosen], one.scores[chosen].astype(np.float32), half)
        f1.append(metrics["macro_f1"] or 0.0)
        classes = []
        for label in range(3):
            folds = []
            for fold in range(2):
                rows = [n for n in chosen if one.fold_of()[n] == fold and one.targets[n, label] >= 0]
                if len({*one.targets[rows, label]}) == 2:
                    folds.append(roc_auc_score(one.targets[rows, label], one.scores[rows, label]))
            if folds:
                classes.append(np.mean(folds))
        auc.append(np.mean(classes))
    np.testing.assert_allclose(resample_score([run], "macro_f1", resamples), f1)
    np.testing.assert_allclose(resample_score([run], "auc", resamples), auc)
    assert score_run(run, "auc") == pytest.approx(auc[0])


def test_intervals_are_those_of_scipy() -> None:
    """Where subjects have equally many samples, accuracy is the mean over subjects."""
    values = np.random.default_rng(0).random(25)
    drawn = draw_resamples(25) @ values / 25
    wanted = bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", random_state=1).confidence_interval
    assert percentile_interval(drawn) == pytest.approx((wanted.low, wanted.high), abs=0.006)


@settings(max_examples=15)
@given(seed=SEEDS, num_subjects=st.integers(2, 9))
def test_p_of_accuracy_is_that_of_scipy(seed: int, num_subjects: int) -> None:
    first, other = Tests(seed, num_subjects, 0.5), Tests(seed + 1, num_subjects, 0.7)
    hits = [np.bincount(one.owners, one.true == one.said, num_subjects) for one in (first, other)]
    wanted = permutation_test(
        (hits[1] - hits[0],), np.sum, permutation_type="samples", n_resamples=np.inf, vectorized=False
    )
    swaps, exact = draw_swaps(num_subjects)
    assert exact
    found = difference_p([first.count()], [other.count()], "accuracy", swaps, exact=True)
    assert found == pytest.approx(wanted.pvalue)
    assert found >= smallest_p(num_subjects)


def test_p_of_many_subjects_is_that_of_scipy() -> None:
    first, other = Tests(4, 30, 0.5), Tests(5, 30, 0.62)
    hits = [np.bincount(one.owners, one.true == one.said, 30) for one in (first, other)]
    wanted = permutation_test(
        (hits[1] - hits[0],),
        lambda x, axis: x.sum(axis),
        permutation_type="samples",
        n_resamples=50_000,
        vectorized=True,
    )
    swaps, exact = draw_swaps(30)
    assert not exact and len(np.unique(swaps, axis=0)) == len(swaps) == 19_999
    assert difference_p([first.count()], [other.count()], "accuracy", swaps, exact=exact) == pytest.approx(
        wanted.pvalue, abs=0.015
    )
    assert 0.001 < wanted.pvalue < 0.5  # something to be right about


@pytest.mark.parametrize("nums", [(1, 1), (2, 2), (3, 1), (2, 3)])
def test_p_of_macro_f1_is_that_of_all_exchanges(nums: tuple[int, int]) -> None:
    """Every way to exchange the two methods' predictions for some of four people, in all seeds."""
    first = [Tests(10 + n, 4, 0.4) for n in range(nums[0])]
    other = [Tests(20 + n, 4, 0.8) for n in range(nums[1])]
    differences = []
    for swap in itertools.product((False, True), repeat=4):
        mine = np.array(swap)[first[0].owners]
        pairs = [(first[n % nums[0]], other[n % nums[1]]) for n in range(math.lcm(*nums))]
        differences.append(
            np.mean(
                [
                    macro_f1(a.true, np.where(mine, a.said, b.said)) - macro_f1(a.true, np.where(mine, b.said, a.said))
                    for a, b in pairs
                ]
            )
        )
    wanted = np.mean(np.abs(differences) >= abs(differences[0]) - 1e-12)
    swaps, exact = draw_swaps(4)
    found = difference_p([a.count() for a in first], [b.count() for b in other], "macro_f1", swaps, exact=exact)
    assert found == pytest.approx(wanted)


def test_p_of_auc_is_that_of_the_subjects_own_where_each_is_a_fold() -> None:
    first, other = Tests(1, 8, 0.2, num_folds=8), Tests(2, 8, 1.0, num_folds=8)
    runs = [one.count(multilabel=True) for one in (first, other)]
    parts = np.zeros((2, 8))
    known = [
        [(rows := (one.owners == person) & (one.targets[:, label] >= 0)), len({*one.targets[rows, label]}) == 2]
        for one in (first,)
        for label in range(3)
        for person in range(8)
    ]
    num_folds = np.array([whole for _, whole in known]).reshape(3, 8).sum(1)
    assert num_folds.all()
    for method, one in enumerate((first, other)):
        for place, (rows, whole) in enumerate(known):
            label, person = divmod(place, 8)
            if whole:
                auc = roc_auc_score(one.targets[rows, label], one.scores[rows, label])
                parts[method, person] += auc / num_folds[label] / 3
    assert [score_run(run, "auc") for run in runs] == pytest.approx(parts.sum(1))
    wanted = permutation_test(
        (parts[1] - parts[0],), np.sum, permutation_type="samples", n_resamples=np.inf, vectorized=False
    )
    swaps, exact = draw_swaps(8)
    assert difference_p([runs[0]], [runs[1]], "auc", swaps, exact=exact) == pytest.approx(wanted.pvalue)


@settings(max_examples=15)
@given(seed=SEEDS, num_subjects=st.integers(1, MOST_ENUMERATED + 3), multilabel=st.booleans())
def test_no_difference_is_no_evidence_and_names_do_not_matter(seed: int, num_subjects: int, multilabel: bool) -> None:
    first, other = (Tests(seed + n, num_subjects, 0.6, num_folds=1).count(multilabel=multilabel) for n in (0, 1))
    swaps, exact = draw_swaps(num_subjects)
    resamples = draw_resamples(num_subjects, num=100)
    for score in first.score_names:
        if np.isnan(score_run(first, score)):
            continue  # one subject's few samples may have no AUC
        assert difference_p([first], [first], score, swaps, exact=exact) == 1
        assert difference_p([first, other], [other, first], score, swaps, exact=exact) == 1
        one = difference_p([first], [other], score, swaps, exact=exact)
        assert one == difference_p([other], [first], score, swaps, exact=exact)
        drawn = [resample_score([run], score, resamples) for run in (first, other)]
        low, high = percentile_interval(drawn[1] - drawn[0])
        assert percentile_interval(drawn[0] - drawn[1]) == pytest.approx((-high, -low))


def test_p_is_as_small_as_it_says_no_more_often_than_it_says() -> None:
    """400 comparisons of methods that are alike."""
    swaps, exact = draw_swaps(8)
    for score in ("accuracy", "macro_f1"):
        values = np.array(
            [
                difference_p(
                    [Tests(2 * n, 8, 0.5).count()], [Tests(2 * n + 1, 8, 0.5).count()], score, swaps, exact=exact
                )
                for n in range(200)
            ]
        )
        for level in (0.1, 0.3, 0.5):
            assert (values <= level).mean() <= level + 3 * np.sqrt(level * (1 - level) / 200)
        assert 0.35 < values.mean() < 0.75


def test_a_random_draw_is_never_impossible() -> None:
    assert sign_flip_p(1.0, np.zeros(99), exact=False) == 0.01  # Phipson & Smyth: never zero
    assert sign_flip_p(1.0, np.array([1.0, 0.2, -0.3, 0.1]), exact=True) == 0.25


@pytest.mark.parametrize("num_subjects", [1, 2, 6, MOST_ENUMERATED, 40])
def test_the_smallest_p_is_that_of_a_difference_in_every_subject(num_subjects: int) -> None:
    swaps, exact = draw_swaps(num_subjects)
    assert exact == (num_subjects <= MOST_ENUMERATED)
    found = sign_flip_p(float(num_subjects), (1 - 2 * swaps).sum(1), exact=exact)
    assert found == pytest.approx(smallest_p(num_subjects), rel=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.999))
def test_corrected_p_values_reject_what_holms_procedure_rejects(p_values: list[float], level: float) -> None:
    """Step by step, as Holm 1979 has it: from the smallest, until one is above level / (how many are left)."""
    adjusted = correct_holm(p_values)
    if any(abs(value - level) < 1e-12 for value in adjusted):
        return
    rejected = set()
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] > level / (len(p_values) - rank):
            break
        rejected.add(index)
    assert {index for index, value in enumerate(adjusted) if value <= level} == rejected
    assert all(one <= other <= 1 for one, other in zip(p_values, adjusted, strict=True))
