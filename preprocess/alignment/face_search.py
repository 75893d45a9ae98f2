"""Search a face in a scan without landmarks: fit an average face wherever something like a nose stands out."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from preprocess.alignment.depth_map import DepthMap, Surface
from preprocess.alignment.face_fit import FoundFace, average_fits, fit_faces, measure_misfits, refine_pose, turn_cost
from preprocess.alignment.nose import remove_spikes
from preprocess.alignment.units import measure_size
from shared.errors import ScanError

AXES = {
    "x": (1, 0, 0), "-x": (-1, 0, 0), "y": (0, 1, 0), "-y": (0, -1, 0), "z": (0, 0, 1), "-z": (0, 0, -1),
}  # fmt: skip
_COMMON_AXES = (("z", "-y"), ("-z", "y"), ("y", "-z"), ("z", "y"))  # Blender's; lying on the back; turned round
_MAX_NOSES = 12
_START_YAW_DEG = (-20.0, 0.0, 20.0)
_START_PITCH_DEG = (-20.0, 0.0, 20.0)
_NUM_FINALISTS = 12
# The most that a face may be off the one fitted to it; tests/benchmarks/pose_agreement.py says what faces and others score.
ACCEPTED_MM = 3.15
# A face scores up to this much better than upside down; beyond the first, both are tried.
_SURELY_UPRIGHT_MM = 2.0
# Longest sides that a scan of unknown units is tried with: a mask, a face, a head, a bust.
_SIZES_MM = (140.0, 165.0, 195.0, 230.0, 270.0, 320.0, 380.0, 450.0)


def find_face(surface: Surface, up: str, facing: str) -> FoundFace:
    """Find the pose of an upright face that looks along `facing` within about 30 degrees.

    Raises:
        ScanError: nothing there looks like a face.
    """
    found = search_face(surface, axes_to_frame(up, facing))
    if found is None:
        raise ScanError("no surface is seen from the front; check up and facing")
    if not found.misfit_mm <= ACCEPTED_MM:
        raise ScanError(
            f"no face found (the best position is {found.misfit_mm:.2f} mm off an average face, the limit is {ACCEPTED_MM} mm)"
        )
    if found.misfit_mm > _SURELY_UPRIGHT_MM:
        opposite = search_face(surface, np.diag([-1.0, -1, 1, 1]) @ axes_to_frame(up, facing))
        if opposite is not None and opposite.misfit_mm < found.misfit_mm:
            raise ScanError("no face found: what there is looks more like one upside down")
    return found


def search_face(surface: Surface, frontal: np.ndarray) -> FoundFace | None:
    """Return the position and pose that look most like a face, or None if no surface is visible.

    Args:
        frontal: (4, 4) rigid, scan → a frame with y up and z out of the face, roughly.
    """
    (x_low, y_low, _), (x_high, y_high, _) = surface.bounds(frontal).tolist()
    step = max(2.5, max(x_high - x_low, y_high - y_low) / 600)
    depth = surface.cast(frontal, x_mm=(x_low, x_high), y_mm=(y_low, y_high), step_mm=step)
    noses = _find_nose_candidates(depth)
    if not len(noses):
        return None
    starts = np.tile(np.eye(4), (len(noses), len(_START_YAW_DEG) * len(_START_PITCH_DEG), 1, 1))
    turns = [[yaw, pitch] for yaw in _START_YAW_DEG for pitch in _START_PITCH_DEG]
    starts[..., :3, :3] = Rotation.from_euler("yx", turns, degrees=True).as_matrix()
    starts[..., :3, 3] = noses[:, None]
    fits = fit_faces(depth, average_fits(starts.reshape(-1, 4, 4)), steps_mm=np.linspace(25, 10, 12), with_shape=False)
    misfits = measure_misfits(depth, fits).reshape(len(noses), -1)
    # The two best of each nose: all of the best may stand on one cheek.
    of_nose = np.argsort(misfits, axis=1, kind="stable")[:, :2] + np.arange(len(noses))[:, None] * misfits.shape[1]
    order = of_nose.ravel()[np.argsort(misfits.ravel()[of_nose.ravel()], kind="stable")]
    fits = fit_faces(depth, fits[order[:_NUM_FINALISTS]], steps_mm=np.linspace(20, 5, 14))
    best = int(np.argmin(measure_misfits(depth, fits)))
    found = refine_pose(surface, np.linalg.inv(fits.poses[best]) @ frontal)
    return replace(found, misfit_mm=found.misfit_mm + float(turn_cost(found.pose @ np.linalg.inv(frontal))))


def axes_to_frame(up: str, facing: str) -> np.ndarray:
    """Return the rotation (4, 4) that turns `up` to +y and `facing` to +z.

    Raises:
        ScanError: they are not two perpendicular axes.
    """
    if up not in AXES or facing not in AXES or up[-1] == facing[-1]:
        raise ScanError(
            f"up {up!r} and facing {facing!r} must be two of {', '.join(AXES)}, perpendicular to each other"
        )
    y, z = np.array(AXES[up], float), np.array(AXES[facing], float)
    pose = np.eye(4)
    pose[:3, :3] = [np.cross(y, z), y, z]
    return pose


def find_axes(surface: Surface) -> tuple[str, str, FoundFace] | None:
    """Try all 24 choices of the axes up and facing; return the first that is surely a face, else the best, or None."""
    best: tuple[str, str, FoundFace] | None = None
    for up, facing in dict.fromkeys((*_COMMON_AXES, *permutations(AXES, 2))):
        if up[-1] != facing[-1]:
            found = search_face(surface, axes_to_frame(up, facing))
            if found is not None and (best is None or found.misfit_mm < best[2].misfit_mm):
                best = (up, facing, found)
        if best is not None and best[2].misfit_mm <= _SURELY_UPRIGHT_MM:
            break
    return best if best is not None and best[2].misfit_mm <= ACCEPTED_MM else None


def find_scale(vertices: np.ndarray, triangles: np.ndarray, frontal: np.ndarray) -> float | None:
    """Return the factor that makes an average face of a scan in unknown units, or None if no factor does."""
    size = measure_size(vertices)
    if not (np.isfinite(size) and size > 0):
        return None
    best: tuple[float, float] | None = None
    for face_mm in _SIZES_MM:
        scaled = (vertices * (face_mm / size)).astype(np.float32)
        found = search_face(Surface(remove_spikes(scaled, triangles), triangles), frontal)
        if found is not None and found.misfit_mm <= ACCEPTED_MM and (best is None or found.misfit_mm < best[0]):
            best = (found.misfit_mm, face_mm / size / found.scale)
    return None if best is None else best[1]


def _find_nose_candidates(depth: DepthMap) -> np.ndarray:
    """Return the points (K, 3) where the surface stands out most at the size of a nose."""
    known = np.isfinite(depth.z_mm)
    if not known.any():
        return np.empty((0, 3))
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
