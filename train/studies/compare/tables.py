"""A comparison for a console, as CSV, and as the LaTeX table that a paper prints."""

from __future__ import annotations

import csv
import io
import textwrap

from train.studies.compare.comparison import TITLES, Comparison, Difference, MethodScore
from train.studies.crossval.tables import escape_latex
from train.studies.crossval.text import LINE_LENGTH, format_percent

_LATEX_TITLES = {"accuracy": "Acc.", "uar": "UAR", "macro_f1": "UF1", "auc": "AUC"}


def format_comparison(comparison: Comparison) -> str:
    """The whole comparison as text, scores in percent; ends without a line feed."""
    heads = ["method", "seeds", *(f"{TITLES[name]}, %" for name in comparison.score_names)]
    table = [heads]
    for method in comparison.methods:
        rows = [comparison.find(method, name) for name in comparison.score_names]
        table.append([method, str(rows[0].num_seeds), *map(_format_score, rows)])
        if any(row.difference for row in rows):
            table.append(["  difference", "", *(_format_difference(row.difference) for row in rows)])
            table.append(["", "", *(f"p {_format_p(row.difference, comparison)}" for row in rows)])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        f"{comparison.num_samples:,} samples of {comparison.num_subjects:,} subjects"
        + f", {comparison.num_rounds:,} rounds" * (comparison.num_rounds > 1)
    ]
    lines += [_wrap(f"! {warning}") for warning in comparison.warnings]
    lines.append("")
    for cells in table:
        padded = [cells[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)]
        lines.append("  ".join(padded).rstrip())
    lines.append("")
    return "\n".join([*lines, *(_wrap(f"- {line}") for line in comparison.conventions)])


def _wrap(text: str) -> str:
    return "\n".join(textwrap.wrap(text, LINE_LENGTH, subsequent_indent="  "))


def _format_score(row: MethodScore) -> str:
    return f"{format_percent(row.mean)} ± {format_percent(row.std)} [{_interval(row.low, row.high)}]"


def _format_difference(one: Difference | None) -> str:
    return "" if one is None else f"{100 * one.value:+.1f} [{_interval(one.low, one.high, '+')}]"


def _interval(low: float, high: float, sign: str = "") -> str:
    return f"{100 * low:{sign}.1f}, {100 * high:{sign}.1f}"


def _format_p(one: Difference | None, comparison: Comparison) -> str:
    """The corrected one where there are several comparisons."""
    assert one is not None
    p = one.p_holm if len(comparison.methods) > 2 else one.p
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def format_comparison_csv(comparison: Comparison) -> str:
    """A row a method and score, fractions; empty where not defined."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    heads = ["method", "score", "num_seeds", "mean", "std", "low_95", "high_95"]
    writer.writerow([*heads, "difference", "difference_low_95", "difference_high_95", "p", "p_holm"])
    for row in comparison.rows:
        one = row.difference
        compared = [None] * 5 if one is None else [one.value, one.low, one.high, one.p, one.p_holm]
        writer.writerow([row.method, row.score, row.num_seeds, row.mean, row.std, row.low, row.high, *compared])
    return buffer.getvalue()


def format_comparison_latex(comparison: Comparison) -> str:
    """A booktabs tabular in percent with all methods as rows, ready for \\input, and below it a footnote that says what the
    intervals and p are. Comments before it give a caption and everything that qualifies the numbers."""
    num = len(comparison.score_names)
    data = (
        f"{', '.join(comparison.datasets)}, {comparison.num_samples:,} samples of {comparison.num_subjects:,} subjects"
    )
    caption = f"Scores in percent, and differences from {comparison.baseline}. {data}."
    lines = [f"% {' '.join(line.split())}" for line in (*comparison.warnings, *comparison.licences)]
    lines.append(rf"% needs \usepackage{{booktabs}}; \caption{{{escape_latex(caption)}}}")
    lines += [rf"\begin{{tabular}}{{lc{'c' * num}}}", r"\toprule"]
    lines.append(_latex_row(["Method", "Seeds", *(_LATEX_TITLES[name] for name in comparison.score_names)]))
    lines.append(r"\midrule")
    for method in comparison.methods:
        rows = [comparison.find(method, name) for name in comparison.score_names]
        lines.append(_latex_row([escape_latex(method), str(rows[0].num_seeds), *map(_latex_score, rows)]))
        if any(row.difference for row in rows):
            cells = [rf"${_format_difference(row.difference)}$" for row in rows]
            lines.append(_latex_row([r"\quad difference", "", *cells]))
            p_values = [rf"$p {_format_p(row.difference, comparison)}$" for row in rows]
            lines.append(_latex_row(["", "", *p_values]))
    footnote = escape_latex(" ".join(comparison.conventions)).replace("−", "$-$")
    lines += [
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\smallskip",
        rf"\parbox{{\linewidth}}{{\footnotesize {footnote}}}",
    ]
    return "\n".join(lines) + "\n"


def _latex_row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_score(row: MethodScore) -> str:
    std = "" if row.std is None else rf" \pm {format_percent(row.std)}"
    return rf"${format_percent(row.mean)}{std}\;[{_interval(row.low, row.high)}]$"
