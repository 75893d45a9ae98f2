"""Intervals and p-values over subjects, whose samples are not independent of each other. Knows nothing of faces or runs.

The folds of a cross-validation share most of their training data, so a t-test over folds or repeated rounds finds differences
where there are none (Dietterich 1998, "Approximate statistical tests for comparing supervised classification learning
algorithms"; Bouckaert & Frank 2004, "Evaluating the replicability of significance tests for comparing learning algorithms").
Here the test subjects are resampled: a new experiment would draw other ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

NUM_RESAMPLES = 10_000
NUM_SWAPS = 19_999  # with the observed one 20,000: the smallest p is 0.00005
MOST_ENUMERATED = 15  # subjects; 2^14 ways to swap them, as a way and its opposite differ in sign alone
LEVEL = 0.95  # of intervals
CHUNK = 500  # resamples at a time, to limit memory
TOLERANCE = 1e-10  # between two scores in 0…1 that are equal except for the order of sums


def draw_resamples(num_subjects: int, num: int = NUM_RESAMPLES) -> np.ndarray:
    """Draw bootstrap samples of subjects, as counts: f64 (num, num_subjects), each row adds up to num_subjects.

    Subjects are drawn with all their samples, as clusters (Davison & Hinkley 1997, "Bootstrap methods and their application",
    section 3.8; Field & Welsh 2007, "Bootstrapping clustered data").
    """
    rng = np.random.default_rng(0)
    return rng.multinomial(num_subjects, np.full(num_subjects, 1 / num_subjects), num).astype(np.float64)


def percentile_interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval (Efron & Tibshirani 1993, "An introduction to the bootstrap", chapter 13).

    Args:
        values: (num,), one per resample; NaN where it has no value.
    """
    low, high = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def draw_swaps(num_subjects: int) -> tuple[np.ndarray, bool]:
    """Draw the subjects whose results two methods exchange: f64 (n, num_subjects) of 0 and 1.

    Returns:
        For few subjects all ways that differ in more than the difference's sign, the first without any exchange, and True;
        otherwise NUM_SWAPS random ones and False.
    """
    assert num_subjects > 0
    if num_subjects <= MOST_ENUMERATED:
        ways = np.arange(2 ** (num_subjects - 1))
        return (ways[:, None] >> np.arange(num_subjects) & 1).astype(np.float64), True
    return np.random.default_rng(0).integers(0, 2, (NUM_SWAPS, num_subjects)).astype(np.float64), False


def sign_flip_p(observed: float, swapped: np.ndarray, *, exact: bool) -> float:
    """Return the two-sided p of a paired permutation test: the probability of a difference at least this large by chance.

    If the methods are alike, a subject's results could as well be exchanged. With random swaps, the observed difference
    counts as one of them: (k + 1) / (n + 1) (Phipson & Smyth 2010, "Permutation p-values should never be zero").

    Args:
        swapped: (n,) differences after the swaps of `draw_swaps`.
    """
    num_as_large = int((np.abs(swapped) >= abs(observed) - TOLERANCE).sum())
    return num_as_large / len(swapped) if exact else (num_as_large + 1) / (len(swapped) + 1)


def smallest_p(num_subjects: int) -> float:
    """Return the smallest p that the test can give."""
    return 2.0 ** -(num_subjects - 1) if num_subjects <= MOST_ENUMERATED else 1 / (NUM_SWAPS + 1)


def correct_holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for several comparisons (Holm 1979, "A simple sequentially rejective multiple test procedure").

    Each adjusted value may be compared with the level that holds for all comparisons together.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def in_chunks(draws: np.ndarray, measure: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Apply `measure` to all rows (n, num_subjects) → (n,), CHUNK at a time."""
    return np.concatenate([measure(draws[start : start + CHUNK]) for start in range(0, len(draws), CHUNK)])
