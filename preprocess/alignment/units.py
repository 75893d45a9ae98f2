"""Check whether a scan can be in mm, and suggest its units if not."""

from __future__ import annotations

import numpy as np

from preprocess.alignment.anthropometry import FITTED_SCALES
from shared.errors import ScanError

UNITS_MM = {"cm": 10.0, "m": 1000.0, "in": 25.4}
SIZE_MM = (80.0, 3000.0)  # the longest side of a scan: from half a face to a whole body
FACE_SIZE_MM = (120.0, 900.0)  # what a suggested unit must bring it to: a face to a bust


def measure_size(vertices_mm: np.ndarray) -> float:
    """Return the longest side of the bounding box, without the 0.1 % farthest vertices (scanner noise)."""
    low, high = np.percentile(vertices_mm.astype(np.float64), [0.1, 99.9], axis=0)
    return float((high - low).max())


def check_size(vertices_mm: np.ndarray) -> None:
    """Refuse a scan whose size is impossible in mm.

    Raises:
        ScanError: its longest side is none of a face, head or body; says which units would make sense.
    """
    size = measure_size(vertices_mm)
    if SIZE_MM[0] <= size <= SIZE_MM[1]:
        return
    raise ScanError(f"its longest side is {size:.4g} mm, no face's; {suggest_units(size)}")


def suggest_units(size: float) -> str:
    fitting = [
        f"{name} ({size * factor:.0f} mm)"
        for name, factor in UNITS_MM.items()
        if FACE_SIZE_MM[0] <= size * factor <= FACE_SIZE_MM[1]
    ]
    if fitting:
        return f"its units may be {' or '.join(fitting)}: say so in the column units, or --columns units=…"
    return "give its scale (mm a unit of the file) in the column scale"


def is_unit(scale: float) -> bool:
    """Return whether a scale is about that of a unit; one fitted to a scan without its true size may be half again as large."""
    return any(is_face_scale(scale / factor) for factor in UNITS_MM.values())


def is_face_scale(scale: float) -> bool:
    """Return whether a scale lies within the sizes that a face is searched at; if it fits, so should the scan as it is."""
    low, high = FITTED_SCALES
    return low < scale < high


def suggest_scale(scale: float, range_: tuple[float, float]) -> str:
    """Return the end of an error message: the units that the file may have, else the scale that would fit.

    Args:
        scale: factor that brings the scan, read as mm, to the size of the average face.
        range_: smallest and largest size of a face, as a fraction of the average face's.
    """
    units = " or ".join(name for name, factor in UNITS_MM.items() if range_[0] <= factor / scale <= range_[1])
    return f"its units may be {units}" if units else f"a scale of about {scale:.3g} would make an average face"
