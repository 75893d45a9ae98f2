"""Draw blocks of pictures with names beside them as one page: PNG, PDF or SVG. All lengths are in points (1/72 inch)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from preprocess.inspection.lettering import load_font, shorten_text, wrap_text
from shared.figures import encode_figure
from shared.modalities import Key

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAP, EDGE = 3.0, 4.0  # between tiles; around the page
NAME, CAPTION, TITLE, FOOT = 8.0, 6.0, 10.0, 6.5  # sizes of letters
LINE = 1.3  # height of a line, in sizes of its letters
MAX_MARGIN = 110.0  # for the names of rows
KEY_WIDTH = 56.0  # of a key and its texts
LEAST_WIDTH = 240.0  # for the title and the licence line
DOTS_PER_INCH = 200  # of a PNG
INK, FAINT = "#1e1e1e", "#707070"


@dataclass(frozen=True)
class Tile:
    pixels: np.ndarray  # u8 (S, S, 3)
    caption: str = ""  # below it


@dataclass(frozen=True)
class Row:
    """Tiles in a line. key: what their colours mean, with its picture."""

    name: str
    tiles: Sequence[Tile | None]
    key: tuple[np.ndarray, Key] | None = None


@dataclass(frozen=True)
class Block:
    """A grid of tiles, with names of columns and a line of text above."""

    rows: Sequence[Row]
    columns: Sequence[str] = ()
    about: str = ""
    tile: float = 64.0  # width and height of a tile

    @property
    def margin(self) -> float:
        """Return the width of the names of rows."""
        longest = max(load_font(NAME).getlength(part) for row in self.rows for part in row.name.split("\n"))
        return min(longest + 6, MAX_MARGIN) if longest else 0.0

    @property
    def width(self) -> float:
        num = max(len(row.tiles) for row in self.rows)
        return self.margin + num * (self.tile + GAP) + KEY_WIDTH * any(row.key is not None for row in self.rows)

    @property
    def caption_height(self) -> float:
        return CAPTION * LINE * any(tile and tile.caption for row in self.rows for tile in row.tiles)

    def head(self, width: float) -> list[str]:
        """Return the lines of `about`."""
        return wrap_text(self.about, load_font(NAME), width) if self.about else []

    def height(self, width: float) -> float:
        head = NAME * LINE * (len(self.head(width)) + bool(self.columns))
        return head + len(self.rows) * (self.tile + self.caption_height + GAP)


def draw_page(blocks: Sequence[Block], *, title: str, foot: Sequence[str], form: str) -> bytes:
    """Return the file of a page: blocks below each other, a title above and lines of text below.

    Args:
        form: as in `encode_figure`. In a PDF or SVG, tiles keep their own pixels.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    width = max(LEAST_WIDTH, *(block.width for block in blocks))
    lines = [line for text in foot for line in wrap_text(text, load_font(FOOT), width)]
    heights = [block.height(width) for block in blocks]
    head = TITLE * LINE + 4 if title else 0.0
    height = head + sum(heights) + 8 * (len(blocks) - 1) + FOOT * LINE * len(lines)
    size = width + 2 * EDGE, height + 2 * EDGE
    with rc_context({"text.parse_math": False, "font.family": "DejaVu Sans"}):  # a $ in a name is a dollar sign
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), dpi=DOTS_PER_INCH)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(-EDGE, width + EDGE)
        axes.set_ylim(height + EDGE, -EDGE)
        _write(axes, 0, 0, shorten_text(title, load_font(TITLE), width), TITLE)
        top = head
        for block, own in zip(blocks, heights, strict=True):
            _draw_block(axes, block, top, width, smooth=form == "png")
            top += own + 8
        for number, line in enumerate(lines):
            _write(axes, 0, height - FOOT * LINE * (len(lines) - number), line, FOOT, colour=FAINT)
        return encode_figure(figure, form)


def _draw_block(axes: Axes, block: Block, top: float, width: float, *, smooth: bool) -> None:
    margin, tile = block.margin, block.tile
    for line in block.head(width):
        _write(axes, 0, top, shorten_text(line, load_font(NAME), width), NAME)
        top += NAME * LINE
    for column, name in enumerate(block.columns):
        middle = margin + column * (tile + GAP) + tile / 2
        _write(axes, middle, top, shorten_text(name, load_font(NAME), tile), NAME, across="center")
    top += NAME * LINE * bool(block.columns)
    for row in block.rows:
        text = "\n".join(shorten_text(part, load_font(NAME), MAX_MARGIN - 6) for part in row.name.split("\n"))
        _write(axes, margin - 5, top + tile / 2, text, NAME, across="right", up="center")
        left = margin
        for one in row.tiles:
            if one is not None:
                _show(axes, one.pixels, left, top, tile, tile, smooth=smooth)
                caption = shorten_text(one.caption, load_font(CAPTION), tile)
                _write(axes, left + tile / 2, top + tile + 0.5, caption, CAPTION, across="center", colour=FAINT)
            left += tile + GAP
        if row.key is not None:
            _draw_key(axes, *row.key, left + GAP, top, tile, smooth=smooth)
        top += tile + block.caption_height + GAP


def _draw_key(axes: Axes, picture: np.ndarray, key: Key, left: float, top: float, tile: float, *, smooth: bool) -> None:
    high = 0.7 * tile if key.ticks else 0.5 * tile
    wide = high * picture.shape[1] / picture.shape[0]
    top += (tile - high) / 2
    _show(axes, picture, left, top, wide, high, smooth=smooth)
    for place, text in key.ticks.items():
        _write(axes, left + wide + 2, top + (1 - place) * high, text, CAPTION, up="center")


def _show(
    axes: Axes, pixels: np.ndarray, left: float, top: float, width: float, height: float, *, smooth: bool
) -> None:
    axes.imshow(
        pixels,
        extent=(left, left + width, top + height, top),
        interpolation="auto" if smooth else "none",
        aspect="auto",
    )


def _write(
    axes: Axes, x: float, y: float, text: str, size: float, *, across: str = "left", up: str = "top", colour: str = INK
) -> None:
    if text:
        if up == "top":  # on one line with others, whatever their letters
            y, up = y + 0.93 * size, "baseline"
        axes.text(x, y, text, fontsize=size, ha=across, va=up, color=colour, linespacing=1.1)
