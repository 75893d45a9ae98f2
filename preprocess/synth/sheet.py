"""The face's own parametrisation: a fixed grid of rows and columns that every synthetic head shares.

A sheet point is (x, q): x_mm to the subject's left and q_mm up on an average face, nose tip at (0, 0). Rows run along the lid
margins and the lip edges, so lids and lips open along grid lines. The opening of an eye or of the mouth is a *lens*: a band
of rows whose local height t runs from −1 (lower edge) to +1 (upper edge) and which is skin beyond the corners.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.interpolate import CubicSpline, PchipInterpolator

NUM_COLUMNS = 101
MIDLINE_MM = 5.0  # within this distance, what is left and right of the midline passes into each other
MAX_AZIMUTH_RAD = 1.43  # ear to ear, 82 degrees to either side

EYE_X_MM, EYE_Q_MM = 31.5, 38.0  # half of the adult mean interpupillary distance, 63 mm (Dodgson 2004)
EYE_HALF_WIDTH_MM, EYE_HALF_HEIGHT_MM = 14.5, 5.25
MOUTH_Q_MM, MOUTH_HALF_HEIGHT_MM, MOUTH_HALF_WIDTH_MM = -32.0, 2.0, 25.5

# (upper q, lower q, rows): dense where the face moves.
_ROW_BANDS = (
    (100.0, 66.0, 13),
    (66.0, 48.5, 11),
    (48.5, 43.25, 6),
    (43.25, 32.75, 10),  # eye lens
    (32.75, 25.0, 6),
    (25.0, 4.0, 10),
    (4.0, -16.0, 16),
    (-16.0, -22.0, 4),
    (-22.0, -30.0, 8),
    (-30.0, -34.0, 8),  # mouth lens
    (-34.0, -44.0, 9),
    (-44.0, -64.0, 11),
    (-64.0, -80.0, 8),
    (-80.0, -92.0, 5),  # tucked under the jaw
)
_TOP = PchipInterpolator(np.radians([0, 45, 65, 82]), [100.0, 97.0, 88.0, 70.0])  # crop line on the forehead
_JAW = PchipInterpolator(np.radians([0, 25, 45, 62, 82]), [-80.0, -77.0, -69.0, -57.0, -46.0])  # edge of the mandible
# Half width of the head at a height (mm), the front of an average adult: about 140 mm at the cheekbones.
_HALF_WIDTH = CubicSpline(
    [-92, -80, -70, -58, -45, -30, -10, 15, 45, 75, 100], [33, 40, 46.5, 53.5, 59, 63.5, 67.5, 71, 72, 69.5, 62]
)


@dataclass(frozen=True)
class Sheet:
    """The grid, flattened row by row, or any other set of sheet points. All arrays f64 of one shape.

    x, q: sheet coordinates in mm; tuck: 0 on the face to 1 under the jaw; azimuth: rad about the vertical axis.
    """

    x: np.ndarray
    q: np.ndarray
    tuck: np.ndarray
    azimuth: np.ndarray

    @property
    def ax(self) -> np.ndarray:
        """Return the distance from the midline in mm."""
        return np.abs(self.x)

    @property
    def side(self) -> np.ndarray:
        return np.sign(self.x)

    @property
    def left(self) -> np.ndarray:
        """Return 1 on the subject's left half, 0 on the right, smooth over a centimetre."""
        return 1.0 / (1.0 + np.exp(-self.x / 4.0))

    @property
    def eye_s(self) -> np.ndarray:
        """Return the coordinate along an eye: −1 at the inner corner, +1 at the outer."""
        return (self.ax - EYE_X_MM) / EYE_HALF_WIDTH_MM

    @property
    def eye_t(self) -> np.ndarray:
        return (self.q - EYE_Q_MM) / EYE_HALF_HEIGHT_MM

    @property
    def mouth_s(self) -> np.ndarray:
        return self.ax / MOUTH_HALF_WIDTH_MM

    @property
    def mouth_t(self) -> np.ndarray:
        return (self.q - MOUTH_Q_MM) / MOUTH_HALF_HEIGHT_MM

    def gauss(self, x: float, q: float, sx: float, sq: float, sq_down: float | None = None) -> np.ndarray:
        """Return a bump at (±x, q), 1 at its top; `sq_down` gives it another slope below."""
        dq = self.q - q
        sigma = sq if sq_down is None else np.where(dq > 0, sq, sq_down)
        # |x| has a kink at 0, which would crease the face along its midline wherever two bumps meet
        distance = self.ax if x == 0 else np.hypot(self.x, MIDLINE_MM)
        return np.exp(-0.5 * (((distance - x) / sx) ** 2 + (dq / sigma) ** 2))


def smoothstep(value: np.ndarray) -> np.ndarray:
    """Return 0 below 0, 1 above 1, and a C1 curve between."""
    v = np.clip(value, 0.0, 1.0)
    return v * v * (3.0 - 2.0 * v)


def fall(distance: np.ndarray, length: float | np.ndarray) -> np.ndarray:
    """Return 1 at distance 0 and below, falling to 0 at `length`."""
    return 1.0 - smoothstep(distance / length)


def lens_weights(t: np.ndarray, height_mm: float, reach_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Return how far the upper and the lower edge of a lens move a point: 1 on the edge, linear inside, fading outside."""
    inside = np.clip((t + 1.0) / 2.0, 0.0, 1.0)
    upper = inside * fall((t - 1.0) * height_mm, reach_mm)
    lower = (1.0 - inside) * fall((-1.0 - t) * height_mm, reach_mm)
    return upper, lower


def row_heights_mm() -> np.ndarray:
    """Return q of every grid row on the midline, from the forehead down."""
    parts = [np.linspace(top, bottom, rows, endpoint=False) for top, bottom, rows in _ROW_BANDS]
    return np.concatenate([*parts, [_ROW_BANDS[-1][1]]])


@cache
def grid_shape() -> tuple[int, int]:
    return len(row_heights_mm()), NUM_COLUMNS


@cache
def grid_sheet() -> Sheet:
    """Return the vertices on the sheet, (rows · columns,), row 0 on the forehead, column 0 at the subject's right ear."""
    c = np.linspace(-1.0, 1.0, NUM_COLUMNS)
    azimuth, q0 = np.broadcast_arrays(MAX_AZIMUTH_RAD * (0.65 * c + 0.35 * c**3), row_heights_mm()[:, None])
    top, jaw = _TOP(np.abs(azimuth)), _JAW(np.abs(azimuth))
    # Above the brows and below the mouth, rows bend to the outline of the face.
    tuck = np.clip((-80.0 - q0) / 12.0, 0.0, 1.0)
    q = np.where(q0 > 62.0, 62.0 + (q0 - 62.0) * (top - 62.0) / 38.0, q0)
    q = np.where(q0 < -40.0, -40.0 + (np.maximum(q0, -80.0) + 40.0) * (-40.0 - jaw) / 40.0, q)
    x = _HALF_WIDTH(q) * np.sin(azimuth)
    return Sheet(*(np.ascontiguousarray(a).ravel() for a in (x, q, tuck, azimuth)))


@cache
def grid_triangles() -> np.ndarray:
    """Return i32 (M, 3), counter-clockwise from the front; the diagonal alternates so that no direction is favoured."""
    rows, columns = grid_shape()
    index = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]  # a b above, c d below; x grows a → b
    even = ((np.arange(rows - 1)[:, None] + np.arange(columns - 1)) % 2 == 0)[..., None]
    first = np.where(even, np.stack([a, c, d], -1), np.stack([a, c, b], -1))
    second = np.where(even, np.stack([a, d, b], -1), np.stack([b, c, d], -1))
    return np.stack([first, second], 2).reshape(-1, 3)
