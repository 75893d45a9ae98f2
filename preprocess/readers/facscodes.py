"""Bosphorus' list of action units, `facscodes.lst`: a line per scan, `bs000_E_HAPPY_0  ->  6C+L7B+12D`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from preprocess.readers.file_bytes import read_lines

# Where on the face: L and R are one side; the others mean lopsided, top or bottom.
SIDES = "LRVWGHTBXIY"
STRENGTHS = "ABCDE"  # from trace to maximum
NO_UNITS = "0"

_LINE = re.compile(r"\s*(\S.*?)\s*->\s*(.*?)\s*")
_UNIT = re.compile(rf"([{SIDES}])?(?:AU)?([1-9][0-9]?)([{STRENGTHS}])?", re.IGNORECASE)
_BETWEEN = re.compile(r"[+,;\s]+")
_MAX_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class CodedUnit:
    """One unit of a scan. side: one of SIDES, "" if none is given; strength: 1 to 5, 0 if none is given."""

    number: int
    side: str = ""
    strength: int = 0


@dataclass
class FacsCodes:
    """units: scan in upper case → its units, none for `0`. unread: scan → words of its units that could not be read.
    odd_lines: numbers of lines without `->` behind the first scan's. doubled: scans that two lines code differently."""

    units: dict[str, tuple[CodedUnit, ...]] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    odd_lines: list[int] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)


def read_facscodes(path: Path) -> FacsCodes:
    """Read the list. Lines before the first with `->` are a heading; a scan that stands twice with other codes has none.

    Raises:
        ScanError: missing, empty or too large.
    """
    codes = FacsCodes()
    for number, line in enumerate(read_lines(path, max_bytes=_MAX_BYTES), start=1):
        line = line.replace('"', " ").strip(" \t,;\x1a\0")
        match = _LINE.fullmatch(line)
        if match is None:
            if line and (codes.units or codes.unread):
                codes.odd_lines.append(number)
            continue
        scan = re.sub(r"\.(bnt|png|lm[23])$", "", match[1].strip(" \t,;").upper(), flags=re.IGNORECASE)
        units, unread = _parse_units(match[2].strip(" \t,;"))
        if scan in codes.units and codes.units[scan] != units:
            codes.doubled.append(scan)
        codes.units[scan] = units
        if unread:
            codes.unread[scan] = unread
    for scan in codes.doubled:
        codes.units.pop(scan, None)
    return codes


def _parse_units(text: str) -> tuple[tuple[CodedUnit, ...], str]:
    """Return the units, and the words that are none: of others nothing is known then."""
    if text == NO_UNITS:
        return (), ""
    units, unread = [], []
    for word in _BETWEEN.split(text):
        match = _UNIT.fullmatch(word)
        if match is None:
            unread.append(word or "nothing")
        else:
            strength = STRENGTHS.index(match[3].upper()) + 1 if match[3] else 0
            units.append(CodedUnit(int(match[2]), (match[1] or "").upper(), strength))
    return tuple(units), " ".join(unread)
