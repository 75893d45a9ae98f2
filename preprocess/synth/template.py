"""The average head: where the sheet lies in space when the face rests.

Heights and depths follow adult mean anthropometry (Farkas 1994, "Anthropometry of the Head and Face"), rounded.
"""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
from scipy.interpolate import CubicSpline, PchipInterpolator

from preprocess.synth.sheet import (
    EYE_HALF_HEIGHT_MM,
    EYE_Q_MM,
    EYE_X_MM,
    MOUTH_HALF_HEIGHT_MM,
    MOUTH_HALF_WIDTH_MM,
    MOUTH_Q_MM,
    Sheet,
    fall,
    grid_sheet,
    lens_weights,
    smoothstep,
)

EYEBALL_RADIUS_MM = 12.3
EYEBALL_Z_MM = -46.0
LID_THICKNESS_MM = 1.3

# Midline without nose and lips; half depth of the horizontal section; how flat its front is (0 an ellipse).
_PROFILE_Z = CubicSpline(
    [-92, -80, -70, -62, -50, -36, -22, -10, 5, 25, 45, 57, 70, 82, 92, 100],
    [-36, -29, -24, -22.5, -23.5, -23, -24, -25.5, -27, -27.5, -26.5, -24.6, -25.5, -30, -36.5, -43],
)
_DEPTH = CubicSpline([-92, -70, -45, -10, 20, 50, 80, 100], [60, 64, 69, 74, 76, 76, 71, 64])
_FLATNESS = CubicSpline([-92, -60, -35, 0, 25, 45, 70, 100], [0.0, 0.0, 0.0, 0.12, 0.26, 0.32, 0.22, 0.05])
# The nose above that: ridge height and half width along the midline.
_NOSE_HEIGHT = PchipInterpolator(
    [-18, -14, -10, -6, -2, 2, 8, 16, 26, 36, 44, 52, 64], [0, 2.0, 7, 14, 20, 22, 21.3, 18.3, 14, 8.7, 5.0, 2.0, 0]
)
_NOSE_WIDTH = CubicSpline([-18, -8, 0, 10, 25, 38, 50, 64], [12, 12, 11.5, 10.4, 8.8, 7.8, 10, 13])


def smooth_max(a: np.ndarray, b: np.ndarray, radius_mm: float) -> np.ndarray:
    """Return max(a, b) with the crease rounded over `radius_mm` (Quilez's polynomial smooth maximum)."""
    h = np.maximum(radius_mm - np.abs(a - b), 0.0) / radius_mm
    return np.maximum(a, b) + h * h * radius_mm * 0.25


def ellipsoid_front(
    sheet_x: np.ndarray, y: np.ndarray, centre: tuple[float, float, float], radii: tuple[float, float, float]
) -> np.ndarray:
    """Return z of an ellipsoid's front, continued steeply outside its outline."""
    rho2 = ((sheet_x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2
    inside = np.sqrt(np.maximum(1.0 - rho2, 0.0))
    return centre[2] + radii[2] * (inside - 1.5 * np.maximum(np.sqrt(np.maximum(rho2, 1.0)) - 1.0, 0.0))


def lid_shape(s: np.ndarray, power: float) -> np.ndarray:
    """Return the half opening along the eye: 1 in the middle, 0 at the corners; beyond them it opens again into skin rows."""
    inside = np.maximum(1.0 - np.abs(s) ** 2.1, 0.0) ** power
    return np.where(np.abs(s) < 1.0, inside, smoothstep((np.abs(s) - 1.0) / 0.75))


def lip_thickness_mm(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the height of the upper and lower vermilion along the mouth (s = 0 middle, 1 corner), with the cupid's bow."""
    x = s * MOUTH_HALF_WIDTH_MM
    arch = np.maximum(1.0 - s**2, 0.0)
    bow = 1.0 - 0.17 * np.exp(-((x / 2.6) ** 2)) + 0.05 * np.exp(-(((x - 6.0) / 4.0) ** 2))
    return 6.0 * arch**0.62 * bow, 8.2 * arch**0.62


def _pinched_height(sheet: Sheet) -> np.ndarray:
    """Return y: the sheet's height with the lids drawn to almonds and the lips closed."""
    y = sheet.q.copy()
    s, t, h = sheet.eye_s, sheet.eye_t, EYE_HALF_HEIGHT_MM
    near = fall(np.abs(s) - 1.75, 0.3)
    upper, lower = lens_weights(t, h, 13.0)
    skew = 0.10 * s  # the upper lid peaks toward the nose, the lower toward the temple
    up = 5.5 * lid_shape(s + skew, 0.72) * np.where(np.abs(s) < 1, 1.0, h / 5.5)
    low = 4.7 * lid_shape(s - skew, 0.80) * np.where(np.abs(s) < 1, 1.0, h / 4.7)
    y += near * (upper * (up - h) - lower * (low - h))
    y += near * 1.1 * s * np.exp(-0.5 * (t / 2.2) ** 2)  # outer corner higher than the inner
    s, t, h = sheet.mouth_s, sheet.mouth_t, MOUTH_HALF_HEIGHT_MM
    closed = h - 0.12  # leaves a slit that reads as the line of the mouth
    mouth = np.where(s < 1.0, 1.0, fall(s - 1.0, 0.45)) * closed
    upper, lower = lens_weights(t, h, 9.0)
    line = 0.9 * np.exp(-((sheet.x / 4.0) ** 2)) - 0.9 * np.exp(-(((sheet.ax - 10.0) / 6.0) ** 2)) + 0.8 * s**2
    y += mouth * (lower - upper) - np.exp(-0.5 * (t / 2.0) ** 2) * fall(s - 1.0, 0.5) * line * 0.8
    return y


def _skin_depth(sheet: Sheet) -> np.ndarray:
    """Return z of the skin without eyelids: a flattened ellipse per section, then ridges, hollows, nose and lips."""
    # Hollows and ridges lie where the skin is (y), not where the rows are, or the drawn-in lids would carry a step.
    skin = dataclasses.replace(sheet, q=_pinched_height(sheet))
    g, q, ax = skin.gauss, skin.q, skin.ax
    sine2 = np.sin(sheet.azimuth) ** 2
    flat = _FLATNESS(q)
    z = _PROFILE_Z(q) - _DEPTH(q) * (1.0 - np.sqrt(np.maximum(1.0 - (1.0 - flat) * sine2 - flat * sine2**2, 0.0)))
    arched = dataclasses.replace(skin, q=q - 2.5 * np.exp(-(((ax - 36.0) / 15.0) ** 2)))
    z += (
        2.6 * arched.gauss(22, 52, 13, 7, 6) + 2.2 * arched.gauss(42, 52, 11, 7, 6) + 1.0 * g(0, 56, 12, 7)
    )  # brow ridge
    z += 1.5 * g(24, 76, 18, 12)  # frontal eminences
    z -= 7.0 * g(33, 37, 13, 9.5) + 5.2 * g(17, 38.5, 6.5, 8)  # sockets, inner corners
    z += 3.4 * g(45, 14, 15, 12) + 2.4 * g(33, 3, 13, 13)  # cheekbones, cheek pads
    z -= 1.4 * g(21, 21, 7, 9) + 2.8 * g(48, -24, 13, 15)  # tear trough, hollow of the cheek
    z -= 3.0 * g(62, 55, 9, 16)  # temples
    z += 3.6 * g(0, -31, 20, 13)  # the dental arch
    z += 4.2 * g(0, -64, 13, 9) + 1.5 * g(14, -66, 9, 8) - 3.2 * g(0, -49.5, 15, 5)  # chin, mentolabial sulcus
    z += 2.0 * g(52, -44, 9, 9)  # angle of the jaw
    fold = ax - nasolabial_x_mm(q)
    z += nasolabial_mask(q) * (
        0.9 * smoothstep((fold + 1.5) / 6.0) * fall(fold - 5, 22) - 0.3 * np.exp(-((fold / 2.5) ** 2))
    )
    height, width = _NOSE_HEIGHT(np.clip(q, -18, 64)), _NOSE_WIDTH(np.clip(q, -18, 64))
    z += height * np.exp(-((ax / width) ** 2))
    z = smooth_max(z, ellipsoid_front(sheet.x, q, (0, 0.3, -11.0), (10.5, 9.5, 11.0)), 7.0)  # tip
    z = smooth_max(z, ellipsoid_front(ax, q, (11.6, -3.6, -24.0), (6.4, 7.0, 12.0)), 4.0)  # wings
    z -= 4.0 * g(6.3, -9.8, 2.9, 1.9)  # nostrils
    z += 0.7 * g(4.6, -19, 1.8, 5) - 1.2 * g(0, -19, 2.4, 4.5)  # philtrum and its columns
    return z + _lip_relief(sheet) - 22.0 * sheet.tuck**1.5


def _lip_relief(sheet: Sheet) -> np.ndarray:
    s, t, h = sheet.mouth_s, sheet.mouth_t, MOUTH_HALF_HEIGHT_MM
    thick_up, thick_low = lip_thickness_mm(np.minimum(s, 0.999))
    arch = np.maximum(1.0 - s**2, 0.0)
    a_up = np.maximum((t - 1.0) * h, 0.0) / np.maximum(thick_up, 1.2)
    a_low = np.maximum((-1.0 - t) * h, 0.0) / np.maximum(thick_low, 1.2)
    up = 5.0 * arch**0.5 * np.exp(-0.5 * ((a_up - 0.55) / 0.62) ** 2)
    low = 5.0 * arch**0.5 * np.exp(-0.5 * ((a_low - 0.55) / 0.52) ** 2)
    roll = 3.4 * arch**0.4  # the lips turn inward where they meet
    up -= roll * np.exp(-((a_up / 0.28) ** 2))
    low -= roll * np.exp(-((a_low / 0.24) ** 2))
    corner = -2.2 * sheet.gauss(MOUTH_HALF_WIDTH_MM + 1.5, MOUTH_Q_MM, 3.0, 3.0)
    return np.where(t > 0, up, low) * (s < 1.0) + corner


def nasolabial_x_mm(q: np.ndarray) -> np.ndarray:
    """Return the nasolabial fold's distance from the midline at a height: from the wing of the nose past the mouth's corner."""
    return 18.0 + 15.0 * np.clip((0.0 - q) / 34.0, 0.0, 1.3) ** 1.25


def nasolabial_mask(q: np.ndarray) -> np.ndarray:
    return smoothstep((6.0 - q) / 8.0) * smoothstep((q + 44.0) / 14.0)


@cache
def template_vertices_mm() -> np.ndarray:
    """Return f64 (N, 3): the average face at rest in the face frame, eyes not yet put in (see `seat_eyes`)."""
    sheet = grid_sheet()
    x = sheet.x * (1.0 - 0.10 * sheet.tuck)
    return np.stack([x, _pinched_height(sheet) - 3.0 * sheet.tuck, _skin_depth(sheet)], -1)


@cache
def in_eye_lens() -> np.ndarray:
    """Return bool (N,): vertices strictly between the lid margins, which show the eyeball."""
    sheet = grid_sheet()
    return (np.abs(sheet.eye_t) < 0.999) & (np.abs(sheet.eye_s) < 1.0)


@cache
def _near_eyes() -> np.ndarray:
    sheet = grid_sheet()
    return (np.abs(sheet.eye_s) < 1.8) & (np.abs(sheet.q - EYE_Q_MM) < 20.0)


def seat_eyes(vertices_mm: np.ndarray, eye_centres_mm: np.ndarray) -> None:
    """Lay the lids over the eyeballs, and the lens of each eye onto its ball, in place.

    Args:
        vertices_mm: f64 (N, 3), a deformed sheet.
        eye_centres_mm: f64 (2, 3), the subject's left eyeball, then the right.
    """
    sheet, lens = grid_sheet(), in_eye_lens()
    margin = 1.0 - 0.75 * fall(np.abs(np.abs(sheet.eye_t) - 1.0), 0.35)  # lids are thinnest at the margin
    for side, centre in zip((1.0, -1.0), eye_centres_mm, strict=True):
        rows = np.flatnonzero(_near_eyes() & (sheet.side == side))
        x, y, z = vertices_mm[rows].T
        rho2 = (x - centre[0]) ** 2 + (y - centre[1]) ** 2
        radius = EYEBALL_RADIUS_MM + np.where(lens[rows], 0.0, LID_THICKNESS_MM * (0.45 + 0.55 * margin[rows]))
        ball = centre[2] + np.sqrt(np.maximum(radius**2 - rho2, 0.0)) - 0.5 * np.maximum(np.sqrt(rho2) - radius, 0.0)
        vertices_mm[rows, 2] = np.where(lens[rows], smooth_max(ball, z, 2.0), smooth_max(ball, z, 4.0))


TEMPLATE_EYES_MM = np.array([[EYE_X_MM, EYE_Q_MM, EYEBALL_Z_MM], [-EYE_X_MM, EYE_Q_MM, EYEBALL_Z_MM]])
