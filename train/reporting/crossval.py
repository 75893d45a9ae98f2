"""The report of a cross-validation: report.txt, report.json, folds.csv, table.csv, table.tex, groups.csv, groups.tex and
figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.errors import count
from shared.runs import FOLDS_CSV, RELIABILITY, REPORT_JSON, REPORT_TXT, TABLE_CSV, TABLE_TEX
from shared.schema import canonical_json
from shared.store.storage import write_file
from train.reporting.calibration import calibration_columns, describe_calibration, list_calibration
from train.reporting.figures import FIGURES, draw_crossval, draw_reliability
from train.reporting.limits import list_warnings
from train.reporting.scores import FORMATS, format_confusion, format_score, list_groups, percent_note, score_columns
from train.reporting.spread import Spread
from train.reporting.summary import CrossvalAbout, CrossvalSummary, sort_folds
from train.reporting.table import (
    COUNT,
    PERCENT,
    SPREAD,
    TEXT,
    UNITS,
    Column,
    Format,
    Table,
    Unit,
    decimals,
    escape_latex,
    format_percent,
    join_lines,
    latex_comments,
    wrap,
)
from train.runs.results import FoldResult
from train.tasks.task import Score

GROUPS_CSV, GROUPS_TEX = "groups.csv", "groups.tex"
FRAME_VOTES_TITLE = "sequences decided by the tested frames, each classified alone, pooled"
MOST_FOLDS_LISTED = 50  # on a console; all of them are in folds.csv
MOST_CLASSES_IN_MATRIX = 12
SECONDS = decimals(1)
_ESCAPED = Format(str, str, align="l")  # LaTeX already


def write_crossval_report(
    folder: Path, summary: CrossvalSummary, results: Sequence[FoldResult], about: CrossvalAbout
) -> list[str]:
    """Write all files of the report, report.json last: with it the others are complete. Equal results give equal bytes.

    Args:
        summary: summarise_folds(results).
    Returns:
        The names of the figures, each a PNG and a PDF.
    """
    results = sort_folds(results)
    folds = [{"name": one.name, "seconds": one.seconds, "metrics": one.metrics.to_json(one.task)} for one in results]
    warnings = list_warnings(summary, results, about)
    value = {
        "about": vars(about),
        "warnings": warnings,
        "conventions": list_conventions(summary, about),
        "summary": summary.to_json(),
        "folds": folds,
    }
    for name in (REPORT_JSON, GROUPS_CSV, GROUPS_TEX, *(f"{one}.{form}" for one in FIGURES for form in ("png", "pdf"))):
        (folder / name).unlink(missing_ok=True)
    files = {
        REPORT_TXT: format_crossval_report(summary, results, about) + "\n",
        FOLDS_CSV: list_folds(summary, results).format_csv(),
        TABLE_CSV: summary.list_classes().format_csv(),
        TABLE_TEX: format_latex_table(summary, results, about),
    }
    if summary.groups:
        files[GROUPS_CSV] = list_groups(summary.groups, summary.task).format_csv()
        files[GROUPS_TEX] = format_groups_latex(summary, results, about)
    for name, text in files.items():
        write_file(folder / name, text.encode())
    figures: dict[str, bytes] = {}
    for form in ("png", "pdf"):
        figures = draw_crossval(summary, results, warnings, form)
        if summary.calibration:
            figures[RELIABILITY] = draw_reliability(summary.calibration, form)
        for name, data in figures.items():
            write_file(folder / f"{name}.{form}", data)
    write_file(folder / REPORT_JSON, canonical_json(value).encode())
    return sorted(figures)


# --- tables ---


def list_scores(summary: CrossvalSummary) -> Table:
    """Return the table of overall scores, a row a score."""
    spreads = [(count(summary.num_folds, "fold"), summary.over_folds)]
    if summary.over_rounds:
        spreads.append((count(summary.num_rounds - summary.num_rounds_left_out, "round"), summary.over_rounds))

    def column(over: str, spread: dict[str, Spread]) -> Column:
        form = Column(lambda score: spread[score.name], title=f"mean ± std, {over}")
        return dataclasses.replace(form, row_format=lambda score: UNITS[score.kind].spread)

    columns = [
        Column(lambda score: score.title, TEXT, title=f"scores {percent_note(summary.task)}".strip()),
        *(column(over, spread) for over, spread in spreads),
        Column(lambda score: summary.pooled[score.name], title="pooled", row_format=lambda score: FORMATS[score.kind]),
    ]
    return Table(columns, summary.task.scores)


def list_folds(summary: CrossvalSummary, results: Sequence[FoldResult]) -> Table:
    """Return the table of folds, with each class's score in CSV."""
    main = summary.task.class_score
    has_epochs = any(fold.info.best_epoch is not None for fold in results)
    return Table(
        [
            Column(lambda fold: fold.name, TEXT, "fold", "fold"),
            Column(lambda fold: fold.round_name, TEXT, "round"),
            Column(lambda fold: fold.metrics.num_samples, COUNT, "num_samples", "samples"),
            Column(lambda fold: fold.info.num_train_subjects, COUNT, "num_train_subjects"),
            Column(lambda fold: fold.info.num_test_subjects, COUNT, "num_test_subjects"),
            *score_columns(summary.task.scores, lambda fold: fold.metrics),
            *calibration_columns(summary.calibration),
            *[Column(lambda fold: fold.info.best_epoch, COUNT, "best_epoch", "best epoch")] * has_epochs,
            Column(lambda fold: fold.seconds, SECONDS, "seconds"),
            *(_class_column(main, index, name) for index, name in enumerate(summary.class_names)),
        ],
        results,
    )


def _class_column(score: Score, index: int, class_name: str) -> Column:
    key = f"{score.name}_{class_name}"
    return Column(lambda fold: fold.metrics.per_class[score.name][index], FORMATS[score.kind], key)


def format_latex_table(summary: CrossvalSummary, results: Sequence[FoldResult], about: CrossvalAbout) -> str:
    """Return a booktabs tabular, ready for \\input: a row a class and overall score, mean ± std over folds and pooled.

    It is as narrow as a column. Comments before it give a caption, the same numbers as one row of a table of methods, and
    everything that qualifies them.
    """
    main = summary.task.class_score
    several = summary.num_folds > 1
    whole = f" of {about.num_folds:,}" * (about.num_folds > summary.num_folds)
    folds = f"mean ± std over {summary.num_folds:,}{whole} folds, and pooled" if several else "one fold"
    unit = " in percent" * (main.kind == "percent")
    caption = f"{about.title}: {main.latex}{unit}, {folds}. {', '.join(about.datasets)}; {about.describe_model()}."
    cells = [
        _Cell(escape_latex(name[:1].upper() + name[1:]), spread, pooled, UNITS[main.kind])
        for name, spread, pooled in zip(
            summary.class_names, summary.classes_over_folds[main.name], summary.pooled.per_class[main.name], strict=True
        )
    ]
    scores = [
        _Cell(about.name_in_latex(s), summary.over_folds[s.name], summary.pooled[s.name], UNITS[s.kind])
        for s in summary.task.scores
    ]
    method = escape_latex(about.method or about.model)
    spread = Column(lambda cell: cell.spread, SPREAD, latex=method, row_format=lambda cell: cell.unit.spread)
    columns = [Column(lambda cell: cell.title, _ESCAPED, latex=""), spread]
    head = []
    if several:
        head = [rf" & \multicolumn{{2}}{{c}}{{{method}}} \\", r"\cmidrule(lr){2-3}"]
        columns[1] = dataclasses.replace(spread, latex=r"Mean $\pm$ std")
        columns.append(
            Column(lambda cell: cell.pooled, PERCENT, latex="Pooled", row_format=lambda cell: cell.unit.value)
        )
    table = Table(columns, [*cells, *scores])
    row = " & ".join([method, *(spread.latex_text(cell) for cell in (*cells, *scores))])
    notes = [
        *list_warnings(summary, results, about),
        *list_conventions(summary, about),
        about.licence,
        *about.notes,
        f"as one row ({', '.join(cell.title for cell in (*cells, *scores))}): {row} \\\\",
    ]
    return "\n".join([*latex_comments(notes, caption), *table.format_latex(rules=[len(cells)], head=head)]) + "\n"


def format_groups_latex(summary: CrossvalSummary, results: Sequence[FoldResult], about: CrossvalAbout) -> str:
    """Return a booktabs tabular of the scores of each group, all folds pooled, ready for \\input."""
    unit = " in percent" * (summary.task.primary.kind == "percent")
    data = f"{', '.join(about.datasets)}; {about.describe_model()}"
    caption = f"{about.title}: scores{unit} by group, all folds together. {data}."
    table = list_groups(summary.groups, summary.task)
    columns = [one.column for one in summary.groups]
    rules = [index for index in range(1, len(columns)) if columns[index] != columns[index - 1]]
    lines = latex_comments([*list_warnings(summary, results, about), about.licence], caption)
    return "\n".join([*lines, *table.format_latex(rules)]) + "\n"


@dataclass(frozen=True)
class _Cell:
    """A score of the LaTeX table."""

    title: str
    spread: Spread
    pooled: float | None
    unit: Unit


# --- text ---


def format_crossval_report(summary: CrossvalSummary, results: Sequence[FoldResult], about: CrossvalAbout) -> str:
    """Return the whole report as text, scores in percent; ends without a line feed."""
    results = sort_folds(results)
    lines = [join_lines(f"{about.title} ({about.protocol})")]
    labelled = [*(("!", line) for line in list_warnings(summary, results, about)), ("follows", about.source)]
    labelled += [("data", f"{', '.join(about.datasets)}; {about.licence}"), ("model", about.describe_model())]
    if about.label_map is not None:
        labelled.append(("labels", ", ".join(f"{one} → {other}" for one, other in about.label_map.items())))
    lines += [wrap(text, f"{label:<11}", " " * 11) for label, text in labelled]
    lines += ["", *list_scores(summary).format_text(), *_describe_test(summary, about)]
    if summary.calibration:
        lines += ["", *list_calibration(summary.calibration).format_text()]
    lines += ["", *summary.list_classes().format_text()]
    if "confusion" in summary.pooled.counts and len(summary.class_names) <= MOST_CLASSES_IN_MATRIX:
        lines += ["", *format_confusion(summary.pooled, summary.class_names, "true / predicted, pooled")]
    if len(results) <= MOST_FOLDS_LISTED:
        lines += ["", *list_folds(summary, results).format_text()]
    if summary.frame_votes:
        lines += ["", FRAME_VOTES_TITLE + ", in %", *list_groups(summary.frame_votes, summary.task).format_text()]
    if summary.groups:
        lines += [
            "",
            "groups of people or scans, pooled, in %".removesuffix("" if percent_note(summary.task) else ", in %"),
            *list_groups(summary.groups, summary.task).format_text(),
        ]
    notes = [*list_conventions(summary, about), *about.notes]
    return "\n".join([*lines, "", *(wrap(line, "- ") for line in notes)])


def _describe_test(summary: CrossvalSummary, about: CrossvalAbout) -> list[str]:
    """Return how much was tested, the scores of guesses, the interval, the worst and best fold, and time."""
    pooled, primary = summary.pooled, summary.task.primary
    title = primary.title
    tested = f"{count(pooled.num_samples, about.unit)} tested"
    if summary.over_rounds:
        tested = f"{pooled.num_samples:,} tests of one {about.unit} in {count(summary.num_rounds, 'round')}"
    guesses = [f"{score.title} {format_score(score, pooled[score.name])}" for score in summary.task.references]
    lines = [f"{tested}; {title} of {', of '.join(guesses)}" if guesses else tested]
    if pooled.interval_95 is not None:
        lines.append("{}, 95 % interval: {} to {}".format(title, *map(format_percent, pooled.interval_95)))
    if summary.accuracy_uncentred is not None:
        lines.append(f"accuracy with --centre-scores none {format_percent(summary.accuracy_uncentred)}")
    if summary.num_folds > 1:
        (worst, low), (best, high) = summary.worst_fold, summary.best_fold
        lines.append(
            f"{title} of the worst fold {format_score(primary, low)} ({worst}), of the best {format_score(primary, high)} "
            f"({best})"
        )
    if summary.seconds.mean is not None:
        total = summary.seconds.mean * summary.seconds.num
        lines.append(f"{summary.seconds.mean:,.1f} s a fold, {total:,.0f} s for {count(summary.seconds.num, 'fold')}")
    return lines


def list_conventions(summary: CrossvalSummary, about: CrossvalAbout) -> list[str]:
    """Return how the numbers were computed, one line each."""
    unit, repeated = about.unit, bool(summary.over_rounds)
    lines = [
        f"One sample is one {unit}, and counts once{' in each round' if repeated else ''}; no subject is in both training "
        "and test.",
        f"Each fold was tested once, {_describe_epoch(about)}; no choice was made on test data"
        + (", and thresholds were chosen on training subjects." if summary.task.has_thresholds else "."),
    ]
    if summary.num_folds == 1:
        lines.append("One fold only, so there is no standard deviation.")
    else:
        lines.append(
            "mean ± std is over folds, with the sample standard deviation (n - 1); for a class, over the folds where it occurs."
        )
    lines += [*summary.task.conventions, *describe_calibration(summary.calibration)]
    if summary.num_folds_lacking_a_class:
        lines.append(
            f"{summary.num_folds_lacking_a_class:,} of {summary.num_folds:,} folds lack a class: their own UAR leaves it out "
            "and their macro-F1 counts it as 0, so quote the pooled values."
        )
    if summary.pooled.interval_95 is not None:
        lines.append(
            f"The 95 % interval (Wilson) takes {unit}s as independent"
            + (", those of one round counted once" if repeated else "")
            + "; those of one subject are not, so it is narrow."
        )
    return lines


def _describe_epoch(about: CrossvalAbout) -> str:
    if not about.validate:
        return f"after its last epoch ({about.epochs})"
    return (
        f"with the weights of the epoch, of at most {about.epochs}, that had the least loss on training subjects who were held "
        f"out (--validate {about.validate})"
    )
