"""Finds a face in a scan without landmarks: an average face is fitted where something like a nose stands out, then the plane
is found on which the face mirrors itself."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from preprocess.alignment.anthropometry import canonical_depth_mm
from preprocess.alignment.depth_map import DepthMap, Surface
from shared.errors import ScanError

_MAX_NOSES = 12
_START_YAW_DEG = (-20.0, 0.0, 20.0)
_START_PITCH_DEG = (-20.0, 0.0, 20.0)
_FREE_TURN_DEG = 35.0  # a face is expected to look forward within this angle
_WORST_MM = 8.0  # a point of the average face counts as at most this far off, and so does one without surface
# The most that the mean of these distances may be. Upright faces score 1 to 3, strong smiles up to 3.4; of what scores above
# 3.2, faces are mostly fitted badly (turned by 14 to 37 degrees), and upside-down faces and smooth balls begin.
_ACCEPTED_MM = 3.2


def find_face(surface: Surface, frontal: np.ndarray, bounds_mm: np.ndarray) -> np.ndarray:
    """The pose of a face that is upright and looks to +z within some 30 degrees.

    Args:
        frontal: (4, 4) rigid, scan → a frame with y up and z out of the face, roughly.
        bounds_mm: (2, 3) lowest and highest coordinates of the surface in that frame.
    Returns:
        (4, 4) f64 rigid, scan → face frame; the origin near the tip of the nose.
    Raises:
        ScanError: nothing there looks like a face.
    """
    (x_low, y_low, _), (x_high, y_high, _) = bounds_mm.tolist()
    step = max(2.5, max(x_high - x_low, y_high - y_low) / 600)
    depth = surface.cast(frontal, x_mm=(x_low, x_high), y_mm=(y_low, y_high), step_mm=step)
    noses = _find_nose_candidates(depth)
    points, normals, weights = _average_face()
    starts = [
        _rigid(Rotation.from_euler("yx", [yaw, pitch], degrees=True).as_matrix(), nose)
        for nose in noses
        for yaw in _START_YAW_DEG
        for pitch in _START_PITCH_DEG
    ]
    poses = _fit(depth, np.array(starts), points, normals, weights, scales_mm=np.linspace(25, 10, 12))
    best = np.argsort(_score(depth, poses, points, normals), kind="stable")[:12]
    poses = _fit(depth, poses[best], points, normals, weights, scales_mm=np.linspace(10, 5, 10))
    scores = _score(depth, poses, points, normals)
    winner = int(np.argmin(scores))
    if not scores[winner] <= _ACCEPTED_MM:
        raise ScanError(
            f"no face found (the best place is {scores[winner]:.2f} mm off an average face, the limit is {_ACCEPTED_MM} mm); "
            "check up, facing and units, or give landmarks (README: your own scans)"
        )
    pose = np.linalg.inv(poses[winner]) @ frontal
    for _ in range(3):
        depth = surface.cast(pose, x_mm=(-80, 80), y_mm=(-85, 85), step_mm=2.0)
        fitted = _fit(depth, np.eye(4)[None], points, normals, weights, scales_mm=np.linspace(8, 5, 8))
        pose = np.linalg.inv(fitted[0]) @ pose
        depth = surface.cast(pose, x_mm=(-80, 80), y_mm=(-85, 85), step_mm=2.0)
        pose = _symmetric(depth) @ pose
    return pose


def _find_nose_candidates(depth: DepthMap) -> np.ndarray:
    """Where the surface stands out most from its surroundings at the size of a nose: (K, 3), K ≥ 1."""
    known = np.isfinite(depth.z_mm)
    if not known.any():
        raise ScanError("no surface is seen from the front; check up and facing")
    z = np.where(known, depth.z_mm, 0.0)

    def blur(sigma_mm: float) -> np.ndarray:
        sigma = sigma_mm / depth.step_mm
        share = ndimage.gaussian_filter(known.astype(float), sigma, mode="constant")
        blurred = ndimage.gaussian_filter(z, sigma, mode="constant")
        return np.asarray(blurred / np.maximum(share, 1e-9))

    near = blur(4.0)
    standing_out = np.where(known, near - blur(20.0), -np.inf)
    size = max(3, round(24.0 / depth.step_mm))
    peaks = np.flatnonzero((standing_out == ndimage.maximum_filter(standing_out, size)) & known)
    peaks = peaks[np.argsort(-standing_out.ravel()[peaks], kind="stable")][:_MAX_NOSES]
    x, y = depth.grid()
    return np.stack([x.ravel()[peaks], y.ravel()[peaks], near.ravel()[peaks]], axis=1)


def _average_face() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points and normals (n, 3) of the average face, and a weight for each: less below the nose, where jaws move."""
    x, y = (a.ravel() for a in np.meshgrid(np.arange(-54, 55, 6.0), np.arange(-66, 67, 6.0)))
    inside = (x / 56) ** 2 + (y / 70) ** 2 < 1
    x, y = x[inside], y[inside]
    h = 0.5
    slope_x = (canonical_depth_mm(x + h, y) - canonical_depth_mm(x - h, y)) / (2 * h)
    slope_y = (canonical_depth_mm(x, y + h) - canonical_depth_mm(x, y - h)) / (2 * h)
    normals = np.stack([-slope_x, -slope_y, np.ones_like(x)], axis=1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return np.stack([x, y, canonical_depth_mm(x, y)], axis=1), normals, np.where(y < -18, 0.4, 1.0)


def _fit(
    depth: DepthMap,
    poses: np.ndarray,
    points: np.ndarray,
    normals: np.ndarray,
    weights: np.ndarray,
    *,
    scales_mm: np.ndarray,
) -> np.ndarray:
    """Projective point-to-plane ICP (Chen & Medioni 1992) of all poses at once, with Tukey's weights of shrinking scale.

    Args:
        poses: (B, 4, 4), average face → depth map's frame. scales_mm: one a step.
    Returns:
        The moved poses.
    """
    poses = poses.copy()
    for scale in scales_mm:
        moved, turned, residual = _residuals(depth, poses, points, normals)
        u = np.clip(np.abs(np.nan_to_num(residual, nan=np.inf)) / scale, 0, 1)
        w = weights * (1 - u * u) ** 2
        arm = moved - poses[:, None, :3, 3]
        jacobian = np.concatenate([np.cross(arm, turned), turned], axis=2)
        weighted = jacobian * w[..., None]
        normal_matrix = weighted.transpose(0, 2, 1) @ jacobian
        # Damped, as a start far from any surface has nothing to go by: 1 (rad/mm)² against hundreds of points.
        normal_matrix += np.diag([100.0, 100, 100, 0.1, 0.1, 0.1])
        right = weighted.transpose(0, 2, 1) @ np.nan_to_num(residual)[..., None]
        step = np.linalg.solve(normal_matrix, right)[..., 0]
        turn = step[:, :3]
        turn *= np.minimum(1, 0.2 / np.maximum(np.linalg.norm(turn, axis=1, keepdims=True), 1e-12))
        poses[:, :3, :3] = Rotation.from_rotvec(turn).as_matrix() @ poses[:, :3, :3]
        poses[:, :3, 3] += np.clip(step[:, 3:], -15, 15)
    return poses


def _score(depth: DepthMap, poses: np.ndarray, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Mean distance (B,) from the average face, mm; nose and eyes, which a cheek lacks, count more, and so does a far turn."""
    residual = _residuals(depth, poses, points, normals)[2]
    distance = np.minimum(np.abs(np.nan_to_num(residual, nan=np.inf)), _WORST_MM)
    weights = np.where((np.abs(points[:, 0]) < 22) & (points[:, 1] > -18) & (points[:, 1] < 42), 4.0, 1.0)
    turned_deg = np.degrees(Rotation.from_matrix(poses[:, :3, :3]).magnitude())
    return np.asarray(distance @ weights / weights.sum() + 0.1 * np.maximum(0, turned_deg - _FREE_TURN_DEG))


def _residuals(
    depth: DepthMap, poses: np.ndarray, points: np.ndarray, normals: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Moved points and normals (B, n, 3); the distance (B, n) along the normal to the surface straight before each, or NaN."""
    rotations = poses[:, :3, :3].transpose(0, 2, 1)
    moved = points @ rotations + poses[:, None, :3, 3]
    turned = normals @ rotations
    z = depth.sample(moved[..., 0], moved[..., 1])
    return moved, turned, turned[..., 2] * (z - moved[..., 2])


def _symmetric(depth: DepthMap) -> np.ndarray:
    """The small yaw, roll and sideways shift after which the upper face mirrors itself on x = 0.

    If the face is symmetric after a motion A, then A⁻² carries its mirror image onto itself: fit that, take half.
    """
    x, y = depth.grid()
    chosen = (np.abs(x) <= 62) & (y >= -22) & (y <= 66) & np.isfinite(depth.z_mm)
    gradient_y, gradient_x = np.gradient(depth.z_mm, depth.step_mm)
    slopes = [DepthMap(g, depth.x0_mm, depth.y0_mm, depth.step_mm) for g in (gradient_x, gradient_y)]
    mirrored = np.stack([-x[chosen], y[chosen], depth.z_mm[chosen]], axis=1)
    doubled = np.eye(4)
    for scale in np.linspace(8, 3, 12):
        moved = mirrored @ doubled[:3, :3].T + doubled[:3, 3]
        z = depth.sample(moved[:, 0], moved[:, 1])
        normals = np.stack(
            [-slopes[0].sample(*moved[:, :2].T), -slopes[1].sample(*moved[:, :2].T), np.ones_like(z)], axis=1
        )
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        residual = normals[:, 2] * (z - moved[:, 2])
        ok = np.isfinite(residual)
        if ok.sum() < 100:
            return np.eye(4)
        u = np.clip(np.abs(residual[ok]) / scale, 0, 1)
        w = (1 - u * u) ** 2
        # The turn about y, the turn about z, the shift along x: all that a reflection in x = 0 can show.
        jacobian = np.concatenate([np.cross(moved[ok], normals[ok])[:, 1:], normals[ok][:, :1]], axis=1)
        matrix = (jacobian * w[:, None]).T @ jacobian + np.diag([1.0, 1.0, 1e-3])
        turn_y, turn_z, shift = np.linalg.solve(matrix, (jacobian * w[:, None]).T @ residual[ok])
        step = _rigid(Rotation.from_rotvec([0, turn_y, turn_z]).as_matrix(), np.array([shift, 0, 0]))
        doubled = step @ doubled
    turn = Rotation.from_matrix(doubled[:3, :3]).as_rotvec()
    half = _rigid(
        Rotation.from_rotvec([0, -turn[1] / 2, -turn[2] / 2]).as_matrix(), np.array([-doubled[0, 3] / 2, 0, 0])
    )
    return half


def _rigid(rotation: np.ndarray, shift: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, shift
    return pose
