"""Curves of trainings over steps: loss and its terms, accuracy, learning rate, as one SVG picture."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from shared.figures import encode_figure
from train.parts import describe_loss

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Log = Sequence[Mapping[str, float]]  # the lines of a log.jsonl
MOST_POINTS = 600  # of a curve
MOST_LOGS = 40  # curves in one picture
MOST_NAMED = 8
_STYLES = ("--", ":", "-.")  # of terms of the loss: one may run under another
# The fields of a log line that are not terms of the loss.
OTHER_FIELDS = (
    "step", "epoch", "loss", "accuracy", "lr", "face_cosine", "scale", "grad_norm",
    "samples_per_second", "wait_share", "mfu", "memory_bytes",
)  # fmt: skip
VALIDATION = "validation_"  # prefix of the loss and the score on validation subjects


def find_terms(log: Log) -> list[str]:
    """Return the names of the loss terms in a log, sorted."""
    names = {name for line in log for name in line} - {*OTHER_FIELDS}
    return sorted(name for name in names if not name.startswith(VALIDATION))


def draw_curves(logs: Mapping[str, Log]) -> str:
    """Return data:image/svg+xml;base64,… of the first MOST_LOGS logs; of a single one with the terms of its loss."""
    import matplotlib
    from matplotlib.figure import Figure

    shown = dict(list(logs.items())[:MOST_LOGS])
    with matplotlib.rc_context({"text.parse_math": False, "font.size": 9}):
        figure = Figure(figsize=(11, 3.1), layout="constrained")
        panels = figure.subplots(1, 3)
        titles = {"loss": "loss", "accuracy": "accuracy on training batches", "lr": "learning rate"}
        labels = {"loss": "loss, the weighted sum", "accuracy": "training batches", "lr": "learning rate"}
        for axes, (field, title) in zip(panels, titles.items(), strict=True):
            for name, log in shown.items():
                _plot(axes, log, field, name if len(shown) > 1 else labels[field])
            axes.set_title(title, fontsize=9.5)
            axes.set_xlabel("step")
            axes.grid(color="0.9", linewidth=0.7)
            axes.spines[["top", "right"]].set_visible(False)
        if len(shown) == 1:
            (log,) = shown.values()
            for term, style in zip(find_terms(log), itertools.cycle(_STYLES), strict=False):
                _plot(panels[0], log, term, describe_loss(term), style)
            for name in sorted({name for line in log for name in line if name.startswith(VALIDATION)}):
                axes = panels[0 if name.endswith("_loss") else 1]
                _plot(
                    axes, log, name, f"{name.removeprefix(VALIDATION).replace('_', ' ')} on validation subjects", "--"
                )
                panels[1].set_title("accuracy", fontsize=9.5)
                panels[1].legend(fontsize=8, frameon=False)
        panels[1].set_ylim(-0.02, 1.02)
        if len(shown) <= MOST_NAMED:
            panels[0].legend(fontsize=8, frameon=False)
        return "data:image/svg+xml;base64," + base64.b64encode(encode_figure(figure, "svg")).decode()


def _plot(axes: Axes, log: Log, field: str, label: str, style: str = "-") -> None:
    points = [(line["step"], line[field]) for line in log if field in line]
    points = points[:: -(-len(points) // MOST_POINTS) or 1] + points[-1:]
    if points:
        marker = "o" if len(points) < 12 else ""
        axes.plot(*zip(*points, strict=True), style, label=label, linewidth=1.1, marker=marker, markersize=2.5)
