"""The axes of BP4D-Spontaneous' landmarks. They are found by trying, because the guide and the files disagree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

MAX_SURFACE_DISTANCE_MM = 5.0  # of a landmark to the nearest vertex, as a median: more is no landmark of this scan
_MAX_VERTICES = 10_000  # of a scan, evenly chosen: enough to distinguish 1 mm from 10 mm, in a few ms
# Two mirror images fit equally well if a face is symmetric: then the documented left-handed system decides.
_CLEARLY_BETTER = 0.8

AxisSigns = tuple[int, int, int]
AXIS_SIGNS: tuple[AxisSigns, ...] = tuple((x, y, z) for x in (1, -1) for y in (1, -1) for z in (1, -1))


def surface_distance_mm(points: np.ndarray, vertices_mm: np.ndarray) -> float:
    """Return the median distance of the known points (NaN left out) to their nearest vertex; infinite without any."""
    known = points[np.isfinite(points).all(axis=1)]
    if not len(known):
        return float("inf")
    step = -(-len(vertices_mm) // _MAX_VERTICES)
    return float(np.median(cKDTree(vertices_mm[::step]).query(known)[0]))


def find_axis_signs(scans: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[AxisSigns, float] | None:
    """Find which of the eight changes of sign, mirroring or not, puts the landmarks on the surface.

    Args:
        scans: landmarks (83, 3) in their file's axes, NaN if unknown, and vertices_mm (N, 3), of some scans.
    Returns:
        The signs of x, y and z, and the median over the scans of the landmarks' distance to the surface, mm; None if no
        signs bring it to MAX_SURFACE_DISTANCE_MM.
    """
    if not scans:
        return None

    def distance(signs: AxisSigns) -> float:
        turn = np.array(signs, np.float32)
        return float(np.median([surface_distance_mm(points * turn, vertices) for points, vertices in scans]))

    distances = {signs: distance(signs) for signs in AXIS_SIGNS}
    best = min(AXIS_SIGNS, key=distances.__getitem__)
    mirroring = min((signs for signs in AXIS_SIGNS if np.prod(signs) < 0), key=distances.__getitem__)
    if distances[best] > _CLEARLY_BETTER * distances[mirroring]:
        best = mirroring
    return (best, distances[best]) if distances[best] <= MAX_SURFACE_DISTANCE_MM else None
