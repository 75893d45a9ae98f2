"""Align a scan to the face frame: +x the subject's left, +y up, +z out of the face, mm, origin at the tip of the nose.

Rigid only: nothing is scaled, stretched or mirrored. A first pose comes from landmarks if there are any, else from a search.
Both are refined on the surface in the same way, so that a pose does not depend on its first guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from preprocess.alignment.anthropometry import CANONICAL_POINTS_MM, EYE_DISTANCE_MM, PERSON_EYE_DISTANCE_MM
from preprocess.alignment.crop import crop_mesh
from preprocess.alignment.depth_map import Surface
from preprocess.alignment.face_fit import FoundFace, refine_pose
from preprocess.alignment.face_search import ACCEPTED_MM, axes_to_frame, find_axes, find_face, find_scale
from preprocess.alignment.landmark_pose import determine_pose, group_centers, landmark_poses
from preprocess.alignment.nose import find_nose_tip, remove_spikes
from preprocess.alignment.texture_check import describe_texture
from preprocess.alignment.units import check_size, is_face_scale, is_unit, measure_size
from preprocess.geometry.mesh import Mesh
from preprocess.geometry.rigid import move_points
from shared.errors import ScanError

# With landmarks, a surface may fit worse by this much: a hand may cover the mouth, or there is a hole. With many that lie on
# it, by more: strong expressions of faces far from the average fit 3.9 mm, poses with left and right exchanged 5.6.
_FEW_TOLERANCE_MM, _MANY_TOLERANCE_MM = 0.7, 1.6
# A data set's landmarks are points of the surface, those of another face up to 6 mm off it. Centres (`folder`) lie beside it.
_ON_SURFACE_MM = 4.0
_MIN_SHOWN = 0.35  # fraction of the face that must have a surface to confirm landmarks
_MAX_TURN_DEG, _MAX_SHIFT_MM = 30.0, 30.0  # between the poses from landmarks and from the surface
_NOSE_WINDOW_MM = {"x_mm": (-12.0, 12.0), "y_mm": (-16.0, 20.0)}


@dataclass(frozen=True)
class FoundPose:
    """scan_to_face f64 (4, 4), rigid. method: where the first guess of the pose came from, one of schema.ALIGNMENTS.

    misfit_mm: mean distance of an average face, fitted in size and proportions, from the surface. eye_distance_mm: between
    the middles of the eyes, from landmarks, else estimated from the shape to about a tenth. has_landmarks: the mesh's landmarks
    belong to this face. notes: what was not used and why, one line each.
    """

    scan_to_face: np.ndarray
    method: str
    misfit_mm: float
    eye_distance_mm: float
    has_landmarks: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Alignment:
    """A mesh in the face frame, cropped; scan_to_face f32 (4, 4), rigid; the rest as in FoundPose."""

    mesh: Mesh
    scan_to_face: np.ndarray
    method: str
    misfit_mm: float
    eye_distance_mm: float
    notes: tuple[str, ...] = ()


def align(
    mesh: Mesh,
    *,
    landmark_groups: Mapping[str, tuple[int, ...]],
    up: str = "y",
    facing: str = "z",
    crop_radius_mm: float = 100.0,
) -> Alignment:
    """Bring a scan into the face frame and crop it to the face.

    Args:
        landmark_groups: names of CANONICAL_POINTS_MM → indices of the mesh's landmarks; others are not used.
        up, facing: scan axes that point roughly up and out of the face; used only without landmarks.
    Returns:
        The mesh with texture, colours and landmarks, its triangles within crop_radius_mm of the tip of the nose.
    Raises:
        ScanError: not of a face's size, landmarks that are no face's or not on the surface, no face found.
    """
    return apply_pose(mesh, find_pose(mesh, landmark_groups=landmark_groups, up=up, facing=facing), crop_radius_mm)


def apply_pose(mesh: Mesh, found: FoundPose, crop_radius_mm: float) -> Alignment:
    """Apply a known pose to a scan and crop it to the face.

    Raises:
        ScanError: nothing lies within crop_radius_mm of the tip of the nose.
    """
    if not found.has_landmarks:
        mesh = replace(mesh, landmarks_mm=None)
    mesh = crop_mesh(move_mesh(mesh, found.scan_to_face), crop_radius_mm)
    return Alignment(
        mesh,
        found.scan_to_face.astype(np.float32),
        found.method,
        found.misfit_mm,
        found.eye_distance_mm,
        (*found.notes, *describe_texture(mesh)),
    )


def find_pose(
    mesh: Mesh,
    *,
    landmark_groups: Mapping[str, tuple[int, ...]],
    up: str = "y",
    facing: str = "z",
    explain: bool = True,
) -> FoundPose:
    """Find the pose of a face in a scan.

    Args:
        explain: if no face is found, search the axes or the scale with which there is one; takes some seconds.
    Raises:
        ScanError: as `align`.
    """
    try:
        check_size(mesh.vertices_mm)
    except ScanError as error:
        scale = find_scale(mesh.vertices_mm, mesh.triangles, axes_to_frame(up, facing)) if explain else None
        if scale is None or is_unit(scale):
            raise
        size = measure_size(mesh.vertices_mm)
        raise ScanError(f"its longest side is {size:.4g} mm, no face's{_name_scale(scale)}") from error
    surface = Surface(remove_spikes(mesh.vertices_mm, mesh.triangles), mesh.triangles)
    centers = group_centers(mesh, landmark_groups)
    notes: list[str] = []
    face: FoundFace | None = None
    method = "landmarks"
    if determine_pose(centers):
        poses, off_mm = landmark_poses(mesh, centers)
        has_many = mesh.landmarks_mm is not None and len(mesh.landmarks_mm) > len(CANONICAL_POINTS_MM)
        is_sure = has_many and off_mm <= _ON_SURFACE_MM
        face = _confirm(surface, poses, ACCEPTED_MM + (_MANY_TOLERANCE_MM if is_sure else _FEW_TOLERANCE_MM))
        if face is None:
            notes.append(
                "landmarks not used: the surface shows no face where they are; check their axes and their order"
            )
        elif has_many and not is_sure:
            notes.append(f"the landmarks lie {off_mm:.1f} mm off the surface; perhaps they are another scan's")
    elif mesh.landmarks_mm is not None and landmark_groups:
        notes.append(
            f"landmarks not used: {', '.join(centers) or 'none of them'} alone give no pose; needed are an eye and two of "
            f"{', '.join(CANONICAL_POINTS_MM)}"
        )
    has_landmarks = face is not None or not determine_pose(centers)
    if face is None:
        method, face = "geometry", _search(surface, mesh, up, facing, explain)
    eyes = [centers[name] for name in ("left_eye", "right_eye") if name in centers and has_landmarks]
    distance = float(np.linalg.norm(eyes[0] - eyes[1])) if len(eyes) == 2 else EYE_DISTANCE_MM * face.scale
    if not PERSON_EYE_DISTANCE_MM[0] <= distance <= PERSON_EYE_DISTANCE_MM[1]:
        low, high = PERSON_EYE_DISTANCE_MM
        notes.append(f"the eyes are {distance:.0f} mm apart, people's {low:.0f} to {high:.0f}; check units and scale")
    pose = face.pose.copy()
    pose[:3, 3] -= find_nose_tip(surface, pose, **_NOSE_WINDOW_MM)
    return FoundPose(pose, method, face.misfit_mm, distance, has_landmarks, tuple(notes))


def _confirm(surface: Surface, poses: list[np.ndarray], accepted_mm: float) -> FoundFace | None:
    """Refine each pose on the surface; return the best one that the surface confirms by at most this misfit, or None."""
    best: FoundFace | None = None
    for pose in poses:
        found = refine_pose(surface, pose, where_shown=True)
        moved = found.pose @ np.linalg.inv(pose)
        turn_deg = np.degrees(Rotation.from_matrix(moved[:3, :3]).magnitude())
        if turn_deg > _MAX_TURN_DEG or np.linalg.norm(moved[:3, 3]) > _MAX_SHIFT_MM or found.shown < _MIN_SHOWN:
            continue
        if found.misfit_mm <= accepted_mm and (best is None or found.misfit_mm < best.misfit_mm):
            best = found
    return best


def _search(surface: Surface, mesh: Mesh, up: str, facing: str, explain: bool) -> FoundFace:
    """Search the face without landmarks; an error names the axes or the scale with which a face is found."""
    axes_to_frame(up, facing)
    try:
        return find_face(surface, up, facing)
    except ScanError as error:
        if not explain:
            raise
        if (axes := find_axes(surface)) is not None:
            advice = f"; up={axes[0]} facing={axes[1]} fits: say so in the columns up and facing"
        else:
            scale = find_scale(mesh.vertices_mm, mesh.triangles, axes_to_frame(up, facing))
            advice = "" if scale is not None and is_face_scale(scale) else _name_scale(scale)  # what fits as it is
        general = "; check up, facing and units, or give landmarks (preprocess/README.md, own scans)"
        raise ScanError(f"{error}{advice or general}") from error


def _name_scale(scale: float | None) -> str:
    """Return the end of an error message that names a scale, "" if none is known."""
    if scale is None:
        return ""
    return f"; a scale of about {scale:.3g} fits: say so in the column scale (times that of units, if given)"


def move_mesh(mesh: Mesh, pose: np.ndarray) -> Mesh:
    """Return the mesh with vertices and landmarks transformed by a rigid (4, 4)."""
    return mesh.move(lambda points: move_points(points, pose))
