"""Scores as functions of counts per subject, so that subjects can be resampled and swapped between methods."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from train.studies.compare.resampling import in_chunks, sign_flip_p

SCORES = ("accuracy", "uar", "macro_f1")
MULTILABEL_SCORES = ("macro_f1", "auc")
_TINY = 1e-9  # counts are integers, or means of some; less than this is zero


@dataclass(frozen=True)
class PairWins:
    """AUC of one fold by pairs of subjects: a positive sample of one and a negative sample of the other (Obuchowski 1997,
    "Nonparametric analysis of clustered ROC curve data")."""

    subjects: np.ndarray  # i64 (n,): indices of the fold's test subjects among all subjects
    wins: np.ndarray  # f64 (C, n, n): pairs in which i's positive sample scores higher than j's negative, ties half
    pairs: np.ndarray  # f64 (C, n, n): all pairs


@dataclass(frozen=True)
class SubjectResults:
    """The test of one run, as counts per subject.

    counts: f64 (R, S, D), R rounds, S subjects, zero where a subject is not tested in a round; D = C·C, the confusion matrix,
    row = true class; multi-label: 4·C, true and false positives, false and true negatives.
    """

    num_classes: int
    multilabel: bool
    counts: np.ndarray
    folds: tuple[PairWins, ...] = ()  # multi-label only

    @property
    def score_names(self) -> tuple[str, ...]:
        return MULTILABEL_SCORES if self.multilabel else SCORES


def score_run(run: SubjectResults, name: str) -> float:
    """Return the score of one run as train/tasks defines it: of all folds of a round together, then the mean over rounds.

    AUC: the mean over folds, whose models have different scales, then over classes; NaN where no class has one.
    """
    return float(_score_draws(run, name, np.ones((1, run.counts.shape[1])))[0])


def resample_score(runs: Sequence[SubjectResults], name: str, resamples: np.ndarray) -> np.ndarray:
    """Return the mean score over a method's seeds in each bootstrap sample of subjects, f64 (n,).

    Args:
        runs: one per seed. resamples: of draw_resamples, the same for all methods of a comparison.
    """
    drawn: np.ndarray = in_chunks(resamples, lambda rows: np.mean([_score_draws(run, name, rows) for run in runs], 0))
    return drawn


def difference_p(
    first: Sequence[SubjectResults], other: Sequence[SubjectResults], name: str, swaps: np.ndarray, *, exact: bool
) -> float:
    """Return the p-value of a sign-flip permutation test over subjects, each with the results of all seeds together.

    A swap gives a subject's counts to the other method, in all seeds, and the mean scores are computed again. For accuracy and
    UAR, which are sums over subjects, this flips the sign of the subject's difference. AUC: it flips the sign of the subject's
    part in the difference of mean AUCs, half of its pairs (the structural components of DeLong, DeLong & Clarke-Pearson 1988).

    Args:
        first, other: runs in the order of their seeds, paired in turn. swaps, exact: of draw_swaps.
    """
    if name == "auc":
        parts = np.mean([_auc_parts(run) for run in other], 0) - np.mean([_auc_parts(run) for run in first], 0)
        return sign_flip_p(float(parts.sum()), (1 - 2 * swaps) @ parts, exact=exact)
    seeds = range(math.lcm(len(first), len(other)))  # each run as often as the others of its method
    pairs = [(first[seed % len(first)].counts, other[seed % len(other)].counts) for seed in seeds]

    def difference(rows: np.ndarray) -> np.ndarray:
        return np.mean([_swapped_difference(first[0], name, ours, theirs, rows) for ours, theirs in pairs], 0)

    observed = float(difference(np.zeros((1, swaps.shape[1])))[0])
    return sign_flip_p(observed, in_chunks(swaps, difference), exact=exact)


def _swapped_difference(
    run: SubjectResults, name: str, ours: np.ndarray, theirs: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Return their score minus ours with the subjects of each row (n, S) swapped, f64 (n,): the mean over rounds."""
    mixed = theirs.sum(1) + np.einsum("ns,rsd->nrd", rows, ours - theirs, optimize=True)
    rest = (ours + theirs).sum(1) - mixed
    difference: np.ndarray = _score_counts(run, name, mixed) - _score_counts(run, name, rest)
    return difference.mean(1)


def _score_draws(run: SubjectResults, name: str, rows: np.ndarray) -> np.ndarray:
    """Return the score with the subject weights of each row (n, S), f64 (n,); NaN where there is none."""
    if name == "auc":
        over_folds = _mean_known(np.stack([_fold_auc(fold, rows) for fold in run.folds], -1))
        return _mean_known(over_folds)
    counts = np.einsum("ns,rsd->nrd", rows, run.counts, optimize=True)
    return _mean_known(_score_counts(run, name, counts))


def _score_counts(run: SubjectResults, name: str, counts: np.ndarray) -> np.ndarray:
    """Return the scores of counts (…, D), as pool_confusions and pool_multilabel do; NaN of no counts."""
    num = run.num_classes
    with np.errstate(invalid="ignore", divide="ignore"):
        if run.multilabel:
            true, false, missed, absent = np.moveaxis(counts.reshape(*counts.shape[:-1], 4, num), -2, 0)
            f1 = 2 * true / np.maximum(2 * true + false + missed, _TINY)
            return _mean_known(np.where(true + false + missed + absent > _TINY, f1, np.nan))
        confusion = counts.reshape(*counts.shape[:-1], num, num)
        hits, support = np.einsum("...cc->...c", confusion), confusion.sum(-1)
        total = support.sum(-1)
        if name == "accuracy":
            return hits.sum(-1) / total
        if name == "uar":
            return _mean_known(np.where(support > _TINY, hits / support, np.nan))
        f1 = 2 * hits / np.maximum(support + confusion.sum(-2), _TINY)
        return np.where(total > _TINY, f1.mean(-1), np.nan)


def _fold_auc(fold: PairWins, rows: np.ndarray) -> np.ndarray:
    """Return the AUC of each class, f64 (n, C); NaN where it has no pair."""
    weights = rows[:, fold.subjects]
    wins, pairs = (
        np.einsum("ni,cij,nj->nc", weights, table, weights, optimize=True) for table in (fold.wins, fold.pairs)
    )
    return np.where(pairs > _TINY, wins / np.maximum(pairs, _TINY), np.nan)


def _auc_parts(run: SubjectResults) -> np.ndarray:
    """Return the part of each subject in the mean AUC, f64 (S,)."""
    parts = np.zeros(run.counts.shape[1])
    num_pairs = np.array([fold.pairs.sum((1, 2)) for fold in run.folds])  # (F, C)
    num_folds = (num_pairs > 0).sum(0)
    for fold, pairs in zip(run.folds, num_pairs, strict=True):
        for label in np.flatnonzero(pairs):
            wins = fold.wins[label]
            scale = num_folds[label] * (num_folds > 0).sum() * pairs[label]
            parts[fold.subjects] += (wins.sum(0) + wins.sum(1)) / (2 * scale)
    return parts


def _mean_known(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis of all values that are not NaN; NaN if all are."""
    known = ~np.isnan(values)
    return np.where(known, values, 0).sum(-1) / np.where(known.any(-1), known.sum(-1), np.nan)
