"""The table of an ablation: a row a variant, mean ± std over seeds, and the difference to the full model."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.errors import FacetError
from shared.storage import write_file
from train.ablation.variants import Variant
from train.crossval.fold_results import FoldResult
from train.crossval.summary import (
    MULTILABEL_SCORES,
    SCORES,
    CrossvalAbout,
    CrossvalSummary,
    Spread,
    measure_spread,
    summarise_folds,
)
from train.crossval.tables import LATEX_HEADINGS, escape_latex, format_csv, format_latex_row, format_latex_spread
from train.crossval.text import LINE_LENGTH, SCORE_TITLES, describe_model, format_percent, list_warnings

ABLATION_CSV = "ablation.csv"
ABLATION_TEX = "ablation.tex"


@dataclass(frozen=True)
class Row:
    """A variant's scores; fractions."""

    variant: Variant
    seeds: tuple[int, ...]  # with results
    num_tested: int  # samples, of all folds of the first of them
    scores: dict[str, Spread]  # over seeds, of scores pooled over folds
    differences: dict[str, Spread]  # to the full model, of seeds of which both have the same folds; none of its own


@dataclass(frozen=True)
class Ablation:
    rows: tuple[Row, ...]  # the full model first
    score_names: tuple[str, ...]
    warnings: tuple[str, ...]


def summarise_ablation(
    variants: Sequence[Variant], results: Mapping[tuple[str, int], Sequence[FoldResult]], about: CrossvalAbout
) -> Ablation:
    """
    Args:
        variants: the full model first. results: (variant, seed) → the folds that are finished. about: of the full model.
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
            )
        )
    return Ablation(tuple(rows), names, tuple(_list_warnings(rows, summaries, results, about)))


def write_ablation(folder: Path, ablation: Ablation, about: CrossvalAbout) -> None:
    """Writes ablation.csv and ablation.tex. Equal results give equal bytes."""
    write_file(folder / ABLATION_CSV, format_ablation_csv(ablation).encode())
    write_file(folder / ABLATION_TEX, format_ablation_latex(ablation, about).encode())


def format_ablation(ablation: Ablation) -> str:
    """The table for a console, in percent; ends without a line feed."""
    width = max(len("variant"), *(len(row.variant.name) for row in ablation.rows))
    titles = [SCORE_TITLES[name].split(" (")[0] for name in ablation.score_names]
    lines = [f"{'in %':<{width}}" + "".join(f"{t:>15}{'to full':>13}" for t in titles)]
    for row in ablation.rows:
        cells = [
            f"{_format_spread(row.scores[name]):>15}{_format_spread(row.differences[name], signed=True):>13}"
            for name in ablation.score_names
        ]
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
    ]


def format_ablation_csv(ablation: Ablation) -> str:
    """A row a variant; fractions, empty where not defined."""
    parts = ("mean", "std", "difference_mean", "difference_std")
    heads = [f"{name}_{part}" for name in ablation.score_names for part in parts]
    rows: list[list[Any]] = [["variant", "options", "seeds", "num_tested", *heads]]
    for row in ablation.rows:
        spreads = [(row.scores[name], row.differences[name]) for name in ablation.score_names]
        values = [value for a, b in spreads for value in (a.mean, a.std, b.mean, b.std)]
        rows.append([row.variant.name, row.variant.options, " ".join(map(str, row.seeds)), row.num_tested, *values])
    return format_csv(rows)


def format_ablation_latex(ablation: Ablation, about: CrossvalAbout) -> str:
    """A booktabs tabular in percent, ready for \\input, with everything that qualifies the numbers in comments before it."""
    last_seed = max(seed for row in ablation.rows for seed in row.seeds)
    seeds = f" to {last_seed}" if last_seed != about["seed"] else ""  # goes on where describe_model ends
    caption = f"Ablation, {about['title']}. {', '.join(about['datasets'])}; {describe_model(about)}{seeds}."
    legend = [f"{row.variant.name}: {row.variant.options or 'all parts'}" for row in ablation.rows]
    comments = [*ablation.warnings, *list_conventions(ablation), about["licence"], *about["notes"], *legend]
    heads = [head for name in ablation.score_names for head in (LATEX_HEADINGS[name], r"$\Delta$")]
    rows = []
    for row in ablation.rows:
        cells = [escape_latex(row.variant.name)]
        for name in ablation.score_names:
            cells += [format_latex_spread(row.scores[name], narrow=True), _latex_difference(row.differences[name])]
        rows.append(format_latex_row(cells))
    lines = [
        *(f"% {' '.join(comment.split())}" for comment in comments),
        rf"% needs \usepackage{{booktabs}}; \caption{{{escape_latex(caption)}}}",
        rf"\begin{{tabular}}{{l{'cr' * len(ablation.score_names)}}}",
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


def _latex_difference(spread: Spread) -> str:
    if spread.mean is None:
        return "--"
    std = "" if spread.std is None else rf"_{{\pm {format_percent(spread.std)}}}"
    return f"${100 * spread.mean:+.1f}{std}$"
