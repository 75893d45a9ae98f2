"""The landmark files of BP4D-Spontaneous, and the axes in which they lie on the scan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from preprocess.readers.bnd import BU_LANDMARK_GROUPS, NUM_BU_LANDMARKS
from preprocess.readers.file_bytes import parse_numbers, to_float32
from preprocess.readers.label_text import is_blank, read_label_text
from shared.errors import ScanError

_SEPARATORS = bytes.maketrans(b",;", b"  ")
_COPY = "copy it again or remove it"
MAX_SURFACE_DISTANCE_MM = 5.0  # of a landmark to the nearest vertex, as a median: more is no landmark of this scan
_MAX_VERTICES = 10_000  # of a scan, every so-manyth: enough to tell 1 mm from 10 mm, in a few ms
# Two mirror images fit equally well where a face is symmetric: then the documented left-handed system decides.
_CLEARLY_BETTER = 0.8

# The order of the 83 points after the figure in the data set's guide: brows first, then eyes, the rest as in BU-3DFE. It is a
# fact of the data set and never probed: brows taken for eyes fit an average face even better, and pitch it by 13 to 18 degrees.
BP4D_LANDMARK_GROUPS: dict[str, tuple[int, ...]] = {
    **BU_LANDMARK_GROUPS,
    "left_brow": tuple(range(0, 10)),
    "right_brow": tuple(range(10, 20)),
    "left_eye": tuple(range(20, 28)),
    "right_eye": tuple(range(28, 36)),
}

AxisSigns = tuple[int, int, int]
AXIS_SIGNS: tuple[AxisSigns, ...] = tuple((x, y, z) for x in (1, -1) for y in (1, -1) for z in (1, -1))


@dataclass(frozen=True)
class TbndFile:
    """angles_deg f64 (3,): pitch, yaw, roll of the head; points f32 (83, 3) in the file's axes, NaN where untrackable,
    as angles_deg of an empty file."""

    angles_deg: np.ndarray
    points: np.ndarray


def read_tbnd(path: Path) -> TbndFile:
    """Reads a .tbnd file: a line `pitch yaw roll` in degrees, then 83 lines `x y z` or `index x y z`.

    (0, 0, 0) is the data set's mark for a point that could not be tracked; of an empty file none was.

    Raises:
        ScanError: missing, another number of lines, or a field that is no finite number.
    """
    if is_blank(path):
        return TbndFile(np.full(3, np.nan), np.full((NUM_BU_LANDMARKS, 3), np.nan, np.float32))
    text = read_label_text(path, max_bytes=1 << 20)
    rows = [row for row in text.translate(_SEPARATORS).splitlines() if row.strip()]
    if len(rows) != 1 + NUM_BU_LANDMARKS:
        raise ScanError(f"{path}: {len(rows)} lines, expected the head's angles and {NUM_BU_LANDMARKS} points; {_COPY}")
    try:
        angles = parse_numbers(rows[0], np.float64)
        numbers = parse_numbers(b" inf ".join(rows[1:]) + b" inf", np.float64)  # inf marks each row's end
    except ValueError as error:
        raise ScanError(f"{path}: {error}; {_COPY}") from error
    columns = len(numbers) // NUM_BU_LANDMARKS
    if (
        columns not in (4, 5)
        or len(numbers) % NUM_BU_LANDMARKS
        or not np.isposinf(numbers[columns - 1 :: columns]).all()
    ):
        raise ScanError(f"{path}: expected lines `x y z`; {_COPY}")
    if len(angles) != 3 or not np.isfinite(angles).all():
        raise ScanError(f"{path}: expected `pitch yaw roll` on its first line; {_COPY}")
    points = to_float32(numbers.reshape(NUM_BU_LANDMARKS, columns)[:, columns - 4 : columns - 1])
    if not np.isfinite(points).all():
        raise ScanError(f"{path}: a landmark is not finite; {_COPY}")
    points[(points == 0).all(axis=1)] = np.nan
    return TbndFile(angles, points)


def surface_distance_mm(points: np.ndarray, vertices_mm: np.ndarray) -> float:
    """The median distance of the known points (NaN left out) to their nearest vertex; infinite where none is known."""
    known = points[np.isfinite(points).all(axis=1)]
    if not len(known):
        return float("inf")
    step = -(-len(vertices_mm) // _MAX_VERTICES)
    return float(np.median(cKDTree(vertices_mm[::step]).query(known)[0]))


def find_axis_signs(scans: list[tuple[np.ndarray, np.ndarray]]) -> tuple[AxisSigns, float] | None:
    """Which of the eight changes of sign puts the landmarks on the surface: proper and mirroring ones alike.

    Args:
        scans: landmarks (83, 3) in their file's axes, NaN where unknown, and vertices_mm (N, 3), of some scans.
    Returns:
        The signs of x, y and z, and the median over the scans of the landmarks' distance to the surface, mm; None where no
        signs bring it to MAX_SURFACE_DISTANCE_MM.
    """
    if not scans:
        return None
    distances = {
        signs: float(
            np.median(
                [surface_distance_mm(points * np.array(signs, np.float32), vertices) for points, vertices in scans]
            )
        )
        for signs in AXIS_SIGNS
    }
    best = min(AXIS_SIGNS, key=lambda signs: distances[signs])
    mirroring = min((signs for signs in AXIS_SIGNS if np.prod(signs) < 0), key=lambda signs: distances[signs])
    if distances[best] > _CLEARLY_BETTER * distances[mirroring]:
        best = mirroring
    return (best, distances[best]) if distances[best] <= MAX_SURFACE_DISTANCE_MM else None
