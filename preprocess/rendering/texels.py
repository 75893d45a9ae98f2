"""Colours between texels, as whole numbers: packed, weighted and added up. Compiled.

A texel is three or four bytes: red, green, blue. A sum of colours is 256 times red + 2³² green, and 256 times blue.
"""

from __future__ import annotations

import numpy as np

from preprocess.compiled import byte_at, compile_kernel, eight_bytes_at
from preprocess.rendering.charts import COVERED, CROSSED, NEAR


@compile_kernel
def three_bytes_at(address: int) -> np.uint64:
    return np.uint64(byte_at(address) | byte_at(address + 1) << 8 | byte_at(address + 2) << 16)


@compile_kernel
def _spread(texel: np.uint64) -> np.uint64:
    """Return red, 2¹⁶ blue and 2³² green: 256 times as much still fits between them. Bits above the lower 24 are ignored."""
    return (texel & np.uint64(0xFF00FF)) | (texel & np.uint64(0xFF00)) << np.uint64(24)


@compile_kernel
def read_between(
    address: int, line: int, beside: np.uint64, column_256: int, row_256: int
) -> tuple[np.uint64, np.uint64]:
    """Return 256 times the colour between four texels: two are in six or eight bytes at an address, two a line further."""
    upper, lower = eight_bytes_at(address), eight_bytes_at(address + line)
    return mix_four(upper, upper >> beside, lower, lower >> beside, column_256, row_256)


@compile_kernel
def mix_four(
    p: np.uint64, q: np.uint64, s: np.uint64, t: np.uint64, column_256: int, row_256: int
) -> tuple[np.uint64, np.uint64]:
    """Return 256 times the colour between four texels, p and q beside each other, s and t below."""
    x, y = np.uint64(column_256 & 255), np.uint64(row_256 & 255)
    both = (x * y + np.uint64(128)) >> np.uint64(8)  # the weights, of t first, are whole numbers; together they are 256
    p, q = _spread(p) * (np.uint64(256) + both - x - y), _spread(q) * (x - both)
    return _split(p + q + _spread(s) * (y - both) + _spread(t) * both)


@compile_kernel
def _split(colour: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Return red + 2³² green, and blue, with room for the sum of many colours."""
    return colour & np.uint64(0xFFFF0000FFFF), colour >> np.uint64(16) & np.uint64(0xFFFF)


@compile_kernel
def pack(red: float, green: float, blue: float) -> tuple[np.uint64, np.uint64]:
    """Return 256 times a colour in the form of `_split`."""
    red_green = np.uint64(np.rint(256 * red)) | np.uint64(np.rint(256 * green)) << np.uint64(32)
    return red_green, np.uint64(np.rint(256 * blue))


@compile_kernel
def mean_colour(red_green: np.uint64, blue: np.uint64, count: int) -> tuple[np.uint8, np.uint8, np.uint8]:
    """Return the mean of `count` colours, of which 256 times the sums are given; black is 1,1,1: 0,0,0 is no surface."""
    scale = 1.0 / (256.0 * count)
    r = np.rint((red_green & np.uint64(0xFFFFFFFF)) * scale)
    g, b = np.rint((red_green >> np.uint64(32)) * scale), np.rint(blue * scale)
    if r + g + b < 1:
        r = g = b = 1.0
    return np.uint8(r), np.uint8(g), np.uint8(b)


@compile_kernel
def is_mixed(marks: np.ndarray, at: int, right: int, down: int, level: int) -> bool:
    """Whether one of four texels beside each other holds more than the chart that a sample between them is in."""
    mixed = False
    for mark in (marks[at], marks[at + right], marks[at + down], marks[at + down + right]):
        mixed = mixed or (mark & CROSSED > 0 if level > 0 else mark & (NEAR | COVERED) == NEAR)
    return mixed
