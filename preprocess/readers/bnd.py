"""The landmark files of BU-3DFE and BU-4DFE."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from preprocess.readers.file_bytes import parse_numbers, read_bytes, to_float32
from shared.errors import ScanError

NUM_BU_LANDMARKS = 83

# Indices of the 83 points. Which eye is named left (the subject's or the image's) is not documented: alignment tries both.
BU_LANDMARK_GROUPS: dict[str, tuple[int, ...]] = {
    "left_eye": tuple(range(0, 8)),
    "right_eye": tuple(range(8, 16)),
    "left_brow": tuple(range(16, 26)),
    "right_brow": tuple(range(26, 36)),
    "nose": tuple(range(36, 48)),
    "mouth": tuple(range(48, 60)),  # the outer lips
    "contour": tuple(range(68, 83)),
}


def read_bnd(path: Path) -> np.ndarray:
    """Reads a .bnd file: 83 rows `index x y z`, parted by tabs or blanks; an empty 84th row is allowed.

    Returns:
        f32 (83, 3), in the scan's coordinates. The index (of the nearest vertex) is not needed and not kept.
    Raises:
        ScanError: missing, another number of rows, or a field that is no finite number.
    """
    rows = [row for row in read_bytes(path, max_bytes=1 << 20).splitlines() if row.strip()]
    if len(rows) != NUM_BU_LANDMARKS:
        raise ScanError(f"{path}: {len(rows)} landmarks, expected {NUM_BU_LANDMARKS}; copy it again or remove it")
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
