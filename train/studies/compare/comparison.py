"""Methods compared with the first of them: scores over seeds, intervals, p-values, and what must be said beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
from train.studies.crossval.summary import measure_spread

FEW_SUBJECTS = (
    30  # below, percentile intervals over clusters cover less than they claim (Cameron, Gelbach & Miller 2008)
)
FEWEST_SUBJECTS = 6  # with fewer, no difference can be significant at 0.05
TITLES = {"accuracy": "accuracy", "uar": "UAR", "macro_f1": "macro-F1", "auc": "AUC"}


@dataclass(frozen=True)
class Difference:
    """A method's score minus the baseline's, on the same samples."""

    value: float
    low: float  # 95 % interval
    high: float
    p: float
    p_holm: float  # corrected for the number of methods that are compared with the baseline in this score


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
    """Every score of every method, the baseline first; warnings and conventions are lines for the reader."""

    methods: tuple[str, ...]
    score_names: tuple[str, ...]
    rows: tuple[MethodScore, ...]
    runs: dict[str, list[str]]  # folders' names, of each method
    datasets: tuple[str, ...]
    licences: tuple[str, ...]
    class_names: tuple[str, ...]
    num_subjects: int
    num_samples: int
    num_rounds: int
    exact: bool  # all ways to swap were tried
    warnings: tuple[str, ...]
    conventions: tuple[str, ...]

    @property
    def baseline(self) -> str:
        return self.methods[0]

    def find(self, method: str, score: str) -> MethodScore:
        return next(row for row in self.rows if (row.method, row.score) == (method, score))


def compare_methods(methods: Sequence[Method]) -> Comparison:
    """Compares every method with the first. All are tested on the same samples (runs.read_methods sees to it)."""
    first = methods[0].runs[0]
    num_subjects = len(first.subjects)
    resamples = draw_resamples(num_subjects)
    swaps, exact = draw_swaps(num_subjects)
    rows: list[MethodScore] = []
    for score in first.results.score_names:
        values = [{run.config.recipe.seed: score_run(run.results, score) for run in method.runs} for method in methods]
        if any(math.isnan(value) for one in values for value in one.values()):
            continue  # no class has both positive and negative samples in one fold
        drawn = [resample_score(method.results, score, resamples) for method in methods]
        means = [sum(one.values()) / len(one) for one in values]
        baseline = methods[0].results
        p_values = [difference_p(baseline, method.results, score, swaps, exact=exact) for method in methods[1:]]
        corrected = correct_holm(p_values)
        for number, method in enumerate(methods):
            difference = None
            if number:
                interval = percentile_interval(drawn[number] - drawn[0])
                p, p_holm = p_values[number - 1], corrected[number - 1]
                difference = Difference(means[number] - means[0], *interval, p, p_holm)
            seeds = values[number]
            std = measure_spread(seeds.values()).std
            interval = percentile_interval(drawn[number])
            rows.append(MethodScore(method.name, score, len(seeds), means[number], std, *interval, seeds, difference))
    configs = [run.config for method in methods for run in method.runs]
    score_names = tuple(dict.fromkeys(row.score for row in rows))
    return Comparison(
        methods=tuple(method.name for method in methods),
        score_names=score_names,
        rows=tuple(rows),
        runs={method.name: [run.name for run in method.runs] for method in methods},
        datasets=tuple(dict.fromkeys(name for one in configs for name in (one.dataset, one.test_dataset) if name)),
        licences=tuple(dict.fromkeys(line for method in methods for run in method.runs for line in run.licences)),
        class_names=first.class_names,
        num_subjects=num_subjects,
        num_samples=len({(subject, name) for _, subject, name in first.samples}),
        num_rounds=len({one[0] for one in first.folds}),
        exact=exact,
        warnings=tuple(_list_warnings(methods, num_subjects)),
        conventions=tuple(_list_conventions(methods, score_names, num_subjects, exact=exact)),
    )


def _list_warnings(methods: Sequence[Method], num_subjects: int) -> list[str]:
    lines = []
    if num_subjects < FEWEST_SUBJECTS:
        smallest = f", and no p can be below {smallest_p(num_subjects):.3g}" * (len(methods) > 1)
        lines.append(f"FEW SUBJECTS: {num_subjects} are tested; intervals over so few are too narrow{smallest}")
    nums = [len(method.runs) for method in methods]
    if len(set(nums)) > 1:
        texts = ", ".join(f"{method.name} {num}" for method, num in zip(methods, nums, strict=True))
        lines.append(f"SEEDS: methods have different numbers of them ({texts})")
    elif len(methods) > 1 and nums[0] == 1:
        lines.append("ONE SEED: a difference may be that of two trainings, not of two methods; train each with several")
    elif any(
        {run.config.recipe.seed for run in m.runs} != {r.config.recipe.seed for r in methods[0].runs} for m in methods
    ):
        lines.append("SEEDS: methods were not trained with the same ones")
    configs = [(method.name, run.config) for method in methods for run in method.runs]
    if names := list(dict.fromkeys(name for name, config in configs if config.is_random)):
        lines.append(
            f"RANDOM WEIGHTS: model or prompts were not pretrained; no published result compares ({', '.join(names)})"
        )
    if names := list(dict.fromkeys(name for name, config in configs if config.recipe.shuffle_labels >= 0)):
        lines.append(f"CONTROL: training labels were shuffled ({', '.join(names)})")
    return lines


def _list_conventions(
    methods: Sequence[Method], score_names: Sequence[str], num_subjects: int, *, exact: bool
) -> list[str]:
    """What a table's footnote says: how each number was made."""
    few = " Over so few they tend to be too narrow." if num_subjects < FEW_SUBJECTS else ""
    rounds = ", then averaged over rounds" if methods[0].runs[0].results.counts.shape[0] > 1 else ""
    lines = [f"Mean ± standard deviation (n − 1) over seeds; scores of all folds pooled{rounds}."]
    if "auc" in score_names:
        lines.append("AUC is the mean over folds, then over classes.")
    lines.append(
        f"Intervals: 95 %, percentile bootstrap over the {num_subjects} subjects ({NUM_RESAMPLES:,} resamples), of the mean "
        f"over seeds.{few}"
    )
    if len(methods) > 1:
        lines.append(describe_test(methods[0].name, len(methods) - 1, num_subjects, exact=exact))
    lines.append(
        "Intervals and p tell of other people to test, not of other trainings: how these vary is what ± tells."
    )
    return lines


def describe_test(baseline: str, num_compared: int, num_subjects: int, *, exact: bool) -> str:
    """How p was found."""
    ways = f"all {2**num_subjects:,} sign flips" if exact else f"{NUM_SWAPS:,} random sign flips, p = (k + 1) / (n + 1)"
    holm = f"; p after Holm's correction for {num_compared} comparisons" if num_compared > 1 else ""
    return (
        f"Differences are paired, from {baseline}; p: two-sided permutation test over subjects ({ways}), each with all seeds "
        f"together{holm}."
    )
