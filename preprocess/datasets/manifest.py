"""The CSV manifest of a folder of scans."""

from __future__ import annotations

import difflib
import functools
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

from preprocess.datasets.csv_rows import read_csv_rows
from preprocess.datasets.subject_folders import describe_content
from shared.errors import FacetError
from shared.labels import clean_word

MANIFEST_NAME = "manifest.csv"
REQUIRED = ("path", "subject", "label")
OPTIONAL = (
    "sequence", "frame", "intensity", "task", "texture", "texture_origin", "landmarks", "units", "scale", "up", "facing",
    "sample_id",
)  # fmt: skip
KNOWN = (*REQUIRED, *OPTIONAL)
_CALLED = {  # what people call a required column
    "path": ("file", "filename", "file_name", "mesh", "scan", "filepath"),
    "subject": ("id", "subject_id", "subjectid", "participant", "person", "identity"),
    "label": ("class", "emotion", "expression", "labels"),
}
_CLOSE = 0.8  # difflib's ratio: "lable" and "label" have it; "race" and "frame" have not
MAX_COLUMN_CHARACTERS = 60
UNITS_MM = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "in": 25.4}
AXES = ("x", "-x", "y", "-y", "z", "-z")
_THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+")  # 1,000 may be one or a thousand
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# Columns of action units: occurrence 0 or 1, intensity 0 to 5 or A to E; what else there is stands for not known.
_UNIT = re.compile(r"AU0*(\d{1,2})(_intensity)?", re.IGNORECASE)
_LEVELS = {"": -1, "-1": -1, "9": -1, "999": -1} | {str(k): k for k in range(6)} | {"ABCDE"[k]: k + 1 for k in range(5)}
ORIGINS = ("top", "bottom")  # the edge of the texture image where v = 0


@dataclass(frozen=True)
class ManifestRow:
    """One row: its line in the file and its fields, blanks trimmed; every known column is there, perhaps empty.

    assumed: what up or facing was taken for, in words; "" where given.
    """

    line: int
    fields: dict[str, str]
    assumed: str = ""

    def __getitem__(self, column: str) -> str:
        return self.fields[column]


@dataclass(frozen=True)
class Manifest:
    """group_names: the columns that are the user's own. au_names: those of action units. notes: what was taken as what."""

    rows: tuple[ManifestRow, ...]
    group_names: tuple[str, ...]
    au_names: tuple[str, ...]
    notes: tuple[str, ...]


def find_manifest(root: Path) -> Path:
    """Return the manifest of a root: `manifest.csv` in the folder, or the root itself if it is a file.

    Raises:
        FacetError: there is none.
    """
    if root.is_file():
        return root
    if not root.is_dir():
        raise FacetError(
            f"{root}: no such folder; --root must name a folder with {MANIFEST_NAME}, or the manifest itself"
        )
    for path in sorted(root.iterdir()):
        if path.name.lower() == MANIFEST_NAME and path.is_file():
            return path
    columns = ",".join(REQUIRED)
    raise FacetError(f"{root}: looked for {MANIFEST_NAME} (columns {columns}), {describe_content(root)}; write one")


def read_manifest(path: Path) -> Manifest:
    """Reads a manifest: UTF-8 (with or without its mark) or UTF-16, fields parted by comma, semicolon or tab.

    Raises:
        FacetError: not such a text, no rows, a missing column, a value that a column cannot have; names the line.
    """
    rows = [(line, row) for line, row in read_csv_rows(path, "manifest") if any(field.strip() for field in row)]
    if not rows:
        raise FacetError(f"{path}: the manifest is empty; its first line must be {','.join(REQUIRED)}")
    header = [_name_column(name) for name in rows[0][1]]
    while header and not header[-1]:  # a spreadsheet's empty last columns
        header.pop()
    _check_header(path, header)
    units = tuple(name for name in header if _UNIT.fullmatch(name))
    names = tuple(name for name in header if name and name not in KNOWN and name not in units)
    notes = [f"column {name} is kept as a group of your own; did you mean {close}?"
             for name in names if (close := _guess_column(name))]  # fmt: skip
    folder = path.parent.absolute()
    result = []
    unnamed: list[str] = []
    for line, row in rows[1:]:
        if any(field.strip() for field in row[len(header) :]):
            raise FacetError(
                f"{path}, line {line}: {len(row)} fields, expected {len(header)}; quote a field that has commas"
            )
        given = [(name, field.strip()) for name, field in zip(header, row, strict=False)]
        unnamed += [field for name, field in given if field and not name]
        fields = dict.fromkeys((*KNOWN, *names, *units), "") | {name: field for name, field in given if name}
        assumed = _check_fields(folder, f"{path}, line {line}", fields)
        result.append(ManifestRow(line, fields, assumed))
    if not result:
        raise FacetError(f"{path}: lists no scans; add a line for each: {','.join(header)}")
    if unnamed:
        notes.append(f"a column without a name is left out (it holds {unnamed[0][:40]!r}); give it one")
    for assumed in dict.fromkeys(row.assumed for row in result if row.assumed):
        count = sum(row.assumed == assumed for row in result)
        notes.append(f"{count:,} scans with {assumed}; give both columns, up and facing, if that is wrong")
    return Manifest(tuple(result), names, units, tuple(notes))


def _name_column(name: str) -> str:
    """Return a known column's name, ignoring case, blanks and hyphens; other names are kept as written."""
    name = clean_word(name)
    plain = re.sub(r"[ _-]+", "_", name.lower())
    if unit := _UNIT.fullmatch(plain):
        return f"AU{unit[1]}{unit[2] or ''}"
    return plain if plain in KNOWN else name


def _guess_column(name: str) -> str | None:
    return next(iter(difflib.get_close_matches(name.lower(), KNOWN, 1, _CLOSE)), None)


def _check_header(path: Path, header: list[str]) -> None:
    plain = [name.casefold() for name in header if name]
    if len(set(plain)) != len(plain):
        raise FacetError(f"{path}: a column stands twice in {','.join(header)[:200]}; remove one")
    for name in header:
        if not name.isprintable() or len(name) > MAX_COLUMN_CHARACTERS:
            raise FacetError(f"{path}: column {name[:40]!r} holds a control character, or is too long; rename it")
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        own = [name for name in header if name not in KNOWN]
        guesses = [(name, wanted) for wanted in missing for name in own
                   if _guess_column(name) == wanted or name.casefold() in _CALLED.get(wanted, ())]  # fmt: skip
        advice = "; ".join(f"is {name!r} the {wanted}? Rename it" for name, wanted in guesses[:3])
        raise FacetError(
            f"{path}: lacks the column {', '.join(missing)}; "
            + (advice or f"its first line must hold {','.join(REQUIRED)}, parted by commas, semicolons or tabs")
        )


def _check_fields(folder: Path, where: str, fields: dict[str, str]) -> str:
    """Check and normalise the fields of a row. Return a note if `up` or `facing` was assumed."""
    for name, value in fields.items():
        if not value:
            continue
        shown = name in ("path", "texture", "landmarks") or clean_word(value).isprintable()  # of others tables are made
        if _CONTROL.search(value) or not shown:
            raise FacetError(f"{where}: {name} {value[:40]!r} holds a line break or a control character; remove it")
    for name in ("path", "subject"):
        if not fields[name]:
            raise FacetError(f"{where}: {name} is empty; fill it in")
    for name in ("subject", "sequence", "intensity", "task"):
        fields[name] = clean_word(fields[name])  # one name, however a system composes its letters
    for name in ("path", "texture", "landmarks"):
        if fields[name]:
            fields[name] = _below(folder, fields[name], f"{where}: {name} {fields[name][:80]!r}")
    for name, allowed in (("units", tuple(UNITS_MM)), ("up", AXES), ("facing", AXES), ("texture_origin", ORIGINS)):
        fields[name] = fields[name].lower().removeprefix("+")
        if fields[name] and fields[name] not in allowed:
            raise FacetError(f"{where}: {name} {fields[name][:40]!r}, expected one of {', '.join(allowed)}")
    assumed = _complete_axes(where, fields)
    if fields["scale"]:
        if fields["units"]:
            raise FacetError(f"{where}: both units and scale are given; keep one")
        text = fields["scale"] if _THOUSANDS.fullmatch(fields["scale"]) else fields["scale"].replace(",", ".")
        try:
            scale = float(text)
        except ValueError:
            scale = math.nan
        if not 0 < scale < math.inf:
            raise FacetError(
                f"{where}: scale {fields['scale'][:40]!r}, expected a positive number (mm a unit of the file)"
            )
        fields["scale"] = text
    for name in filter(_UNIT.fullmatch, fields):
        read_level(fields[name], name, where)
    fields["frame"] = re.sub(r"\.0+$", "", fields["frame"])  # a whole number, as pandas writes a column with gaps
    if fields["frame"] and not (fields["frame"].isascii() and fields["frame"].isdigit() and len(fields["frame"]) < 10):
        raise FacetError(f"{where}: frame {fields['frame'][:40]!r}, expected a whole number")
    return assumed


def read_level(text: str, name: str, where: str) -> int:
    """Return the value of an action unit's column: occurrence 0 or 1, intensity 0 to 5, -1 = not known.

    Raises:
        FacetError: none of these.
    """
    highest = 5 if name.endswith("_intensity") else 1
    level = _LEVELS.get(re.sub(r"\.0+$", "", text).upper(), highest + 1)
    if level > highest:
        raise FacetError(
            f"{where}: {name} {text[:40]!r}, expected "
            + ("0 to 5 or A to E" if highest > 1 else "0 or 1")
            + "; leave it empty where it is not known"
        )
    return level


def _complete_axes(where: str, fields: dict[str, str]) -> str:
    """Fill in a missing `up` or `facing` whose default would be the other's axis; return a note about it."""
    up, facing = fields["up"], fields["facing"]
    if up and facing and up[-1] == facing[-1]:
        raise FacetError(f"{where}: up {up} and facing {facing} name the same axis; they must be perpendicular")
    if up == "z" and not facing:  # Blender's axes, and those of most files with z up
        fields["facing"] = "-y"
        return "up z and no facing are taken as facing -y"
    if facing[-1:] == "y" and not up:
        fields["up"] = "z"
        return f"facing {facing} and no up are taken as up z"
    if up == "-z" and not facing:
        raise FacetError(f"{where}: up -z needs a facing, one of x, -x, y, -y: add the column facing")
    return ""


def _below(folder: Path, text: str, what: str) -> str:
    """Return a path relative to the manifest's folder, with forward slashes, from forms such as ./a, a/../b, a\b or /data/a.

    Raises:
        FacetError: it leads elsewhere.
    """
    if re.match(r"[A-Za-z]:", text) or text.startswith("\\\\"):
        raise FacetError(f"{what} leaves the folder: it is another computer's (Windows); give a path below {folder}")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) or text.startswith("~"):
        raise FacetError(f"{what} leaves the folder: it is no path of a file there; give a path below {folder}")
    text = text.replace("\\", "/")
    base, real = _absolute_forms(folder)
    target = os.path.normpath(text if text.startswith("/") else f"{base}/{text}")
    for start, at in ((base, target), (real, target), (real, os.path.realpath(target) if text.startswith("/") else "")):
        if at.startswith(start.rstrip("/") + "/"):
            return at[len(start.rstrip("/")) + 1 :]
    if target in (base, real):
        raise FacetError(f"{what} names no file; give a path below the folder")
    raise FacetError(f"{what} leaves the folder; give a path below {folder}")


@functools.lru_cache(maxsize=4)
def _absolute_forms(folder: Path) -> tuple[str, str]:
    """Return a folder's absolute path as given and with links resolved."""
    return os.path.normpath(folder.absolute()), str(folder.resolve())
