"""The tables of a comparison, for a console, as CSV, and as the LaTeX table that a paper prints."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter, itemgetter

from train.reporting.table import UNITS, Column, Format, Table, escape_latex, latex_comments, wrap
from train.studies.compare.comparison import Comparison, Difference, MethodScore
from train.studies.compare.scores import SCORES, title_score

_INDENT = "  "  # before a method's difference
_NAME = Format(str, lambda text: r"\quad " * text.startswith(_INDENT) + escape_latex(text), align="l")
_SEEDS = Format(str, str, align="c")
_NUMBERS = Format(str, lambda text: _set_numbers(text), align="c")
_CSV_KEYS = {
    "method": "method", "score": "score", "num_seeds": "num_seeds", "mean": "mean", "std": "std", "low_95": "low",
    "high_95": "high",
}  # fmt: skip
_CSV_DIFFERENCE_KEYS = {
    "difference": "value", "difference_low_95": "low", "difference_high_95": "high", "p": "p", "p_holm": "p_holm"
}  # fmt: skip


def format_comparison(comparison: Comparison) -> str:
    """Return the whole comparison as text, scores in percent; ends without a line feed."""
    rounds = f", {comparison.num_rounds:,} rounds" if comparison.num_rounds > 1 else ""
    lines = [f"{comparison.num_samples:,} samples of {comparison.num_subjects:,} subjects{rounds}"]
    lines += [wrap(f"! {warning}") for warning in comparison.warnings]
    lines += ["", *_build_table(comparison).format_text(), ""]
    return "\n".join([*lines, *(wrap(f"- {line}") for line in comparison.conventions)])


def format_comparison_latex(comparison: Comparison) -> str:
    """Return a booktabs tabular in percent, ready for \\input, and below it how intervals and p were computed.

    Comments before it give a caption and everything that qualifies the numbers.
    """
    unit = " in percent" * all(SCORES[name].kind == "percent" for name in comparison.score_names)
    caption = (
        f"Scores{unit}, and differences from {comparison.baseline}. {', '.join(comparison.datasets)}, "
        f"{comparison.num_samples:,} samples of {comparison.num_subjects:,} subjects."
    )
    footnote = escape_latex(" ".join(comparison.conventions))
    lines = [
        *latex_comments((*comparison.warnings, *comparison.licences), caption),
        *_build_table(comparison).format_latex(),
        r"\par\smallskip",
        rf"\parbox{{\linewidth}}{{\footnotesize {footnote}}}",
    ]
    return "\n".join(lines) + "\n"


def format_comparison_csv(comparison: Comparison) -> str:
    """Return a row per method and score, fractions; empty where not defined."""
    columns = [Column(attrgetter(name), key=key) for key, name in _CSV_KEYS.items()]
    columns += [Column(_get_of_difference(name), key=key) for key, name in _CSV_DIFFERENCE_KEYS.items()]
    return Table(columns, comparison.rows).format_csv()


def _build_table(comparison: Comparison) -> Table:
    """Return the table of texts: a method's scores, and in two rows below them the differences from the first and p."""
    columns = [
        Column(itemgetter(0), _NAME, title="method", latex="Method"),
        Column(itemgetter(1), _SEEDS, title="seeds", latex="Seeds"),
    ]
    for index, name in enumerate(comparison.score_names, len(columns)):
        columns.append(Column(itemgetter(index), _NUMBERS, title=title_score(name), latex=SCORES[name].latex))
    rows = []
    for method in comparison.methods:
        scores = [comparison.find(method, name) for name in comparison.score_names]
        rows.append([method, str(scores[0].num_seeds), *map(_format_score, scores)])
        if differences := [score.difference for score in scores if score.difference]:
            texts = map(_format_difference, comparison.score_names, differences)
            rows.append([f"{_INDENT}difference", "", *texts])
            rows.append(["", "", *map(comparison.format_p, differences)])
    return Table(columns, rows)


def _set_numbers(text: str) -> str:
    """Return numbers in math mode; what stands in brackets is text, with a space before it."""
    number, bracket, interval = text.replace("±", r"\pm").partition(" [")
    if not bracket:
        return f"${number}$" if number else ""
    low, _, high = interval.removesuffix("]").partition(", ")
    return f"${number}$ [${low}$, ${high}$]"


def _get_of_difference(name: str) -> Callable[[MethodScore], float | None]:
    return lambda row: getattr(row.difference, name, None)


def _format_score(row: MethodScore) -> str:
    number = UNITS[SCORES[row.score].kind].number
    std = "" if row.std is None else f" ± {number(row.std)}"
    return f"{number(row.mean)}{std} [{number(row.low)}, {number(row.high)}]"


def _format_difference(name: str, one: Difference) -> str:
    number = UNITS[SCORES[name].kind].number
    value, low, high = (number(each, "+") for each in (one.value, one.low, one.high))
    return f"{value} [{low}, {high}]"
