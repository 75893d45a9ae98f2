"""Figures as the bytes of a file: PNG for a screen, PDF for a paper, SVG for a page."""

from __future__ import annotations

import io
from pathlib import PurePath
from typing import TYPE_CHECKING

from shared.errors import FacetError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMS = ("png", "pdf", "svg")
_UNDATED = {"pdf": {"CreationDate": None}, "svg": dict.fromkeys(("Date", "Creator", "Format", "Type"))}
_STYLE = {
    "pdf.fonttype": 42,
    "svg.hashsalt": "facet",
    "svg.fonttype": "path",
    "image.composite_image": False,  # each image of a PDF or SVG keeps its own pixels
}


def encode_figure(figure: Figure, form: str) -> bytes:
    """Return the bytes of a figure's file; equal figures give equal bytes, without a date. Needs no display.

    Args:
        form: "png"; "pdf" with TrueType fonts, which publishers ask for; or "svg" with letters as paths.
    """
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]
        figure.savefig(buffer, format=form, metadata=_UNDATED.get(form))
    return buffer.getvalue()


def find_form(option: str, path: PurePath) -> str:
    """Return the form that the ending of a file's name asks for.

    Args:
        option: the option that names the file, for the message.
    Raises:
        FacetError: another ending.
    """
    form = path.suffix.lower().removeprefix(".")
    if form not in FORMS:
        raise FacetError(f"{option} {path}: expected a name that ends in {', '.join('.' + one for one in FORMS)}")
    return form
