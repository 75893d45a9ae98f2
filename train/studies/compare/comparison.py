"""Compare methods with the first of them: scores over seeds, intervals, p-values, and notes on their limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from train.config import RunConfig
from train.reporting.spread import measure_spread
from train.studies.compare.resampling import (
    NUM_RESAMPLES,
    NUM_SWAPS,
    correct_holm,
    draw_resamples,
    draw_swaps,
    percentile_interval,
    smallest_p,
)
from train.studies.compare.runs import Method
from train.studies.compare.scores import difference_p, resample_score, score_run

# With fewer clusters, percentile intervals cover less than they claim (Cameron, Gelbach & Miller 2008).
FEW_SUBJECTS = 30
FEWEST_SUBJECTS = 6  # with fewer, no difference can be significant at 0.05


@dataclass(frozen=True)
class Difference:
    """A method's score minus the baseline's, on the same samples."""

    value: float
    low: float  # 95 % interval
    high: float
    p: float
    p_holm: float  # corrected for the number of methods that are compared with the baseline


@dataclass(frozen=True)
class MethodScore:
    """One score of one method; fractions in 0…1. std: over seeds, with n − 1; None of a single seed."""

    method: str
    score: str
    num_seeds: int
    mean: float
    std: float | None
    low: float  # 95 % interval of the mean
    high: float
    seeds: dict[int, float]
    difference: Difference | None  # None for the baseline


@dataclass(frozen=True)
class Comparison:
    """Every score of every method, the baseline first. compare.json has these fields."""

    methods: tuple[str, ...]
    score_names: tuple[str, ...]
    rows: tuple[MethodScore, ...]
    runs: dict[str, list[str]]  # method → names of its runs' folders
    datasets: tuple[str, ...]
    licences: tuple[str, ...]
    class_names: tuple[str, ...]
    num_subjects: int
    num_samples: int
    num_rounds: int
    exact: bool  # the permutation test used all ways to swap
    warnings: tuple[str, ...]
    conventions: tuple[str, ...]

    @property
    def baseline(self) -> str:
        return self.methods[0]

    def find(self, method: str, score: str) -> MethodScore:
        return next(row for row in self.rows if (row.method, row.score) == (method, score))

    def find_p(self, difference: Difference) -> float:
        """Return p, corrected if several methods are compared with the baseline."""
        return difference.p_holm if len(self.methods) > 2 else difference.p

    def format_p(self, difference: Difference) -> str:
        """Return p = 0.012."""
        p = self.find_p(difference)
        return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def compare_methods(methods: Sequence[Method]) -> Comparison:
    """Compare every method with the first. All are tested on the same samples, as read_methods ensures."""
    first = methods[0].runs[0]
    num_subjects = len(first.subjects)
    resamples = draw_resamples(num_subjects)
    swaps, exact = draw_swaps(num_subjects)
    rows: list[MethodScore] = []
    for score in first.results.score_names:
        rows += _compare_score(methods, score, resamples, swaps, exact=exact)
    runs = [run for method in methods for run in method.runs]
    datasets = (name for run in runs for name in (run.config.dataset, run.config.test_dataset) if name)
    score_names = tuple(dict.fromkeys(row.score for row in rows))
    return Comparison(
        methods=tuple(method.name for method in methods),
        score_names=score_names,
        rows=tuple(rows),
        runs={method.name: [run.name for run in method.runs] for method in methods},
        datasets=tuple(dict.fromkeys(datasets)),
        licences=tuple(dict.fromkeys(line for run in runs for line in run.licences)),
        class_names=first.class_names,
        num_subjects=num_subjects,
        num_samples=len({(subject, name) for _, subject, name in first.samples}),
        num_rounds=len({fold.round for fold in first.folds}),
        exact=exact,
        warnings=tuple(_list_warnings(methods, num_subjects)),
        conventions=tuple(_list_conventions(methods, score_names, num_subjects, exact=exact)),
    )


def _compare_score(
    methods: Sequence[Method], score: str, resamples: np.ndarray, swaps: np.ndarray, *, exact: bool
) -> list[MethodScore]:
    """Return a row a method; none if some run has no AUC, because no class has positive and negative samples in one fold."""
    seeds = [{run.config.recipe.seed: score_run(run.results, score) for run in method.runs} for method in methods]
    if any(math.isnan(value) for values in seeds for value in values.values()):
        return []
    means = [sum(values.values()) / len(values) for values in seeds]
    drawn = [resample_score(method.results, score, resamples) for method in methods]
    first = methods[0].results
    p_values = [difference_p(first, method.results, score, swaps, exact=exact) for method in methods[1:]]
    differences: list[Difference | None] = [None]
    for mean, draws, p, p_holm in zip(means[1:], drawn[1:], p_values, correct_holm(p_values), strict=True):
        differences.append(Difference(mean - means[0], *percentile_interval(draws - drawn[0]), p, p_holm))
    return [
        MethodScore(
            method.name, score, len(values), mean, measure_spread(values.values()).std, *percentile_interval(draws),
            values, difference,
        )
        for method, values, mean, draws, difference in zip(methods, seeds, means, drawn, differences, strict=True)
    ]  # fmt: skip


def _list_warnings(methods: Sequence[Method], num_subjects: int) -> list[str]:
    lines = []
    if num_subjects < FEWEST_SUBJECTS:
        smallest = f", and no p can be below {smallest_p(num_subjects):.3g}" if len(methods) > 1 else ""
        lines.append(f"FEW SUBJECTS: {num_subjects} are tested; intervals over so few are too narrow{smallest}")
    seeds = [[run.config.recipe.seed for run in method.runs] for method in methods]
    if len({len(one) for one in seeds}) > 1:
        texts = ", ".join(f"{method.name} {len(one)}" for method, one in zip(methods, seeds, strict=True))
        lines.append(f"SEEDS: methods have different numbers of them ({texts})")
    elif len(methods) > 1 and len(seeds[0]) == 1:
        lines.append("ONE SEED: a difference may be that of two trainings, not of two methods; train each with several")
    elif any(one != seeds[0] for one in seeds):
        lines.append("SEEDS: methods were not trained with the same ones")
    if files := [method.name for method in methods if method.runs[0].is_file]:
        lines.append(
            "PREDICTIONS FROM A FILE: not checked who trained it, or whether test data chose anything "
            f"({', '.join(files)})"
        )
    configs = [(method.name, run.config) for method in methods for run in method.runs if not run.is_file]
    limits: dict[str, Callable[[RunConfig], bool]] = {
        "RANDOM WEIGHTS: model or prompts were not pretrained; no published result compares": lambda c: c.is_random,
        "CONTROL: training labels were shuffled": lambda c: c.recipe.shuffle_labels,
        "CENTRED SCORES: scores of the tested subjects' own scans were subtracted, see their reports": (
            lambda c: c.recipe.centre_scores != "none"
        ),
    }
    for line, applies in limits.items():
        if names := dict.fromkeys(name for name, config in configs if applies(config)):
            lines.append(f"{line} ({', '.join(names)})")
    return lines


def _list_conventions(
    methods: Sequence[Method], score_names: Sequence[str], num_subjects: int, *, exact: bool
) -> list[str]:
    """Return the footnote of a table: how each number was computed."""
    few = " Over so few they tend to be too narrow." if num_subjects < FEW_SUBJECTS else ""
    rounds = ", then averaged over rounds" if methods[0].runs[0].results.shape[0] > 1 else ""
    lines = [f"Mean ± standard deviation (n − 1) over seeds; scores of all folds pooled{rounds}."]
    if "auc" in score_names:
        lines.append("AUC is the mean over folds, then over classes.")
    lines.append(
        f"Intervals: 95 %, percentile bootstrap over the {num_subjects} subjects ({NUM_RESAMPLES:,} resamples), of the mean "
        f"over seeds.{few}"
    )
    if len(methods) > 1:
        lines.append(describe_test(methods[0].name, len(methods) - 1, num_subjects, exact=exact))
    lines.append("Intervals and p are about other test subjects, not about other trainings: ± shows how those vary.")
    return lines


def describe_test(baseline: str, num_compared: int, num_subjects: int, *, exact: bool) -> str:
    """Describe how p was computed."""
    ways = f"all {2**num_subjects:,} sign flips" if exact else f"{NUM_SWAPS:,} random sign flips, p = (k + 1) / (n + 1)"
    holm = f"; p after Holm's correction for {num_compared} comparisons" if num_compared > 1 else ""
    return (
        f"Differences are paired, from {baseline}; p: two-sided permutation test over subjects ({ways}), each with all seeds "
        f"together{holm}."
    )
