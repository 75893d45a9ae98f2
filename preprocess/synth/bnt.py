"""Writes the files of a Bosphorus scan: `.bnt`, `.lm2` and `.lm3`. Layouts as a real file has them."""

from __future__ import annotations

import struct
from functools import cache

import numpy as np
from scipy.spatial import cKDTree

from preprocess.synth.range_scan import RangeScan
from preprocess.synth.sheet import (
    EYE_HALF_WIDTH_MM,
    EYE_Q_MM,
    EYE_X_MM,
    MOUTH_HALF_HEIGHT_MM,
    MOUTH_HALF_WIDTH_MM,
    MOUTH_Q_MM,
    grid_sheet,
)

BACKGROUND = -1e9

_EYE_CORNERS = (EYE_X_MM + EYE_HALF_WIDTH_MM, EYE_X_MM - EYE_HALF_WIDTH_MM)
# The data set's labels in its order → x and q on the sheet. Left is the subject's: our own choice.
LANDMARKS: dict[str, tuple[float, float]] = {
    "Outer left eyebrow": (47.0, 53.0),
    "Middle of the left eyebrow": (30.0, 55.0),
    "Inner left eyebrow": (12.0, 51.0),
    "Inner right eyebrow": (-12.0, 51.0),
    "Middle of the right eyebrow": (-30.0, 55.0),
    "Outer right eyebrow": (-47.0, 53.0),
    "Outer left eye corner": (_EYE_CORNERS[0], EYE_Q_MM),
    "Inner left eye corner": (_EYE_CORNERS[1], EYE_Q_MM),
    "Inner right eye corner": (-_EYE_CORNERS[1], EYE_Q_MM),
    "Outer right eye corner": (-_EYE_CORNERS[0], EYE_Q_MM),
    "Nose saddle left": (10.0, 38.0),
    "Nose saddle right": (-10.0, 38.0),
    "Left nose peak": (17.0, -3.0),
    "Nose tip": (0.0, 0.0),
    "Right nose peak": (-17.0, -3.0),
    "Left mouth corner": (MOUTH_HALF_WIDTH_MM, MOUTH_Q_MM),
    "Upper lip outer middle": (0.0, MOUTH_Q_MM + 8.0),
    "Right mouth corner": (-MOUTH_HALF_WIDTH_MM, MOUTH_Q_MM),
    "Upper lip inner middle": (0.0, MOUTH_Q_MM + 1.3 * MOUTH_HALF_HEIGHT_MM),
    "Lower lip inner middle": (0.0, MOUTH_Q_MM - 1.3 * MOUTH_HALF_HEIGHT_MM),
    "Lower lip outer middle": (0.0, MOUTH_Q_MM - 10.0),
    "Chin middle": (0.0, -64.0),
}


@cache
def landmark_vertices() -> np.ndarray:
    """Return vertex indices i64 (22,) in the order of LANDMARKS."""
    sheet = grid_sheet()
    face = np.flatnonzero(sheet.tuck == 0)  # what lies under the jaw shares coordinates with the face
    tree = cKDTree(np.stack([sheet.x[face], sheet.q[face]], -1))
    index: np.ndarray = face[tree.query(np.array(list(LANDMARKS.values())))[1]]
    return index


def encode_bnt(scan: RangeScan, image_name: str) -> bytes:
    """Encode the grid: sizes, background mark, the image's name, then the planes x, y, z, a, b; little-endian, no padding."""
    rows, columns = scan.x_mm.shape
    name = image_name.encode("ascii")
    planes = np.stack([scan.x_mm, scan.y_mm, scan.z_mm, scan.a, scan.b])
    planes[:3] = np.where(np.isnan(planes[:3]), BACKGROUND, planes[:3])
    head = struct.pack("<HHdH", rows, columns, BACKGROUND, len(name)) + name + struct.pack("<I", planes.size)
    return head + planes.astype("<f8").tobytes()


def encode_lm3(points_mm: dict[str, np.ndarray], newline: str) -> bytes:
    """Label → x, y, z: a line each, in turn."""
    lines = ["# 3D Landmark File", "", f"{len(points_mm)} landmarks:"]
    for label, (x, y, z) in points_mm.items():
        lines += [label, f"{x:.6f} {y:.6f} {z:.6f}"]
    return (newline.join(lines) + newline).encode("ascii")


def encode_lm2(points_px: dict[str, np.ndarray], newline: str) -> bytes:
    """Label → x, y in the photograph from its upper left corner: all labels, then all points."""
    lines = ["# 2D Landmark File", "", f"{len(points_px)} landmarks", "", "Labels:", *points_px]
    lines += ["", "2D Image coordinates:", *(f"{x:.3f} {y:.3f}" for x, y in points_px.values())]
    return (newline.join(lines) + newline).encode("ascii")
