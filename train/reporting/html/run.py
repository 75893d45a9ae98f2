"""Collect what the HTML report shows of one run: scores, curves, confusion matrix, classes, folds, subjects, settings."""

from __future__ import annotations

import base64
import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shared.cache import Cache
from shared.pairs import group_pairs
from shared.runs import FOLDS_JSON, OTHER_TEST
from train.config import RunConfig, without_folders
from train.option_values import format_value, option_name
from train.options import Recipe
from train.protocols.folds import read_folds
from train.reporting.calibration import (
    FoldCalibration,
    calibrate_folds,
    describe_calibration,
    list_calibration,
    measure_test,
)
from train.reporting.crossval import FRAME_VOTES_TITLE, list_folds
from train.reporting.figures import draw_reliability
from train.reporting.html.curves import MOST_LOGS, draw_curves
from train.reporting.html.misclassified import Misclassified, find_misclassified, score_subjects
from train.reporting.html.pictures import draw_samples
from train.reporting.limits import find_limits
from train.reporting.scores import list_classes, list_groups, percent_note, score_columns
from train.reporting.summary import CrossvalSummary, summarise_folds
from train.reporting.table import COUNT, PERCENT, TEXT, UNITS, Column, Table, Unit
from train.runs.groups import GroupScore
from train.runs.results import RecordedRun

MOST_ROWS_OPEN = 12  # longer tables are folded

# Of a cell: text, a count, a fraction (shown in percent), an interval of fractions; None: a dash.
Cell = str | int | float | tuple[float, float] | None


@dataclass(frozen=True)
class Section:
    """A table under a heading; the first cell of a row is its head."""

    title: str
    name: str  # for programs that read the page
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    folded: bool = False  # shown on a click

    @property
    def is_text(self) -> list[bool]:
        """Return which columns hold only text, and not numbers such as 97.2 ± 3.2 alone."""
        columns = [[row[number] for row in self.rows] for number in range(len(self.heads))]
        return [
            all(isinstance(cell, str) for cell in cells) and not all(str(cell)[:1].isdigit() for cell in cells)
            for cells in columns
        ]


@dataclass
class RunPart:
    """What run.html shows of a run. Pictures are data URIs."""

    anchor: str
    name: str
    warnings: list[str]
    licences: list[str]
    description: str
    missing: list[str]
    curves: str = ""
    curves_title: str = "Curves"
    class_names: Sequence[str] = ()
    scores: list[Section] = field(default_factory=list)
    confusion: Sequence[Sequence[int]] = ()
    reliability: str = ""
    calibration: Section | None = None
    tables: list[Section] = field(default_factory=list)
    misclassified: list[Misclassified] | None = None  # None: there are no predictions
    samples_note: str = ""
    pictures: dict[str, str] = field(default_factory=dict)  # by sample
    details: list[Section] = field(default_factory=list)


def collect_run(run: RecordedRun, anchor: str, *, num_worst: int, faces: bool, moved: Mapping[str, Cache]) -> RunPart:
    """Collect the part of a run.

    Args:
        num_worst: misclassified samples to show. faces: show them as pictures. moved: as `pictures.open_tested_cache`.
    """
    part = RunPart(anchor, run.name, list_run_warnings(run), run.licences, _describe(run), list(run.missing))
    if logs := {fold.name: fold.log for fold in run.folds if fold.log}:
        part.curves = draw_curves(logs)
        if len(logs) > MOST_LOGS:
            part.curves_title = f"Curves (the first {MOST_LOGS} of {len(logs)} folds)"
    if run.results:
        summary = summarise_folds(run.results)
        part.class_names = summary.class_names
        part.scores = [_scores(run, summary)]
        if "confusion" in summary.pooled.counts:
            part.confusion = summary.pooled.counts["confusion"].tolist()
        _add_calibration(part, run)
        part.tables = [_classes(run, summary), *_folds(run, summary), *_groups(summary), *_subjects(run)]
        _add_samples(part, run, num_worst, faces=faces, moved=moved)
        part.details = _other_tests(run)
    settings = [[name, text or "–"] for name, text in list_settings(run.config).items()]
    part.details.append(Section("Configuration", "settings", ["setting", "value"], settings, folded=True))
    part.details.append(Section("Environment", "environment", ["what", "value"], list_environment(run), folded=True))
    return part


def list_run_warnings(run: RecordedRun) -> list[str]:
    """Return what keeps these numbers from being a result, a line each."""
    lines = []
    if run.results and len(run.results) < len(run.folds):
        lines.append(f"PARTIAL: {len(run.results):,} of {len(run.folds):,} folds are finished")
    return lines + find_limits(run.config)


def _describe(run: RecordedRun) -> str:
    config = without_folders(run.config)
    recipe = config.recipe
    data = f"{config.dataset} → {config.test_dataset}" if config.test_dataset else config.dataset
    folds = f"cross-validation of {len(run.folds)} folds" if run.is_crossval else f"fold {recipe.fold}"
    people = f", trained on {run.split[0]} subjects, tested on {run.split[1] or 'no'} others" if run.split else ""
    if not run.is_crossval and run.results and run.results[0].info.best_epoch:
        people += f", epoch {run.results[0].info.best_epoch} by validation"
    images = f"{', '.join(recipe.modalities)} at views {config.render.views_text()}"
    return f"{data}, {recipe.protocol or 'subjects by name'}, {folds}{people}; {config.tower.name}, {images}."


def _scores(run: RecordedRun, summary: CrossvalSummary) -> Section:
    pooled, task = summary.pooled, summary.task
    rows: list[list[Cell]] = []
    for score in task.scores:
        interval = pooled.interval_95 if score == task.primary else None
        spread = summary.over_folds[score.name]
        mean, std = (show_value(UNITS[score.kind], value) for value in (spread.mean, spread.std))
        rows.append([score.title, show_value(UNITS[score.kind], pooled[score.name]), interval, mean, std])
    rows += [[score.title, pooled[score.name], None, None, None] for score in task.references]
    rows.append(["samples", pooled.num_samples, None, None, None])
    heads = [percent_note(task), "pooled" if run.is_crossval else "score", "95 % interval", "mean over folds", "± std"]
    width = 5 if run.is_crossval else 3
    note = (
        "The interval (Wilson) treats samples as independent; those of one subject are not, so it is too narrow. "
        * (pooled.interval_95 is not None)
        + "Nothing was chosen on test data."
    )
    return Section("Scores", "scores", heads[:width], [row[:width] for row in rows], note)


def _add_calibration(part: RunPart, run: RecordedRun) -> None:
    task, class_names = run.results[0].task, run.results[0].class_names
    tests = {fold.name: fold.predictions for fold in run.folds}
    found: tuple[FoldCalibration, ...] = ()
    if run.is_crossval:
        found = calibrate_folds(task, read_folds(run.path / FOLDS_JSON).folds, tests, class_names)
    elif plain := measure_test(task, run.folds[0].predictions, class_names):
        found = (FoldCalibration(run.folds[0].name, plain),)
    if found:
        section = convert_table("Calibration", "calibration", list_calibration(found))
        part.calibration = dataclasses.replace(section, note=" ".join(describe_calibration(found)))
        picture = base64.b64encode(draw_reliability(found, "svg")).decode()
        part.reliability = f"data:image/svg+xml;base64,{picture}"


def _classes(run: RecordedRun, summary: CrossvalSummary) -> Section:
    over_folds = summary.classes_over_folds if run.is_crossval else None
    metrics = summary.pooled if run.is_crossval else run.results[0].metrics
    return convert_table("Classes", "classes", list_classes(summary.task, summary.class_names, metrics, over_folds))


def _folds(run: RecordedRun, summary: CrossvalSummary) -> list[Section]:
    if not run.is_crossval:
        return []
    return [_foldable(convert_table("Folds", "folds", list_folds(summary, run.results)))]


def _groups(summary: CrossvalSummary) -> list[Section]:
    sections = []
    if summary.frame_votes:
        table = list_groups(summary.frame_votes, summary.task)
        sections.append(convert_table(f"{FRAME_VOTES_TITLE.capitalize()}, in %", "frame votes", table))
    if not summary.groups:
        return sections
    title = "Groups of people or scans, pooled" + ", in %" * bool(percent_note(summary.task))
    return [*sections, convert_table(title, "groups", list_groups(summary.groups, summary.task))]


def convert_table(title: str, name: str, table: Table) -> Section:
    """Return a table of a report as a section; a spread takes two columns."""
    heads: list[str] = []
    rows: list[list[Cell]] = [[] for _ in table.rows]
    for column in table.columns:
        if not column.title:
            continue
        unit = next((unit for unit in UNITS.values() if unit.spread is column.format), None)
        heads += [column.title] if unit is None else [column.title, "± std"]
        for row, cells in zip(table.rows, rows, strict=True):
            value = column.value(row)
            if unit is not None:
                cells += [show_value(unit, value.mean), show_value(unit, value.std)]
            elif column.format in (PERCENT, COUNT, TEXT) or value is None:
                cells.append(value)
            else:
                cells.append(column.format.text(value))
    return Section(title, name, heads, rows)


def show_value(unit: Unit, value: float | None) -> Cell:
    """Return a score as a cell: fractions as they are, which the page shows in percent, other numbers as text."""
    return value if unit is UNITS["percent"] or value is None else unit.number(value)


def _subjects(run: RecordedRun) -> list[Section]:
    predictions = [one for fold in run.folds for one in fold.predictions]
    if not predictions:
        return []
    task, class_names = run.results[0].task, run.results[0].class_names
    if task.has_values:
        scores = [
            GroupScore("subject", subject, 1, task.compute_metrics(len(own), task.count(own, class_names)))
            for subject, own in sorted(group_pairs((one.subject, one) for one in predictions).items())
        ]
        return [_foldable(convert_table("Subjects", "subjects", list_groups(scores, task)))]
    multilabel = task.several
    heads = ["subject", "decisions" if multilabel else "samples", "right", "in %", "95 % interval", "frequent mistake"]
    rows: list[list[Cell]] = [
        [one.subject, one.num, one.num_right, one.accuracy, one.accuracy_95, one.most_frequent_mistake]
        for one in score_subjects(predictions, class_names, multilabel=multilabel)
    ]
    return [_foldable(Section("Subjects, the worst first", "subjects", heads, rows))]


def _other_tests(run: RecordedRun) -> list[Section]:
    """Return the results of `python -m train evaluate RUN --cache OTHER`."""
    if not run.other_tests:
        return []
    columns = [
        Column(
            lambda test: test.name.removeprefix(OTHER_TEST),
            TEXT,
            title=f"cache, {percent_note(run.other_tests[0].task)}".removesuffix(", "),
        ),
        Column(lambda test: test.metrics.num_samples, COUNT, title="samples"),
        *score_columns(run.other_tests[0].task.scores, lambda test: test.metrics),
    ]
    return [convert_table("Tested on other caches", "other tests", Table(columns, run.other_tests))]


def _foldable(section: Section) -> Section:
    num = len(section.rows)
    if num <= MOST_ROWS_OPEN:
        return section
    return dataclasses.replace(section, title=f"{section.title} ({num:,})", folded=True)


def _add_samples(part: RunPart, run: RecordedRun, most: int, *, faces: bool, moved: Mapping[str, Cache]) -> None:
    predictions = [one for fold in run.folds for one in fold.predictions]
    if not predictions or run.results[0].task.has_values:  # a number is never quite right
        return
    multilabel = run.results[0].task.several
    worst = find_misclassified(predictions, run.results[0].class_names, most, multilabel=multilabel)
    part.misclassified = worst
    if worst and faces:
        part.pictures, missing = draw_samples(run.config, [one.name for one in worst], moved)
        part.missing += missing
    truth = "the true decisions" if multilabel else "the true class"
    part.samples_note = f"{len(worst)} misclassified samples, with the least mean probability of {truth} first."
    if part.pictures:
        part.samples_note += " A line per modality, a column per view; of a sequence the middle frame."
        if "normal" in run.config.recipe.modalities and not run.config.render.dynamic:
            part.samples_note += " Normals are shown as relief, lit by a lamp."


# --- settings and environment ---


def list_settings(config: RunConfig) -> dict[str, str]:
    """Return everything that decides a run, as text, the options first. Names no folder of this machine."""
    config = without_folders(config)
    found = {option_name(f.name): format_value(getattr(config.recipe, f.name)) for f in dataclasses.fields(Recipe)}
    render, tower = config.render, config.tower
    found |= {
        "data set": config.dataset,
        "content of the cache": config.content_hash[:16],
        "views": f"{render.views_text()}, {render.size_px} px",
        "image tower": f"{tower.name}, {tower.image_size} px",
        "its initial weights": f"{tower.pretrained} {tower.weights_hash[:16]}".strip(),
        "prompt embeddings": config.text_hash[:16] + ", other prompts for each view" * config.text_per_view,
    }
    if config.initial:
        found["copied from --init-from"] = "; ".join(config.initial.copied)
    if config.test_dataset:
        found["data set tested"] = f"{config.test_dataset}, content {config.test_content_hash[:16]}"
    return found


def list_environment(run: RecordedRun) -> list[list[str]]:
    """Return versions and machine, time and speed of the training."""
    found: dict[str, dict[str, None]] = {}
    for fold in run.folds:
        for name, text in fold.environment.items():
            found.setdefault(name, {})[text] = None
    rows = [[name, "; ".join(texts)] for name, texts in found.items()]
    if seconds := [result.seconds for result in run.results if result.seconds is not None]:
        rows.append(["time of training and testing", f"{sum(seconds):,.0f} s"])
    lines = [line for fold in run.folds for line in fold.log]
    for name, title, form in (
        ("samples_per_second", "samples per second, median", "{:,.1f}"),
        ("wait_share", "share of time spent waiting for data, median", "{:.1%}"),
        ("mfu", "share of the GPU's peak used (MFU), median", "{:.1%}"),
    ):
        if values := [line[name] for line in lines if name in line]:
            rows.append([title, form.format(statistics.median(values))])
    if memory := [line["memory_bytes"] for line in lines if "memory_bytes" in line]:
        rows.append(["memory, at most", f"{max(memory) / 1e9:,.2f} GB"])
    return rows if found else [*rows, ["versions and machine", "not recorded by the version that trained it"]]
