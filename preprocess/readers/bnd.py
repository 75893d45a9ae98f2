"""The landmark files of BU-3DFE and BU-4DFE."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from preprocess.readers.file_bytes import parse_numbers, to_float32
from preprocess.readers.label_text import read_label_text
from shared.errors import ScanError

NUM_BU_LANDMARKS = 83
_SEPARATORS = bytes.maketrans(b",;", b"  ")

# Indices of the 83 points of BU-3DFE and BU-4DFE (BP4D has another order: tbnd.py). Which eye is named left (the
# subject's or the image's) is not documented: alignment tries both.
BU_LANDMARK_GROUPS: dict[str, tuple[int, ...]] = {
    "left_eye": tuple(range(0, 8)),
    "right_eye": tuple(range(8, 16)),
    "left_brow": tuple(range(16, 26)),
    "right_brow": tuple(range(26, 36)),
    "nose": tuple(range(36, 48)),
    "mouth": tuple(range(48, 60)),  # the outer lips
    "contour": tuple(range(68, 83)),
}


# The 8 points of a .pse file, by their index in it: right eye inner and outer corner, left eye inner and outer corner, the
# wings of the nose, its tip, its base. The centre of the wings is nearest to that of the nose in a .bnd file;
# tip and base lie before and below it.
PSE_LANDMARK_GROUPS: dict[str, tuple[int, ...]] = {"right_eye": (0, 1), "left_eye": (2, 3), "nose": (4, 5)}
NUM_PSE_LANDMARKS = 8


def read_bnd(path: Path) -> np.ndarray:
    """Reads a .bnd file: 83 rows `index x y z`, parted by tabs or blanks; an empty 84th row is allowed.

    Returns:
        f32 (83, 3), in the scan's coordinates. The index (of the nearest vertex) is not needed and not kept.
    Raises:
        ScanError: missing, another number of rows, or a field that is no finite number.
    """
    return _read_points(path, NUM_BU_LANDMARKS)


def read_pse(path: Path) -> np.ndarray:
    """Reads a .pse file of BU-3DFE: 8 rows `index x y z` in the coordinates of the RAW scan.

    Which eye is named right is told by one reader alone: the tip of the nose, which stands out of the face, decides.

    Returns:
        f32 (8, 3), see PSE_LANDMARK_GROUPS; the subject's right eye first.
    Raises:
        ScanError: as read_bnd.
    """
    points = _read_points(path, NUM_PSE_LANDMARKS)
    first, second, wings = (
        points[part].mean(axis=0, dtype=np.float64) for part in (slice(0, 2), slice(2, 4), slice(4, 6))
    )
    up, out = (first + second) / 2 - wings, points[6] - wings
    to_the_left = np.cross(up, out)
    return points[[2, 3, 0, 1, 4, 5, 6, 7]] if (second - first) @ to_the_left < 0 else points


def _read_points(path: Path, count: int) -> np.ndarray:
    text = read_label_text(path, max_bytes=1 << 20).translate(_SEPARATORS)
    rows = [row for row in text.splitlines() if row.strip()]
    if len(rows) != count:
        raise ScanError(f"{path}: {len(rows)} landmarks, expected {count}; copy it again or remove it")
    try:
        numbers = parse_numbers(b" inf ".join(rows) + b" inf", np.float64)  # inf marks each row's end
    except ValueError as error:
        raise ScanError(f"{path}: {error}; copy it again or remove it") from error
    if len(numbers) != 5 * len(rows) or not np.isposinf(numbers[4::5]).all():
        raise ScanError(f"{path}: expected rows `index x y z`; copy it again or remove it")
    points = to_float32(numbers.reshape(-1, 5)[:, 1:4])
    if not np.isfinite(points).all():
        raise ScanError(f"{path}: a landmark is not finite; copy it again or remove it")
    return points
