"""The 83 landmarks of the BU data sets as vertices of the synthetic head.

Groups and counts as in BU-3DFE: 0–7 left eye, 8–15 right eye, 16–25 left brow, 26–35 right brow, 36–47 nose, 48–59 outer
lips, 60–67 inner lips, 68–82 face contour; left is the subject's. The order within a group is our own. BP4D has the
brows first.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.spatial import cKDTree

from preprocess.synth.sheet import (
    EYE_HALF_HEIGHT_MM,
    EYE_HALF_WIDTH_MM,
    EYE_Q_MM,
    EYE_X_MM,
    MOUTH_HALF_HEIGHT_MM,
    MOUTH_HALF_WIDTH_MM,
    MOUTH_Q_MM,
    grid_sheet,
)

NUM_LANDMARKS = 83
# BP4D's point k is BU-3DFE's point BP4D_ORDER[k]: brows, eyes, then nose, lips and contour as they are.
BP4D_ORDER = np.array([*range(16, 36), *range(0, 16), *range(36, NUM_LANDMARKS)])


def _sheet_points() -> np.ndarray:
    """Return (83, 2): x and q of every landmark on the sheet."""
    around = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    lid = np.stack([EYE_X_MM - EYE_HALF_WIDTH_MM * np.cos(around), EYE_Q_MM + EYE_HALF_HEIGHT_MM * np.sin(around)], -1)
    along = np.linspace(0, 1, 5)
    brow_x, brow_q = 12 + 36 * along, 51 + 6.2 * np.sin(2.1 * along) - 3.2 * along**2
    brow = np.concatenate([np.stack([brow_x, brow_q + 3], -1), np.stack([brow_x, brow_q - 3], -1)[::-1]])
    wing = [(8.0, 36.0), (9.0, 22.0), (13.0, 6.0), (17.5, -3.0), (14.0, -10.0), (6.0, -12.0)]
    nose = np.array([*wing, *[(-x, q) for x, q in reversed(wing)]])
    turn = np.linspace(np.pi, -np.pi, 12, endpoint=False)
    outer = np.stack([MOUTH_HALF_WIDTH_MM * np.cos(turn), MOUTH_Q_MM + 9.0 * np.sin(turn)], -1)
    turn = np.linspace(np.pi, -np.pi, 8, endpoint=False)
    inner = np.stack(
        [
            0.85 * MOUTH_HALF_WIDTH_MM * np.cos(turn),
            MOUTH_Q_MM + 1.05 * MOUTH_HALF_HEIGHT_MM * np.sign(np.sin(turn).round(6)),
        ],
        -1,
    )
    sweep = np.linspace(-1, 1, 15)
    contour = np.stack([66 * np.sin(sweep * 1.45), 10 - 86 * np.cos(sweep * 1.45)], -1)
    mirror = np.array([-1.0, 1.0])
    return np.concatenate([lid, lid * mirror, brow, brow * mirror, nose, outer, inner, contour])


@cache
def landmark_vertices() -> np.ndarray:
    """Return vertex indices i64 (83,)."""
    sheet = grid_sheet()
    tree = cKDTree(np.stack([sheet.x, sheet.q + 100 * sheet.tuck], -1))
    index: np.ndarray = tree.query(_sheet_points())[1]
    assert len(index) == NUM_LANDMARKS
    return index
