"""Fit an average face, its size and a few of its proportions to the front of a scan, and find its plane of symmetry.

Jaw, lips and cheeks, which expressions move, have small weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.spatial.transform import Rotation

from preprocess.alignment.anthropometry import FITTED_SCALES, SHAPE_DEVIATIONS, canonical_depth_mm
from preprocess.alignment.depth_map import DepthMap, Surface
from preprocess.alignment.mirror import find_mirror_plane

_FREE_TURN_DEG = 35.0  # a face is expected to look forward within this angle
_WORST_MM = 8.0  # a point of the average face counts as at most this far off, and so does one without surface
# A surface is some 2 mm off the model, and neighbouring points are so together: a proportion that is one standard deviation
# off the average costs as much as this sum of squares.
_PRIOR_MM2 = 16.0
_SCALE_DEVIATION = 0.12  # of the logarithm of a face's size
_MAX_DEVIATIONS = 3.0
_STEP_MM, _COARSE_STEP_MM = 6.0, 9.0  # between the points of the average face
_WINDOW_X_MM, _WINDOW_Y_MM = (-80.0, 80.0), (-85.0, 85.0)  # that a refined pose is seen in
_WINDOW_STEP_MM = 2.0
_ALIKE = 0.85  # correlation of a face's relief with the fitted one's, at least, where it costs nothing
_UNLIKE_MM = 3.0  # what it costs to have no relief in common, more or less
_RELIEF_MM = 1.2  # RMS relief beside the nose, at least, where it costs nothing: a knob on a ball has none
_SMOOTH = 4.0  # what a mm less costs


@dataclass(frozen=True)
class _Model:
    """The average face: points and normals f64 (n, 3); modes (n, K), mm along z for one deviation of each proportion; weights
    (n,) of the fit and of the misfit; detail (n, n), which takes a smooth surface out of heights; beside (n, n), the same
    beside the nose."""

    points: np.ndarray
    normals: np.ndarray
    modes: np.ndarray
    weights: np.ndarray
    misfit_weights: np.ndarray
    detail: np.ndarray
    beside: np.ndarray


@dataclass(frozen=True)
class Fits:
    """B fitted faces: poses f64 (B, 4, 4), rigid, average face → depth map's frame; scales (B,); shapes (B, K), deviations."""

    poses: np.ndarray
    scales: np.ndarray
    shapes: np.ndarray

    def __getitem__(self, which: np.ndarray) -> Fits:
        return Fits(self.poses[which], self.scales[which], self.shapes[which])


@dataclass(frozen=True)
class FoundFace:
    """pose: scan → face frame, f64 (4, 4), rigid, its origin near the tip of the nose. misfit_mm: of the fitted face to the
    surface. scale: the face's size over the average adult's. shown: share of the average face that has a surface."""

    pose: np.ndarray
    misfit_mm: float
    scale: float
    shown: float


def average_fits(poses: np.ndarray) -> Fits:
    """Return the average face in poses f64 (B, 4, 4)."""
    return Fits(poses, np.ones(len(poses)), np.zeros((len(poses), len(SHAPE_DEVIATIONS))))


@cache
def _model(step_mm: float = _STEP_MM) -> _Model:
    x, y = (a.ravel() for a in np.meshgrid(np.arange(-54, 55, step_mm), np.arange(-66, 73, step_mm)))
    inside = (x / 56) ** 2 + ((y - 3) / 73) ** 2 < 1
    x, y = x[inside], y[inside]
    h = 0.5
    slope_x = (canonical_depth_mm(x + h, y) - canonical_depth_mm(x - h, y)) / (2 * h)
    slope_y = (canonical_depth_mm(x, y + h) - canonical_depth_mm(x, y - h)) / (2 * h)
    normals = np.stack([-slope_x, -slope_y, np.ones_like(x)], axis=1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    modes = [
        (canonical_depth_mm(x, y, **{name: size}) - canonical_depth_mm(x, y, **{name: -size})) / 2
        for name, size in SHAPE_DEVIATIONS.items()
    ]
    lower, cheeks = y < -18, (y < 12) & (np.abs(x) > 14)
    weights = np.where(lower, 0.1, np.where(cheeks, 0.2, 1.0))
    # Nose and eyes, which a cheek lacks, count more.
    features = (np.abs(x) < 22) & (y < 42)
    misfit_weights = np.where(lower, 0.25, np.where(cheeks, 0.5, np.where(features, 4.0, 1.0)))

    def without_quadric(chosen: np.ndarray) -> np.ndarray:
        smooth = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)[chosen]
        matrix = np.zeros((len(x), len(x)))
        matrix[np.ix_(chosen, chosen)] = np.eye(len(smooth)) - smooth @ np.linalg.pinv(smooth)
        return matrix

    detail, beside = without_quadric(~lower), without_quadric((np.abs(x) > 12) & (y > -6) & (y < 66))
    points = np.stack([x, y, canonical_depth_mm(x, y)], axis=1)
    return _Model(points, normals, np.stack(modes, axis=1), weights, misfit_weights, detail, beside)


def fit_faces(depth: DepthMap, start: Fits, *, steps_mm: np.ndarray, with_shape: bool = True) -> Fits:
    """Fit all faces at once by projective point-to-plane ICP (Chen & Medioni 1992), with Tukey weights of decreasing scale.

    Args:
        steps_mm: scales of Tukey's weights, one per step. with_shape: fit proportions too; else pose and size alone, at fewer
            points.
    """
    model = _model() if with_shape else _model(_COARSE_STEP_MM)
    poses, scales, shapes = start.poses.copy(), start.scales.copy(), start.shapes.copy()
    # Damped, as a start far from any surface has nothing to go by: 1 (rad/mm)² against hundreds of points.
    damping = np.array([100.0, 100, 100, 0.1, 0.1, 0.1])
    prior = np.array([_PRIOR_MM2 / _SCALE_DEVIATION**2, *[_PRIOR_MM2] * (shapes.shape[1] if with_shape else 0)])
    for reach_mm in steps_mm:
        moved, turned, residual = _residuals(depth, Fits(poses, scales, shapes), model)
        u = np.clip(np.abs(np.nan_to_num(residual, nan=np.inf)) / reach_mm, 0, 1)
        w = model.weights * (1 - u * u) ** 2
        arm = moved - poses[:, None, :3, 3]
        columns = [np.cross(arm, turned), turned, (arm * turned).sum(axis=2, keepdims=True)]
        if with_shape:
            columns.append(model.modes * model.normals[:, 2:] * scales[:, None, None])
        jacobian = np.concatenate(columns, axis=2)
        weighted = (jacobian * w[..., None]).transpose(0, 2, 1)
        off_average = np.concatenate([np.log(scales)[:, None], shapes], axis=1)[:, : len(prior)]
        right = weighted @ np.nan_to_num(residual)[..., None]
        right[:, 6:, 0] -= prior * off_average
        step = np.linalg.solve(weighted @ jacobian + np.diag([*damping, *prior]), right)[..., 0]
        turn = step[:, :3]
        turn *= np.minimum(1, 0.2 / np.maximum(np.linalg.norm(turn, axis=1, keepdims=True), 1e-12))
        poses[:, :3, :3] = Rotation.from_rotvec(turn).as_matrix() @ poses[:, :3, :3]
        poses[:, :3, 3] += np.clip(step[:, 3:6], -15, 15)
        scales = np.clip(scales * np.exp(np.clip(step[:, 6], -0.1, 0.1)), *FITTED_SCALES)
        if with_shape:
            shapes = np.clip(shapes + step[:, 7:], -_MAX_DEVIATIONS, _MAX_DEVIATIONS)
    return Fits(poses, scales, shapes)


def measure_misfits(depth: DepthMap, fits: Fits, *, where_shown: bool = False) -> np.ndarray:
    """Return the mean distance (B,) between surface and fitted faces, in mm on a face of average size.

    More for a relief of another pattern than a face's, such as a ball's, and for a far turn.

    Args:
        where_shown: leave out what has no surface, as in half a face; else that counts as far off.
    """
    model = _model()
    residual = _residuals(depth, fits, model)[2] / fits.scales[:, None]
    known = np.isfinite(residual)
    distance = np.minimum(np.abs(np.where(known, residual, np.inf)), _WORST_MM)
    weights = model.misfit_weights * (known if where_shown else np.ones_like(known))
    mean = (distance * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-9)
    fitted = model.points[:, 2] + fits.shapes @ model.modes.T
    seen = fitted + np.clip(np.where(known, residual, 0.0) / model.normals[:, 2], -12, 12)
    a, b = fitted @ model.detail, seen @ model.detail
    alike = (a * b).sum(axis=1) / np.maximum(np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1)), 1e-9)
    relief = np.sqrt(((seen @ model.beside) ** 2).sum(axis=1) / np.trace(model.beside))
    smooth = _SMOOTH * np.maximum(0, _RELIEF_MM - relief)
    return np.asarray(mean + _UNLIKE_MM * np.maximum(0, _ALIKE - alike) + smooth + turn_cost(fits.poses))


def turn_cost(poses: np.ndarray) -> np.ndarray:
    """Return a penalty (…,) in mm for poses (…, 4, 4): 0.1 mm for each degree beyond 35 from the identity.

    Turns about all axes count, roll too.
    """
    turned_deg = np.degrees(Rotation.from_matrix(poses[..., :3, :3]).magnitude())
    return np.asarray(0.1 * np.maximum(0, turned_deg - _FREE_TURN_DEG))


def refine_pose(surface: Surface, pose: np.ndarray, *, where_shown: bool = False) -> FoundFace:
    """Refine a pose that is right to about 25 degrees and 20 mm; the result does not depend on how it was found.

    Args:
        pose: (4, 4) rigid, scan → face frame. where_shown: as `measure_misfits`.
    """
    pose = np.array(pose, np.float64)
    fits = average_fits(np.eye(4)[None])
    for steps_mm, mirrored in _REFINEMENT:
        depth = _see(surface, pose)
        fits = fit_faces(depth, Fits(np.eye(4)[None], fits.scales, fits.shapes), steps_mm=steps_mm)
        pose = np.linalg.inv(fits.poses[0]) @ pose
        if mirrored:
            pose = find_mirror_plane(_see(surface, pose)) @ pose
    depth = _see(surface, pose)
    fits = Fits(np.eye(4)[None], fits.scales, fits.shapes)
    misfit = measure_misfits(depth, fits, where_shown=where_shown)[0]
    shown = np.isfinite(_residuals(depth, fits, _model())[2]).mean()
    return FoundFace(pose, float(misfit), float(fits.scales[0]), float(shown))


def _see(surface: Surface, pose: np.ndarray) -> DepthMap:
    return surface.cast(pose, x_mm=_WINDOW_X_MM, y_mm=_WINDOW_Y_MM, step_mm=_WINDOW_STEP_MM)


# Tukey's scales of each round, and whether yaw, roll and the x shift are then taken from the mirror plane.
_REFINEMENT = (
    (np.linspace(20, 6, 10), False),
    (np.linspace(8, 5, 5), True),
    (np.full(5, 5.0), False),
    (np.full(4, 5.0), True),
)


def _residuals(depth: DepthMap, fits: Fits, model: _Model) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return transformed points and normals (B, n, 3), and the point-to-plane distance (B, n) to the surface, NaN without
    one."""
    rotations = fits.poses[:, :3, :3].transpose(0, 2, 1)
    points = np.repeat(model.points[None], len(fits.poses), axis=0)
    points[..., 2] += fits.shapes @ model.modes.T
    moved = (points * fits.scales[:, None, None]) @ rotations + fits.poses[:, None, :3, 3]
    turned = model.normals @ rotations
    z = depth.sample(moved[..., 0], moved[..., 1])
    return moved, turned, turned[..., 2] * (z - moved[..., 2])
