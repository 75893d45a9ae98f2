"""The points that show where a face is, from the landmark files of several schemes."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path

import numpy as np

from preprocess.readers.bu_landmarks import BU_LANDMARK_GROUPS, read_bnd
from preprocess.readers.file_bytes import read_bytes
from preprocess.readers.text_numbers import to_float32
from shared.errors import ScanError

# left_eye, right_eye: the middle of each eye. nose: the centroid of points all over the nose, some 14 mm behind its tip.
# mouth: its middle. nose_tip: the most forward point (pronasale). nose_bridge: the root between the eyes (sellion, nasion).
FACE_POINTS = ("left_eye", "right_eye", "nose", "mouth", "nose_tip", "nose_bridge")

# iBUG 68 (Sagonas et al. 2013, "300 faces in-the-wild challenge"): the subject's right eye comes first.
_IBUG68 = {"right_eye": range(36, 42), "left_eye": range(42, 48), "nose": range(27, 36), "mouth": range(48, 60)}
_FORMAT = f"lines `name,x,y,z` with the names {', '.join(FACE_POINTS)}"
# Other names of the points, in letters and digits alone; of a pair, such as an eye's corners, both ends are needed.
_SYNONYMS = {
    "left_eye": ("leye", "eyeleft", "eyel", "lefteyecenter", "lefteyecentre"),
    "right_eye": ("reye", "eyeright", "eyer", "righteyecenter", "righteyecentre"),
    "nose": ("nosecentroid", "nosecenter", "nosecentre"),
    "mouth": ("mouthcenter", "mouthcentre"),
    "nose_tip": ("tipofnose", "pronasale", "prn"),
    "nose_bridge": ("bridgeofnose", "noseroot", "sellion", "nasion"),
}


def _plain(name: str) -> str:
    """Return the letters and digits of a name."""
    return re.sub("[^a-z0-9]", "", name.lower())


_NAMES = {_plain(word): name for name, words in _SYNONYMS.items() for word in (name, *words)}
_PAIRS = {
    "left_eye": ({"lefteyeinner", "lefteyeinnercorner"}, {"lefteyeouter", "lefteyeoutercorner"}),
    "right_eye": ({"righteyeinner", "righteyeinnercorner"}, {"righteyeouter", "righteyeoutercorner"}),
    "mouth": (
        {"mouthleft", "leftmouthcorner", "mouthleftcorner"},
        {"mouthright", "rightmouthcorner", "mouthrightcorner"},
    ),
}
_MOST_NAMED = 5
# Errors of JSON that is none, or holds other values than expected.
_BAD_JSON = (ValueError, KeyError, TypeError, AttributeError, IndexError, StopIteration, OverflowError, RecursionError)


def read_face_points(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read landmarks and reduce them to FACE_POINTS.

    `.bnd`: the 83 points of BU-3DFE. `.ljson`: Menpo's, versions 1 to 3; points grouped by labels (left_eye or leye, …), or 68
    of iBUG. `.csv`, `.txt`: lines `name,x,y,z`, also separated by semicolons, tabs or blanks, then perhaps with decimal commas;
    names as in FACE_POINTS in any case and spelling (`LeftEye`, `left eye`), or a synonym (`pronasale`, `nasion`), in any
    order, some perhaps missing. A heading is left out.

    Returns:
        f32 (6, 3) in the file's units, in the order of FACE_POINTS, NaN if not known; and a note on unused points.
    Raises:
        ScanError: missing, another format, or none of the points in it.
    """
    suffix = path.suffix.lower()
    unused: list[str] = []
    if suffix == ".bnd":
        groups = {name: read_bnd(path)[list(indices)] for name, indices in BU_LANDMARK_GROUPS.items()}
    elif suffix in (".ljson", ".json"):
        groups = _read_ljson(path)
    elif suffix in (".csv", ".txt"):
        groups, unused = _read_named_points(path)
    else:
        raise ScanError(
            f"{path}: unknown ending {suffix!r} for landmarks, expected .bnd, .ljson, or .csv or .txt of {_FORMAT}"
        )
    points = np.full((len(FACE_POINTS), 3), np.nan, np.float32)
    for i, name in enumerate(FACE_POINTS):
        known = to_float32(groups.get(name, np.empty((0, 3))))
        known = known[np.isfinite(known).all(axis=1)]
        if len(known):
            points[i] = known.mean(axis=0, dtype=np.float64)
    if np.isnan(points).all():
        expected = (
            _FORMAT
            if suffix in (".csv", ".txt")
            else f"the points {', '.join(FACE_POINTS)} (preprocess/README.md, own scans)"
        )
        raise ScanError(f"{path}: holds none of the face's points; expected {expected}, or leave landmarks empty")
    if not unused:
        return points, ()
    shown = ", ".join(name[:40] for name in unused[:_MOST_NAMED]) + (" …" if len(unused) > _MOST_NAMED else "")
    return points, (f"{path}: landmarks not used: {shown}; known are {', '.join(FACE_POINTS)}",)


def _read_ljson(path: Path) -> dict[str, np.ndarray]:
    try:
        document = json.loads(read_bytes(path, max_bytes=1 << 24))
        groups = document.get("groups", document)  # version 1 and 2: the one group itself, or a mapping of them
        group = groups if "landmarks" in groups else next(iter(groups.values()))
        if isinstance(group, list):
            group = group[0]
        points = np.array(
            [[np.nan if x is None else float(x) for x in point] for point in group["landmarks"]["points"]], np.float64
        )
        masks = {str(label["label"]): [int(i) for i in label["mask"]] for label in group.get("labels", [])}
        if points.ndim != 2 or points.shape[1] != 3:
            raise ScanError(f"{path}: expected points of x, y, z, found an array {points.shape}; export 3D landmarks")
        named = {_NAMES.get(_plain(label), label): points[mask] for label, mask in masks.items()}
        if not any(name in named for name in FACE_POINTS) and len(points) == 68:
            named = {name: points[list(indices)] for name, indices in _IBUG68.items()}
        return named
    except _BAD_JSON as error:
        raise ScanError(f"{path}: not Menpo's landmark JSON ({type(error).__name__}: {str(error)[:60]})") from error


def _read_named_points(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the points of known names, by name, and the other names."""
    text = read_bytes(path, max_bytes=1 << 20).decode("utf-8-sig", "replace")
    groups: dict[str, np.ndarray] = {}
    ends: dict[str, tuple[str, np.ndarray]] = {}  # of pairs, by the plain name: the name as written, the point
    unused = []
    for number, line in enumerate(text.splitlines()):
        name, point = _parse_line(path, line)
        plain = _plain(name)
        is_end = any(plain in end for pair in _PAIRS.values() for end in pair)
        if not plain or name.startswith("#") or (number == 0 and point is None and plain not in _NAMES):  # the heading
            continue
        if point is None and (plain in _NAMES or is_end):
            raise ScanError(f"{path}: {name[:40]} is not followed by x,y,z; mend the line")
        if plain in _NAMES and point is not None:
            if _NAMES[plain] in groups:
                raise ScanError(f"{path}: {_NAMES[plain]} stands twice; remove one")
            groups[_NAMES[plain]] = point[None]
        elif is_end and point is not None:
            ends[plain] = name, point
        else:
            unused.append(name)
    for name, pair in _PAIRS.items():
        both = [plain for end in pair for plain in ends if plain in end]
        if len(both) == 2 and name not in groups:
            groups[name] = np.stack([ends[plain][1] for plain in both])
        else:
            unused += [ends[plain][0] for plain in both]
    return groups, unused


def _parse_line(path: Path, line: str) -> tuple[str, np.ndarray | None]:
    """Return a line's name and point; None if that is not three numbers. Commas may separate fields or decimals."""
    line = line.strip()
    delimiter = next((mark for mark in ";\t" if mark in line), ",")
    if delimiter == "," and len(line.split()) >= 4 and not re.search(r"[^\d]\s*,|,\s*[^\d]", line):
        delimiter = " "  # and commas, if there are any, stand within numbers
    try:
        fields = [field.strip() for field in next(csv.reader([line], delimiter=delimiter), []) if field.strip()]
    except csv.Error as error:
        raise ScanError(f"{path}: not {_FORMAT} ({error}); mend it") from error
    if delimiter == " " and len(fields) > 4:  # a name of several words
        fields = [" ".join(fields[:-3]), *fields[-3:]]
    if len(fields) != 4:
        return (fields[0] if fields else ""), None
    numbers = [field if delimiter == "," or "." in field else field.replace(",", ".") for field in fields[1:]]
    try:
        point = np.array([float(number) for number in numbers])
    except ValueError:
        return fields[0], None
    return fields[0], point if not any(math.isinf(x) for x in point) else np.full(3, np.nan)
