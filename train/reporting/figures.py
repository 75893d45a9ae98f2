"""A drawn figure as the bytes of a file: PNG for a screen, PDF for a paper."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def encode_figure(figure: Figure, form: str) -> bytes:
    """Equal figures give equal bytes: no date is written. Needs no display.

    Args:
        form: "png", or "pdf" with TrueType fonts, which publishers ask for.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # without pyplot

    buffer = io.BytesIO()
    if form == "png":
        FigureCanvasAgg(figure).print_png(buffer)
    else:
        with matplotlib.rc_context({"pdf.fonttype": 42}):
            figure.savefig(buffer, format=form, metadata={"CreationDate": None})
    return buffer.getvalue()
