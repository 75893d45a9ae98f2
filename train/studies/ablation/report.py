"""The table of an ablation: a row per variant, mean ± std over seeds, and the difference to the full model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from shared.errors import FacetError
from shared.runs import ABLATION_CSV, ABLATION_TEX, read_log, read_timing
from shared.store.storage import write_file
from train.reporting.limits import list_warnings
from train.reporting.spread import Spread, measure_spread
from train.reporting.summary import CrossvalAbout, CrossvalSummary, summarise_folds
from train.reporting.table import COUNT, P_VALUE, TEXT, UNITS, Column, Table, decimals, latex_comments, wrap
from train.runs.results import FoldResult
from train.studies.ablation.variants import Variant
from train.studies.compare.comparison import Comparison, describe_test
from train.tasks.task import Score


@dataclass(frozen=True)
class Cost:
    """What a variant costs, as its folds recorded it; None where not known."""

    num_parameters: int | None = None  # of the model
    seconds: float | None = None  # to train and test a fold, the mean
    cpu_seconds: float | None = None  # of all cores together
    memory_bytes: int | None = None  # the most that a line of the logs holds: of the GPU, or of the process's RAM


def measure_cost(folds: Sequence[tuple[Path, FoldResult]]) -> Cost:
    """Return the cost of one variant; folds: the folder and result of each, of all seeds."""
    numbers = {result.info.num_parameters for _, result in folds} - {None}
    memory = [int(line["memory_bytes"]) for run, _ in folds for line in read_log(run) if "memory_bytes" in line]
    return Cost(
        num_parameters=numbers.pop() if len(numbers) == 1 else None,
        seconds=_mean(result.seconds for _, result in folds),
        cpu_seconds=_mean(read_timing(run).cpu_seconds for run, _ in folds),
        memory_bytes=max(memory, default=None),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class Row:
    """A variant's scores; fractions."""

    variant: Variant
    seeds: tuple[int, ...]  # with results
    num_tested: int  # samples, of all folds of the first seed
    scores: dict[str, Spread]  # over seeds, of scores pooled over folds
    differences: dict[str, Spread]  # to the full model, of seeds of which both have the same folds; none of its own
    cost: Cost = field(default_factory=Cost)
    p_values: dict[str, tuple[float, float]] = field(default_factory=dict)  # p and Holm's p, of tested scores


@dataclass(frozen=True)
class Ablation:
    rows: tuple[Row, ...]  # the full model first
    scores: tuple[Score, ...]
    warnings: tuple[str, ...]
    test: str = ""  # how p was computed; empty where nothing was tested


def summarise_ablation(
    variants: Sequence[Variant],
    results: Mapping[tuple[str, int], Sequence[FoldResult]],
    about: CrossvalAbout,
    costs: Mapping[str, Cost] | None = None,
    comparison: Comparison | None = None,
) -> Ablation:
    """Summarise the finished folds of all variants and seeds.

    Args:
        variants: the full model first. results: (variant, seed) → finished folds. about: of the full model.
        costs: by variant. comparison: of the variants that can be paired, under their own names.
    Raises:
        FacetError: no fold of any run is finished, or folds of different classes.
    """
    summaries = {key: summarise_folds(folds) for key, folds in results.items() if folds}
    if not summaries:
        raise FacetError("no fold is finished, so there is nothing to compare; what failed is listed above")
    scores = next(iter(summaries.values())).task.scores
    scores = tuple(replace(score, latex=about.name_in_latex(score)) for score in scores)
    names = {key: sorted(fold.name for fold in folds) for key, folds in results.items()}
    seeds = sorted({seed for _, seed in results})
    full = variants[0].name
    tested = () if comparison is None else comparison.rows
    rows = []
    for variant in variants:
        own = {seed: summaries[variant.name, seed] for seed in seeds if (variant.name, seed) in summaries}
        pairs = [
            (summary.pooled, summaries[full, seed].pooled)
            for seed, summary in own.items()
            if variant.name != full and names[full, seed] == names[variant.name, seed]
        ]
        differences = {s.name: measure_spread(_subtract(a[s.name], b[s.name]) for a, b in pairs) for s in scores}
        rows.append(
            Row(
                variant,
                tuple(own),
                next((summary.pooled.num_samples for summary in own.values()), 0),
                {s.name: measure_spread(summary.pooled[s.name] for summary in own.values()) for s in scores},
                differences,
                (costs or {}).get(variant.name, Cost()),
                {
                    r.score: (r.difference.p, r.difference.p_holm)
                    for r in tested
                    if r.method == variant.name and r.difference
                },
            )
        )
    warnings = _list_warnings(rows, summaries, results, about)
    if comparison is None:
        return Ablation(tuple(rows), scores, tuple(warnings))
    few = [line for line in comparison.warnings if line.startswith("FEW SUBJECTS")]
    num = len(comparison.methods) - 1
    test = describe_test(comparison.baseline, num, comparison.num_subjects, exact=comparison.exact)
    return Ablation(tuple(rows), scores, (*warnings, *few), test)


def _subtract(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _list_warnings(
    rows: Sequence[Row],
    summaries: Mapping[tuple[str, int], CrossvalSummary],
    results: Mapping[tuple[str, int], Sequence[FoldResult]],
    about: CrossvalAbout,
) -> list[str]:
    """Return what keeps these numbers from being the protocol's, with the runs that it holds for, if not for all."""
    found: dict[str, list[str]] = {}
    for (variant, seed), folds in results.items():
        lines = [f"PARTIAL: 0 of {about.num_folds:,} folds are finished"]
        if (variant, seed) in summaries:
            lines = list_warnings(summaries[variant, seed], folds, replace(about, missing_folds=[]))
        for line in lines:
            found.setdefault(line, []).append(f"{variant}, seed {seed}")
    lines = [line + ("" if len(runs) == len(results) else f" ({'; '.join(runs)})") for line, runs in found.items()]
    for row in rows[1:]:
        if row.num_tested and rows[0].num_tested and row.num_tested != rows[0].num_tested:
            lines.append(
                f"{row.variant.name} is tested on {row.num_tested:,} samples, the full model on {rows[0].num_tested:,}"
            )
    return lines


# --- the table ---


def list_rows(ablation: Ablation) -> Table:
    """Return the table of variants: all in CSV; on a console without the p-values of later scores.

    LaTeX has what a column of a paper has room for: the first score with its difference and p, and the last score.
    """
    columns = [
        Column(
            lambda row: row.variant.name, TEXT, "variant", "in %" if ablation.scores[0].kind == "percent" else "variant"
        ),
        Column(lambda row: row.variant.title, TEXT, latex=""),
        Column(lambda row: row.variant.options, TEXT, "options"),
        Column(lambda row: " ".join(map(str, row.seeds)), TEXT, "seeds"),
        Column(lambda row: row.num_tested, COUNT, "num_tested"),
    ]
    for score in ablation.scores:
        columns += _score_columns(score, is_first=score == ablation.scores[0], is_last=score == ablation.scores[-1])
    columns += [
        Column(lambda row: row.cost.num_parameters, decimals(2, "M", 1e6), "num_parameters", "parameters"),
        Column(lambda row: row.cost.seconds, decimals(1), "seconds", "s a fold"),
        Column(lambda row: row.cost.cpu_seconds, decimals(1), "cpu_seconds", "CPU s"),
        Column(lambda row: row.cost.memory_bytes, decimals(0, scale=1e6), "memory_bytes", "MB"),
    ]
    return Table(columns, ablation.rows)


def _score_columns(score: Score, *, is_first: bool, is_last: bool) -> list[Column]:
    name, unit = score.name, UNITS[score.kind]
    latex = score.latex if is_first or is_last else None
    p_title, p_latex, difference = ("p", "$p$", r"$\Delta$") if is_first else ("", None, None)
    return [
        Column(lambda row: row.scores[name], unit.spread, name, score.short_title, latex),
        Column(lambda row: row.differences[name], unit.difference, f"{name}_difference", "to full", difference),
        Column(lambda row: row.p_values.get(name, (None, None))[0], P_VALUE, f"{name}_p"),
        Column(lambda row: row.p_values.get(name, (None, None))[1], P_VALUE, f"{name}_p_holm", p_title, p_latex),
    ]


def write_ablation(folder: Path, ablation: Ablation, about: CrossvalAbout) -> None:
    """Write ablation.csv and ablation.tex. Equal results give equal bytes."""
    write_file(folder / ABLATION_CSV, list_rows(ablation).format_csv().encode())
    write_file(folder / ABLATION_TEX, format_ablation_latex(ablation, about).encode())


def format_ablation(ablation: Ablation) -> str:
    """Return the table for a console, in percent; ends without a line feed."""
    legend = Table(
        [
            Column(lambda row: row.variant.name, TEXT, title="variant"),
            Column(lambda row: row.variant.options or "(all parts)", TEXT, title="options"),
        ],
        ablation.rows,
    )
    lines = [*list_rows(ablation).format_text(), "", *legend.format_text(), ""]
    lines += [wrap(f"! {warning}") for warning in ablation.warnings]
    return "\n".join([*lines, *(wrap(line, "- ") for line in list_conventions(ablation))])


def format_ablation_latex(ablation: Ablation, about: CrossvalAbout) -> str:
    """Return a booktabs tabular in percent, ready for \\input, with everything that qualifies the numbers in comments."""
    last_seed = max(seed for row in ablation.rows for seed in row.seeds)
    seeds = f" to {last_seed}" if last_seed != about.seed else ""  # goes on where describe_model ends
    caption = f"Ablation, {about.title}. {', '.join(about.datasets)}; {about.describe_model()}{seeds}."
    legend = [f"{row.variant.title}: {row.variant.options or 'all parts'}" for row in ablation.rows]
    notes = [*ablation.warnings, *list_conventions(ablation), about.licence, *about.notes, *legend]
    return "\n".join([*latex_comments(notes, caption), *list_rows(ablation).format_latex(rules=[1])]) + "\n"


def list_conventions(ablation: Ablation) -> list[str]:
    """Return how the numbers were computed, one line each."""
    num = max(len(row.seeds) for row in ablation.rows)
    return [
        "Scores are pooled: counts summed over all folds, which are the same in every run.",
        f"mean ± std is over {num} seeds, with the sample standard deviation (n - 1)."
        if num > 1
        else "One seed, so there is no standard deviation; --seeds 3 adds two.",
        "'to full' is the difference to the full model of the same seed.",
        *([ablation.test] if ablation.test else []),
        "Time is that of training and testing, the mean over folds: wall-clock, and of all cores together. Memory is the most "
        "in the logs: of the GPU, or of the process in RAM. Only runs of one machine, a fold at a time (--jobs 1), compare in "
        "these.",
    ]
