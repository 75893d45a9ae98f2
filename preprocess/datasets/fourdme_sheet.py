"""4DME's label sheet: which clips there are, what they show, and when."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from preprocess.datasets.subject_folders import describe_content
from preprocess.readers.label_sheet import SheetRow, read_label_sheet
from shared.errors import FacetError
from shared.labels import FOURDME_EMOTIONS, plain_subject

COLUMNS = ("sub_ID", "fold_name", "Emotion", "Onset", "Apex", "Offset", "AUs")
_OTHER_WORDS = {"other": "others", "repressed": "repression", "surprised": "surprise"}
_UNIT = re.compile(r"(?:AU)?\s*[LRTB]?\s*([0-9]{1,2})\s*[A-E]?\s*[LRTB]?", re.IGNORECASE)

_NOTHING = ("", "/", "-", "\\", "na", "n/a", "nan", "none", "null")

Moments = tuple[int | None, int | None, int | None]


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
    units: frozenset[int]  # action units
    unread_units: tuple[str, ...]  # what stands in their cell besides: other units may be there, too

    @property
    def name(self) -> str:
        return f"{self.subject}/{self.folder}"


def find_label_sheet(root: Path) -> tuple[Path, list[SheetRow]]:
    """The .xlsx file with the sheet's columns, in the root or in a folder of it, and its rows.

    Raises:
        FacetError: no such root, or none or several such files.
    """
    if not root.is_dir():
        kind = "not a folder" if root.exists() else "no such folder"
        raise FacetError(f"{root}: {kind}; --root must name the data set's folder, with its label sheet (.xlsx)")
    files = [path for pattern in ("*", "*/*") for path in sorted(root.glob(pattern)) if path.suffix.lower() == ".xlsx"]
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
        raise FacetError(f"{root}: looked for a label sheet (.xlsx) with the columns {', '.join(COLUMNS)}, {seen}")
    return next(iter(sheets.items()))


def parse_clips(path: Path, rows: list[SheetRow]) -> list[Clip]:
    """The clips of a sheet by subject and folder, in the sheet's order; lines of one expression become one clip.

    Subjects that differ in case, blanks or leading zeros alone are one person, and go by the name that comes first; so do
    folders that differ in case.

    Raises:
        FacetError: a line without sub_ID or fold_name, or a frame that is no whole number; names the line.
    """
    clips: dict[tuple[str, str, Moments], Clip] = {}
    spellings: dict[tuple[str, ...], str] = {}
    for row in rows:
        where = f"{path}, line {row.line}"
        for column in ("sub_ID", "fold_name"):
            if not row[column]:
                raise FacetError(
                    f"{where}: {column} is empty; fill it in or remove the line (of merged cells the first alone holds it)"
                )
        emotions, unknown = _parse_emotions(row["Emotion"])
        onset, apex, offset = (_parse_frame(where, column, row[column]) for column in ("Onset", "Apex", "Offset"))
        moments, doubt = put_in_order((onset, apex, offset))
        names = [row[column].replace("\\", "/").strip("/") for column in ("sub_ID", "fold_name")]
        plain = plain_subject(names[0])
        subject = spellings.setdefault((plain,), names[0])
        folder = spellings.setdefault((plain, names[1].casefold()), names[1])
        units, unread = parse_units(row["AUs"])
        clip = Clip(row.line, subject, folder, "/".join(names), emotions, unknown, moments, doubt, units, unread)
        key = (clip.subject, clip.folder, clip.moments)
        if (same := clips.get(key)) is not None:  # a line an emotion: multi-label in another spelling
            clip = replace(
                same,
                emotions=same.emotions | clip.emotions,
                unknown_emotions=same.unknown_emotions + clip.unknown_emotions,
                units=same.units | clip.units,
                unread_units=same.unread_units + clip.unread_units,
            )
        clips[key] = clip
    return list(clips.values())


def _parse_emotions(cell: str) -> tuple[frozenset[str], tuple[str, ...]]:
    words = [word.strip().lower() for word in re.split(r"[,;/+&|]|\band\b", cell) if word.strip()]
    words = [_OTHER_WORDS.get(word, word) for word in words]
    known = frozenset(word for word in words if word in FOURDME_EMOTIONS)
    return known, tuple(word for word in words if word not in FOURDME_EMOTIONS)


def put_in_order(moments: Moments) -> tuple[Moments, str]:
    """Onset, apex and offset in this order, and why some are left out for it, "" where none is.

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


def parse_units(cell: str) -> tuple[frozenset[int], tuple[str, ...]]:
    """The action units of a cell such as `4+L7+12(R)+AU14` or `4 7`, whichever side they are on; and what is no unit there."""
    if cell.lower() in _NOTHING:
        return frozenset(), ()
    units, unread = set(), []
    for token in re.split(r"[+,;&|/]", re.sub(r"\([^)]*\)|\[[^\]]*\]", "", cell)):
        whole = _UNIT.fullmatch(token.strip())
        for word in [token.strip()] if whole else token.split():
            if match := _UNIT.fullmatch(word):
                units.add(int(match[1]))
            else:
                unread.append(word)
    return frozenset(units), tuple(unread)
