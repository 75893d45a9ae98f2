"""The figure of a comparison: every score with its interval and seeds, and the paired differences below."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shared.figures import encode_figure
from train.reporting.figures import BLUE, GREY, RED, STYLE, add_warnings
from train.reporting.table import UNITS
from train.studies.compare.comparison import Comparison
from train.studies.compare.scores import SCORES, title_score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LONGEST_NAME = 28


def draw_comparison(comparison: Comparison, form: str = "png") -> bytes:
    """Return a figure's file in the form of `encode_figure`: a column for each score, a row for each method.

    Dots and lines are means and their 95 % intervals, ticks are single seeds. How they are computed stands in the tables.
    """
    import matplotlib
    from matplotlib.figure import Figure

    num_methods, names = len(comparison.methods), comparison.score_names
    heights = [num_methods, num_methods - 1][: 2 if num_methods > 1 else 1]
    width = 1.3 + 1.95 * len(names)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, 0.75 * len(heights) + 0.3 * sum(heights) + 0.2), dpi=200)
        figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.06)
        grid = figure.subplots(len(heights), len(names), height_ratios=heights, squeeze=False)
        for column, name in enumerate(names):
            _draw_scores(grid[0, column], comparison, name)
            if num_methods > 1:
                _draw_differences(grid[1, column], comparison, name)
            for axes in grid[:, column]:
                axes.spines[["top", "right", "left"]].set_visible(False)
                axes.tick_params(axis="y", length=0, labelleft=column == 0)
                axes.grid(axis="x", color="0.9", linewidth=0.7)
                axes.set_axisbelow(True)
        add_warnings(figure, comparison.warnings)
        return encode_figure(figure, form)


def _draw_scores(axes: Axes, comparison: Comparison, name: str) -> None:
    for y, method in enumerate(comparison.methods):
        row, factor = comparison.find(method, name), UNITS[SCORES[name].kind].factor
        _draw_interval(axes, y, [factor * value for value in (row.mean, row.low, row.high)], BLUE)
        seeds = [factor * value for value in row.seeds.values()]
        if len(seeds) > 1:
            axes.plot(seeds, [y + 0.24] * len(seeds), "|", color=GREY, markersize=5)
    _label_rows(axes, comparison.methods)
    axes.set_title(title_score(name), fontsize=8)


def _draw_differences(axes: Axes, comparison: Comparison, name: str) -> None:
    for y, method in enumerate(comparison.methods[1:]):
        one = comparison.find(method, name).difference
        assert one is not None
        values = [UNITS[SCORES[name].kind].factor * value for value in (one.value, one.low, one.high)]
        _draw_interval(axes, y, values, BLUE if comparison.find_p(one) < 0.05 else GREY)
        text, position = comparison.format_p(one), (values[0], y)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # over the line of no difference
        axes.annotate(text, position, (0, 5), textcoords="offset points", ha="center", fontsize=7, bbox=box)
    axes.axvline(0, color=RED, linewidth=1, linestyle="--")
    _label_rows(axes, comparison.methods[1:])
    axes.set_title(f"difference from {textwrap.fill(comparison.baseline, LONGEST_NAME)}", fontsize=7.5)


def _draw_interval(axes: Axes, y: int, values: Sequence[float], colour: str) -> None:
    """values: the estimate, and both ends of its interval."""
    value, low, high = values
    axes.hlines(y, low, high, color=colour, linewidth=1.8)
    axes.plot([value], [y], "o", color=colour, markersize=5)


def _label_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [textwrap.fill(name, LONGEST_NAME) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.6)
