"""The picture of a cross-validation: the pooled result beside the scores of the single folds."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from train.reporting.figures import encode_figure
from train.runs.results import FoldResult
from train.studies.crossval.summary import CrossvalAbout, CrossvalSummary
from train.studies.crossval.text import count_folds, format_percent, format_spread, list_warnings
from train.tasks.metrics import Metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, GREY, RED = "#2166ac", "#8c8c8c", "#b2182b"
MOST_FOLDS_NAMED = 30
MOST_COUNTS_WRITTEN = 16  # classes; cells are too small for numbers beyond


def draw_crossval_figure(
    summary: CrossvalSummary, results: Sequence[FoldResult], about: CrossvalAbout, form: str = "png"
) -> bytes:
    """PNG or PDF: the pooled confusion matrix (multi-label: F1 of each class against its prevalence), and a dot a fold."""
    import matplotlib
    from matplotlib.figure import Figure

    num = len(summary.class_names)
    if summary.multilabel:
        height, left = 5.6, max(4.5, 1.2 + 0.62 * num)
    else:
        height = left = 2.4 + 0.72 * min(num, MOST_COUNTS_WRITTEN)
    height = max(height, 4.8)
    right = 4.2 + 0.1 * min(len(results), MOST_FOLDS_NAMED)
    warnings = list_warnings(summary, results, about)
    footer = [line for text in (*warnings, about["licence"]) for line in textwrap.wrap(text, int((left + right) * 14))]
    with matplotlib.rc_context({"text.parse_math": False, "font.size": 9.5}):  # a $ in a name is a dollar sign
        figure = Figure(figsize=(left + right, height + 0.2 * max(len(footer) - 1, 0)), dpi=130)
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08)
        axes = figure.subplots(1, 2, width_ratios=[left, right])
        if isinstance(summary.pooled, Metrics):
            _draw_confusion(axes[0], summary.pooled, summary.class_names)
        else:
            _draw_f1_bars(axes[0], summary)
        _draw_folds(axes[1], summary, results)
        figure.suptitle(_title(summary, about, characters=int((left + right) * 10)), fontsize=11.5)
        figure.supxlabel(
            "\n".join(footer),
            fontsize=8.5,
            color=RED if warnings else GREY,
        )
        return encode_figure(figure, form)


def _title(summary: CrossvalSummary, about: CrossvalAbout, *, characters: int) -> str:
    name = summary.score_names[0]
    title = {"accuracy": "accuracy", "macro_f1": "macro-F1"}[name]
    pooled = format_percent(getattr(summary.pooled, name))
    spread = format_spread(summary.over_folds[name])
    if summary.num_folds == 1:
        scores = f"{title} {pooled} %, one fold"
    else:
        scores = f"{title} {spread} % over {count_folds(summary, about)} folds, pooled {pooled} %"
    return f"{textwrap.fill(about['title'], characters)}\n{scores}"


def _draw_confusion(axes: Axes, pooled: Metrics, class_names: Sequence[str]) -> None:
    counts = np.array(pooled.confusion)
    parts = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(parts, cmap="Blues", vmin=0, vmax=1)
    count_size = 7.5 - 0.6 * max(len(str(counts.max())) - 4, 0)
    for (row, column), count in np.ndenumerate(counts if len(counts) <= MOST_COUNTS_WRITTEN else counts[:0]):
        if count:
            colour = "white" if parts[row, column] > 0.55 else "black"
            percent = f"{100 * parts[row, column]:.1f}%"
            axes.text(column, row - 0.03, percent, ha="center", va="bottom", fontsize=9, color=colour)
            axes.text(column, row + 0.05, f"{count:,}", ha="center", va="top", fontsize=count_size, color=colour)
    ticks = range(len(class_names))
    names = [textwrap.fill(name, 22) for name in class_names]
    axes.set_xticks(ticks, names, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title("percent of the true class, and counts", fontsize=9.5)


def _draw_f1_bars(axes: Axes, summary: CrossvalSummary) -> None:
    classes = summary.classes
    places = np.arange(len(classes))
    axes.bar(places, [100 * (c.f1 or 0) for c in classes], width=0.62, color=BLUE, label="F1, all folds together")
    axes.bar(
        places,
        [100 * (c.prevalence or 0) for c in classes],
        width=0.3,
        color="white",
        alpha=0.55,
        edgecolor="black",
        linewidth=0.6,
        label="prevalence",
    )
    axes.hlines(
        [100 * (c.always_yes_f1 or 0) for c in classes],
        places - 0.38,
        places + 0.38,
        color=RED,
        linewidth=1.6,
        label="F1 of always saying yes",
    )
    spread = [(p, c.f1_over_folds) for p, c in zip(places, classes, strict=True) if c.f1_over_folds.std is not None]
    if spread:
        axes.errorbar(
            [p + 0.22 for p, _ in spread],
            [100 * (s.mean or 0) for _, s in spread],
            yerr=[100 * (s.std or 0) for _, s in spread],
            fmt=".",
            color="black",
            markersize=4,
            capsize=2.5,
            linewidth=1,
            label="mean ± std over folds",
        )
    for place, one in enumerate(classes):
        axes.text(place, -1.5, format_percent(one.f1), ha="center", va="top", fontsize=7.5)
    names = [textwrap.fill(one.class_name, 22) for one in classes]
    axes.set_xticks(places, names, rotation=35, ha="right", rotation_mode="anchor")
    axes.tick_params(axis="x", pad=12, length=0)
    axes.set_ylim(0, 109)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("%")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, ncols=2, loc="upper left", frameon=False)


def _draw_folds(axes: Axes, summary: CrossvalSummary, results: Sequence[FoldResult]) -> None:
    name = summary.score_names[0]
    title = {"accuracy": "accuracy", "macro_f1": "macro-F1"}[name]
    values = np.array([100 * result.metrics[name] for result in results])
    spread = summary.over_folds[name]
    places = np.arange(len(values))
    ends = (-0.5, len(values) - 0.5)
    if spread.mean is not None and spread.std is not None:
        low, high = 100 * (spread.mean - spread.std), 100 * (spread.mean + spread.std)
        axes.fill_between(ends, low, high, color=BLUE, alpha=0.13, linewidth=0, label="mean ± std")
        axes.hlines(100 * spread.mean, *ends, color=BLUE, linewidth=1)
    axes.plot(places, values, "o", color=BLUE, markersize=6 if len(values) <= 60 else 2.5, clip_on=False)
    if isinstance(summary.pooled, Metrics):
        axes.hlines(100 * summary.pooled.chance, *ends, color=RED, linestyle="--", label="chance")
        if summary.pooled.majority > summary.pooled.chance + 0.005:
            axes.hlines(
                100 * summary.pooled.majority, *ends, color=GREY, linestyle=":", label="always the most frequent class"
            )
    else:
        always = [c.always_yes_f1 for c in summary.classes if c.always_yes_f1 is not None]
        axes.hlines(100 * float(np.mean(always or [0])), *ends, color=RED, linestyle="--", label="always saying yes")
    if len(results) <= MOST_FOLDS_NAMED:
        names = [textwrap.fill(result.name, 24) for result in results]
        axes.set_xticks(places, names, rotation=50, ha="right", rotation_mode="anchor", fontsize=8)
    else:
        axes.set_xlabel(f"{len(results):,} folds, by name")
    axes.set_xlim(*ends)
    axes.set_ylim(0, 102)
    axes.set_ylabel(f"{title} of each fold, %")
    axes.grid(axis="y", color="0.9", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.09), ncols=3, frameon=False)
