"""`python -m train report`: runs as one self-contained HTML file, which loads nothing from any server."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from shared.errors import FacetError, count, describe_os_error
from shared.store.storage import check_writable, write_file
from train.reporting.html.curves import draw_curves
from train.reporting.html.pictures import open_moved_caches
from train.reporting.html.run import Cell, RunPart, Section, collect_run, list_run_warnings, list_settings, show_value
from train.reporting.summary import summarise_folds
from train.reporting.table import UNITS, format_percent
from train.runs.results import RecordedRun, read_recorded_runs

NUM_WORST = 12


@dataclass(frozen=True)
class Comparison:
    """What page.html shows of several runs side by side."""

    scores: Section
    settings: Section
    same_samples: bool
    curves: str  # a data URI; "": no run has a log


def write_html_report(
    paths: Sequence[Path], out: Path, *, faces: bool = True, num_worst: int = NUM_WORST, caches: Sequence[Path] = ()
) -> int:
    """Write the report of runs of `fit`, or of cross-validations.

    Args:
        faces: show misclassified samples as pictures, from the caches that the runs were tested on.
        num_worst: misclassified samples shown of each run. caches: caches that were moved.
    Returns:
        0.
    Raises:
        FacetError: out is not named .html, a folder holds no run, a file in it is damaged, or a cache is of none of the runs.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise FacetError(f"--out {out}: expected a name that ends in .html")
    if out.is_dir():
        raise FacetError(f"--out {out}: is a folder; give the name of an HTML file")
    check_writable(out)
    runs = read_recorded_runs(paths)
    moved = open_moved_caches(caches, [run.config for run in runs])
    parts = [
        collect_run(run, f"run-{number}", num_worst=num_worst, faces=faces, moved=moved)
        for number, run in enumerate(runs)
    ]
    num_pictures = sum(len(part.pictures) for part in parts)
    try:
        write_file(out, render_page(runs, parts).encode(), like=runs[0].path)
    except OSError as error:
        raise FacetError(f"--out {describe_os_error(error)}") from error
    size = out.stat().st_size / 1e6
    pictures = f"{count(num_pictures, 'sample')} with pictures"
    print(f"{count(len(runs), 'run')}, {pictures}, {size:.1f} MB: {out}")
    for part in parts:
        for line in part.missing:
            print(f"note: {part.name}: {line}")
    if num_pictures:
        licences = dict.fromkeys(line for run in runs for line in run.licences)
        print(f"it shows faces (--no-faces leaves them out). {'; '.join(licences)}")
    return 0


def render_page(runs: Sequence[RecordedRun], parts: Sequence[RunPart]) -> str:
    """Return the page of page.html and run.html. All values are escaped by Jinja, data URIs too."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = format_cell
    return environment.get_template("page.html").render(
        title=runs[0].name if len(runs) == 1 else f"{len(runs)} runs",
        licences=list(dict.fromkeys(line for run in runs for line in run.licences)),
        has_faces=any(part.pictures for part in parts),
        runs=parts,
        comparison=_compare(runs) if len(runs) > 1 else None,
    )


def format_cell(cell: Cell) -> Markup:
    """Return a cell of a table: numbers rounded, with their full value in a data element; text escaped."""
    if cell is None:
        return Markup("–")
    if isinstance(cell, str):
        return Markup(re.sub(r",(?=\S)", ",<wbr>", escape(cell)))  # a line of a long list ends behind a comma
    if isinstance(cell, tuple):
        return Markup(" to ").join(map(format_cell, cell))
    text = f"{cell:,}" if isinstance(cell, int) else format_percent(cell)
    return Markup('<data value="{}">{}</data>').format(cell, text)


def _compare(runs: Sequence[RecordedRun]) -> Comparison:
    tested = [{(p.subject, p.name) for fold in run.folds for p in fold.predictions} for run in runs if run.results]
    settings = [list_settings(run.config) for run in runs]
    names = dict.fromkeys(name for one in settings for name in one)
    rows = [[name, *(one.get(name) or "–" for one in settings)] for name in names]
    rows = [row for row in rows if len(set(row[1:])) > 1]
    logs = {run.name: run.folds[0].log for run in runs if run.folds and run.folds[0].log}
    return Comparison(
        _compare_scores(runs),
        Section("Settings that differ", "differences", ["setting", *(run.name for run in runs)], rows),
        same_samples=all(one == tested[0] for one in tested),
        curves=draw_curves(logs) if logs else "",
    )


def _compare_scores(runs: Sequence[RecordedRun]) -> Section:
    summaries = [summarise_folds(run.results) if run.results else None for run in runs]
    scores = list(dict.fromkeys(score for one in summaries if one for score in one.task.scores))
    with_interval = {one.task.primary for one in summaries if one and one.pooled.interval_95}
    several = any(run.is_crossval for run in runs)
    heads = ["run", "folds", "samples"]
    for score in scores:
        heads += (
            [score.title + "," * bool(UNITS[score.kind].symbol) + UNITS[score.kind].symbol]
            + ["over folds"] * several
            + ["95 % interval"] * (score in with_interval)
        )
    rows: list[list[Cell]] = []
    for run, summary in zip(runs, summaries, strict=True):
        pooled = summary.pooled if summary else None
        row: list[Cell] = [
            run.name,
            f"{len(run.results):,} of {len(run.folds):,}",
            pooled.num_samples if pooled else None,
        ]
        for score in scores:
            spread = summary.over_folds.get(score.name) if summary and run.is_crossval else None
            unit = UNITS[score.kind]
            row.append(show_value(unit, pooled.overall.get(score.name)) if pooled else None)
            row += [unit.spread.text(spread) if spread else None] * several
            row += [pooled.interval_95 if pooled else None] * (score in with_interval)
        rows.append([*row, "; ".join(line.split(":")[0] for line in list_run_warnings(run))])
    note = "Scores are pooled over folds; over folds: mean ± std." if several else ""
    return Section("Scores", "comparison", [*heads, ""], rows, note)
