"""The 83 landmarks of BU-3DFE and BU-4DFE (.bnd), BP4D (.tbnd) and BP4D+ (.bndplus); the 8 of BU-3DFE's raw scans (.pse)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from preprocess.readers.file_bytes import COPY, is_blank, read_rows
from preprocess.readers.text_numbers import parse_table, to_float32
from shared.errors import ScanError

NUM_BU_LANDMARKS = 83
NUM_PSE_LANDMARKS = 8

# Which eye is named left (the subject's or the image's) is not documented: alignment tries both.
BU_LANDMARK_GROUPS: dict[str, tuple[int, ...]] = {
    "left_eye": tuple(range(0, 8)),
    "right_eye": tuple(range(8, 16)),
    "left_brow": tuple(range(16, 26)),
    "right_brow": tuple(range(26, 36)),
    "nose": tuple(range(36, 48)),
    "mouth": tuple(range(48, 60)),  # the outer lips
    "contour": tuple(range(68, 83)),
}

# BP4D's order, after the figure in its guide: brows first, then eyes, the rest as in BU-3DFE. It is a fact of the data set and
# never probed: brows taken for eyes fit an average face even better, and pitch it by 13 to 18 degrees.
BP4D_LANDMARK_GROUPS: dict[str, tuple[int, ...]] = {
    **BU_LANDMARK_GROUPS,
    "left_brow": tuple(range(0, 10)),
    "right_brow": tuple(range(10, 20)),
    "left_eye": tuple(range(20, 28)),
    "right_eye": tuple(range(28, 36)),
}

# The points of a .pse file: right eye inner and outer corner, left eye inner and outer corner, the wings of the nose, its tip,
# its base. The centre of the wings is nearest to that of the nose in a .bnd file; tip and base lie before and below it.
PSE_LANDMARK_GROUPS: dict[str, tuple[int, ...]] = {"right_eye": (0, 1), "left_eye": (2, 3), "nose": (4, 5)}


def read_bnd(path: Path) -> np.ndarray:
    """Read a .bnd file: 83 rows `index x y z`.

    Returns:
        f32 (83, 3), in the scan's coordinates. The index (of the nearest vertex) is not needed.
    Raises:
        ScanError: missing, another number of rows, or a field that is no finite number.
    """
    return _read_indexed(path, NUM_BU_LANDMARKS)


def read_pse(path: Path) -> np.ndarray:
    """Read a .pse file of BU-3DFE: 8 rows `index x y z` in the coordinates of the RAW scan.

    Which eye is named right is not documented: the tip of the nose, which stands out of the face, decides.

    Returns:
        f32 (8, 3), see PSE_LANDMARK_GROUPS; the subject's right eye first.
    Raises:
        ScanError: as read_bnd.
    """
    points = _read_indexed(path, NUM_PSE_LANDMARKS)
    first, second, wings = (
        points[part].mean(axis=0, dtype=np.float64) for part in (slice(0, 2), slice(2, 4), slice(4, 6))
    )
    up, out = (first + second) / 2 - wings, points[6] - wings
    to_the_left = np.cross(up, out)
    return points[[2, 3, 0, 1, 4, 5, 6, 7]] if (second - first) @ to_the_left < 0 else points


def read_tbnd(path: Path) -> np.ndarray:
    """Read a .tbnd file: a line `pitch yaw roll` in degrees, then 83 lines `x y z` or `index x y z`.

    Returns:
        f32 (83, 3) in the file's axes. NaN for a point that could not be tracked, which the data set marks by (0, 0, 0); all
        of an empty file.
    Raises:
        ScanError: missing, another number of lines, or a field that is no finite number.
    """
    return _read_tracked(path, has_angles=True)


def read_bndplus(path: Path) -> np.ndarray:
    """Read a .bndplus file of BP4D+: 83 lines `x,y,z`, none in the files of frames that were not tracked.

    Returns:
        f32 (83, 3) in the file's axes; NaN as in read_tbnd.
    Raises:
        ScanError: missing, another number of lines, or a field that is no finite number.
    """
    return _read_tracked(path, has_angles=False)


def is_in_bp4d_order(points: np.ndarray) -> bool:
    """Return whether brows come before eyes, also where too few points are known to decide.

    Points 0 to 15 are brows in one order and eyes in the other, and so are points 20 to 35: brows are farther from the mouth.
    """
    known = np.isfinite(points).all(axis=1)
    parts = [np.flatnonzero(known[part]) + part.start for part in (slice(0, 16), slice(20, 36), slice(48, 60))]
    if not all(map(len, parts)):
        return True
    first, second, mouth = (points[part].mean(axis=0, dtype=np.float64) for part in parts)
    return bool(np.linalg.norm(first - mouth) > np.linalg.norm(second - mouth))


def _read_tracked(path: Path, *, has_angles: bool) -> np.ndarray:
    """Return f32 (83, 3); NaN for points at (0, 0, 0), and for all of an empty file. has_angles: rows may be indexed."""
    if is_blank(path):
        return np.full((NUM_BU_LANDMARKS, 3), np.nan, np.float32)
    rows = read_rows(path)
    if len(rows) != has_angles + NUM_BU_LANDMARKS:
        angles = "the head's angles and " * has_angles
        raise ScanError(f"{path}: {len(rows)} lines, expected {angles}{NUM_BU_LANDMARKS} points; {COPY}")
    _parse(path, rows[: int(has_angles)], "`pitch yaw roll` on its first line", 3)
    columns = 4 if has_angles and len(rows[1].split()) == 4 else 3
    points = _parse(path, rows[int(has_angles) :], "lines `x y z`" if has_angles else "lines `x,y,z`", columns)
    points[(points == 0).all(axis=1)] = np.nan
    return points


def _read_indexed(path: Path, count: int) -> np.ndarray:
    rows = read_rows(path)
    if len(rows) != count:
        raise ScanError(f"{path}: {len(rows)} landmarks, expected {count}; {COPY}")
    return _parse(path, rows, "rows `index x y z`", 4)


def _parse(path: Path, rows: Sequence[bytes], expected: str, columns: int) -> np.ndarray:
    """Return the last three numbers of each row, f32 (n, 3)."""
    try:
        points = to_float32(parse_table(rows, columns)[:, -3:])
    except ValueError as error:
        raise ScanError(f"{path}: {error} ({expected}); {COPY}") from error
    if not np.isfinite(points).all():
        raise ScanError(f"{path}: a landmark is not finite; {COPY}")
    return points
