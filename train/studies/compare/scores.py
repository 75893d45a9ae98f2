"""Scores as functions of counts per subject, so that subjects can be resampled and swapped between methods."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from train.parts import TASKS
from train.studies.compare.resampling import in_chunks, sign_flip_p
from train.tasks.task import AUC, TINY, Counts, Task, find_task, mean_known

SCORES = {score.name: score for name in TASKS for score in find_task(name).compared}


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

    counts: as Task.count has them, f64 (R, S, …), R rounds, S subjects; zero where a subject is not tested in a round.
    """

    task: Task
    counts: Counts
    folds: tuple[PairWins, ...] = ()  # multi-label only

    @property
    def shape(self) -> tuple[int, int]:
        """Return the numbers of rounds and of subjects."""
        num_rounds, num_subjects = next(iter(self.counts.values())).shape[:2]
        return num_rounds, num_subjects

    @property
    def score_names(self) -> tuple[str, ...]:
        return tuple(score.name for score in self.task.compared)


def title_score(name: str) -> str:
    """Return a heading: "accuracy, %"."""
    return SCORES[name].short_title + ", %" * (SCORES[name].kind == "percent")


def score_run(run: SubjectResults, name: str) -> float:
    """Return the score of one run as its task defines it: of all folds of a round together, then the mean over rounds.

    AUC: the mean over folds, whose models have different scales, then over classes; NaN where no class has one.
    """
    return float(_score_draws(run, name, np.ones((1, run.shape[1])))[0])


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
    if name == AUC.name:
        parts = np.mean([_auc_parts(run) for run in other], 0) - np.mean([_auc_parts(run) for run in first], 0)
        return sign_flip_p(float(parts.sum()), (1 - 2 * swaps) @ parts, exact=exact)
    seeds = range(math.lcm(len(first), len(other)))  # each run as often as the others of its method
    pairs = [(first[seed % len(first)], other[seed % len(other)]) for seed in seeds]

    def difference(rows: np.ndarray) -> np.ndarray:
        return np.mean([_swapped_difference(ours, theirs, name, rows) for ours, theirs in pairs], 0)

    observed = float(difference(np.zeros((1, swaps.shape[1])))[0])
    return sign_flip_p(observed, in_chunks(swaps, difference), exact=exact)


def _swapped_difference(ours: SubjectResults, theirs: SubjectResults, name: str, rows: np.ndarray) -> np.ndarray:
    """Return their score minus ours with the subjects of each row (n, S) swapped, f64 (n,): the mean over rounds."""
    scores = []
    for one, another in ((theirs, ours), (ours, theirs)):
        own, swapped = _sum_subjects(one.counts, 1 - rows), _sum_subjects(another.counts, rows)
        scores.append(_score_counts(one.task, name, {key: own[key] + swapped[key] for key in own}))
    difference: np.ndarray = (scores[0] - scores[1]).mean(1)
    return difference


def _score_draws(run: SubjectResults, name: str, rows: np.ndarray) -> np.ndarray:
    """Return the score with the subject weights of each row (n, S), f64 (n,); NaN where there is none."""
    if name == AUC.name:
        return mean_known(mean_known(np.stack([_fold_auc(fold, rows) for fold in run.folds], -1)))
    return mean_known(_score_counts(run.task, name, _sum_subjects(run.counts, rows)))


def _sum_subjects(counts: Counts, rows: np.ndarray) -> Counts:
    """Return counts with the subject weights of each row (n, S): f64 (n, R, …)."""
    return {name: np.einsum("ns,rs...->nr...", rows, table, optimize=True) for name, table in counts.items()}


def _score_counts(task: Task, name: str, counts: Counts) -> np.ndarray:
    """Return a score of counts (n, R, …), f64 (n, R); NaN of no counts."""
    total = sum(table.reshape(*table.shape[:2], -1).sum(-1) for table in counts.values())
    return np.where(total > TINY, task.compute_overall(counts)[name], np.nan)


def _fold_auc(fold: PairWins, rows: np.ndarray) -> np.ndarray:
    """Return the AUC of each class, f64 (n, C); NaN where it has no pair."""
    weights = rows[:, fold.subjects]
    wins, pairs = (
        np.einsum("ni,cij,nj->nc", weights, table, weights, optimize=True) for table in (fold.wins, fold.pairs)
    )
    return np.where(pairs > TINY, wins / np.maximum(pairs, TINY), np.nan)


def _auc_parts(run: SubjectResults) -> np.ndarray:
    """Return the part of each subject in the mean AUC, f64 (S,)."""
    parts = np.zeros(run.shape[1])
    num_pairs = np.array([fold.pairs.sum((1, 2)) for fold in run.folds])  # (F, C)
    num_folds = (num_pairs > 0).sum(0)
    for fold, pairs in zip(run.folds, num_pairs, strict=True):
        for label in np.flatnonzero(pairs):
            wins = fold.wins[label]
            scale = num_folds[label] * (num_folds > 0).sum() * pairs[label]
            parts[fold.subjects] += (wins.sum(0) + wins.sum(1)) / (2 * scale)
    return parts
