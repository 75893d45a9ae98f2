"""The report of a cross-validation: report.txt, report.json, folds.csv, table.csv, table.tex, report.png and report.pdf;
groups.csv, where the cache knows groups of people or scans."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from shared.runs import FOLDS_CSV, REPORT_JSON, REPORT_PDF, REPORT_PNG, REPORT_TXT, TABLE_CSV, TABLE_TEX
from shared.schema import canonical_json
from shared.store.storage import write_file
from train.runs.results import FoldResult
from train.studies.crossval.figure import draw_crossval_figure
from train.studies.crossval.summary import CrossvalAbout, CrossvalSummary, sort_folds
from train.studies.crossval.tables import format_classes_csv, format_folds_csv, format_groups_csv, format_latex_table
from train.studies.crossval.text import format_crossval_report, list_conventions, list_warnings

GROUPS_CSV = "groups.csv"


def write_crossval_report(
    folder: Path, summary: CrossvalSummary, results: Sequence[FoldResult], about: CrossvalAbout
) -> None:
    """Writes all these files, report.json last: where it stands, the others belong to it. Equal results give equal bytes.

    Args:
        summary: summarise_folds(results).
    """
    results = sort_folds(results)
    folds = [{"name": result.name, "seconds": result.seconds, "metrics": result.metrics} for result in results]
    value = {
        "about": about,
        "warnings": list_warnings(summary, results, about),
        "conventions": list_conventions(summary, about),
        "summary": dataclasses.asdict(summary),
        "folds": folds,
    }
    (folder / REPORT_JSON).unlink(missing_ok=True)
    for name, text in (
        (REPORT_TXT, format_crossval_report(summary, results, about) + "\n"),
        (FOLDS_CSV, format_folds_csv(summary, results)),
        (TABLE_CSV, format_classes_csv(summary)),
        (TABLE_TEX, format_latex_table(summary, results, about)),
    ):
        write_file(folder / name, text.encode())
    (folder / GROUPS_CSV).unlink(missing_ok=True)
    if groups := format_groups_csv(summary):
        write_file(folder / GROUPS_CSV, groups.encode())
    for name, form in ((REPORT_PNG, "png"), (REPORT_PDF, "pdf")):
        write_file(folder / name, draw_crossval_figure(summary, results, about, form))
    write_file(folder / REPORT_JSON, canonical_json(value).encode())
