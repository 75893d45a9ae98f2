"""Cached images as people look at them: texture on paper, normals as lit relief, depth as brightness."""

from __future__ import annotations

import numpy as np

from shared.schema import DEPTH_STEP_MM, DEPTH_ZERO, RenderSettings

BACKGROUND = (250, 250, 248)  # where there is no surface
# Nose tip white, 90 mm behind it black.
DEPTH_RANGE_MM = (-90.0, 0.0)
DEPTH_CHANGE_RANGE_MM = (-5.0, 5.0)
# Relief: a light from the upper left, in the camera frame.
LIGHT = np.array([-0.4, 0.5, 0.77])


NORMAL_LEGEND = (
    "normal, shown as relief: grey is how a lamp would light the surface; the network sees the directions "
    "themselves, as three channels"
)


def name_picture(modality: str, settings: RenderSettings) -> str:
    """How a modality's picture is called: normals are drawn as relief, but for those of dynamic images."""
    return "normal, shown as relief" if modality == "normal" and not settings.dynamic else modality


def draw_picture(pixels: np.ndarray, modality: str, *, dynamic: bool) -> np.ndarray:
    """Stored pixels (H, W, …) as people look at them, u8 (H, W, 3): normals as lit relief, depth as brightness.

    Dynamic images are shown as they are, depth from 5 mm backward, black, to 5 mm forward, white.
    """
    surface = np.asarray(pixels > 0 if modality == "depth" else (pixels > 0).any(-1))
    if modality == "texture" or (dynamic and modality == "normal"):
        return np.where(surface[..., None], pixels, BACKGROUND).astype(np.uint8)
    if modality == "normal":
        n = (pixels.astype(np.float32) - 128) / 127
        grey = np.clip(40 + 205 * np.clip(n @ LIGHT.astype(np.float32), 0, 1), 0, 255)
    else:
        z_mm = (pixels.astype(np.float32) - DEPTH_ZERO) * DEPTH_STEP_MM
        far, near = DEPTH_CHANGE_RANGE_MM if dynamic else DEPTH_RANGE_MM
        grey = 30 + 225 * np.clip((z_mm - far) / (near - far), 0, 1)
    return np.where(surface[..., None], grey[..., None], BACKGROUND).astype(np.uint8)
