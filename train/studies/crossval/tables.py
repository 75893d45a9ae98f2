"""The tables of a cross-validation: folds.csv, table.csv, and the LaTeX table that a paper prints."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import Any

from train.runs.results import FoldResult
from train.studies.crossval.summary import CrossvalAbout, CrossvalSummary, Spread
from train.studies.crossval.text import count_folds, describe_model, list_conventions, list_warnings

LATEX_HEADINGS = {"accuracy": "Acc.", "uar": "UAR", "macro_f1": "UF1", "micro_f1": "Micro-F1"}
MOST_COLUMNS = 8  # more classes than this make a tall table, a row a class

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "→": r"$\to$",
    "–": "--",
}
_LATEX_SPECIAL = re.compile("|".join(re.escape(character) for character in _LATEX))


def escape_latex(text: str) -> str:
    """Any text as one line of LaTeX that prints it; no character starts a command or a comment."""
    return _LATEX_SPECIAL.sub(lambda match: _LATEX[match[0]], " ".join(text.split()))


def format_folds_csv(summary: CrossvalSummary, results: Sequence[FoldResult]) -> str:
    """A row a fold: its scores and each class's recall (multi-label: F1), fractions; empty where not defined."""
    kind = "f1" if summary.multilabel else "recall"
    subjects = ("num_train_subjects", "num_test_subjects")
    heads = ["fold", "round", "num_samples", *subjects, *summary.score_names, "seconds"]
    rows: list[list[Any]] = [[*heads, *(f"{kind}_{name}" for name in summary.class_names)]]
    for result in results:
        metrics = result.metrics
        scores = [metrics[name] for name in summary.score_names]
        num_subjects = [metrics.get(name) for name in subjects]
        row = [result.name, result.round_name, metrics["num_samples"], *num_subjects, *scores, result.seconds]
        rows.append([*row, *metrics[f"per_class_{kind}"]])
    return format_csv(rows)


def format_classes_csv(summary: CrossvalSummary) -> str:
    """A row a class: pooled scores, and mean and std over the folds where it occurs, fractions; empty where not defined."""
    pooled = ("num_known", "support", "prevalence", "recall", "precision", "f1", "always_yes_f1")
    spreads = ("recall", "f1", "auc")
    heads = [f"{name}_{part}" for name in spreads for part in ("mean", "std", "num_folds")]
    rows: list[list[Any]] = [["class", *pooled, *heads]]
    for one in summary.classes:
        over_folds = (one.recall_over_folds, one.f1_over_folds, one.auc_over_folds)
        values = [value for spread in over_folds for value in (spread.mean, spread.std, spread.num)]
        rows.append([one.class_name, *(getattr(one, name) for name in pooled), *values])
    return format_csv(rows)


def format_groups_csv(summary: CrossvalSummary) -> str:
    """A row a value of a column: pooled scores, fractions; "" where the summary has no groups."""
    if not summary.groups:
        return ""
    names = ("macro_f1", "micro_f1", "uar") if summary.multilabel else ("accuracy", "uar", "macro_f1")
    rows: list[list[Any]] = [["column", "value", "num_samples", "num_subjects", *names]]
    for one in summary.groups:
        scores = [getattr(one.metrics, name) for name in names]
        rows.append([one.column, one.value, one.metrics.num_samples, one.num_subjects, *scores])
    return format_csv(rows)


def format_csv(rows: Sequence[Sequence[Any]]) -> str:
    """A line a row; empty for None."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def format_latex_table(summary: CrossvalSummary, results: Sequence[FoldResult], about: CrossvalAbout) -> str:
    """A booktabs tabular in percent, ready for \\input: each class (recall; multi-label: F1) and the overall scores, as
    mean ± std over folds and pooled. Comments before it give a caption and everything that qualifies the numbers."""
    what = "F1" if summary.multilabel else "Recall (accuracy of each class)"
    folds = f"mean ± std over {count_folds(summary, about)} folds, and pooled" if summary.num_folds > 1 else "one fold"
    caption = f"{about['title']}: {what} in percent, {folds}. {', '.join(about['datasets'])}; {describe_model(about)}."
    comments = [*list_warnings(summary, results, about), *list_conventions(summary, about), about["licence"]]
    lines = [f"% {' '.join(comment.split())}" for comment in (*comments, *about["notes"])]
    lines.append(rf"% needs \usepackage{{booktabs}}; \caption{{{escape_latex(caption)}}}")
    format_rows = _format_tall if len(summary.class_names) > MOST_COLUMNS else _format_wide
    lines += format_rows(_find_cells(summary), about["model"], num_overall=len(summary.score_names))
    return "\n".join(lines) + "\n"


def _find_cells(summary: CrossvalSummary) -> list[tuple[str, Spread, float | None]]:
    """Heading, spread over folds and pooled value of each class, then of the overall scores."""
    cells = []
    for one in summary.classes:
        spread, pooled = (one.f1_over_folds, one.f1) if summary.multilabel else (one.recall_over_folds, one.recall)
        cells.append((escape_latex(one.class_name[:1].upper() + one.class_name[1:]), spread, pooled))
    for name in summary.score_names:
        cells.append((LATEX_HEADINGS[name], summary.over_folds[name], getattr(summary.pooled, name)))
    return cells


def _format_wide(cells: Sequence[tuple[str, Spread, float | None]], name: str, *, num_overall: int) -> list[str]:
    """A row a method, as papers compare them; ± in the foot of a number, so that nine columns fit a page."""
    rows = [
        format_latex_row([escape_latex(name), *(format_latex_spread(spread, narrow=True) for _, spread, _ in cells)])
    ]
    if any(spread.num > 1 for _, spread, _ in cells):
        rows.append(format_latex_row([r"\quad pooled", *(format_latex_percent(pooled) for _, _, pooled in cells)]))
    return [
        rf"\begin{{tabular}}{{l{'c' * (len(cells) - num_overall)}@{{\quad}}{'c' * num_overall}}}",
        r"\toprule",
        format_latex_row(["Method", *(heading for heading, _, _ in cells)]),
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _format_tall(cells: Sequence[tuple[str, Spread, float | None]], name: str, *, num_overall: int) -> list[str]:
    rows = [
        format_latex_row([heading, format_latex_spread(spread), format_latex_percent(pooled)])
        for heading, spread, pooled in cells
    ]
    return [
        r"\begin{tabular}{lcc}",
        r"\toprule",
        format_latex_row(["", rf"\multicolumn{{2}}{{c}}{{{escape_latex(name)}}}"]),
        format_latex_row(["", r"mean $\pm$ std", "pooled"]),
        r"\midrule",
        *rows[:-num_overall],
        r"\midrule",
        *rows[-num_overall:],
        r"\bottomrule",
        r"\end{tabular}",
    ]


def format_latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def format_latex_percent(value: float | None) -> str:
    return "--" if value is None else f"{100 * value:.1f}"


def format_latex_spread(spread: Spread, *, narrow: bool = False) -> str:
    """In percent, mean ± std; the mean alone of one value. narrow: ± in the foot of the number."""
    if spread.std is None:
        return format_latex_percent(spread.mean)
    mean, std = format_latex_percent(spread.mean), format_latex_percent(spread.std)
    return rf"${mean}_{{\pm {std}}}$" if narrow else rf"${mean} \pm {std}$"
