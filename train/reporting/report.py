"""What a test leaves behind: metrics.json, predictions.csv, confusion.png (one class of several), lines on the console."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.attention import ATTENTION_FILE
from shared.runs import (
    CONFIG_JSON,
    CONFUSION_PDF,
    CONFUSION_PNG,
    METRICS_JSON,
    PREDICTIONS_CSV,
    SPLIT_JSON,
    THRESHOLDS_JSON,
    Prediction,
    Predictions,
    record_hashes,
    write_predictions,
)
from shared.schema import canonical_json
from shared.store.storage import write_file
from train.config import RunConfig
from train.inference.score import Scores
from train.reporting.figures import encode_figure
from train.reporting.groups import GroupScore, pool_groups
from train.tasks.metrics import Metrics
from train.tasks.multilabel import MultiLabelMetrics

_SETTINGS = (CONFIG_JSON, SPLIT_JSON, THRESHOLDS_JSON)
ROOM_FOR_CLASSES = 88  # characters of a line


def format_table(metrics: Metrics, class_names: Sequence[str]) -> str:
    """Recall, F1 and the confusion matrix of each class, for a console."""
    corner = "true / predicted"
    names, heads, widths = head_columns(class_names, metrics.confusion)
    width = max(len(name) for name in (corner, *names))
    lines = [f"{corner:<{width}}  recall     F1  " + join_cells(heads, widths)]
    for index, name in enumerate(names):
        lines.append(
            f"{name:<{width}}  {_cell(metrics.per_class_recall[index])} {metrics.per_class_f1[index]:6.3f}  "
            + join_cells(metrics.confusion[index], widths)
        )
    return "\n".join(lines)


def head_columns(
    class_names: Sequence[str], confusion: Sequence[Sequence[int]]
) -> tuple[list[str], list[str], list[int]]:
    """What a confusion matrix's rows and columns are called on a console, and the columns' widths.

    Columns are headed by the classes' whole names where a line holds them all, else by numbers, which then stand before the
    names of the rows, too.
    """
    counts = [max(len(str(count)) for count in column) for column in zip(*confusion, strict=True)]
    widths = [max(len(name), width, 5) + 2 for name, width in zip(class_names, counts, strict=True)]
    if sum(widths) <= ROOM_FOR_CLASSES:
        return [*class_names], [*class_names], widths
    numbers = [str(index) for index in range(1, len(class_names) + 1)]
    names = [f"{number:>{len(numbers[-1])}} {name}" for number, name in zip(numbers, class_names, strict=True)]
    return names, numbers, [max(width, len(numbers[-1]), 4) + 2 for width in counts]


def join_cells(cells: Sequence[object], widths: Sequence[int]) -> str:
    return "".join(f"{cell!s:>{width}}" for cell, width in zip(cells, widths, strict=True))


def format_multilabel_table(metrics: MultiLabelMetrics, class_names: Sequence[str]) -> str:
    """F1 and what goes with it, a line a class, for a console."""
    width = max(len(name) for name in ("class", *class_names))
    lines = [f"{'class':<{width}}      F1  precis.  recall     AUC  positive   known"]
    for index, name in enumerate(class_names):
        cells = (metrics.per_class_f1, metrics.per_class_precision, metrics.per_class_recall, metrics.per_class_auc)
        lines.append(
            f"{name:<{width}}  "
            + "  ".join(_cell(values[index]) for values in cells)
            + f"  {metrics.support[index]:>8}{metrics.num_known[index]:>8}"
        )
    return "\n".join(lines)


def format_groups(groups: Sequence[GroupScore]) -> list[str]:
    """A line a group, scores in percent, for a console; none where there are no groups."""
    if not groups:
        return []
    names = [f"{one.column} = {one.value}" for one in groups]
    width = max(len(name) for name in ("group", *names))
    titles = group_scores(groups[0])
    lines = [f"{'group':<{width}}{'samples':>9}{'subjects':>10}" + "".join(f"{title:>10}" for title in titles)]
    for name, one in zip(names, groups, strict=True):
        cells = ("–" if value is None else f"{100 * value:.1f}" for value in group_scores(one).values())
        lines.append(
            f"{name:<{width}}{one.metrics.num_samples:>9,}{one.num_subjects:>10,}" + "".join(f"{c:>10}" for c in cells)
        )
    return lines


def group_scores(one: GroupScore) -> dict[str, float | None]:
    """The scores of a group by what they are called; where several classes may hold at once there is no accuracy."""
    if isinstance(one.metrics, Metrics):
        return {"accuracy": one.metrics.accuracy, "UAR": one.metrics.uar}
    return {"macro-F1": one.metrics.macro_f1, "micro-F1": one.metrics.micro_f1, "UAR": one.metrics.uar}


def _cell(value: float | None) -> str:
    return "   -  " if value is None else f"{value:6.3f}"


def write_report(
    folder: Path,
    metrics: Metrics | MultiLabelMetrics,
    scores: Scores,
    class_names: Sequence[str],
    about: dict[str, Any],
    title: str,
    thresholds: np.ndarray | None = None,
) -> None:
    """Writes the files of a test; `about` is what else metrics.json should tell (data set, licence, random weights …).

    Args:
        thresholds: f32 (C,) where several classes may hold at once, which have no confusion matrix.
    """
    write_predictions(folder / PREDICTIONS_CSV, describe_predictions(scores, class_names, thresholds))
    if isinstance(metrics, Metrics):
        write_confusion(folder / CONFUSION_PNG, metrics, class_names, title)
    value = {
        **about,
        **dataclasses.asdict(metrics),
        "class_names": list(class_names),
        "thresholds": None if thresholds is None else [float(t) for t in thresholds],
        "view_weights": scores.view_weights,
        "face_cosine": scores.face_cosine,
    }
    record_hashes(folder, (*(name for name in _SETTINGS if (folder / name).is_file()), PREDICTIONS_CSV, ATTENTION_FILE))
    write_file(folder / METRICS_JSON, canonical_json(value).encode())  # last: it says that the run is finished
    record_hashes(folder, (METRICS_JSON,))


def describe_predictions(scores: Scores, class_names: Sequence[str], thresholds: np.ndarray | None) -> Predictions:
    """Return predictions.csv of scored items: the class of the highest probability, or all that reach their threshold.

    Args:
        thresholds: f32 (C,) where several classes may hold at once, else None.
    """
    rows = []
    for item, row in zip(scores.items, scores.probabilities, strict=True):
        true: tuple[str, ...]
        predicted: tuple[str, ...]
        unknown: tuple[str, ...] = ()
        if thresholds is None:
            true = (item.class_name,) if item.class_name else ()
            predicted = (class_names[int(row.argmax())],)
        else:
            values = item.targets or (-1,) * len(class_names)
            true, unknown = (tuple(n for n, v in zip(class_names, values, strict=True) if v == w) for w in (1, -1))
            predicted = tuple(n for n, p, t in zip(class_names, row, thresholds, strict=True) if p >= t)
        rows.append(Prediction(item.name, item.subject, true, predicted, tuple(row.tolist()), unknown))
    return Predictions(tuple(class_names), thresholds is not None, tuple(rows))


def write_confusion(path: Path, metrics: Metrics, class_names: Sequence[str], title: str) -> None:
    """A picture of the confusion matrix, PNG or PDF by its name: shaded by the part of each true class, counts written in."""
    from matplotlib.figure import Figure

    counts = np.array(metrics.confusion)
    parts = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 2.6 + 0.62 * len(class_names)
    figure = Figure(figsize=(side + 0.6, side), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(parts, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            axes.text(
                column,
                row,
                str(count),
                ha="center",
                va="center",
                color="white" if parts[row, column] > 0.6 else "black",
            )
    axes.set_xticks(range(len(class_names)), class_names, rotation=40, ha="right")
    axes.set_yticks(range(len(class_names)), class_names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.8, label="part of the true class")
    write_file(path, encode_figure(figure, path.suffix[1:]))


def title_result(metrics: Metrics | MultiLabelMetrics, config: RunConfig, num_subjects: int) -> str:
    """What stands over a test's picture: its main score, and what qualifies it."""
    if isinstance(metrics, Metrics):
        marks = [f"{metrics.accuracy:.3f} of {metrics.num_samples} samples of {num_subjects} unseen subjects"]
        marks.append(f"chance {metrics.chance:.3f}" + (", random initial weights" if config.is_random else ""))
    else:
        marks = [f"macro-F1 {metrics.macro_f1:.3f}"]
    if config.recipe.shuffle_labels is not None:
        marks.append("training labels shuffled")
    return "\n".join(marks)


def describe_absent(metrics: Metrics | MultiLabelMetrics, class_names: Sequence[str]) -> str:
    """How the averages over classes count those that no test sample shows; empty where all are shown."""
    if isinstance(metrics, Metrics):
        absent = [name for name, row in zip(class_names, metrics.confusion, strict=True) if not sum(row)]
    else:
        known = zip(class_names, metrics.support, metrics.num_known, strict=True)
        absent = [name for name, support, num_known in known if num_known and not support]
    if not absent:
        return ""
    return (
        f"no test sample shows {', '.join(absent)}: macro-F1 counts {'each' if len(absent) > 1 else 'it'} as 0, "
        f"{'UAR' if isinstance(metrics, Metrics) else 'balanced accuracy'} leaves {'them' if len(absent) > 1 else 'it'} out"
    )


def present_result(
    folder: Path, metrics: Metrics | MultiLabelMetrics, config: RunConfig, subjects: Sequence[str]
) -> None:
    """The last lines of a run: the scores with chance beside them, where each file lies. Draws the matrix for a paper, too."""
    if isinstance(metrics, Metrics):
        title = title_result(metrics, config, len(subjects))
        write_confusion(folder / CONFUSION_PDF, metrics, config.recipe.classes, title)
        low, high = metrics.accuracy_95
        print(format_table(metrics, config.recipe.classes))
        print(f"accuracy on {len(subjects)} unseen subjects {metrics.accuracy:.3f} (chance {metrics.chance:.3f}; 95 % "
              f"{low:.3f} to {high:.3f}), UAR {metrics.uar:.3f}, macro-F1 {metrics.macro_f1:.3f}")  # fmt: skip
    else:
        print(format_multilabel_table(metrics, config.recipe.classes))
        balanced = "-" if metrics.uar is None else f"{metrics.uar:.3f}"
        print(f"macro-F1 on {len(subjects)} unseen subjects {metrics.macro_f1:.3f}, micro-F1 {metrics.micro_f1:.3f}, balanced "
              f"accuracy {balanced} (chance 0.5); thresholds from training subjects")  # fmt: skip
    if note := describe_absent(metrics, config.recipe.classes):
        print(f"note: {note}")
    groups = pool_groups([[json.loads((folder / METRICS_JSON).read_bytes())]])
    print(*format_groups(groups), sep="\n", end="\n" if groups else "")
    if config.is_random:
        print(
            "random weights: model or prompts were not pretrained, so this is no result to compare with published ones"
        )
    if config.recipe.shuffle_labels is not None:
        print("control: training labels were shuffled, so accuracy should be near chance")
    if isinstance(metrics, Metrics):
        print(f"confusion matrix  {folder / CONFUSION_PNG}, .pdf")
    print(f"attention         {folder / ATTENTION_FILE}")
    print(f"every prediction  {folder / PREDICTIONS_CSV}")
    print(f"all scores        {folder / METRICS_JSON}")
