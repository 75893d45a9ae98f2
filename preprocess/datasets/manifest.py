"""The CSV manifest of a folder of scans, or the same table made of the names of its files by a pattern."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from preprocess.datasets.csv_rows import read_csv_rows
from preprocess.datasets.manifest_fields import ACTION_UNIT, check_fields
from preprocess.datasets.path_pattern import FRAME, PathPattern, list_below, match_files, parse_pattern
from preprocess.datasets.scan import MOMENTS
from preprocess.datasets.subject_folders import describe_content, find_archives
from preprocess.readers.depth_image import CAMERA_FIELDS
from preprocess.readers.surface import scan_suffix
from shared.errors import FacetError, name_some
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
    "subject": ("id", "subject_id", "subjectid", "participant", "person", "identity", "patient", "patient_id"),
    "label": ("class", "emotion", "expression", "labels"),
}
_CLOSE = 0.8  # difflib's ratio: "lable" and "label" have it; "race" and "frame" have not
MAX_COLUMN_CHARACTERS = 60


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


def read_manifest(path: Path, folder: Path | None, columns: Mapping[str, str]) -> Manifest:
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
    return check_rows(str(path), folder or path.parent, rows[0][1], rows[1:], columns)


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
        archives = [
            f"{name}{file}" for name in found.others if name.endswith("/") for file in find_archives(root / name)
        ]
        packed = [f"archives that are not unpacked, so not read: {name_some(archives)}"] * bool(archives)
        manifest = replace(manifest, notes=(note, *packed, *manifest.notes))
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
    units = tuple(column for column in header if ACTION_UNIT.fullmatch(column))
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
        assumed = check_fields(base, f"{name}, {place}", fields)
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
    if unit := ACTION_UNIT.fullmatch(plain):
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
