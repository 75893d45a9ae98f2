"""Figures of reports, as the bytes of a file. They have no titles: in a paper, a caption says what a figure shows."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.figures import encode_figure
from shared.runs import RELIABILITY
from train.reporting.calibration import NUM_BINS, FoldCalibration, pool_calibration
from train.reporting.table import UNITS, format_percent
from train.tasks.task import Metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from train.reporting.summary import CrossvalSummary
    from train.runs.results import FoldResult

BLUE, LIGHT_BLUE, GREY, RED = "#2166ac", "#7fa8d1", "#8c8c8c", "#b2182b"
FIGURES = ("confusion", "classes", "folds", RELIABILITY)  # of a cross-validation
COLUMN_INCHES = 3.4  # of a page in two columns
STYLE: Any = {"text.parse_math": False, "font.size": 8, "axes.linewidth": 0.6}  # a $ in a name is a dollar sign
MOST_FOLDS_NAMED = 30
MOST_COUNTS_WRITTEN = 16  # classes; cells are too small for numbers beyond


def draw_confusion(metrics: Metrics, class_names: Sequence[str], warnings: Sequence[str], form: str) -> bytes:
    """Draw a confusion matrix: percent of the true class, and counts below.

    Args:
        warnings: why this is no result. form: as in `encode_figure`.
    """
    side = 1.1 + 0.42 * min(max(len(class_names), 3), MOST_COUNTS_WRITTEN)
    return _draw(side, side, warnings, form, lambda axes: _draw_confusion(axes, metrics, class_names))


def draw_crossval(
    summary: CrossvalSummary, results: Sequence[FoldResult], warnings: Sequence[str], form: str
) -> dict[str, bytes]:
    """Return the figures of a cross-validation by name: `confusion` of all folds together, `classes` and `folds`.

    Args:
        warnings, form: as in `draw_confusion`.
    """
    by_class = max(COLUMN_INCHES, 0.8 + 0.36 * len(summary.class_names))
    by_fold = max(COLUMN_INCHES, 0.8 + 0.2 * min(len(results), MOST_FOLDS_NAMED))
    figures = {
        "classes": _draw(by_class, 2.5, warnings, form, lambda axes: _draw_classes(axes, summary)),
        "folds": _draw(by_fold, 2.5, warnings, form, lambda axes: _draw_folds(axes, summary, results)),
    }
    if "confusion" in summary.pooled.counts:
        figures["confusion"] = draw_confusion(summary.pooled, summary.class_names, warnings, form)
    return figures


def _draw(width: float, height: float, warnings: Sequence[str], form: str, draw: Callable[[Axes], None]) -> bytes:
    """Return the file of a figure (inches); of each warning, the words before the colon stand below it in red."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=200, layout="constrained")
        draw(figure.subplots())
        add_warnings(figure, warnings)
        return encode_figure(figure, form)


def add_warnings(figure: Figure, warnings: Sequence[str]) -> None:
    """Write why a figure shows no result, in red below it: of each warning the words before the colon."""
    if warnings:
        text = "; ".join(dict.fromkeys(line.split(":")[0] for line in warnings))
        figure.supxlabel(textwrap.fill(text, int(14 * figure.get_figwidth())), fontsize=7, color=RED)


def _draw_confusion(axes: Axes, metrics: Metrics, class_names: Sequence[str]) -> None:
    """Draw counts, shaded by their fraction of the true class."""
    counts = metrics.counts["confusion"]
    fractions = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    shades = axes.imshow(100 * fractions, cmap="Blues", vmin=0, vmax=100)
    if len(counts) > MOST_COUNTS_WRITTEN:
        axes.figure.colorbar(shades, ax=axes, shrink=0.8, label="percent of the true class")
        counts = counts[:0]
    for (row, column), count in np.ndenumerate(counts):
        if count:
            style: Any = {"color": "white" if fractions[row, column] > 0.55 else "black", "ha": "center"}
            axes.text(column, row + 0.02, f"{100 * fractions[row, column]:.1f}", va="bottom", fontsize=7.5, **style)
            axes.text(column, row + 0.08, f"{count:,}", va="top", fontsize=5.5, **style)
    _name_classes(axes, class_names)
    axes.set_yticks(range(len(class_names)), [textwrap.fill(name, 22) for name in class_names])
    axes.tick_params(length=2)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")


def _name_classes(axes: Axes, class_names: Sequence[str]) -> None:
    names = [textwrap.fill(name, 22) for name in class_names]
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")


def _draw_classes(axes: Axes, summary: CrossvalSummary) -> None:
    """Draw each class's score as a bar, mean ± std over folds, and what always saying yes gives."""
    score, per_class = summary.task.class_score, summary.pooled.per_class
    unit = UNITS[score.kind]
    places = np.arange(len(summary.class_names))

    def scale(values: Sequence[float | None]) -> list[float]:
        return [unit.factor * (value or 0) for value in values]

    heights = scale(per_class[score.name])
    axes.bar(places, heights, width=0.66, color=LIGHT_BLUE, label="all folds together")
    spreads = [(p, s.mean, s.std) for p, s in enumerate(summary.classes_over_folds[score.name]) if s.std is not None]
    if spreads:
        x, mean, std = zip(*spreads, strict=True)
        bars = axes.errorbar(
            x, scale(mean), scale(std), fmt=".", color="black", capsize=2.5, linewidth=0.9, clip_on=False
        )
        bars.set_label("mean ± std over folds")
    if "always_yes_f1" in per_class:
        guesses = scale(per_class["always_yes_f1"])
        axes.hlines(guesses, places - 0.33, places + 0.33, color=RED, linewidth=1.2, label="always yes")
    _name_classes(axes, summary.class_names)
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(min(0, *heights), 1.04 * unit.factor)
    _finish(axes, f"{score.title}{',' * bool(unit.symbol)}{unit.symbol}")


def _draw_folds(axes: Axes, summary: CrossvalSummary, results: Sequence[FoldResult]) -> None:
    """Draw the first score of each fold, its mean ± std, and the scores of guesses."""
    score, unit = summary.task.primary, UNITS[summary.task.primary.kind]
    values = np.array([unit.factor * (result.metrics[score.name] or 0) for result in results])
    spread = summary.over_folds[score.name]
    ends = (-0.5, len(values) - 0.5)
    if spread.mean is not None and spread.std is not None:
        low, high = (unit.factor * (spread.mean + sign * spread.std) for sign in (-1, 1))
        axes.fill_between(ends, low, high, color=BLUE, alpha=0.13, linewidth=0, label="mean ± std")
        axes.hlines(unit.factor * spread.mean, *ends, color=BLUE, linewidth=1)
    axes.plot(values, "o", color=BLUE, markersize=5 if len(values) <= 60 else 2.5, clip_on=False)
    for reference, colour, style in zip(summary.task.references, (RED, GREY), ("--", ":"), strict=False):
        value = unit.factor * (summary.pooled[reference.name] or 0)
        axes.hlines(value, *ends, color=colour, linestyle=style, linewidth=1, label=reference.title)
    if len(results) <= MOST_FOLDS_NAMED:
        names = [textwrap.fill(result.name, 24) for result in results]
        axes.set_xticks(range(len(names)), names, rotation=50, ha="right", rotation_mode="anchor", fontsize=7)
    else:
        axes.set_xlabel(f"{len(results):,} folds, by name")
    axes.set_xlim(*ends)
    axes.set_ylim(min(0, *values), 1.02 * unit.factor)
    _finish(axes, f"{score.short_title} of each fold{',' * bool(unit.symbol)}{unit.symbol}")


def _finish(axes: Axes, label: str) -> None:
    """Name the vertical axis, and place the legend above the plot."""
    axes.set_ylabel(label)
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)


def draw_reliability(folds: Sequence[FoldCalibration], form: str) -> bytes:
    """Draw accuracy over confidence, all folds together, as trained and temperature scaled; below, predictions of each bin."""
    import matplotlib
    from matplotlib.figure import Figure

    tests = {"as trained": [one.plain for one in folds]}
    if scaled := [one.scaled for one in folds if one.scaled is not None]:
        tests["temperature scaled"] = scaled
    edges = np.linspace(0, 1, NUM_BINS + 1)
    width = 0.8 / NUM_BINS / len(tests)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN_INCHES, 3.9), dpi=200, layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1.4])
        above.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfect calibration")
        for place, ((name, parts), colour) in enumerate(zip(tests.items(), (BLUE, RED), strict=False)):
            pooled = pool_calibration(parts)
            filled = pooled.num > 0
            num = pooled.num[filled]
            label = f"{name}: ECE {format_percent(pooled.ece)} %, NLL {pooled.nll:.3f}"
            accuracy = pooled.num_right[filled] / num
            above.plot(pooled.confidence[filled] / num, accuracy, "o-", color=colour, markersize=3, label=label)
            left = edges[:-1][filled] + 0.1 / NUM_BINS + place * width
            below.bar(left, num, width, align="edge", color=colour)
        above.set_ylabel("accuracy")
        above.set_ylim(-0.02, 1.02)
        above.set_xticks(edges[::3])
        above.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
        below.set_ylabel("predictions")
        below.set_xlabel("confidence: probability of the predicted class")
        for axes in (above, below):
            axes.spines[["top", "right"]].set_visible(False)
        return encode_figure(figure, form)
