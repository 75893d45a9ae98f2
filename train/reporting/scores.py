"""Scores of a task as columns of a table, and the tables of one test: its classes and its confusion matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from train.reporting.spread import Spread
from train.reporting.table import COUNT, LINE_LENGTH, TEXT, UNITS, Column, Format, Table, align
from train.runs.groups import GroupScore
from train.tasks.task import Metrics, Score, Task

FORMATS: dict[str, Format] = {"count": COUNT, **{kind: unit.value for kind, unit in UNITS.items()}}  # by Score.kind


def format_score(score: Score, value: float | None) -> str:
    """Return a score as text: in percent or as a number; a dash for None."""
    return UNITS[score.kind].number(value)


def percent_note(task: Task) -> str:
    """Return "in %" for a task whose scores are fractions, else an empty text."""
    return "in %" if task.primary.kind == "percent" else ""


def score_columns(scores: Sequence[Score], metrics: Callable[[Any], Metrics]) -> list[Column]:
    """Return a column for each score of a whole test; metrics: of a row."""

    def column(score: Score) -> Column:
        form = FORMATS[score.kind]
        return Column(lambda row: metrics(row)[score.name], form, score.name, score.short_title, score.latex)

    return [column(score) for score in scores]


def list_classes(
    task: Task, class_names: Sequence[str], metrics: Metrics, over_folds: dict[str, tuple[Spread, ...]] | None = None
) -> Table:
    """Return the table of classes; rows are class indices.

    Args:
        over_folds: mean ± std over folds of each class, by the names of scores.
    """
    over_folds = over_folds or {}
    columns = [Column(lambda index: class_names[index], TEXT, "class", "class")]
    for score in task.class_scores:
        if score.pooled or not over_folds:
            columns.append(_class_column(metrics.per_class[score.name], FORMATS[score.kind], score.name, score.title))
        if score.name in over_folds:
            title = f"{score.title} over folds"
            columns.append(_class_column(over_folds[score.name], UNITS[score.kind].spread, score.name, title))
    return Table(columns, range(len(class_names)))


def _class_column(values: Sequence[Any], form: Format, key: str, title: str) -> Column:
    return Column(lambda index: values[index], form, key, title)


def format_confusion(metrics: Metrics, class_names: Sequence[str], corner: str = "true / predicted") -> list[str]:
    """Return the confusion matrix, for a console: columns are named by the classes, or by numbers where a line is too short."""
    confusion = metrics.counts["confusion"].tolist()
    for names, heads in (
        (class_names, class_names),
        (
            [f"{index} {name}" for index, name in enumerate(class_names, 1)],
            [str(i + 1) for i in range(len(class_names))],
        ),
    ):
        rows = [[name, *(str(count) for count in row)] for name, row in zip(names, confusion, strict=True)]
        lines = align([[corner, *heads], *rows])
        if len(lines[0]) <= LINE_LENGTH:
            break
    return lines


def list_groups(groups: Sequence[GroupScore], task: Task) -> Table:
    """Return a table with one row for each value of each group column: samples, subjects and scores."""
    columns = [
        Column(lambda one: f"{one.column} = {one.value}", TEXT, title="group", latex="Group"),
        Column(lambda one: one.column, TEXT, key="column"),
        Column(lambda one: one.value, TEXT, key="value"),
        Column(lambda one: one.metrics.num_samples, COUNT, key="num_samples", title="samples", latex="Samples"),
        Column(lambda one: one.num_subjects, COUNT, key="num_subjects", title="subjects", latex="Subjects"),
        *score_columns(task.scores, lambda one: one.metrics),
    ]
    return Table(columns, groups)
