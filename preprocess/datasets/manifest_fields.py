"""The fields of one row of a manifest: what each may hold, and how it is normalised."""

from __future__ import annotations

import functools
import math
import os
import re
from pathlib import Path

from preprocess.datasets.scan import MOMENTS
from preprocess.readers.depth_image import CAMERA_FIELDS, DEPTH_SUFFIXES
from preprocess.readers.surface import scan_suffix
from shared.errors import FacetError, escape_controls
from shared.labels import clean_word

UNITS_MM = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "in": 25.4}
AXES = ("x", "-x", "y", "-y", "z", "-z")
ORIGINS = ("top", "bottom")  # the edge of the texture image where v = 0
_FILES = ("path", "texture", "landmarks", "camera")  # columns that name files
_THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+")  # 1,000 may be one or a thousand
# Columns of action units: occurrence 0 or 1, intensity 0 to 5 or A to E; what else there is stands for not known.
ACTION_UNIT = re.compile(r"AU0*(\d{1,2})(_intensity)?", re.IGNORECASE)
_LEVELS = {"": -1, "-1": -1, "9": -1, "999": -1} | {str(k): k for k in range(6)} | {"ABCDE"[k]: k + 1 for k in range(5)}
_CAMERA = f"column camera (or {', '.join(CAMERA_FIELDS[:4])})"
_SPREADSHEET_ERROR = re.compile(r"#(N/A|NV|DIV/0!|[A-Z]{3,7}[!?])")  # of Excel and LibreOffice


def check_fields(folder: Path, where: str, fields: dict[str, str]) -> str:
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
    for name in filter(ACTION_UNIT.fullmatch, fields):
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
