"""The action units of Bosphorus' scans, with sides and strengths, where its list `facscodes.lst` lies beside them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from preprocess.datasets.scan import ScanRecord
from preprocess.datasets.subject_folders import list_names, search_levels
from preprocess.readers.facscodes import SIDES, CodedUnit, FacsCodes, read_facscodes
from shared.errors import ScanError, name_some

# The units of FACS (Ekman, Friesen & Hager 2002): of the face, then of head and eyes.
UNITS = (
    1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33,
    34, 35, 36, 37, 38, 39, 41, 42, 43, 44, 45, 46, 51, 52, 53, 54, 55, 56, 57, 58, 61, 62, 63, 64, 65, 66,
)  # fmt: skip
# What FACS' codes of a part that cannot be seen leave open: brows, eyes, lower face, all of it, all of it.
_HIDDEN: dict[int, tuple[int, ...]] = {
    70: (1, 2, 4),
    71: (5, 6, 7, 41, 42, 43, 44, 45, 46, 61, 62, 63, 64, 65, 66),
    72: tuple(range(8, 40)),
    73: UNITS,
    74: UNITS,
}
BOTH_SIDES = len(SIDES) + 1  # L and R, each with a strength of its own
UNKNOWN = -1
AU_NAMES = (
    *(f"AU{unit}" for unit in UNITS),
    *(f"AU{unit}_intensity" for unit in UNITS),
    *(f"AU{unit}_side" for unit in UNITS),
)
_CODED_GROUPS = ("E", "N", "LFAU", "UFAU", "CAU")  # of which the list codes nearly all scans; no poses, no occlusions
_LIST = re.compile(r"facs_?codes?.*\.(lst|txt)", re.IGNORECASE)
_ARCHIVE = re.compile(r"facs_?codes?.*\.(zip|rar|7z|gz|tgz)", re.IGNORECASE)
_PARENT_FOLDER = re.compile(r"facs_?codes?", re.IGNORECASE)


@dataclass(frozen=True)
class ActionUnits:
    """path: the list, None where there is none. codes: what it says; error: why it could not be read. archive: the
    list's, where it was not unpacked. others: further lists."""

    path: Path | None = None
    codes: FacsCodes | None = None
    error: str = ""
    archive: Path | None = None
    others: tuple[Path, ...] = ()

    def values_of(self, sample_id: str) -> tuple[int, ...]:
        """Return a scan's values for AU_NAMES, () if the list does not code it."""
        scan = sample_id.upper()
        if self.codes is None or scan not in self.codes.units:
            return ()
        return encode_units(self.codes.units[scan], complete=scan not in self.codes.unread)


def encode_units(units: Sequence[CodedUnit], *, complete: bool) -> tuple[int, ...]:
    """Return a value for each of AU_NAMES, or () if nothing is known.

    Occurrence: 1 for a unit that is named, else 0. Intensity: 1 to 5 for A to E, 0 for a unit that is not shown, -1 where no
    letter says; of two sides the stronger. Side: 0 where no letter says, 1 to 11 for the letters of SIDES, BOTH_SIDES; -1 for a
    unit that is not shown.

    Args:
        complete: whether all that is coded is in `units`; otherwise what is not named is unknown.
    """
    hidden = {number for unit in units for number in _HIDDEN.get(unit.number, ())}
    table = np.full((3, len(UNITS)), UNKNOWN, np.int64)
    for column, number in enumerate(UNITS):
        named = [unit for unit in units if unit.number == number]
        if named:
            strength = max(unit.strength for unit in named)
            sides = {unit.side for unit in named}
            side = SIDES.index(named[0].side) + 1 if named[0].side else 0
            table[:, column] = 1, strength or UNKNOWN, side if len(sides) == 1 else BOTH_SIDES
        elif complete and number not in hidden:
            table[:2, column] = 0
    return tuple(table.ravel().tolist()) if (table != UNKNOWN).any() else ()


def find_action_units(root: Path, base: Path, subject: re.Pattern[str]) -> ActionUnits:
    """Search the list in the root, around the subjects' folders and up to two folders below these, and beside the root."""
    starts = (base, *(parent for parent in base.parents if root == parent or root in parent.parents))
    folders = [folder for start in starts for level in islice(search_levels(start, subject), 3) for folder in level]
    around = root.resolve().parent
    folders.append(around)
    folders += [around / name for name in _names(around) if _PARENT_FOLDER.fullmatch(name)]
    found = [folder / name for folder in dict.fromkeys(folders) for name in _names(folder)]
    lists = [path for path in found if _LIST.fullmatch(path.name) and path.is_file()]
    archive = next((path for path in found if _ARCHIVE.fullmatch(path.name)), None)
    if not lists:
        return ActionUnits(archive=archive)
    try:
        return ActionUnits(lists[0], read_facscodes(lists[0]), others=tuple(lists[1:]))
    except ScanError as error:
        return ActionUnits(lists[0], error=str(error))


def _names(folder: Path) -> list[str]:
    try:
        return list_names(folder)
    except OSError:
        return []


def describe_action_units(root: Path, found: ActionUnits, records: Sequence[ScanRecord]) -> list[str]:
    """Describe which scans the list codes, and which of its codes cannot be read."""
    if found.path is None:
        if found.archive is not None:
            return [f"{_show(root, found.archive)}: not unpacked, so no action units are known"]
        return ["no list of action units (facscodes.lst) found"]
    name = _show(root, found.path)
    codes = found.codes
    if codes is None:
        return [f"{found.error}; no action units are known"]
    if not codes.units:
        return [f"{name}: holds no line such as `bs000_E_HAPPY_0 -> 6C+12D`; no action units are known"]
    present = {record.sample_id.upper(): record.sample_id for record in records}
    coded = [record for record in records if record.aus]
    lines = [f"action units of {len(coded):,} of {len(records):,} scans, by {name}"]
    gone = [scan for scan in codes.units if scan not in present]
    lines += [f"{name}: {len(gone):,} of its scans are not here"] if gone else []
    listed = {*codes.units, *codes.doubled}
    unlisted = [r.sample_id for r in records if r.task in _CODED_GROUPS and r.sample_id.upper() not in listed]
    kept = {*UNITS, *_HIDDEN}
    odd = {scan: sorted({u.number for u in units} - kept) for scan, units in codes.units.items() if scan in present}
    problems = {
        "scans of expressions or action units that it does not list": unlisted,
        "scans with codes that are no action units, left out": [
            f"{present[scan]} ({'+'.join(map(str, numbers))})" for scan, numbers in odd.items() if numbers
        ],
        "scans with something that cannot be read, so that of units not named nothing is known": [
            f"{present.get(scan, scan.lower())} ({text[:20]})" for scan, text in codes.unread.items()
        ],
        "scans that stand twice with different codes, taken as not coded": [
            present.get(scan, scan.lower()) for scan in codes.doubled
        ],
        "lines without `->`, left out": [f"line {number}" for number in codes.odd_lines],
        "scans that code a unit on each side by itself, of which the stronger is kept": [
            present[scan]
            for scan, units in codes.units.items()
            if scan in present and len({unit.number for unit in units}) < len(units)
        ],
    }
    lines += [f"{name}: {len(which):,} {what}: {name_some(which)}" for what, which in problems.items() if which]
    if found.others:
        lines.append(
            f"{name}: of several lists the one that is read ({name_some([_show(root, p) for p in found.others])})"
        )
    return lines


def _show(root: Path, path: Path) -> str:
    return Path(os.path.relpath(path.resolve(), root.resolve())).as_posix()
