"""Stabilise a head in a sequence: register each frame on the parts of the face that expressions do not move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from preprocess.alignment.nearest import find_nearest, sort_into_cells
from preprocess.geometry.mesh import Mesh
from preprocess.geometry.normals import vertex_normals
from shared.errors import ScanError

# Upper forehead, above what the brows reach, and the bridge of the nose, in the face frame: |x|, lowest y, highest y in mm.
RIGID_REGIONS_MM = ((46.0, 60.0, 92.0), (13.0, 8.0, 42.0))
MAX_POINTS = 1500
MAX_ITERATIONS = 40
CONVERGED = 1e-5  # of a step, rad and mm: the next one would be a tenth of it or less
MARGIN_MM = 25.0  # about the reference's points: vertices further off are not looked at
MIN_MATCHED = 0.5  # of the reference's points
MAX_RMS_MM = 1.5
MAX_TURN_RAD, MAX_SHIFT_MM = np.deg2rad(30.0), 60.0  # from the start: farther is no longer the same fit
LEVER_MM, DAMPING = 60.0, 1e-4
MAX_STEP_RAD, MAX_STEP_MM = np.deg2rad(4.0), 8.0
SMOOTHING = {  # Savitzky & Golay 1964, quadratic: half width in frames → weights; exact for motion of constant acceleration
    0: np.array([1.0]),
    1: np.array([0.0, 1.0, 0.0]),
    2: np.array([-3.0, 12.0, 17.0, 12.0, -3.0]) / 35.0,
}
HALF_WIDTH = max(SMOOTHING)


@dataclass(frozen=True)
class Registration:
    """pose: scan → face, f64 (4, 4). rms_mm: distance of the patch's points from the scan along its normals, outliers left out.
    turn_rad: how far the pose is turned against the start."""

    pose: np.ndarray
    rms_mm: float
    turn_rad: float


@dataclass(frozen=True)
class RigidPatch:
    """Points of the reference frame that stay in place on the skull: f64 (K, 3) and unit normals (K, 3), face frame."""

    points_mm: np.ndarray
    normals: np.ndarray


def find_rigid_patch(mesh: Mesh) -> RigidPatch:
    """Return forehead and nose bridge of a mesh in the face frame, at most MAX_POINTS vertices.

    Raises:
        ScanError: the reference shows too little of them.
    """
    points, normals = mesh.vertices_mm.astype(np.float64), vertex_normals(mesh).astype(np.float64)
    chosen = np.zeros(len(points), bool)
    for half_width, low, high in RIGID_REGIONS_MM:
        chosen |= (
            (np.abs(points[:, 0]) < half_width) & (points[:, 1] > low) & (points[:, 1] < high) & (points[:, 2] > -60)
        )
    index = np.flatnonzero(chosen & (normals**2).sum(1).astype(bool))
    if len(index) < 30:
        raise ScanError("the first frame of the sequence shows too little forehead and nose to hold the head still by")
    index = index[:: -(-len(index) // MAX_POINTS)]
    return RigidPatch(points[index], normals[index])


def register(patch: RigidPatch, mesh: Mesh, start: np.ndarray) -> Registration:
    """Register a scan on the reference patch by trimmed point-to-plane ICP.

    Chen & Medioni 1992 (point-to-plane), Chetverikov et al. 2005 (trimming). Equal input gives equal bits.

    Args:
        mesh: a frame in scan coordinates. start: scan → face, f64 (4, 4), within about 15 mm and 15 degrees.
    Raises:
        ScanError: too little of the patch is found in the frame.
    """
    low, high = patch.points_mm.min(axis=0) - MARGIN_MM, patch.points_mm.max(axis=0) + MARGIN_MM
    near, placed, starts = sort_into_cells(mesh.vertices_mm, start, low, high)
    surface_normals = vertex_normals(mesh)
    nearest = np.full(len(patch.points_mm), -1)
    pose = start.copy()
    reach_mm = 20.0
    rms = np.inf
    for _ in range(MAX_ITERATIONS):
        wanted = (patch.points_mm - pose[:3, 3]) @ pose[:3, :3]  # the patch in scan coordinates
        find_nearest(wanted @ start[:3, :3].T + start[:3, 3], reach_mm, placed, starts, low, high, nearest)
        found = nearest >= 0
        if found.mean() < MIN_MATCHED:
            raise ScanError("forehead and nose of the sequence's first frame are not found in this frame")
        vertex = near[nearest[found]]
        moved = mesh.vertices_mm[vertex].astype(np.float64) @ pose[:3, :3].T + pose[:3, 3]
        # The plane lies halfway between the two surfaces' normals; opposite windings are turned round.
        normals = surface_normals[vertex].astype(np.float64) @ pose[:3, :3].T
        flipped = np.einsum("kc,kc->k", normals, patch.normals[found]) < 0
        normals[flipped] *= -1
        normals = normals + patch.normals[found]
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        offset = np.einsum("kc,kc->k", normals, patch.points_mm[found] - moved)
        limit = 3 * 1.4826 * np.median(np.abs(offset)) + 1e-6
        kept = np.abs(offset) <= limit
        step, rms = _solve(moved[kept], normals[kept], offset[kept])
        pose = step @ pose
        reach_mm = max(4.0, 0.8 * reach_mm)
        if np.abs(step - np.eye(4)).max() < CONVERGED:
            break
    turned = pose[:3, :3] @ start[:3, :3].T
    angle = np.arccos(np.clip((np.trace(turned) - 1) / 2, -1, 1))
    centre = (patch.points_mm.mean(0) - start[:3, 3]) @ start[:3, :3]  # the patch in scan coordinates, at the start
    shift = np.linalg.norm(pose[:3, :3] @ centre + pose[:3, 3] - patch.points_mm.mean(0))
    if angle > MAX_TURN_RAD or shift > MAX_SHIFT_MM:
        raise ScanError("forehead and nose of the sequence's first frame slide over this frame without a hold")
    if rms > MAX_RMS_MM:
        raise ScanError(f"forehead and nose fit the sequence's first frame only to {rms:.1f} mm")
    return Registration(pose, rms, float(angle))


def _solve(points: np.ndarray, normals: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the small rigid motion that moves points along normals by offset, and the RMS before it."""
    # Rotations in units of LEVER_MM, so that both halves of the problem weigh alike; a little damping (Levenberg 1944) keeps
    # a face from sliding along itself where its shape does not say how far.
    cross = points[:, [1, 2, 0]] * normals[:, [2, 0, 1]] - points[:, [2, 0, 1]] * normals[:, [1, 2, 0]]
    jacobian = np.concatenate([cross / LEVER_MM, normals], axis=1)
    normal_matrix = jacobian.T @ jacobian + DAMPING * len(offset) * np.eye(6)
    solution = np.linalg.solve(normal_matrix, jacobian.T @ offset)
    solution[:3] /= LEVER_MM
    longest = max(np.linalg.norm(solution[:3]) / MAX_STEP_RAD, np.linalg.norm(solution[3:]) / MAX_STEP_MM, 1.0)
    solution /= longest
    step = np.eye(4)
    step[:3, :3] = Rotation.from_rotvec(solution[:3]).as_matrix()
    step[:3, 3] = solution[3:]
    return step, float(np.sqrt((offset**2).mean()))


def smooth_pose(poses: Sequence[np.ndarray]) -> np.ndarray:
    """Return the middle one of 1, 3 or 5 consecutive poses (4, 4), with an exact rotation.

    Five poses are smoothed over time. Of one or three, the middle pose itself is taken (see SMOOTHING).
    """
    weights = SMOOTHING[len(poses) // 2]
    mean = np.tensordot(weights, np.stack(poses), axes=1)
    u, _, vt = np.linalg.svd(mean[:3, :3])
    mean[:3, :3] = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    return np.asarray(mean)
