"""A face as a height field, its landmarks, and how far a pose is from what it should be."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.spatial.transform import Rotation

from preprocess.alignment.align import find_pose
from preprocess.geometry.mesh import Mesh
from shared.schema import FIELD_OF_VIEW_MM

GROUPS = {"left_eye": (0, 1), "right_eye": (2, 3), "nose": (4, 5, 6), "mouth": (7, 8)}


def height(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A face of its own make (not the one that alignment fits): a paraboloid with a wedge of a nose, sockets, lips, chin."""
    bowl = -22 - 0.0105 * x**2 - 0.0014 * (y - 10) ** 2 - 3e-7 * x**4
    wedge = 24 * np.clip(1 - np.abs(x) / (10 + 0.12 * np.clip(40 - y, 0, 60)), 0, 1) ** 0.7
    along = np.clip(1 - y / 48, 0, 1) * (y >= 0) + np.clip(1 + y / 14, 0, 1) * (y < 0)
    nose = wedge * along
    sockets = 15 * np.exp(-(((np.abs(x) - 27) / 18) ** 2) - ((y - 34) / 13) ** 2)
    lips = 7 * np.exp(-((x / 22) ** 2) - ((y + 32) / 8) ** 2)
    chin = 10 * np.exp(-((x / 24) ** 2) - ((y + 70) / 14) ** 2)
    return np.asarray(bowl + nose - sockets + lips + chin)


def make_face(*, step: float = 2.5, shoulders: bool = False) -> Mesh:
    xs, ys = np.arange(-75, 75.1, step), np.arange(-100, 100.1, step)
    x, y = (a.ravel() for a in np.meshgrid(xs, ys))
    vertices = np.stack([x, y, height(x, y)], axis=1)
    index = np.arange(len(x)).reshape(len(ys), len(xs))
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    triangles = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    if shoulders:  # a chest that stands out further than the nose
        u, v = (g.ravel() for g in np.meshgrid(np.linspace(-240, 240, 40), np.linspace(-330, -125, 20)))
        chest = np.stack([u, v, 40 - 0.002 * u**2 - 0.01 * (v + 230) ** 2], axis=1)
        grid = np.arange(len(u)).reshape(20, 40) + len(vertices)
        a, b, c, d = grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]
        triangles = np.concatenate([triangles, *(np.stack(q, -1).reshape(-1, 3) for q in ((a, b, c), (a, c, d)))])
        vertices = np.concatenate([vertices, chest])
    flat = np.array(
        [(20, 35), (43, 34), (-20, 35), (-43, 34), (0, 25), (14, -8), (-14, -8), (25, -32), (-25, -32)], np.float64
    )
    landmarks = np.column_stack([flat, height(*flat.T)]).astype(np.float32)
    return Mesh(vertices.astype(np.float32), triangles.astype(np.int32), landmarks_mm=landmarks)


def motion(rotation: Rotation, shift: np.ndarray | tuple[float, ...]) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation.as_matrix(), shift
    return pose


def difference(pose: np.ndarray, moved: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, float]:
    """Yaw, pitch, roll in degrees and mm between what was found on the moved scan and on the scan as it was."""
    rest = pose @ moved @ np.linalg.inv(reference)
    return np.abs(Rotation.from_matrix(rest[:3, :3]).as_euler("yxz", degrees=True)), float(np.linalg.norm(rest[:3, 3]))


FACE = make_face()


def find_scan_to_face(
    mesh: Mesh, *, landmark_groups: Mapping[str, tuple[int, ...]], up: str = "y", facing: str = "z"
) -> tuple[np.ndarray, str]:
    """Return the rigid transform of `align`, f64 (4, 4), and how it was found (one of schema.ALIGNMENTS).

    Raises:
        ScanError: as `align`.
    """
    found = find_pose(mesh, landmark_groups=landmark_groups, up=up, facing=facing)
    return found.scan_to_face, found.method


def pixel_centres_mm(size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Return view x of the columns and view y of the rows, f64 (size_px,) each."""
    offsets = (np.arange(size_px) + 0.5) * (FIELD_OF_VIEW_MM / size_px) - FIELD_OF_VIEW_MM / 2
    return offsets, -offsets
