"""4DME's label sheet: which clips there are, what they show, and when."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from preprocess.datasets.layouts import describe_other_layout
from preprocess.datasets.scan import Moments
from preprocess.datasets.subject_folders import describe_archives_below, describe_content, search_levels
from preprocess.readers.label_sheet import SheetRow, read_label_sheet
from shared.errors import FacetError
from shared.labels import FOURDME_EMOTIONS, plain_subject

COLUMNS = ("sub_ID", "fold_name", "Emotion", "Onset", "Apex", "Offset", "AUs")
_OTHER_WORDS = {"other": "others", "repressed": "repression", "surprised": "surprise"}
_UNIT = re.compile(r"(?:AU)?\s*[LRTB]?\s*([0-9]{1,2})\s*[A-E]?\s*[LRTB]?", re.IGNORECASE)

# A cell's parts, between signs that do not stand in brackets; a part's words, each with the brackets behind or before it.
_TOKEN = re.compile(r"(?:\([^)]*\)|\[[^\]]*\]|[^+,;&|/])+")
_WORD = re.compile(r"[^\s(\[]+(?:\s*[(\[][^)\]]*[)\]]?)*|[(\[][^)\]]*[)\]]?[^\s(\[]*")
_BRACKETS = re.compile(r"[(\[]([^)\]]*)[)\]]?")
_STATIC = {"k", "static"}  # a unit that stays as it is all through the clip: no part of the expression
_SIDES_AND_STRENGTHS = {
    *"lrtbuabcde", "left", "right", "bilateral", "both", "uni", "unilateral", "top", "bottom", "upper", "lower",
}  # fmt: skip

_NO_FOLDER = re.compile(r"(?!)")  # nothing is left out of a search

_NOTHING = ("", "/", "-", "\\", "na", "n/a", "nan", "none", "null")

# The release's sheet, and the two lines whose cells of action units are exchanged in it (told by two who read it).
_RELEASE = re.compile(r"4DME.*Labelling.*Micro.*release.*", re.IGNORECASE)
_RELEASE_COLUMNS = ("fold", "eye blink", "Positive", "Negative", "Surprise", "Repression", "Others")
_EXCHANGED_LINES = (146, 147)


class Units(NamedTuple):
    """The action units of a cell: shown, static (not shown), marked in an unknown way, and text that could not be read."""

    shown: frozenset[int] = frozenset()
    static: frozenset[int] = frozenset()
    unclear: frozenset[int] = frozenset()
    unread: tuple[str, ...] = ()

    def joined(self, other: Units) -> Units:
        shown = self.shown | other.shown
        static, unclear = (self.static | other.static) - shown, (self.unclear | other.unclear) - shown
        return Units(shown, static, unclear, self.unread + other.unread)


@dataclass(frozen=True, slots=True)
class Clip:
    """One expression of the sheet. moments: onset, apex and offset in the sheet's frame numbers, None where not given."""

    line: int
    subject: str
    folder: str
    written: str  # subject and folder as this line writes them; other lines may say F1 for f01
    emotions: frozenset[str]  # of FOURDME_EMOTIONS
    unknown_emotions: tuple[str, ...]
    moments: Moments
    doubt: str  # why moments of the sheet are taken as not given
    units: Units  # action units

    @property
    def name(self) -> str:
        return f"{self.subject}/{self.folder}"


def find_label_sheet(root: Path) -> tuple[Path, list[SheetRow]]:
    """Find the .xlsx file with the sheet's columns, in the root or up to two folders below, and return its rows.

    Raises:
        FacetError: no such root, or none or several such files.
    """
    if not root.is_dir():
        kind = "not a folder" if root.exists() else "no such folder"
        raise FacetError(f"{root}: {kind}; --root must name the data set's folder, with its label sheet (.xlsx)")
    files = [
        path
        for pattern in ("*", "*/*", "*/*/*")
        for path in sorted(root.glob(pattern))
        if path.suffix.lower() == ".xlsx"
    ]
    files = [path for path in files if not path.name.startswith(("~", "."))]  # what spreadsheet programs leave behind
    sheets: dict[Path, list[SheetRow]] = {}
    error: FacetError | None = None
    for path in files:
        try:
            rows = read_label_sheet(path, COLUMNS)
        except FacetError as broken:  # of no matter where another file is the sheet
            error = error or broken
            continue
        if rows is not None:
            sheets[path] = rows
    if len(sheets) > 1:
        names = ", ".join(path.relative_to(root).as_posix() for path in sheets)
        raise FacetError(f"{root}: several label sheets ({names}); leave one there")
    if not sheets:
        if error:
            raise error
        seen = f"none of {', '.join(path.name for path in files[:4])} has them" if files else describe_content(root)
        raise FacetError(
            f"{root}: looked for a label sheet (.xlsx) with the columns {', '.join(COLUMNS)}, {seen}"
            f"{describe_archives_below(root, _NO_FOLDER)}{describe_other_layout(root, search_levels, '4dme')}"
        )
    return next(iter(sheets.items()))


def parse_clips(path: Path, rows: list[SheetRow]) -> tuple[list[Clip], list[int]]:
    """Return the clips of a sheet, in its order, and the lines that name no clip. Lines of one expression are merged.

    Subjects that differ in case, blanks or leading zeros alone are one person, and go by the name that comes first; so do
    folders that differ in case.

    Raises:
        FacetError: a frame that is no whole number; names the line.
    """
    clips: dict[tuple[str, str, Moments], Clip] = {}
    nameless: list[int] = []
    spellings: dict[tuple[str, ...], str] = {}
    for row in rows:
        where = f"{path}, line {row.line}"
        names = [row[column].replace("\\", "/").strip("/") for column in ("sub_ID", "fold_name")]
        if not all(names):
            nameless.append(row.line)
            continue
        emotions, unknown = _parse_emotions(row["Emotion"])
        onset, apex, offset = (_parse_frame(where, column, row[column]) for column in ("Onset", "Apex", "Offset"))
        moments, doubt = put_in_order((onset, apex, offset))
        plain = plain_subject(names[0])
        subject = spellings.setdefault((plain,), names[0])
        folder = spellings.setdefault((plain, names[1].casefold()), names[1])
        units = parse_units(row["AUs"])
        clip = Clip(row.line, subject, folder, "/".join(names), emotions, unknown, moments, doubt, units)
        key = (clip.subject, clip.folder, clip.moments)
        if (same := clips.get(key)) is not None:  # a line an emotion: multi-label in another spelling
            clip = replace(
                same,
                emotions=same.emotions | clip.emotions,
                unknown_emotions=same.unknown_emotions + clip.unknown_emotions,
                units=same.units.joined(clip.units),
            )
        clips[key] = clip
    return list(clips.values()), nameless


def describe_exchanged(path: Path, rows: list[SheetRow]) -> list[str]:
    """Warn of two cells that are known to be exchanged in the sheet as released, if this is that sheet."""
    cells = {row.line: row for row in rows if row.line in _EXCHANGED_LINES}
    if len(cells) < len(_EXCHANGED_LINES):
        return []
    if not (_RELEASE.fullmatch(path.name) or read_label_sheet(path, (*COLUMNS, *_RELEASE_COLUMNS)) is not None):
        return []
    shown = ", ".join(f"{row['sub_ID']}/{row['fold_name']}: {row['AUs'] or 'empty'}" for row in cells.values())
    return [
        f"{path.name}: in the sheet as released the AUs of lines {_EXCHANGED_LINES[0]} and {_EXCHANGED_LINES[1]} are known to "
        f"be exchanged; they are taken as they stand ({shown}): look at the clips and mend the sheet if it has not been done"
    ]


def _parse_emotions(cell: str) -> tuple[frozenset[str], tuple[str, ...]]:
    words = [word.strip().lower() for word in re.split(r"[,;/+&|]|\band\b", cell) if word.strip()]
    words = [_OTHER_WORDS.get(word, word) for word in words]
    known = frozenset(word for word in words if word in FOURDME_EMOTIONS)
    return known, tuple(word for word in words if word not in FOURDME_EMOTIONS)


def put_in_order(moments: Moments) -> tuple[Moments, str]:
    """Return onset, apex and offset in this order, and the reason if some were dropped, else "".

    A 0 that is out of order stands for "not coded"; of an apex that is not between onset and offset these two are kept.
    """
    if _in_order(moments):
        return moments, ""
    onset, apex, offset = (moment or None for moment in moments)
    if _in_order((onset, apex, offset)):
        return (onset, apex, offset), "a moment of 0 that is out of order, taken as not given"
    if _in_order((onset, None, offset)) and onset is not None and offset is not None:
        return (onset, None, offset), "an apex that is not between onset and offset, taken as not given"
    return (None, None, None), "onset, apex and offset that are not in this order, taken as not given"


def _in_order(moments: Moments) -> bool:
    given = [moment for moment in moments if moment is not None]
    return given == sorted(given)


def _parse_frame(where: str, column: str, cell: str) -> int | None:
    if cell.lower() in _NOTHING:
        return None
    if not (cell.isascii() and cell.isdigit() and len(cell) < 10):
        raise FacetError(f"{where}: {column} {cell[:40]!r}, expected a frame's number; mend the cell or leave it empty")
    return int(cell)


def parse_units(cell: str) -> Units:
    """Parse the action units of a cell such as `4+L7+12(R)+AU14+45(k)` or `4 7`. Brackets may hold sides, strengths and `k`
    (static)."""
    if cell.lower() in _NOTHING:
        return Units()
    shown: set[int] = set()
    static: set[int] = set()
    unclear: set[int] = set()
    unread: list[str] = []
    for token in _TOKEN.findall(cell.replace("（", "(").replace("）", ")")):
        whole = _UNIT.fullmatch(_BRACKETS.sub(" ", token).strip())
        for word in [token.strip()] if whole else _WORD.findall(token):
            match = _UNIT.fullmatch(_BRACKETS.sub(" ", word).strip())
            if match is None:
                unread += [word.strip()] if word.strip() else []
                continue
            marks = {
                mark for bracket in _BRACKETS.findall(word) for mark in re.split(r"[\W_]+", bracket.lower()) if mark
            }
            kind = static if marks & _STATIC else unclear if marks - _SIDES_AND_STRENGTHS else shown
            kind.add(int(match[1]))
    return Units(frozenset(shown), frozenset(static - shown), frozenset(unclear - shown), tuple(unread))
