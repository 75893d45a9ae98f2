"""A first pose from landmarks, which the surface then refines and confirms."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.spatial import cKDTree

from preprocess.alignment.anthropometry import CANONICAL_POINTS_MM, POINT_WEIGHTS
from preprocess.alignment.units import suggest_scale
from preprocess.geometry.mesh import Mesh
from preprocess.geometry.rigid import fit_rigid
from shared.errors import ScanError

FACE_SCALE = (0.6, 1.6)  # of a face to the average adult's: from a small child's
_MAX_LANDMARK_DISTANCE_MM = 20.0  # from the surface
_MAX_MISFIT_MM = 18.0  # of the landmarks' centres to an average face's: a nose's bridge taken for its middle is 16 off
_ALIKE_MM = 4.0  # between poses whose misfits differ by less, the fit to the surface decides
_MIRRORED_NAMES = {"left_eye": "right_eye", "right_eye": "left_eye"}
_EYES = ("left_eye", "right_eye")


def group_centers(mesh: Mesh, landmark_groups: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return the centre of each landmark group that alignment uses. The order within a group differs between sources."""
    centers: dict[str, np.ndarray] = {}
    if mesh.landmarks_mm is None:
        return centers
    for name in CANONICAL_POINTS_MM:
        indices = [i for i in landmark_groups.get(name, ()) if i < len(mesh.landmarks_mm)]
        points = mesh.landmarks_mm[indices].astype(np.float64)
        points = points[np.isfinite(points).all(axis=1)]
        if len(points) and 2 * len(points) >= len(landmark_groups[name]):  # half a group has its centre elsewhere
            centers[name] = points.mean(axis=0)
    return centers


def determine_pose(centers: Mapping[str, np.ndarray]) -> bool:
    """Return whether the points determine a pose: three of them, at least one an eye (nose and mouth lie on one line)."""
    return len(centers) >= 3 and any(name in centers for name in _EYES)


def landmark_poses(mesh: Mesh, centers: Mapping[str, np.ndarray]) -> tuple[list[np.ndarray], float]:
    """Fit the centres to an average face, once as named and once with the eyes exchanged; the better fit comes first.

    "Left" may mean the subject's or the image's. No reflection is ever allowed: the wrong one turns the nose into the head,
    which fits worse. Without a nose, as among three points, the fit to the surface decides between both.

    Returns:
        (4, 4) f64 rigid each, scan → face frame; and the median distance of the landmarks from the nearest vertex, mm.
    Raises:
        ScanError: the points are no face's, not of a face's size, or not on the surface.
    """
    names = list(centers)
    observed = np.stack([centers[name] for name in names])
    weights = np.array([POINT_WEIGHTS.get(name, 1.0) for name in names])
    fits = []
    for rename in ({}, _MIRRORED_NAMES):
        canonical = np.array([CANONICAL_POINTS_MM[rename.get(name, name)] for name in names])
        fits.append(fit_rigid(observed, canonical, weights))
    fits.sort(key=lambda fit: fit[2])
    _, scale, error = fits[0]
    if error > _MAX_MISFIT_MM:
        raise ScanError(f"the landmarks are {error:.0f} mm off those of a face; check the landmark file or remove it")
    if not FACE_SCALE[0] <= 1 / max(scale, 1e-12) <= FACE_SCALE[1]:
        size = float(max(np.linalg.norm(a - b) for a in observed for b in observed))
        raise ScanError(
            f"the landmarks {' and '.join(names)} span {size:.4g} mm, no face's; {suggest_scale(scale, FACE_SCALE)}"
        )
    known = mesh.landmarks_mm[np.isfinite(mesh.landmarks_mm).all(axis=1)] if mesh.landmarks_mm is not None else observed
    distance = float(np.median(cKDTree(mesh.vertices_mm).query(known)[0]))
    if distance > _MAX_LANDMARK_DISTANCE_MM:
        raise ScanError(
            f"the landmarks lie {distance:.0f} mm off the surface; are they another scan's? remove or replace them"
        )
    return [pose for pose, _, misfit in fits if misfit <= error + _ALIKE_MM], distance
