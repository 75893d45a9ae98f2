"""Four points that tell where a face is, from the landmark files of several schemes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

from preprocess.readers.bnd import BU_LANDMARK_GROUPS, read_bnd
from preprocess.readers.file_bytes import read_bytes, to_float32
from shared.errors import ScanError

FACE_POINTS = ("left_eye", "right_eye", "nose", "mouth")

# iBUG 68 (Sagonas et al. 2013, "300 faces in-the-wild challenge"): the subject's right eye comes first.
_IBUG68 = {"right_eye": range(36, 42), "left_eye": range(42, 48), "nose": range(27, 36), "mouth": range(48, 60)}
_FORMAT = f"lines `name,x,y,z` with the names {', '.join(FACE_POINTS)}"
_LABELS = {"leye": "left_eye", "reye": "right_eye"}  # Menpo's words


def read_face_points(path: Path) -> np.ndarray:
    """Reads landmarks and reduces them to the centres of both eyes, nose and mouth.

    `.bnd`: the 83 points of BU-3DFE. `.ljson`: Menpo's, versions 1 to 3; points grouped by labels (left_eye or leye, …), or 68
    of iBUG. `.csv`, `.txt`: lines `name,x,y,z` with the names in FACE_POINTS, in any order, some perhaps missing; other lines,
    such as a heading, are left out.

    Returns:
        f32 (4, 3) in the file's units, in the order of FACE_POINTS, NaN where not known.
    Raises:
        ScanError: missing, another format, or none of the four points in it.
    """
    suffix = path.suffix.lower()
    if suffix == ".bnd":
        groups = {name: read_bnd(path)[list(indices)] for name, indices in BU_LANDMARK_GROUPS.items()}
    elif suffix in (".ljson", ".json"):
        groups = _read_ljson(path)
    elif suffix in (".csv", ".txt"):
        groups = _read_named_points(path)
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
            _FORMAT if suffix in (".csv", ".txt") else f"the points {', '.join(FACE_POINTS)} (README: your own scans)"
        )
        raise ScanError(f"{path}: holds none of the face's points; expected {expected}, or leave landmarks empty")
    return points


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
        named = {_LABELS.get(label, label): points[mask] for label, mask in masks.items()}
        if not any(name in named for name in FACE_POINTS) and len(points) == 68:
            named = {name: points[list(indices)] for name, indices in _IBUG68.items()}
        return named
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        StopIteration,
        OverflowError,
        RecursionError,
    ) as error:
        raise ScanError(f"{path}: not Menpo's landmark JSON ({type(error).__name__}: {str(error)[:60]})") from error


def _read_named_points(path: Path) -> dict[str, np.ndarray]:
    text = read_bytes(path, max_bytes=1 << 20).decode("utf-8-sig", "replace").replace("\t", ",").replace(";", ",")
    groups: dict[str, np.ndarray] = {}
    try:
        rows = list(csv.reader(text.splitlines()))
    except csv.Error as error:
        raise ScanError(f"{path}: not {_FORMAT} ({error}); mend it") from error
    for row in rows:
        fields = [field.strip() for field in row if field.strip()]
        if len(fields) == 4 and fields[0].lower() in FACE_POINTS:
            try:
                groups[fields[0].lower()] = np.array([[float(field) for field in fields[1:]]])
            except ValueError:
                raise ScanError(f"{path}: {fields[0]} is not followed by x,y,z; mend the line") from None
    return groups
