"""The table of an ablation: a row a variant, mean ± std over seeds, and the difference to the full model."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from shared.errors import FacetError
from shared.runs import ABLATION_CSV, ABLATION_TEX
from shared.store.storage import write_file
from train.runs.results import FoldResult
from train.studies.ablation.cost import Cost
from train.studies.ablation.variants import Variant
from train.studies.compare.comparison import Comparison, describe_test
from train.studies.crossval.summary import (
    MULTILABEL_SCORES,
    SCORES,
    CrossvalAbout,
    CrossvalSummary,
    Spread,
    measure_spread,
    summarise_folds,
)
from train.studies.crossval.tables import (
    LATEX_HEADINGS,
    escape_latex,
    format_csv,
    format_latex_row,
    format_latex_spread,
)
from train.studies.crossval.text import LINE_LENGTH, SCORE_TITLES, describe_model, format_percent, list_warnings


@dataclass(frozen=True)
class Row:
    """A variant's scores; fractions."""

    variant: Variant
    seeds: tuple[int, ...]  # with results
    num_tested: int  # samples, of all folds of the first of them
    scores: dict[str, Spread]  # over seeds, of scores pooled over folds
    differences: dict[str, Spread]  # to the full model, of seeds of which both have the same folds; none of its own
    cost: Cost = field(default_factory=Cost)
    p_values: dict[str, tuple[float, float]] = field(default_factory=dict)  # p and Holm's p, of scores that were tested


@dataclass(frozen=True)
class Ablation:
    rows: tuple[Row, ...]  # the full model first
    score_names: tuple[str, ...]
    warnings: tuple[str, ...]
    test: str = ""  # how p was found; empty where nothing was tested


def summarise_ablation(
    variants: Sequence[Variant],
    results: Mapping[tuple[str, int], Sequence[FoldResult]],
    about: CrossvalAbout,
    costs: Mapping[str, Cost] | None = None,
    comparison: Comparison | None = None,
) -> Ablation:
    """
    Args:
        variants: the full model first. results: (variant, seed) → the folds that are finished. about: of the full model.
        costs: by variant, where they are known. comparison: of the variants that can be paired, under their own names.
    Raises:
        FacetError: no fold of any run is finished, or folds of different classes.
    """
    summaries = {key: summarise_folds(folds) for key, folds in results.items() if folds}
    if not summaries:
        raise FacetError("no fold is finished, so there is nothing to compare; what failed is listed above")
    names = MULTILABEL_SCORES if next(iter(summaries.values())).multilabel else SCORES
    seeds = sorted({seed for _, seed in results})
    rows = []
    for variant in variants:
        there = {seed: summaries[variant.name, seed] for seed in seeds if (variant.name, seed) in summaries}
        pairs = []
        for seed, summary in there.items():
            full = (variants[0].name, seed)
            if variant is not variants[0] and _fold_names(results[full]) == _fold_names(results[variant.name, seed]):
                pairs.append((summary, summaries[full]))
        rows.append(
            Row(
                variant,
                tuple(there),
                next((summary.pooled.num_samples for summary in there.values()), 0),
                {name: measure_spread(_score(one, name) for one in there.values()) for name in names},
                {name: measure_spread(_subtract(a, b, name) for a, b in pairs) for name in names},
                (costs or {}).get(variant.name, Cost()),
                _find_p_values(comparison, variant.name),
            )
        )
    warnings = _list_warnings(rows, summaries, results, about)
    if comparison is None:
        return Ablation(tuple(rows), names, tuple(warnings))
    few = [line for line in comparison.warnings if line.startswith("FEW SUBJECTS")]
    num = len(comparison.methods) - 1
    test = describe_test(comparison.baseline, num, comparison.num_subjects, exact=comparison.exact)
    return Ablation(tuple(rows), names, (*warnings, *few), test)


def _find_p_values(comparison: Comparison | None, variant: str) -> dict[str, tuple[float, float]]:
    rows = () if comparison is None else comparison.rows
    return {r.score: (r.difference.p, r.difference.p_holm) for r in rows if r.method == variant and r.difference}


def write_ablation(folder: Path, ablation: Ablation, about: CrossvalAbout) -> None:
    """Writes ablation.csv and ablation.tex. Equal results give equal bytes."""
    write_file(folder / ABLATION_CSV, format_ablation_csv(ablation).encode())
    write_file(folder / ABLATION_TEX, format_ablation_latex(ablation, about).encode())


def format_ablation(ablation: Ablation) -> str:
    """The table for a console, in percent; ends without a line feed."""
    width = max(len("variant"), *(len(row.variant.name) for row in ablation.rows))
    titles = [SCORE_TITLES[name].split(" (")[0] for name in ablation.score_names]
    first = ablation.score_names[0]
    heads = "".join(f"{t:>15}{'to full':>13}" + f"{'p':>8}" * (n == 0) for n, t in enumerate(titles))
    lines = [f"{'in %':<{width}}{heads}{'parameters':>12}{'s a fold':>10}{'CPU s':>8}{'MB':>7}"]
    for row in ablation.rows:
        cells = [
            f"{_format_spread(row.scores[name]):>15}{_format_spread(row.differences[name], signed=True):>13}"
            + f"{_format_p(row, name):>8}" * (name == first)
            for name in ablation.score_names
        ]
        numbers, widths = _format_cost(row.cost), (12, 10, 8, 7)
        cells += [f"{number:>{wide}}" for number, wide in zip(numbers, widths, strict=True)]
        lines.append((f"{row.variant.name:<{width}}" + "".join(cells)).rstrip())
    lines.append("")
    lines += [f"{r.variant.name:<{width}}  {r.variant.options or '(all parts)'}" for r in ablation.rows]
    lines.append("")
    for line in (*(f"! {warning}" for warning in ablation.warnings), *list_conventions(ablation)):
        lines += textwrap.wrap(line, LINE_LENGTH, subsequent_indent="  ", initial_indent="" if line[0] == "!" else "- ")
    return "\n".join(lines)


def list_conventions(ablation: Ablation) -> list[str]:
    """How the numbers were taken, a line each."""
    num = max(len(row.seeds) for row in ablation.rows)
    return [
        "Scores are pooled: counts summed over all folds, which are the same in every run.",
        f"mean ± std is over {num} seeds, with the sample standard deviation (n - 1)."
        if num > 1
        else "One seed, so there is no standard deviation; --seeds 3 adds two.",
        "'to full' is the difference to the full model of the same seed.",
        *([ablation.test] if ablation.test else []),
        "Time is of training and testing, the mean over folds: as it went by, and what all cores computed. Memory is the most "
        "that the logs tell: of the GPU, or what the process held in RAM. Only runs of one "
        "machine, a fold at a time (--jobs 1), compare in these.",
    ]


def format_ablation_csv(ablation: Ablation) -> str:
    """A row a variant; fractions, empty where not defined."""
    parts = ("mean", "std", "difference_mean", "difference_std", "p", "p_holm")
    heads = [f"{name}_{part}" for name in ablation.score_names for part in parts]
    costs = [one.name for one in fields(Cost)]
    rows: list[list[Any]] = [["variant", "options", "seeds", "num_tested", *heads, *costs]]
    for row in ablation.rows:
        values: list[Any] = []
        for name in ablation.score_names:
            a, b = row.scores[name], row.differences[name]
            values += [a.mean, a.std, b.mean, b.std, *row.p_values.get(name, (None, None))]
        values += [getattr(row.cost, name) for name in costs]
        rows.append([row.variant.name, row.variant.options, " ".join(map(str, row.seeds)), row.num_tested, *values])
    return format_csv(rows)


def format_ablation_latex(ablation: Ablation, about: CrossvalAbout) -> str:
    """A booktabs tabular in percent, ready for \\input, with everything that qualifies the numbers in comments before it."""
    last_seed = max(seed for row in ablation.rows for seed in row.seeds)
    seeds = f" to {last_seed}" if last_seed != about["seed"] else ""  # goes on where describe_model ends
    caption = f"Ablation, {about['title']}. {', '.join(about['datasets'])}; {describe_model(about)}{seeds}."
    legend = [f"{row.variant.name}: {row.variant.options or 'all parts'}" for row in ablation.rows]
    comments = [*ablation.warnings, *list_conventions(ablation), about["licence"], *about["notes"], *legend]
    first = ablation.score_names[0]
    heads = []
    for name in ablation.score_names:
        heads += [LATEX_HEADINGS[name], r"$\Delta$", *([r"$p$"] if name == first else [])]
    heads += ["Parameters", "Time, s", "CPU, s", "MB"]
    rows = []
    for row in ablation.rows:
        cells = [escape_latex(row.variant.name)]
        for name in ablation.score_names:
            cells += [format_latex_spread(row.scores[name], narrow=True), _latex_difference(row.differences[name])]
            if name == first:
                cells.append(escape_latex(_format_p(row, name)) or "--")
        cells += [number or "--" for number in _format_cost(row.cost)]
        rows.append(format_latex_row(cells))
    lines = [
        *(f"% {' '.join(comment.split())}" for comment in comments),
        rf"% needs \usepackage{{booktabs}}; \caption{{{escape_latex(caption)}}}",
        rf"\begin{{tabular}}{{lcrr{'cr' * (len(ablation.score_names) - 1)}rrrr}}",
        r"\toprule",
        format_latex_row(["", *heads]),
        r"\midrule",
        rows[0],
        r"\midrule",
        *rows[1:],
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _fold_names(results: Sequence[FoldResult]) -> list[str]:
    return sorted(result.name for result in results)


def _score(summary: CrossvalSummary, name: str) -> float | None:
    value: float | None = getattr(summary.pooled, name)
    return value


def _subtract(one: CrossvalSummary, other: CrossvalSummary, name: str) -> float | None:
    a, b = _score(one, name), _score(other, name)
    return None if a is None or b is None else a - b


def _list_warnings(
    rows: Sequence[Row],
    summaries: Mapping[tuple[str, int], CrossvalSummary],
    results: Mapping[tuple[str, int], Sequence[FoldResult]],
    about: CrossvalAbout,
) -> list[str]:
    """What keeps these numbers from being the protocol's, and the runs that it is said of, where it is not said of all."""
    found: dict[str, list[str]] = {}
    for (variant, seed), folds in results.items():
        run = f"{variant}, seed {seed}"
        if (variant, seed) not in summaries:
            found.setdefault(f"PARTIAL: 0 of {about['num_folds']:,} folds are finished", []).append(run)
            continue
        for line in list_warnings(summaries[variant, seed], folds, {**about, "missing_folds": []}):
            found.setdefault(line, []).append(run)
    lines = [line + ("" if len(runs) == len(results) else f" ({'; '.join(runs)})") for line, runs in found.items()]
    for row in rows[1:]:
        if row.num_tested and rows[0].num_tested and row.num_tested != rows[0].num_tested:
            lines.append(
                f"{row.variant.name} is tested on {row.num_tested:,} samples, the full model on {rows[0].num_tested:,}"
            )
    return lines


def _format_spread(spread: Spread, *, signed: bool = False) -> str:
    if spread.mean is None:
        return ""
    mean = f"{100 * spread.mean:+.1f}" if signed else format_percent(spread.mean)
    return mean if spread.std is None else f"{mean} ± {format_percent(spread.std)}"


def _format_p(row: Row, score: str) -> str:
    """Corrected by Holm's method; empty where nothing was tested."""
    if score not in row.p_values:
        return ""
    p = row.p_values[score][1]
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _format_cost(cost: Cost) -> tuple[str, ...]:
    """Parameters, seconds a fold, CPU seconds a fold, megabytes; empty where not known."""
    return (
        "" if cost.num_parameters is None else f"{cost.num_parameters / 1e6:.2f}M",
        *("" if seconds is None else f"{seconds:.1f}" for seconds in (cost.seconds, cost.cpu_seconds)),
        "" if cost.memory_bytes is None else f"{cost.memory_bytes / 1e6:.0f}",
    )


def _latex_difference(spread: Spread) -> str:
    if spread.mean is None:
        return "--"
    std = "" if spread.std is None else rf"_{{\pm {format_percent(spread.std)}}}"
    return f"${100 * spread.mean:+.1f}{std}$"
