"""The CSV manifest of a folder of scans."""

from __future__ import annotations

import csv
import difflib
import io
import math
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from preprocess.datasets.subject_folders import describe_content
from shared.errors import FacetError

MANIFEST_NAME = "manifest.csv"
REQUIRED = ("path", "subject", "label")
OPTIONAL = (
    "sequence", "frame", "intensity", "task", "texture", "texture_origin", "landmarks", "units", "scale", "up", "facing",
    "sample_id",
)  # fmt: skip
UNITS_MM = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "in": 25.4}
AXES = ("x", "-x", "y", "-y", "z", "-z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
ORIGINS = ("top", "bottom")  # the edge of the texture image where v = 0


@dataclass(frozen=True)
class ManifestRow:
    """One row: its line in the file and its fields, blanks trimmed; every known column is there, perhaps empty."""

    line: int
    fields: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.fields[column]


def find_manifest(root: Path) -> Path:
    """The manifest of a root: `manifest.csv` in the folder, or the root itself where it is a file.

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


def read_manifest(path: Path) -> list[ManifestRow]:
    """Reads a manifest: UTF-8 (with or without its mark) or UTF-16, fields parted by comma, semicolon or tab.

    Raises:
        FacetError: not such a text, no rows, an unknown or missing column, a value that a column cannot have; names the line.
    """
    rows = [(line, row) for line, row in _read_rows(path) if any(field.strip() for field in row)]
    if not rows:
        raise FacetError(f"{path}: the manifest is empty; its first line must be {','.join(REQUIRED)}")
    header = [name.strip().lower() for name in rows[0][1]]
    while header and not header[-1]:  # a spreadsheet's empty last columns
        header.pop()
    _check_header(path, header)
    result = []
    for line, row in rows[1:]:
        if any(field.strip() for field in row[len(header) :]):
            raise FacetError(
                f"{path}, line {line}: {len(row)} fields, expected {len(header)}; quote a field that has commas"
            )
        fields = dict.fromkeys((*REQUIRED, *OPTIONAL), "")
        fields.update({name: field.strip() for name, field in zip(header, row, strict=False)})
        _check_fields(f"{path}, line {line}", fields)
        result.append(ManifestRow(line, fields))
    if not result:
        raise FacetError(f"{path}: lists no scans; add a line for each: {','.join(header)}")
    return result


def _read_rows(path: Path) -> list[tuple[int, list[str]]]:
    if path.stat().st_size > 1 << 28:
        raise FacetError(f"{path}: {path.stat().st_size / 1e6:.0f} MB, too large for a manifest; is this the CSV file?")
    data = path.read_bytes()
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
        first = text.lstrip().split("\n", 1)[0]
        delimiter = max(",;\t", key=first.count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        return [(reader.line_num, row) for row in reader]
    except UnicodeDecodeError as error:
        raise FacetError(f"{path}: not UTF-8 text (byte {error.start}); save the manifest as CSV in UTF-8") from error
    except csv.Error as error:
        raise FacetError(f"{path}: not a CSV file ({error}); save the manifest as CSV in UTF-8") from error


def _check_header(path: Path, header: list[str]) -> None:
    known = (*REQUIRED, *OPTIONAL)
    for name in header:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
            raise FacetError(f"{path}: unknown column {name[:40]!r}; {hint}")
    if len(set(header)) != len(header):
        raise FacetError(f"{path}: a column stands twice in {','.join(header)}; remove one")
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise FacetError(
            f"{path}: lacks the column {', '.join(missing)}; its first line must hold {','.join(REQUIRED)}"
        )


def _check_fields(where: str, fields: dict[str, str]) -> None:
    for name, value in fields.items():
        if _CONTROL.search(value):
            raise FacetError(f"{where}: {name} {value[:40]!r} holds a line break or a control character; remove it")
    for name in ("path", "subject"):
        if not fields[name]:
            raise FacetError(f"{where}: {name} is empty; fill it in")
    for name in ("path", "texture", "landmarks"):
        fields[name] = fields[name].replace("\\", "/")
        parts = fields[name].split("/")
        if ".." in parts or fields[name].startswith("/") or ":" in parts[0]:
            raise FacetError(f"{where}: {name} {fields[name][:80]!r} leaves the folder; give a path below it")
        if fields[name] and not PurePosixPath(fields[name]).name:
            raise FacetError(f"{where}: {name} {fields[name][:80]!r} names no file; give a path below the folder")
    for name, allowed in (("units", tuple(UNITS_MM)), ("up", AXES), ("facing", AXES), ("texture_origin", ORIGINS)):
        fields[name] = fields[name].lower().removeprefix("+")
        if fields[name] and fields[name] not in allowed:
            raise FacetError(f"{where}: {name} {fields[name][:40]!r}, expected one of {', '.join(allowed)}")
    if (fields["up"] or "y")[-1] == (fields["facing"] or "z")[-1]:
        raise FacetError(f"{where}: up and facing name the same axis; they must be perpendicular")
    if fields["scale"]:
        if fields["units"]:
            raise FacetError(f"{where}: both units and scale are given; keep one")
        try:
            scale = float(fields["scale"])
        except ValueError:
            scale = math.nan
        if not 0 < scale < math.inf:
            raise FacetError(
                f"{where}: scale {fields['scale'][:40]!r}, expected a positive number (mm a unit of the file)"
            )
    if fields["frame"] and not (fields["frame"].isascii() and fields["frame"].isdigit() and len(fields["frame"]) < 10):
        raise FacetError(f"{where}: frame {fields['frame'][:40]!r}, expected a whole number")
