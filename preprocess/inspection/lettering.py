"""Texts that fit a width: their font, their length, and how they are cut or broken."""

from __future__ import annotations

from functools import cache as keep
from pathlib import Path

import matplotlib
from PIL import ImageFont


def shorten_text(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Cut the middle out of a text that is wider than `width`, in the unit of the font's size: ids differ at their ends."""
    short = text
    for num in range(len(text) - 1, -1, -1):
        if font.getlength(short) <= width:
            break
        short = text[: num // 2] + "…" + text[len(text) - (num - num // 2) :]
    return short


def wrap_text(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Break a text between words into lines of at most `width`, in the unit of the font's size."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


@keep
def load_font(size: float) -> ImageFont.FreeTypeFont:
    """Load DejaVu Sans, which comes with Matplotlib: the same on every machine, with the letters of most languages."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)
