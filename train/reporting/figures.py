"""Encode a drawn figure as the bytes of a file: PNG for a screen, PDF for a paper, SVG for a page."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
