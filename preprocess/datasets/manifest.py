"""The CSV manifest of a folder of scans, or the same table made of the names of its files by a pattern."""

from __future__ import annotations

import difflib
import functools
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from preprocess.datasets.csv_rows import read_csv_rows
from preprocess.datasets.path_pattern import FRAME, PathPattern, list_below, match_files, parse_pattern
from preprocess.datasets.scan import MOMENTS
from preprocess.datasets.subject_folders import describe_content
from preprocess.readers.depth_image import CAMERA_FIELDS, DEPTH_SUFFIXES
from preprocess.readers.surface import scan_suffix
from shared.errors import FacetError, escape_controls, name_some
from shared.labels import clean_word

MANIFEST_NAME = "manifest.csv"
REQUIRED = ("path", "subject", "label")
OPTIONAL = (
    "sequence", "frame", *MOMENTS, "intensity", "task", "texture", "texture_origin", "landmarks", "units", "scale", "up",
    "facing", "camera", *CAMERA_FIELDS, "max_depth_mm", "sample_id",
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
_FILES = ("path", "texture", "landmarks", "camera")  # columns that name files
_THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+")  # 1,000 may be one or a thousand
# Columns of action units: occurrence 0 or 1, intensity 0 to 5 or A to E; what else there is stands for not known.
_UNIT = re.compile(r"AU0*(\d{1,2})(_intensity)?", re.IGNORECASE)
_LEVELS = {"": -1, "-1": -1, "9": -1, "999": -1} | {str(k): k for k in range(6)} | {"ABCDE"[k]: k + 1 for k in range(5)}
_CAMERA = f"column camera (or {', '.join(CAMERA_FIELDS[:4])})"
_SPREADSHEET_ERROR = re.compile(r"#(N/A|NV|DIV/0!|[A-Z]{3,7}[!?])")  # of Excel and LibreOffice
ORIGINS = ("top", "bottom")  # the edge of the texture image where v = 0


@dataclass(frozen=True)
class ManifestRow:
    """One row: where it stands ("line 2", or the file that a pattern found) and its fields, blanks trimmed.

    Every known column is there, perhaps empty. assumed: what up or facing was taken for, in words; "" where given.
    """

    place: str
    fields: dict[str, str]
    assumed: str = ""

    def __getitem__(self, column: str) -> str:
        return self.fields[column]


@dataclass(frozen=True)
class Manifest:
    """name: for messages. folder: what paths are relative to. group_names: the columns that are the user's own. au_names: those
    of action units. notes: what was taken as what."""

    name: str
    folder: Path
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
    raise FacetError(
        f"{root}: looked for {MANIFEST_NAME} (columns {columns}), {describe_content(root)}; write one, or give --pattern"
    )


def read_manifest(path: Path, folder: Path | None = None, columns: Mapping[str, str] | None = None) -> Manifest:
    """Read a manifest: UTF-8 (with or without its mark) or UTF-16, fields parted by comma, semicolon or tab.

    Args:
        folder: what its paths are relative to; None: its own folder.
        columns: see check_rows.
    Raises:
        FacetError: not such a text, no rows, a missing column, a value that a column cannot have; names the line.
    """
    if not path.is_file():
        raise FacetError(f"--manifest {path}: no such file; give a CSV file, as --list FILE.csv writes it")
    rows = [(f"line {line}", row) for line, row in read_csv_rows(path, "manifest") if any(word.strip() for word in row)]
    if not rows:
        raise FacetError(f"{path}: the manifest is empty; its first line must be {','.join(REQUIRED)}")
    return check_rows(str(path), folder or path.parent, rows[0][1], rows[1:], columns or {})


def match_manifest(root: Path, pattern: PathPattern, columns: Mapping[str, str]) -> Manifest:
    """Make the manifest of the files that a pattern finds: its fields are the columns.

    With {frame} or {sequence}, rows that agree in all other fields are one sequence, and its name is made of them.

    Args:
        columns: see check_rows.
    Raises:
        FacetError: no such folder, no such files, or a value that a column cannot have; names the file.
    """
    if not root.is_dir():
        raise FacetError(f"{root}: no such folder; with --pattern, --root must name the folder that the paths begin in")
    found = match_files(pattern, list_below(root))
    if not found.files:
        raise FacetError(f"{root}: no file matches --pattern {pattern.text!r}: {found.stopped}")
    fields = pattern.fields
    if both := {*map(_name_column, columns)} & {*map(_name_column, fields)}:
        raise FacetError(f"--columns {min(both)}=…: --pattern gives this column already; leave one of them out")
    parts = [name for name in fields if name != FRAME] if {FRAME, "sequence"} & {*fields} else []
    own = [name for name in fields if name != "sequence"]
    header = ["path", *own, *(name for name in ("label",) if name not in own), *(["sequence"] if parts else [])]
    rows = []
    for path, values in found.files:
        row = {**values, "path": path, "sequence": "/".join(dict.fromkeys(values[name] for name in parts))}
        rows.append((path, [row.get(name, "") for name in header]))
    manifest = check_rows(str(root), root, header, rows, columns)
    if found.others:
        note = f"folders and meshes that the pattern does not match: {len(found.others):,}, {name_some(found.others)}"
        manifest = replace(manifest, notes=(note, *manifest.notes))
    return manifest


def check_rows(
    name: str, folder: Path, header: Sequence[str], rows: Sequence[tuple[str, list[str]]], columns: Mapping[str, str]
) -> Manifest:
    """Check and normalise the rows of a manifest.

    Args:
        rows: where each stands, and its fields.
        columns: values for all rows that leave these columns empty.
    Raises:
        FacetError: no rows, a missing column, or a value that a column cannot have.
    """
    given = {_name_column(column): value for column, value in columns.items()}
    header = [_name_column(column) for column in header]
    while header and not header[-1]:  # a spreadsheet's empty last columns
        header.pop()
    width = len(header)
    header += [column for column in given if column not in header]
    _check_header(name, header)
    units = tuple(column for column in header if _UNIT.fullmatch(column))
    own = tuple(column for column in header if column and column not in KNOWN and column not in units)
    notes = [f"column {column} is kept as a group of your own; did you mean {close}?"
             for column in own if (close := _guess_column(column))]  # fmt: skip
    base = folder.absolute()
    result = []
    unnamed: list[str] = []
    for place, row in rows:
        if any(word.strip() for word in row[width:]):
            raise FacetError(f"{name}, {place}: {len(row)} fields, expected {width}; quote a field that has commas")
        words = [(column, word.strip()) for column, word in zip(header, row, strict=False)]
        unnamed += [word for column, word in words if word and not column]
        fields = dict.fromkeys((*KNOWN, *own, *units), "") | given | {column: word for column, word in words if word}
        assumed = _check_fields(base, f"{name}, {place}", fields)
        result.append(ManifestRow(place, fields, assumed))
    if not result:
        raise FacetError(f"{name}: lists no scans; add a line for each: {','.join(header)}")
    if unnamed:
        notes.append(f"a column without a name is left out (it holds {unnamed[0][:40]!r}); give it one")
    for assumed in dict.fromkeys(row.assumed for row in result if row.assumed):
        count = sum(row.assumed == assumed for row in result)
        notes.append(f"{count:,} scans with {assumed}; give both columns, up and facing, if that is wrong")
    return Manifest(name, folder, tuple(result), own, units, tuple(notes))


def default_id(path: str) -> str:
    """Return the sample_id of a scan that is given none: its path without the ending."""
    suffix = scan_suffix(path)
    return path[: -len(suffix)] if suffix else PurePosixPath(path).with_suffix("").as_posix()


def parse_columns(text: str) -> dict[str, str]:
    """Parse `units=m,site=Bonn`: a value for all rows.

    Raises:
        FacetError: a part without `=`, or a column that stands twice.
    """
    pairs = [(part.partition("=")[0].strip(), part.partition("=")[2].strip()) for part in text.split(",")]
    columns = dict(pairs)
    if not all(column and value for column, value in pairs) or len(columns) != len(pairs):
        raise FacetError(f"--columns {text!r}: expected COLUMN=VALUE parted by commas, such as units=m,site=Bonn")
    return columns


def parse_scan_pattern(text: str) -> PathPattern:
    """Parse the pattern of a folder; fields other than a manifest's columns are kept as groups.

    Raises:
        FacetError: as parse_pattern.
    """
    pattern = parse_pattern(text, needed=("subject",), known=None, example="{subject}/{label}_{frame}.obj")
    if "path" in map(_name_column, pattern.fields):
        raise FacetError(f"--pattern {text[:120]!r}: {{path}} is what the pattern finds; give that field another name")
    return pattern


def _name_column(name: str) -> str:
    """Return a known column's name, ignoring case, blanks and hyphens; other names are kept as written."""
    name = clean_word(name)
    plain = re.sub(r"[ _-]+", "_", name.lower())
    if unit := _UNIT.fullmatch(plain):
        return f"AU{unit[1]}{unit[2] or ''}"
    return plain if plain in KNOWN else name


def _guess_column(name: str) -> str | None:
    return next(iter(difflib.get_close_matches(name.lower(), KNOWN, 1, _CLOSE)), None)


def _check_header(path: str, header: list[str]) -> None:
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
        if _SPREADSHEET_ERROR.fullmatch(value):
            raise FacetError(f"{where}: {name} {value} is an error of the spreadsheet; mend it there")
        shown = name in _FILES or clean_word(value).isprintable()  # of others tables are made
        if escape_controls(value) != value or not shown:
            raise FacetError(f"{where}: {name} {value[:40]!r} holds a line break or a control character; remove it")
    for name in ("path", "subject"):
        if not fields[name]:
            raise FacetError(f"{where}: {name} is empty; fill it in")
    for name in ("subject", "sequence", "intensity", "task"):
        fields[name] = clean_word(fields[name])  # one name, however a system composes its letters
    for name in _FILES:
        if fields[name]:
            fields[name] = _below(folder, fields[name], f"{where}: {name} {fields[name][:80]!r}")
    for name, allowed in (("units", tuple(UNITS_MM)), ("up", AXES), ("facing", AXES), ("texture_origin", ORIGINS)):
        fields[name] = fields[name].lower().removeprefix("+")
        if fields[name] and fields[name] not in allowed:
            raise FacetError(f"{where}: {name} {fields[name][:40]!r}, expected one of {', '.join(allowed)}")
    assumed = _complete_axes(where, fields)
    for name in filter(fields.get, ("scale", *CAMERA_FIELDS, "max_depth_mm")):
        fields[name] = _check_number(where, name, fields[name])
    if fields["scale"] and fields["units"]:
        raise FacetError(f"{where}: both units and scale are given; keep one")
    has_camera = bool(fields["camera"]) + any(fields[name] for name in CAMERA_FIELDS)
    if has_camera > 1:
        raise FacetError(f"{where}: both camera and {', '.join(CAMERA_FIELDS)} are given; keep one")
    lacking = [name for name in CAMERA_FIELDS[:4] if not fields[name]]
    if has_camera and not fields["camera"] and lacking:
        raise FacetError(f"{where}: the camera's {', '.join(lacking)} is empty; fill it in")
    if has_camera != (scan_suffix(fields["path"]) in DEPTH_SUFFIXES):
        raise FacetError(
            f"{where}: {fields['path'][-40:]!r} is no depth image, and has no camera; leave {_CAMERA} empty"
            if has_camera
            else f"{where}: {fields['path'][-40:]!r} is a depth image; fill in its {_CAMERA}"
        )
    for name in filter(_UNIT.fullmatch, fields):
        read_level(fields[name], name, where)
    for name in filter(fields.get, ("frame", *MOMENTS)):
        fields[name] = re.sub(r"\.0+$", "", fields[name])  # a whole number, as pandas writes a column with gaps
        if not (fields[name].isascii() and fields[name].isdigit() and len(fields[name]) < 10):
            raise FacetError(f"{where}: {name} {fields[name][:40]!r}, expected a whole number")
    return assumed


def _check_number(where: str, name: str, text: str) -> str:
    """Return a number as Python writes it: a comma may be the decimal point. All but cx and cy must be positive."""
    number = text if _THOUSANDS.fullmatch(text) else text.replace(",", ".")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and (value > 0 or name in ("cx", "cy"))):
        meaning = "positive number (mm a unit of the file)" if name == "scale" else "number"
        raise FacetError(f"{where}: {name} {text[:40]!r}, expected a {meaning}")
    return number


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
