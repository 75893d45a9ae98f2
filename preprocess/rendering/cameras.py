"""Where the cameras stand. Face frame: +x the subject's left, +y up, +z out of the face, mm, origin at the nose tip."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from shared.schema import View


@dataclass(frozen=True)
class Cameras:
    """Orthographic cameras that turn about the origin.

    world_to_view f64 (V, 3, 3): rows are the camera's right, up and toward-the-viewer axes in the face frame, so that view
    z is larger for nearer surfaces. A pixel (row i, column j) of a size_px image looks at view
    x = (j + 0.5 − size/2) · mm_per_px, y = (size/2 − i − 0.5) · mm_per_px.
    """

    views: tuple[View, ...]
    world_to_view: np.ndarray


@lru_cache(maxsize=4)
def build_cameras(views: tuple[View, ...]) -> Cameras:
    """Return cameras for yaw and pitch angles: +yaw moves the camera toward the subject's left, +pitch up."""
    rotations = []
    for view in views:
        yaw, pitch = np.deg2rad(view.yaw_deg), np.deg2rad(view.pitch_deg)
        right = np.array([np.cos(yaw), 0.0, -np.sin(yaw)])
        toward_viewer = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
        rotations.append([right, np.cross(toward_viewer, right), toward_viewer])
    return Cameras(views, np.array(rotations))


def warn_of_views(views: tuple[View, ...]) -> str:
    """Return a warning about views of the back of the head, where a face scan has no surface, else ""."""
    behind = [str(view) for view in views if abs(view.yaw_deg) > 90]
    if not behind:
        return ""
    which = f"view {behind[0]} looks" if len(behind) == 1 else f"views {', '.join(behind)} look"
    return (
        f"warning: {which} at the face from behind (yaw beyond ±90°): pictures of the inside of a scan, not of a face"
    )
