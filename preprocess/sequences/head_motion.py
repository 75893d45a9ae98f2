"""Motion of the head that `--stabilise` takes out of a sequence, from what the cache holds: a pose and a depth image a frame.

Without `--stabilise` all frames have the pose of the first. So a frame's pose against the first is what the option changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from preprocess.alignment.align import move_mesh
from preprocess.alignment.stabilise import RIGID_REGIONS_MM
from preprocess.geometry.grid import grid_to_mesh, pixel_uv
from preprocess.rendering.cameras import build_cameras
from preprocess.rendering.views import render_views
from shared.errors import CacheError, ScanError
from shared.modalities import DEPTH_STEP_MM, DEPTH_ZERO
from shared.schema import FIELD_OF_VIEW_MM, RenderSettings, View

SAME_POSE = (
    "all frames have the pose of the first, so motion of the head stays in the images; `build --stabilise` removes it"
)
MIN_COMMON = 0.5  # of the pixels of forehead and nose bridge: with less in common, two frames are not compared


@dataclass(frozen=True)
class HeadMotion:
    """How a head stands against the first frame of its sequence.

    moves: f64 (T, 4, 4), a face as stabilised → where it is with the first frame's pose; face frame, rigid, mm.
    """

    moves: np.ndarray

    @property
    def angles_deg(self) -> np.ndarray:
        """Return yaw, pitch and roll, f64 (T, 3): + turns to the subject's left, up, and leans to the left shoulder."""
        return Rotation.from_matrix(self.moves[:, :3, :3]).as_euler("YXZ", degrees=True) * (1, -1, -1)

    @property
    def shifts_mm(self) -> np.ndarray:
        """Return where the nose tip is, f64 (T, 3): + to the subject's left, up, and forward."""
        return self.moves[:, :3, 3]

    @property
    def largest(self) -> tuple[float, float]:
        """Return how far the head turned and how far its nose tip moved at most: degrees, mm."""
        turns = np.rad2deg(Rotation.from_matrix(self.moves[:, :3, :3]).magnitude())
        return float(turns.max()), float(np.linalg.norm(self.shifts_mm, axis=1).max())

    def describe(self) -> str:
        turned, moved = self.largest
        return f"turned by up to {turned:.1f}°, its nose tip moved by up to {moved:.1f} mm"


def find_head_motion(scan_to_face: np.ndarray) -> HeadMotion:
    """Return the motion of a head from the poses of its frames, (T, 4, 4), in time order.

    Raises:
        CacheError: a pose is not rigid.
    """
    poses = scan_to_face.astype(np.float64)
    rotations = poses[:, :3, :3]
    with np.errstate(invalid="ignore"):
        rigid = (np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)) < 1e-3).all() and np.isfinite(poses).all()
    if not rigid:
        raise CacheError("scan_to_face: not rigid; build the cache again with --overwrite")
    inverse = np.tile(np.eye(4), (len(poses), 1, 1))
    inverse[:, :3, :3] = rotations.transpose(0, 2, 1)
    inverse[:, :3, 3] = -(inverse[:, :3, :3] @ poses[:, :3, 3:])[..., 0]
    return HeadMotion(poses[0] @ inverse)


def draw_unstabilised(
    images: Mapping[str, np.ndarray], view: View, move: np.ndarray, settings: RenderSettings
) -> dict[str, np.ndarray] | None:
    """Draw a frame with the pose of its sequence's first frame, from its cached depth; what this view did not see is missing.

    Args:
        images: modality → stored values (S, S, …) of one view, depth among them.
        move: the frame's, of `HeadMotion`.
    Returns:
        Modality → stored values (S, S, …), normals among them; None if too little is left in the image.
    """
    camera = build_cameras((view,))
    view_to_face = np.eye(4)
    view_to_face[:3, :3] = camera.world_to_view[0].T
    try:
        points, uv = _find_points(images["depth"]), pixel_uv(settings.size_px, settings.size_px)
        mesh = grid_to_mesh(points[::-1], uv[::-1])  # rows of a grid run upward
        views = render_views(
            replace(move_mesh(mesh, move @ view_to_face), texture=images.get("texture")),
            camera,
            size_px=settings.size_px,
            radius_mm=settings.crop_radius_mm,
            supersampling=settings.supersampling,
        )
    except ScanError:
        return None
    return {name: array[0] for name, array in views.images.items()}


def measure_changes_mm(first: np.ndarray, depth: np.ndarray, view: View, move: np.ndarray) -> tuple[float, float]:
    """Return how far forehead and nose bridge of a frame lie from those of the first, before and after it was stabilised.

    It is the median distance along the view, in mm; NaN if the two images have too little of them in common.

    Args:
        first, depth: u16 (S, S), depth images of the view. move: the frame's, of `HeadMotion`.
    """
    world_to_view = build_cameras((view,)).world_to_view[0]
    x, y, z = face = world_to_view.T @ _find_points(depth)[depth > 0].T
    inside = np.any([(np.abs(x) < w) & (y > low) & (y < high) & (z > -60) for w, low, high in RIGID_REGIONS_MM], axis=0)
    points = face[:, inside]
    moved = move[:3, :3] @ points + move[:3, 3:]
    return _measure_distance_mm(first, world_to_view @ moved), _measure_distance_mm(first, world_to_view @ points)


def _measure_distance_mm(depth: np.ndarray, points: np.ndarray) -> float:
    """Return the median distance of points f64 (3, n), in view axes, from a depth image, along the view."""
    size, (x, y, z) = len(depth), points
    columns = np.floor(x / FIELD_OF_VIEW_MM * size + size / 2).astype(int)
    rows = np.floor(size / 2 - y / FIELD_OF_VIEW_MM * size).astype(int)
    inside = (columns >= 0) & (columns < size) & (rows >= 0) & (rows < size)
    values = depth[rows[inside], columns[inside]]
    distances = np.abs(z[inside] - (values.astype(float) - DEPTH_ZERO) * DEPTH_STEP_MM)[values > 0]
    return float(np.median(distances)) if len(distances) > MIN_COMMON * len(z) else float("nan")


def _find_points(depth: np.ndarray) -> np.ndarray:
    """Return the point of each pixel in view axes, f64 (S, S, 3), mm; NaN where there is no surface."""
    points, size = np.empty((*depth.shape, 3)), len(depth)
    places = (np.arange(size) + 0.5 - size / 2) * FIELD_OF_VIEW_MM / size
    points[..., 0], points[..., 1] = places, -places[:, None]
    points[..., 2] = (depth.astype(float) - DEPTH_ZERO) * DEPTH_STEP_MM
    points[depth == 0] = np.nan
    return points
