"""Rigid transforms: apply one to points; fit one to pairs of points (Kabsch)."""

from __future__ import annotations

import numpy as np

from preprocess.compiled import compile_kernel


def fit_rigid(source: np.ndarray, target: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Fit a rotation and a translation without reflection (weighted Kabsch 1976).

    Args:
        source, target: (n, 3), in one unit. weights: (n,), positive.
    Returns:
        (4, 4) rigid, source → target; the scale that would fit best (Umeyama 1991), which is not applied; the weighted RMS
        distance at that scale.
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


@compile_kernel
def move_points(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Return points (n, 3) transformed by a pose (4, 4), f32."""
    moved = np.empty((len(points), 3), np.float32)
    for k in range(len(points)):
        x, y, z = np.float64(points[k, 0]), np.float64(points[k, 1]), np.float64(points[k, 2])
        for axis in range(3):
            moved[k, axis] = pose[axis, 0] * x + pose[axis, 1] * y + pose[axis, 2] * z + pose[axis, 3]
    return moved
