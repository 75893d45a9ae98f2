"""How trainings went: terms of the loss, accuracy and learning rate over steps, drawn as one SVG picture in a URI."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Log = Sequence[Mapping[str, float]]  # the lines of a log.jsonl
MOST_POINTS = 600  # of a curve
MOST_LOGS = 40  # curves in one picture
# What a log line has beside the terms of the loss.
OTHER_FIELDS = (
    "step", "epoch", "loss", "accuracy", "lr", "face_cosine", "scale", "grad_norm",
    "samples_per_second", "wait_share", "mfu", "memory_bytes",
)  # fmt: skip


def find_terms(log: Log) -> list[str]:
    """The terms that a log's loss is the sum of, by name."""
    return sorted({name for line in log for name in line} - {*OTHER_FIELDS})


def draw_curves(logs: Mapping[str, Log]) -> str:
    """data:image/svg+xml;base64,… of one or several trainings, which share three panels; equal logs give equal bytes.

    Of one training the terms of its loss are drawn too. Of more than MOST_LOGS the first are drawn.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    shown = dict(list(logs.items())[:MOST_LOGS])
    with matplotlib.rc_context(
        {"text.parse_math": False, "font.size": 9, "svg.hashsalt": "curves", "svg.fonttype": "path"}
    ):
        figure = Figure(figsize=(11, 3.1), layout="constrained")
        loss, accuracy, rate = figure.subplots(1, 3)
        few = len(shown) <= 8
        for name, log in shown.items():
            label = name if few else None
            _plot(loss, log, "loss", label if len(shown) > 1 else "loss")
            _plot(accuracy, log, "accuracy", label)
            _plot(rate, log, "lr", label)
        if len(shown) == 1:
            log = next(iter(shown.values()))
            for term in find_terms(log):
                _plot(loss, log, term, term)
        for axes, title in ((loss, "loss"), (accuracy, "accuracy on training batches"), (rate, "learning rate")):
            axes.set_title(title, fontsize=9.5)
            axes.set_xlabel("step")
            axes.grid(color="0.9", linewidth=0.7)
            axes.spines[["top", "right"]].set_visible(False)
        accuracy.set_ylim(-0.02, 1.02)
        if few:
            loss.legend(fontsize=8, frameon=False)
        buffer = io.BytesIO()
        FigureCanvasSVG(figure).print_svg(
            buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _plot(axes: Axes, log: Log, field: str, label: str | None) -> None:
    points = [(line["step"], line[field]) for line in log if field in line]
    points = points[:: -(-len(points) // MOST_POINTS) or 1] + points[-1:]
    if points:
        marker = "o" if len(points) < 12 else ""
        axes.plot(*zip(*points, strict=True), label=label, linewidth=1.1, marker=marker, markersize=2.5)
