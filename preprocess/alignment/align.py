"""Brings a scan into the face frame: +x the subject's left, +y up, +z out of the face, mm, origin at the tip of the nose.

Rigid only: nothing is scaled, stretched or mirrored. From landmarks where there are some, else from geometry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from preprocess.alignment.anthropometry import CANONICAL_POINTS_MM, POINT_WEIGHTS
from preprocess.alignment.crop import crop_mesh
from preprocess.alignment.depth_map import Surface
from preprocess.alignment.face_search import find_face
from preprocess.alignment.nose import find_nose_tip, remove_spikes
from preprocess.mesh import Mesh
from shared.errors import ScanError

AXES = {
    "x": (1, 0, 0), "-x": (-1, 0, 0), "y": (0, 1, 0), "-y": (0, -1, 0), "z": (0, 0, 1), "-z": (0, 0, -1),
}  # fmt: skip
_UNITS_MM = {"cm": 10.0, "m": 1000.0, "in": 25.4}
_SIZE_MM = (80.0, 3000.0)  # the longest side of a scan: from half a face to a whole body
_FACE_SIZE_MM = (120.0, 900.0)  # what a suggested unit must bring it to: a face to a bust
_FACE_SCALE = (0.6, 1.6)  # of a face to the average adult's: from a small child's
_MAX_LANDMARK_DISTANCE_MM = 20.0  # from the surface
_MAX_MISFIT_MM = 15.0  # of the landmarks' centres to an average face's
_NOSE_REACH_MM = 70.0  # about the middle of eyes, nose and mouth: holds the nose with some surroundings
_CLEARLY_BETTER = 0.999
_MIRRORED_NAMES = {"left_eye": "right_eye", "right_eye": "left_eye"}


@dataclass(frozen=True)
class Alignment:
    """A mesh in the face frame, cropped; scan_to_face f32 (4, 4), rigid; how: "landmarks" or "geometry".

    notes: what of the scan was not used to find the pose, one line each.
    """

    mesh: Mesh
    scan_to_face: np.ndarray
    how: str
    notes: tuple[str, ...] = ()


def align(
    mesh: Mesh,
    *,
    landmark_groups: Mapping[str, tuple[int, ...]],
    up: str = "y",
    facing: str = "z",
    crop_radius_mm: float = 100.0,
) -> Alignment:
    """Brings a scan into the face frame and cuts off what lies beyond the face.

    Args:
        landmark_groups: names of CANONICAL_POINTS_MM → indices of the mesh's landmarks; others are not used.
        up, facing: scan axes that point up and out of the face, roughly; only used without landmarks.
    Returns:
        The mesh with texture, colours and landmarks, its triangles within crop_radius_mm of the tip of the nose.
    Raises:
        ScanError: not of a face's size, landmarks that are no face's or not on the surface, no face found.
    """
    scan_to_face, how = find_scan_to_face(mesh, landmark_groups=landmark_groups, up=up, facing=facing)
    return place_mesh(mesh, scan_to_face, how, crop_radius_mm)


def place_mesh(mesh: Mesh, scan_to_face: np.ndarray, how: str, crop_radius_mm: float) -> Alignment:
    """Moves a scan by a pose that is known, f64 (4, 4), and cuts off what lies beyond the face.

    Raises:
        ScanError: nothing lies within crop_radius_mm of the tip of the nose.
    """
    return Alignment(crop_mesh(move_mesh(mesh, scan_to_face), crop_radius_mm), scan_to_face.astype(np.float32), how)


def find_scan_to_face(
    mesh: Mesh, *, landmark_groups: Mapping[str, tuple[int, ...]], up: str = "y", facing: str = "z"
) -> tuple[np.ndarray, str]:
    """The rigid motion of `align`, f64 (4, 4), and how it was found.

    Raises:
        ScanError: as `align`.
    """
    check_size(mesh.vertices_mm)
    centers = _group_centers(mesh, landmark_groups)
    if len(centers) >= 3 and {"left_eye", "right_eye"} <= centers.keys():
        pose, how = _pose_from_landmarks(mesh, centers), "landmarks"
        placed = {name: pose[:3, :3] @ center + pose[:3, 3] for name, center in centers.items()}
        eyes = (placed["left_eye"] + placed["right_eye"]) / 2
        mouth_y = placed["mouth"][1] if "mouth" in placed else eyes[1] - 67.0
        reach = eyes[1] - mouth_y
        middle = np.mean(list(centers.values()), axis=0)
        near = ((mesh.vertices_mm - middle) ** 2).sum(axis=1) < _NOSE_REACH_MM**2
        triangles = mesh.triangles[near[mesh.triangles[:, 0]]]
        if not len(triangles):
            raise ScanError("no surface where the nose should be; is it a face, and is it whole?")
        surface = Surface(remove_spikes(mesh.vertices_mm, triangles), triangles)
        y_mm = (mouth_y + 0.25 * reach, eyes[1] - 0.2 * reach)
        tip = find_nose_tip(surface, pose, x_mm=(eyes[0] - 15, eyes[0] + 15), y_mm=y_mm)
    else:
        frontal, how = _axes_to_frame(up, facing), "geometry"
        surface = Surface(remove_spikes(mesh.vertices_mm, mesh.triangles), mesh.triangles)
        pose = find_face(surface, frontal, _bounds(mesh.vertices_mm @ frontal[:3, :3].T))
        tip = find_nose_tip(surface, pose, x_mm=(-12, 12), y_mm=(-16, 20))
    pose[:3, 3] -= tip
    return pose, how


def move_mesh(mesh: Mesh, pose: np.ndarray) -> Mesh:
    """The mesh with its vertices and landmarks moved by a rigid (4, 4)."""

    def move(points: np.ndarray) -> np.ndarray:
        return (points.astype(np.float64) @ pose[:3, :3].T + pose[:3, 3]).astype(np.float32)

    landmarks = None if mesh.landmarks_mm is None else move(mesh.landmarks_mm)
    return replace(mesh, vertices_mm=move(mesh.vertices_mm), landmarks_mm=landmarks)


def check_size(vertices_mm: np.ndarray) -> None:
    """Refuses a scan that cannot be in mm.

    Raises:
        ScanError: its longest side is none of a face, head or body; says which units would make sense.
    """
    low, high = _bounds(vertices_mm)
    size = float((high - low).max())
    if _SIZE_MM[0] <= size <= _SIZE_MM[1]:
        return
    raise ScanError(f"its longest side is {size:.4g} mm, no face's; {_suggest_units(size)}")


def _bounds(vertices_mm: np.ndarray) -> np.ndarray:
    """(2, 3): lowest and highest coordinates of nearly all vertices; a few far off are a scanner's noise."""
    return np.percentile(vertices_mm.astype(np.float64), [0.1, 99.9], axis=0)


def _suggest_units(size: float) -> str:
    fitting = [
        f"{name} ({size * factor:.0f} mm)"
        for name, factor in _UNITS_MM.items()
        if _FACE_SIZE_MM[0] <= size * factor <= _FACE_SIZE_MM[1]
    ]
    if fitting:
        return f"its units may be {' or '.join(fitting)}: say so in the column units"
    return "give its scale (mm a unit of the file) in the column scale"


def _axes_to_frame(up: str, facing: str) -> np.ndarray:
    """(4, 4) that turns `up` to +y and `facing` to +z."""
    if up not in AXES or facing not in AXES or up[-1] == facing[-1]:
        raise ScanError(
            f"up {up!r} and facing {facing!r} must be two of {', '.join(AXES)}, perpendicular to each other"
        )
    y, z = np.array(AXES[up], float), np.array(AXES[facing], float)
    pose = np.eye(4)
    pose[:3, :3] = [np.cross(y, z), y, z]
    return pose


def _group_centers(mesh: Mesh, landmark_groups: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The centre of each group that alignment knows. Only centres: the order within a group differs between sources."""
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


def _pose_from_landmarks(mesh: Mesh, centers: dict[str, np.ndarray]) -> np.ndarray:
    """Fits the centres to an average face: once as they are named, once with the eyes exchanged.

    "Left" may mean the subject's or the image's. The wrong one turns the nose into the head, which fits worse, and no
    reflection is ever allowed.
    """
    names = list(centers)
    observed = np.stack([centers[name] for name in names])
    weights = np.array([POINT_WEIGHTS[name] for name in names])
    fits = []
    for rename in ({}, _MIRRORED_NAMES):
        canonical = np.array([CANONICAL_POINTS_MM[rename.get(name, name)] for name in names])
        fits.append(fit_rigid(observed, canonical, weights))
    # Three centres lie in a plane, and fit as well with the eyes exchanged, from behind: then the names count.
    pose, scale, error = fits[1] if fits[1][2] < _CLEARLY_BETTER * fits[0][2] else fits[0]
    if error > _MAX_MISFIT_MM:
        raise ScanError(f"the landmarks are {error:.0f} mm off those of a face; check the landmark file or remove it")
    if not _FACE_SCALE[0] <= 1 / max(scale, 1e-12) <= _FACE_SCALE[1]:
        size = float(np.linalg.norm(centers["left_eye"] - centers["right_eye"]))
        hint = " or ".join(n for n, f in _UNITS_MM.items() if _FACE_SCALE[0] <= f / scale <= _FACE_SCALE[1])
        hint = f"its units may be {hint}" if hint else f"a scale of about {scale:.3g} would make an average face"
        raise ScanError(f"the eyes are {size:.4g} mm apart, no face's; {hint}")
    known = mesh.landmarks_mm[np.isfinite(mesh.landmarks_mm).all(axis=1)] if mesh.landmarks_mm is not None else observed
    distance = float(np.median(cKDTree(mesh.vertices_mm).query(known)[0]))
    if distance > _MAX_LANDMARK_DISTANCE_MM:
        raise ScanError(
            f"the landmarks lie {distance:.0f} mm off the surface; are they another scan's? remove or replace them"
        )
    return pose


def fit_rigid(source: np.ndarray, target: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Weighted Kabsch (1976) without reflection; the scale is estimated after Umeyama (1991) but not applied.

    Args:
        source, target: (n, 3). weights: (n,).
    Returns:
        (4, 4) rigid, source → target; the scale that would fit best; the weighted RMS distance at that scale.
    """
    w = weights / weights.sum()
    source_center, target_center = w @ source, w @ target
    a, b = source - source_center, target - target_center
    u, d, vt = np.linalg.svd((b * w[:, None]).T @ a)
    sign = np.array([1, 1, np.sign(np.linalg.det(u @ vt)) or 1.0])
    rotation = (u * sign) @ vt
    scale = float((d * sign).sum() / max(w @ (a * a).sum(axis=1), 1e-30))
    error = float(np.sqrt(w @ ((scale * a @ rotation.T - b) ** 2).sum(axis=1)))
    pose = np.eye(4)
    pose[:3, :3] = rotation
    pose[:3, 3] = target_center - rotation @ source_center
    return pose, scale, error
