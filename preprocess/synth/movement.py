"""How a head moves while a face is recorded: slow turns about the neck."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from preprocess.geometry.mesh import Mesh

NECK_MM = np.array([0.0, -60.0, -90.0])  # about where the atlas lies, seen from the nose tip


def turn_head(mesh: Mesh, pitch_yaw_roll_deg: np.ndarray, shift_mm: np.ndarray) -> Mesh:
    """Rotate a mesh about the neck, then shift it; rigid. Roll acts first, then pitch, then yaw.

    Args:
        pitch_yaw_roll_deg: (3,), right-handed about +x, +y and +z: positive pitch is nodding down, positive yaw is turning
            to the subject's left, positive roll is leaning toward the subject's right shoulder.
    """
    pitch, yaw, roll = pitch_yaw_roll_deg
    turn = Rotation.from_euler("YXZ", [yaw, pitch, roll], degrees=True).as_matrix()
    return mesh.move(lambda points: ((points - NECK_MM) @ turn.T + NECK_MM + shift_mm).astype(np.float32))


def draw_slow_path(num_frames: int, limit: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a smooth random path f64 (T, 3) that starts at 0; each coordinate stays within ±limit and uses much of it."""
    time = np.linspace(0.0, 1.0, num_frames)[:, None]
    cycles, phases = rng.uniform(0.4, 1.1, 3), rng.uniform(0, 2 * np.pi, 3)
    path = np.sin(2 * np.pi * cycles * time + phases) - np.sin(phases)
    reach = np.maximum(np.abs(path).max(0), 1e-9)
    result: np.ndarray = path / reach * limit * rng.uniform(0.5, 1.0, 3)
    return result if num_frames > 1 else np.zeros((1, 3))
