"""Figures of reports, as the bytes of a file: PNG for a screen, PDF for a paper, SVG for a page."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from train.reporting.calibration import NUM_BINS, FoldCalibration, pool_calibration
from train.reporting.table import UNITS, format_percent
from train.tasks.task import Metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from train.reporting.summary import CrossvalAbout, CrossvalSummary
    from train.runs.results import FoldResult

BLUE, GREY, RED = "#2166ac", "#8c8c8c", "#b2182b"
MOST_FOLDS_NAMED = 30
MOST_COUNTS_WRITTEN = 16  # classes; cells are too small for numbers beyond


_UNDATED = {"pdf": {"CreationDate": None}, "svg": dict.fromkeys(("Date", "Creator", "Format", "Type"))}


def encode_figure(figure: Figure, form: str) -> bytes:
    """Return the bytes of a figure's file; equal figures give equal bytes, without a date. Needs no display.

    Args:
        form: "png"; "pdf" with TrueType fonts, which publishers ask for; or "svg" with letters as paths.
    """
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "facet", "svg.fonttype": "path"}):
        figure.savefig(buffer, format=form, metadata=_UNDATED.get(form))
    return buffer.getvalue()


def draw_test(result: FoldResult, title: str, form: str) -> bytes:
    """Draw the confusion matrix of one test."""
    import matplotlib
    from matplotlib.figure import Figure

    side = 2.6 + 0.72 * min(len(result.class_names), MOST_COUNTS_WRITTEN)
    with matplotlib.rc_context({"text.parse_math": False}):  # a $ in a name is a dollar sign
        figure = Figure(figsize=(side, side), dpi=130, layout="constrained")
        axes = figure.subplots()
        _draw_confusion(axes, result.metrics, result.class_names)
        figure.suptitle(title, fontsize=10)
        return encode_figure(figure, form)


def draw_crossval(
    summary: CrossvalSummary,
    results: Sequence[FoldResult],
    about: CrossvalAbout,
    warnings: Sequence[str],
    form: str = "png",
) -> bytes:
    """Draw the pooled confusion matrix, or the score of each class as bars, and a dot for each fold."""
    import matplotlib
    from matplotlib.figure import Figure

    num = len(summary.class_names)
    has_confusion = "confusion" in summary.pooled.counts
    left = 2.4 + 0.72 * min(num, MOST_COUNTS_WRITTEN) if has_confusion else max(4.5, 1.2 + 0.62 * num)
    height = max(left, 4.8) if has_confusion else 5.6
    right = 4.2 + 0.1 * min(len(results), MOST_FOLDS_NAMED)
    footer = [line for text in (*warnings, about.licence) for line in textwrap.wrap(text, int((left + right) * 14))]
    with matplotlib.rc_context({"text.parse_math": False, "font.size": 9.5}):
        figure = Figure(figsize=(left + right, height + 0.2 * max(len(footer) - 1, 0)), dpi=130)
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08)
        axes = figure.subplots(1, 2, width_ratios=[left, right])
        if has_confusion:
            _draw_confusion(axes[0], summary.pooled, summary.class_names)
        else:
            _draw_class_bars(axes[0], summary)
        _draw_folds(axes[1], summary, results)
        figure.suptitle(_title(summary, about, characters=int((left + right) * 10)), fontsize=11.5)
        figure.supxlabel("\n".join(footer), fontsize=8.5, color=RED if warnings else GREY)
        return encode_figure(figure, form)


def _title(summary: CrossvalSummary, about: CrossvalAbout, *, characters: int) -> str:
    score, unit = summary.task.primary, UNITS[summary.task.primary.kind]
    pooled = unit.number(summary.pooled[score.name]) + unit.symbol
    spread = unit.spread.text(summary.over_folds[score.name]) + unit.symbol
    if summary.num_folds == 1:
        scores = f"{score.short_title} {pooled}, one fold"
    else:
        of = f" of {about.num_folds:,}" * (about.num_folds > summary.num_folds)
        scores = f"{score.short_title} {spread} over {summary.num_folds:,}{of} folds, pooled {pooled}"
    return f"{textwrap.fill(about.title, characters)}\n{scores}"


def _draw_confusion(axes: Axes, metrics: Metrics, class_names: Sequence[str]) -> None:
    """Draw counts, shaded by their fraction of the true class."""
    counts = metrics.counts["confusion"]
    fractions = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    count_size = 7.5 - 0.6 * max(len(str(counts.max())) - 4, 0)
    for (row, column), count in np.ndenumerate(counts if len(counts) <= MOST_COUNTS_WRITTEN else counts[:0]):
        if count:
            colour = "white" if fractions[row, column] > 0.55 else "black"
            percent = f"{100 * fractions[row, column]:.1f}%"
            axes.text(column, row - 0.03, percent, ha="center", va="bottom", fontsize=9, color=colour)
            axes.text(column, row + 0.05, f"{count:,}", ha="center", va="top", fontsize=count_size, color=colour)
    _name_classes(axes, class_names)
    axes.set_yticks(range(len(class_names)), [textwrap.fill(name, 22) for name in class_names])
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title("percent of the true class, and counts", fontsize=9.5)


def _name_classes(axes: Axes, class_names: Sequence[str]) -> None:
    names = [textwrap.fill(name, 22) for name in class_names]
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")


def _draw_class_bars(axes: Axes, summary: CrossvalSummary) -> None:
    """Draw each class's score as a bar, with its prevalence, what always saying yes gives, and mean ± std over folds."""
    score, per_class = summary.task.class_score, summary.pooled.per_class
    unit = UNITS[score.kind]
    places = np.arange(len(summary.class_names))

    def scale(name: str) -> list[float]:
        return [unit.factor * (value or 0) for value in per_class[name]]

    axes.bar(places, scale(score.name), width=0.62, color=BLUE, label=f"{score.title}, all folds together")
    if "prevalence" in per_class:
        style = {"color": "white", "alpha": 0.55, "edgecolor": "black", "linewidth": 0.6}
        axes.bar(places, scale("prevalence"), width=0.3, label="prevalence", **style)  # type: ignore[arg-type]
    if "always_yes_f1" in per_class:
        label = "F1 of always saying yes"
        axes.hlines(scale("always_yes_f1"), places - 0.38, places + 0.38, color=RED, linewidth=1.6, label=label)
    over_folds = summary.classes_over_folds[score.name]
    spread = [
        (p, unit.factor * (s.mean or 0), unit.factor * s.std)
        for p, s in zip(places, over_folds, strict=True)
        if s.std is not None
    ]
    if spread:
        x, mean, std = np.array(spread).T
        label = "mean ± std over folds"
        axes.errorbar(x + 0.22, mean, std, fmt=".", color="black", markersize=4, capsize=2.5, linewidth=1, label=label)
    for place, value in enumerate(per_class[score.name]):
        low = min(0, *scale(score.name)) - 0.015 * unit.factor
        axes.text(place, low, unit.number(value), ha="center", va="top", fontsize=7.5)
    _name_classes(axes, summary.class_names)
    axes.tick_params(axis="x", pad=12, length=0)
    axes.set_ylim(min(0, *scale(score.name)), 1.09 * unit.factor)
    axes.set_yticks(np.linspace(0, unit.factor, 6))
    axes.set_ylabel(unit.symbol.strip() or score.title)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, ncols=2, loc="upper left", frameon=False)


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
    axes.plot(values, "o", color=BLUE, markersize=6 if len(values) <= 60 else 2.5, clip_on=False)
    for reference, colour, style in zip(summary.task.references, (RED, GREY), ("--", ":"), strict=False):
        value = unit.factor * (summary.pooled[reference.name] or 0)
        axes.hlines(value, *ends, color=colour, linestyle=style, label=reference.title)
    if len(results) <= MOST_FOLDS_NAMED:
        names = [textwrap.fill(result.name, 24) for result in results]
        axes.set_xticks(range(len(names)), names, rotation=50, ha="right", rotation_mode="anchor", fontsize=8)
    else:
        axes.set_xlabel(f"{len(results):,} folds, by name")
    axes.set_xlim(*ends)
    axes.set_ylim(min(0, *values), 1.02 * unit.factor)
    axes.set_ylabel(f"{score.short_title} of each fold{',' * bool(unit.symbol)}{unit.symbol}")
    axes.grid(axis="y", color="0.9", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.09), ncols=3, frameon=False)


def draw_reliability(folds: Sequence[FoldCalibration], form: str) -> bytes:
    """Draw accuracy over confidence, all folds together, as trained and temperature scaled; below, predictions of each bin."""
    import matplotlib
    from matplotlib.figure import Figure

    tests = {"as trained": [one.plain for one in folds]}
    if scaled := [one.scaled for one in folds if one.scaled is not None]:
        tests["temperature scaled"] = scaled
    edges = np.linspace(0, 1, NUM_BINS + 1)
    width = 0.8 / NUM_BINS / len(tests)
    with matplotlib.rc_context({"font.size": 9.5}):
        figure = Figure(figsize=(5.6, 6.4), dpi=130, layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1.4])
        above.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfect calibration")
        for place, ((name, parts), colour) in enumerate(zip(tests.items(), (BLUE, RED), strict=False)):
            pooled = pool_calibration(parts)
            filled = pooled.num > 0
            num = pooled.num[filled]
            label = f"{name}: ECE {format_percent(pooled.ece)} %, NLL {pooled.nll:.3f}"
            accuracy = pooled.num_right[filled] / num
            above.plot(pooled.confidence[filled] / num, accuracy, "o-", color=colour, markersize=4, label=label)
            left = edges[:-1][filled] + 0.1 / NUM_BINS + place * width
            bars = below.bar(left, num, width, align="edge", color=colour)
            below.bar_label(bars, [f"{count:,}" for count in num], rotation=90, fontsize=6.5, padding=2)
        above.set_ylabel("accuracy")
        above.set_ylim(-0.02, 1.02)
        above.set_xticks(edges[::3])
        above.legend(fontsize=8, loc="upper left", frameon=False)
        above.set_title(f"reliability of {int(pool_calibration(tests['as trained']).num.sum()):,} predictions")
        below.set_ylabel("predictions")
        below.set_xlabel(f"confidence: probability of the predicted class, {NUM_BINS} bins")
        below.margins(y=0.35)
        for axes in (above, below):
            axes.spines[["top", "right"]].set_visible(False)
        return encode_figure(figure, form)
