"""`python -m train report`: runs as one HTML file that needs nothing else, and asks nothing of any server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shared.errors import FacetError, describe_os_error
from shared.store.storage import check_writable, write_file
from train.reporting.html.curves import draw_curves
from train.reporting.html.page import (
    Cell,
    Interval,
    Number,
    count,
    format_links,
    format_page,
    format_table,
    heading,
    paragraph,
    picture,
)
from train.reporting.html.run import format_run, list_run_warnings
from train.reporting.html.sample_pictures import open_moved_caches
from train.reporting.html.samples import format_worst_samples
from train.reporting.html.settings import list_settings
from train.runs.recorded import RecordedRun, read_recorded_runs
from train.studies.crossval.summary import CrossvalSummary, summarise_folds
from train.studies.crossval.text import SCORE_TITLES, format_percent, format_spread
from train.tasks.metrics import Metrics

NUM_WORST = 12


def write_html_report(
    paths: Sequence[Path],
    out: Path,
    *,
    faces: bool = True,
    num_worst: int = NUM_WORST,
    caches: Sequence[Path] = (),
) -> int:
    """Writes the report of runs of `fit`, or of cross-validations.

    Args:
        faces: show the worst samples as pictures, from the caches that the runs were tested on.
        num_worst: samples shown of each run. caches: that were moved, to look for pictures in.
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
    num_pictures = 0
    sections = []
    for number, run in enumerate(runs):
        samples, num_drawn = format_worst_samples(run, num_worst, faces=faces, moved=moved)
        num_pictures += num_drawn
        sections.append(heading(run.name, 2, f"run-{number}") + format_run(run, samples))
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    licences = dict.fromkeys(line for run in runs for line in run.licences)
    kept = "with pictures of faces" if num_pictures else "without pictures of faces"
    parts = [heading(f"FACET-VLM: {title}", 1), *(paragraph(line, "licence") for line in licences)]
    parts.append(paragraph(f"This file is whole in itself, {kept}. Scores are those of subjects that did not train."))
    if len(runs) > 1:
        parts.append(format_links([run.name for run in runs], [f"run-{number}" for number in range(len(runs))]))
        parts.append(_compare(runs))
    try:
        write_file(out, format_page(f"FACET-VLM: {title}", "".join(parts + sections)), like=runs[0].path)
    except OSError as error:
        raise FacetError(f"--out {describe_os_error(error)}") from error
    size = out.stat().st_size / 1e6
    print(f"{len(runs)} run{'s' * (len(runs) > 1)}, {num_pictures} samples with pictures, {size:.1f} MB: {out}")
    for run in runs:
        for line in run.missing:
            print(f"note: {run.name}: {line}")
    if num_pictures:
        print("it shows faces of a licensed data set: pass it on as its licence allows, or write it with --no-faces")
    return 0


def _compare(runs: Sequence[RecordedRun]) -> str:
    """Runs side by side: scores, what differs in their settings, curves."""
    parts = [heading("Side by side", 2), _compare_scores(runs)]
    tested = [{(p.subject, p.name) for fold in run.folds for p in fold.predictions} for run in runs if run.results]
    if any(one != tested[0] for one in tested[1:]):
        parts.append(
            paragraph("These runs were not tested on the same samples: scores do not compare one to one.", "warning")
        )
    settings = [list_settings(run.config) for run in runs]
    names = dict.fromkeys(name for one in settings for name in one)
    differing = [name for name in names if len({one.get(name) for one in settings}) > 1]
    rows: list[list[Cell]] = [[name, *(one.get(name) or "–" for one in settings)] for name in differing]
    parts.append(heading("Settings that differ"))
    parts.append(
        format_table(["setting", *(run.name for run in runs)], rows, name="differences")
        if rows
        else paragraph("None: the same settings and data.")
    )
    logs = {run.name: run.folds[0].log for run in runs if run.folds and run.folds[0].log}
    if logs:
        which = "first folds of cross-validations" if any(run.is_crossval for run in runs) else "all runs"
        parts += [heading(f"Curves ({which})"), picture(draw_curves(logs), "loss, accuracy, learning rate", "curves")]
    return "".join(parts)


def _compare_scores(runs: Sequence[RecordedRun]) -> str:
    summaries = [summarise_folds(run.results) if run.results else None for run in runs]
    names = list(dict.fromkeys(name for one in summaries if one for name in one.score_names))
    heads = ["run", "folds", "samples"]
    for name in names:
        heads += [f"{SCORE_TITLES[name]}, %", "95 % interval"] if name == "accuracy" else [f"{SCORE_TITLES[name]}, %"]
    rows: list[list[Cell]] = []
    for run, summary in zip(runs, summaries, strict=True):
        row: list[Cell] = [run.name, Number(len(run.results), f"{len(run.results):,} of {len(run.folds):,}")]
        row.append(count(summary.pooled.num_samples) if summary else None)
        for name in names:
            row += _score_cells(summary, name, is_crossval=run.is_crossval)
        rows.append([*row, "; ".join(line.split(":")[0] for line in list_run_warnings(run))])
    folds = any(run.is_crossval for run in runs)
    note = "pooled over folds; mean ± std over folds in brackets" if folds else ""
    return format_table([*heads, ""], rows, name="comparison") + (paragraph(note, "note") if note else "")


def _score_cells(summary: CrossvalSummary | None, name: str, *, is_crossval: bool) -> list[Cell]:
    interval_too = name == "accuracy"
    if summary is None or name not in summary.over_folds:
        return [None] * (1 + interval_too)
    value = getattr(summary.pooled, name)
    spread = f" ({format_spread(summary.over_folds[name])})" if is_crossval else ""
    cell = None if value is None else Number(value, format_percent(value) + spread)
    if not interval_too:
        return [cell]
    assert isinstance(summary.pooled, Metrics)
    return [cell, Interval(*summary.pooled.accuracy_95)]
