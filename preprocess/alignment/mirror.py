"""The symmetry plane of the upper face: its direction of view and its midline."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from preprocess.alignment.depth_map import DepthMap

_STRIDE = 2  # of the rows and columns that are used


def find_mirror_plane(depth: DepthMap) -> np.ndarray:
    """Return the small yaw, roll and x shift (4, 4) after which the upper face is symmetric about x = 0.

    If the face is symmetric after a motion A, then A⁻² carries its mirror image onto itself: fit that, take half.
    """
    x, y = (axis[::_STRIDE, ::_STRIDE] for axis in depth.grid())
    z = depth.z_mm[::_STRIDE, ::_STRIDE]
    chosen = (np.abs(x) <= 62) & (y >= -22) & (y <= 66) & np.isfinite(z)
    gradient_y, gradient_x = np.gradient(depth.z_mm, depth.step_mm)
    slopes = [DepthMap(g, depth.x0_mm, depth.y0_mm, depth.step_mm) for g in (gradient_x, gradient_y)]
    mirrored = np.stack([-x[chosen], y[chosen], z[chosen]], axis=1)
    doubled = np.eye(4)
    for scale in np.linspace(8, 3, 12):
        moved = mirrored @ doubled[:3, :3].T + doubled[:3, 3]
        seen = depth.sample(moved[:, 0], moved[:, 1])
        normals = np.stack([*(-slope.sample(moved[:, 0], moved[:, 1]) for slope in slopes), np.ones_like(seen)], axis=1)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        residual = normals[:, 2] * (seen - moved[:, 2])
        ok = np.isfinite(residual)
        if ok.sum() < 100 // _STRIDE**2:
            return np.eye(4)
        u = np.clip(np.abs(residual[ok]) / scale, 0, 1)
        w = (1 - u * u) ** 2
        # The turn about y, the turn about z, the shift along x: all that a reflection in x = 0 can show.
        jacobian = np.concatenate([np.cross(moved[ok], normals[ok])[:, 1:], normals[ok][:, :1]], axis=1)
        matrix = (jacobian * w[:, None]).T @ jacobian + np.diag([1.0, 1.0, 1e-3]) / _STRIDE**2
        turn_y, turn_z, shift = np.linalg.solve(matrix, (jacobian * w[:, None]).T @ residual[ok])
        step = np.eye(4)
        step[:3, :3], step[0, 3] = Rotation.from_rotvec([0, turn_y, turn_z]).as_matrix(), shift
        doubled = step @ doubled
    turn = Rotation.from_matrix(doubled[:3, :3]).as_rotvec()
    half = np.eye(4)
    half[:3, :3] = Rotation.from_rotvec([0, -turn[1] / 2, -turn[2] / 2]).as_matrix()
    half[0, 3] = -doubled[0, 3] / 2
    return half
