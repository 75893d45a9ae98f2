"""One run's part of the HTML report: its scores, curves, confusion matrix, classes, folds, subjects."""

from __future__ import annotations

from shared.runs import OTHER_TEST
from train.reporting.html.curves import MOST_LOGS, draw_curves
from train.reporting.html.judged import score_subjects
from train.reporting.html.page import (
    Cell,
    Interval,
    Number,
    Part,
    count,
    folded,
    format_table,
    heading,
    paragraph,
    percent,
    picture,
)
from train.reporting.html.settings import format_environment, format_settings
from train.reporting.report import group_scores
from train.runs.export import without_folders
from train.runs.recorded import RecordedRun
from train.studies.crossval.summary import ClassSummary, CrossvalSummary, Spread, summarise_folds
from train.studies.crossval.text import SCORE_TITLES
from train.tasks.metrics import Metrics

MOST_SUBJECTS_OPEN = 12  # longer tables are folded


def format_run(run: RecordedRun, samples: str) -> str:
    """
    Args:
        samples: what to show of the worst samples, HTML.
    """
    parts = [paragraph(line, "warning") for line in list_run_warnings(run)]
    parts.append(paragraph(f"Licence of the faces: {' '.join(run.licences)}", "licence"))
    parts.append(paragraph(_describe(run)))
    if run.results:
        summary = summarise_folds(run.results)
        parts += [_format_scores(run, summary), _format_curves(run), _format_confusion(summary)]
        parts += [_format_classes(summary, is_crossval=run.is_crossval), _format_folds(run, summary)]
        parts += [_format_groups(summary), _format_subjects(run), samples, _format_other_tests(run)]
    else:
        parts.append(_format_curves(run))
    parts += [format_settings(run.config), format_environment(run)]
    if run.missing:
        parts += [heading("What is missing"), *(paragraph(line) for line in run.missing)]
    return "".join(parts)


def list_run_warnings(run: RecordedRun) -> list[str]:
    """What keeps these numbers from being a result, a line each."""
    lines = []
    if run.results and len(run.results) < len(run.folds):
        lines.append(f"PARTIAL: {len(run.results):,} of {len(run.folds):,} folds are finished")
    if run.config.is_random:
        lines.append("RANDOM WEIGHTS: model or prompts were not pretrained; no result to compare with published ones")
    if run.config.recipe.shuffle_labels >= 0:
        lines.append("CONTROL: training labels were shuffled, so scores should be near chance")
    return lines


def _describe(run: RecordedRun) -> str:
    config = without_folders(run.config)
    recipe = config.recipe
    data = f"{config.dataset} → {config.test_dataset}" if config.test_dataset else config.dataset
    what = f"cross-validation of {len(run.folds)} folds" if run.is_crossval else f"fold {recipe.fold}"
    people = f", trained on {run.split[0]} subjects, tested on {run.split[1]} others" if run.split else ""
    looks = f"{', '.join(recipe.modalities)} at views {config.render.views_text()}"
    return f"{data}, {recipe.protocol or 'subjects by name'}, {what}{people}; {config.tower.name}, {looks}."


def _format_scores(run: RecordedRun, summary: CrossvalSummary) -> str:
    pooled = summary.pooled
    rows: list[list[Cell]] = []
    for name in summary.score_names:
        row: list[Cell] = [SCORE_TITLES[name], percent(getattr(pooled, name))]
        interval = pooled.accuracy_95 if name == "accuracy" and isinstance(pooled, Metrics) else None
        row.append(None if interval is None else Interval(*interval))
        rows.append(row + (list(spread_cells(summary.over_folds[name])) if run.is_crossval else []))
    if isinstance(pooled, Metrics):
        for title, value in (("chance", pooled.chance), ("always the most frequent class", pooled.majority)):
            rows.append([title, percent(value), None, *([None, None] if run.is_crossval else [])])
    rows.append(["samples", count(pooled.num_samples), None, *([None, None] if run.is_crossval else [])])
    heads = ["in %", "pooled" if run.is_crossval else "score", "95 % interval"]
    heads += ["mean over folds", "± std"] if run.is_crossval else []
    note = (
        "The interval (Wilson) takes samples as independent; those of one subject are not, so it is narrow. "
        "Nothing was chosen on test data."
    )
    return heading("Scores") + format_table(heads, rows, name="scores") + paragraph(note, "note")


def spread_cells(spread: Spread) -> tuple[Cell, Cell]:
    """Mean and standard deviation in percent."""
    return percent(spread.mean), percent(spread.std)


def _format_curves(run: RecordedRun) -> str:
    logs = {fold.name: fold.log for fold in run.folds if fold.log}
    if not logs:
        return ""
    more = f" (the first {MOST_LOGS} of {len(logs)} folds)" if len(logs) > MOST_LOGS else ""
    about = f"loss, accuracy on training batches and learning rate over steps{more}"
    return heading(f"Curves{more}") + picture(draw_curves(logs), about, "curves")


def _format_confusion(summary: CrossvalSummary) -> str:
    if not isinstance(summary.pooled, Metrics):
        return ""
    rows: list[list[Cell]] = []
    for name, counts in zip(summary.class_names, summary.pooled.confusion, strict=True):
        rows.append([name, *(Part(one, one / max(sum(counts), 1)) for one in counts)])
    table = format_table(["true / predicted", *summary.class_names], rows, name="confusion")
    return heading("Confusion matrix") + table


def _format_classes(summary: CrossvalSummary, *, is_crossval: bool) -> str:
    if summary.multilabel:
        heads = ["in %", "known", "positive", "F1", "F1 of always yes", "precision", "recall", "AUC"]
    else:
        heads = ["in %", "samples", "recall", "precision", "F1"]
    rows = [_class_row(one, summary.multilabel) for one in summary.classes]
    if is_crossval:
        heads += [f"{'F1' if summary.multilabel else 'recall'}, mean over folds", "± std"]
        for row, one in zip(rows, summary.classes, strict=True):
            row += spread_cells(one.f1_over_folds if summary.multilabel else one.recall_over_folds)
    return heading("Classes") + format_table(heads, rows, name="classes")


def _class_row(one: ClassSummary, multilabel: bool) -> list[Cell]:
    recall, precision, f1 = percent(one.recall), percent(one.precision), percent(one.f1)
    if multilabel:
        always, auc = percent(one.always_yes_f1), percent(one.auc_over_folds.mean)
        return [one.class_name, count(one.num_known), percent(one.prevalence), f1, always, precision, recall, auc]
    return [one.class_name, count(one.support), recall, precision, f1]


def _format_other_tests(run: RecordedRun) -> str:
    """What `python -m train evaluate RUN --cache OTHER` found."""
    if not run.other_tests:
        return ""
    names = summarise_folds(run.other_tests[:1]).score_names
    rows = [
        [
            one.name.removeprefix(OTHER_TEST),
            count(one.metrics["num_samples"]),
            *(percent(one.metrics[n]) for n in names),
        ]
        for one in run.other_tests
    ]
    heads = ["cache, in %", "samples", *(SCORE_TITLES[name] for name in names)]
    return heading("Tested on other caches") + format_table(heads, rows, name="other tests")


def _format_folds(run: RecordedRun, summary: CrossvalSummary) -> str:
    if not run.is_crossval:
        return ""
    heads = ["fold, in %", "samples", *(SCORE_TITLES[name] for name in summary.score_names), "seconds"]
    rows: list[list[Cell]] = []
    for result in run.results:
        seconds = None if result.seconds is None else Number(result.seconds, f"{result.seconds:,.0f}")
        scores = [percent(result.metrics[name]) for name in summary.score_names]
        rows.append([result.name, count(result.metrics["num_samples"]), *scores, seconds])
    table = format_table(heads, rows, name="folds")
    return heading("Folds") + table if len(rows) <= MOST_SUBJECTS_OPEN else folded(f"Folds ({len(rows):,})", table)


def _format_groups(summary: CrossvalSummary) -> str:
    if not summary.groups:
        return ""
    rows: list[list[Cell]] = [
        [one.column, one.value, count(one.metrics.num_samples), count(one.num_subjects),
         *(percent(value) for value in group_scores(one).values())]
        for one in summary.groups
    ]  # fmt: skip
    heads = ["group", "value", "samples", "subjects", *group_scores(summary.groups[0])]
    table = format_table(heads, rows, name="groups")
    return heading("Groups of people or scans, pooled, in %") + table


def _format_subjects(run: RecordedRun) -> str:
    predictions = [one for fold in run.folds for one in fold.predictions]
    if not predictions:
        return ""
    several = run.config.recipe.is_multilabel
    scores = score_subjects(predictions, run.results[0].class_names, multilabel=several)
    rows: list[list[Cell]] = []
    for one in scores:
        cells = [count(one.num), count(one.num_right), percent(one.accuracy), Interval(*one.accuracy_95)]
        rows.append([one.subject, *cells, one.most_frequent_mistake])
    heads = [
        "subject",
        "decisions" if several else "samples",
        "right",
        "in %",
        "95 % interval",
        "most frequent mistake",
    ]
    table = format_table(heads, rows, name="subjects")
    title = "Subjects, the worst first"
    return heading(title) + table if len(rows) <= MOST_SUBJECTS_OPEN else folded(f"{title} ({len(rows):,})", table)
