"""The colour of a face over its own parametrisation: skin, brows, eyes, lips, wrinkles and baked light.

Texel (i, j) of the texture is a point of the sheet, so that paint moves with the skin; only what does not belong to the skin
(iris, teeth) is placed by where its texel has come to lie in space.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.ndimage import gaussian_filter

from preprocess.synth.action_units import Activation
from preprocess.synth.identity import Identity
from preprocess.synth.sheet import Sheet, fall, grid_shape, grid_sheet, smoothstep
from preprocess.synth.template import lip_thickness_mm, nasolabial_mask, nasolabial_x_mm

TEXTURE_PX = 384
IRIS_RADIUS_MM, PUPIL_RADIUS_MM = 6.0, 2.3


@cache
def _interpolators() -> tuple[np.ndarray, np.ndarray]:
    """Return dense matrices (TEXTURE_PX, rows) and (TEXTURE_PX, columns) that interpolate grid values bilinearly at texels."""

    def matrix(count: int) -> np.ndarray:
        position = (np.arange(TEXTURE_PX) + 0.5) / TEXTURE_PX * (count - 1)
        low = np.minimum(position.astype(int), count - 2)
        result = np.zeros((TEXTURE_PX, count), np.float32)
        result[np.arange(TEXTURE_PX), low] = 1 - (position - low)
        result[np.arange(TEXTURE_PX), low + 1] = position - low
        return result

    rows, columns = grid_shape()
    return matrix(rows), matrix(columns)


def to_texels(values: np.ndarray) -> np.ndarray:
    """Interpolate vertex values (N,) at the texels: (TEXTURE_PX, TEXTURE_PX) f32."""
    rows, columns = _interpolators()
    texels: np.ndarray = rows @ values.reshape(grid_shape()).astype(np.float32) @ columns.T
    return texels


@cache
def texel_sheet() -> Sheet:
    sheet = grid_sheet()
    return Sheet(*(to_texels(a) for a in (sheet.x, sheet.q, sheet.tuck, sheet.azimuth)))


@cache
def grid_uv() -> np.ndarray:
    """Return the vertices' texture coordinates, f32 (N, 2), v up."""
    rows, columns = grid_shape()
    u = np.broadcast_to(np.linspace(0, 1, columns), (rows, columns))
    v = np.broadcast_to(np.linspace(1, 0, rows)[:, None], (rows, columns))
    return np.stack([u, v], -1).reshape(-1, 2).astype(np.float32)


def paint_skin(identity: Identity) -> np.ndarray:
    """Paint what does not change with expression: f32 (H, W, 3) in 0…1, unlit."""
    s = texel_sheet()
    rng = np.random.default_rng(identity.noise_seed)
    rgb = np.broadcast_to(identity.skin_rgb.astype(np.float32), (TEXTURE_PX, TEXTURE_PX, 3)).copy()
    _blend(rgb, identity.skin_rgb * [1.0, 0.80, 0.78], 0.50 * s.gauss(40, -2, 16, 15) + 0.45 * s.gauss(0, 0, 10, 9))
    _blend(rgb, identity.skin_rgb * [0.84, 0.78, 0.80], 0.55 * s.gauss(31, 29, 12, 6) + 0.45 * s.gauss(31, 46, 13, 5))
    _blend(rgb, identity.skin_rgb * 1.05, 0.5 * s.gauss(0, 78, 34, 14))
    mottling = gaussian_filter(rng.normal(size=(TEXTURE_PX, TEXTURE_PX)), 9) * 9
    pores = gaussian_filter(rng.normal(size=(TEXTURE_PX, TEXTURE_PX)), 0.8)
    rgb *= (1 + 0.035 * mottling + 0.03 * pores)[..., None].astype(np.float32)
    if identity.freckles > 0:
        spots = gaussian_filter((rng.random((TEXTURE_PX, TEXTURE_PX)) < 0.006).astype(float), 1.0) * 6
        _blend(rgb, identity.skin_rgb * [0.7, 0.55, 0.45], identity.freckles * spots * (s.gauss(24, 8, 22, 14)))
    if identity.stubble > 0:
        jaw = smoothstep((-13.0 - s.q) / 10.0) * smoothstep((8.0 - s.q - 0.9 * (60 - s.ax)) / 20.0 + 0.4)
        beard = np.maximum(jaw, s.gauss(0, -21, 20, 4.5))
        beard *= 1 - 0.8 * np.exp(-0.5 * ((s.q + 32) / 4.5) ** 2) * (s.mouth_s < 1.05)
        grain = np.clip(0.6 + 0.5 * gaussian_filter(rng.normal(size=beard.shape), 0.7) * 1.6, 0, 1)
        _blend(rgb, 0.45 * identity.skin_rgb + 0.45 * identity.hair_rgb, identity.stubble * beard * grain)
    _blend(rgb, identity.lip_rgb, 0.85 * _lip_mask())
    _blend(rgb, identity.skin_rgb * 0.22, 0.9 * s.gauss(6.3, -9.8, 2.6, 1.7))  # nostrils
    _paint_brows(rgb, identity, s, rng)
    hairline = smoothstep((s.q - 88.0 + 0.004 * s.x**2) / 8.0)
    _blend(rgb, identity.hair_rgb * 1.1, 0.55 * hairline * np.clip(0.7 + pores, 0, 1))
    return rgb


def paint_expression(
    skin: np.ndarray,
    identity: Identity,
    activation: Activation,
    vertices_mm: np.ndarray,
    normals: np.ndarray,
    eye_centres_mm: np.ndarray,
) -> np.ndarray:
    """Return the finished texture u8 (H, W, 3) of one scan: wrinkles, eyes, mouth, light.

    Args:
        skin: from `paint_skin`. vertices_mm, normals: f64 (N, 3) of the deformed face, in the face frame.
    """
    s = texel_sheet()
    rgb = skin.copy()
    rgb *= (1 - _wrinkles(activation, s))[..., None]
    x, y = to_texels(vertices_mm[:, 0]), to_texels(vertices_mm[:, 1])
    lit = 0.62 + 0.46 * np.maximum(to_texels(normals @ identity.light), 0.0)
    rgb *= lit[..., None].astype(np.float32)
    _paint_mouth(rgb, s, y)
    for side, centre in zip((1.0, -1.0), eye_centres_mm, strict=True):
        _paint_eye(rgb, identity, s, x, y, centre, side)
    return np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)


def _blend(rgb: np.ndarray, color: np.ndarray | list[float], weight: np.ndarray) -> None:
    w = np.clip(weight, 0, 1)[..., None].astype(np.float32)
    rgb += w * (np.asarray(color, np.float32) - rgb)


@cache
def _lip_mask() -> np.ndarray:
    """Return 1 on the red of the lips."""
    s = texel_sheet()
    up, low = lip_thickness_mm(np.minimum(s.mouth_s, 0.999))
    height = 2.0
    above = np.maximum((s.mouth_t - 1) * height, 0) / np.maximum(up, 0.6)
    below = np.maximum((-1 - s.mouth_t) * height, 0) / np.maximum(low, 0.6)
    return smoothstep((1.12 - np.where(s.mouth_t > 0, above, below)) / 0.28) * smoothstep((1.02 - s.mouth_s) / 0.08)


def _paint_brows(rgb: np.ndarray, identity: Identity, s: Sheet, rng: np.random.Generator) -> None:
    along = (s.ax - 12.0) / 36.0  # 0 at the inner end, 1 at the outer
    centre = 51.0 + 6.2 * np.sin(np.clip(along, 0, 1) * 2.1) - 3.2 * np.clip(along, 0, 1.2) ** 2
    half = identity.brow_thickness_mm * (1.0 - 0.65 * np.clip(along - 0.25, 0, 1)) * smoothstep((along + 0.06) / 0.16)
    inside = (
        smoothstep(1.25 - np.abs(s.q - centre) / np.maximum(half, 0.3))
        * (along > -0.06)
        * smoothstep((1.04 - along) / 0.1)
    )
    strokes = gaussian_filter(rng.normal(size=inside.shape), (2.2, 0.8)) * 3.0
    _blend(rgb, identity.hair_rgb, 0.92 * inside * np.clip(0.78 + 0.35 * strokes, 0, 1))


def _wrinkles(activation: Activation, s: Sheet) -> np.ndarray:
    """Return how much darker the skin is in open folds: 0 to about 0.5."""
    masks = _wrinkle_masks()
    dark = np.zeros_like(s.x)
    for units, mask in masks:
        dark += mask * min(sum(activation.mean(unit) for unit in units), 1.3)
    return np.clip(dark, 0, 0.6)


@cache
def _wrinkle_masks() -> list[tuple[tuple[int, ...], np.ndarray]]:
    s = texel_sheet()

    def lines(distance: np.ndarray, width: float) -> np.ndarray:
        return np.exp(-0.5 * (distance / width) ** 2)

    wave = s.q - 1.6 * np.cos(s.x / 14.0)
    forehead = sum(lines(wave - height, 0.8) for height in (64.0, 70.5, 77.0)) * np.exp(-0.5 * (s.x / 26.0) ** 4)
    glabella = lines(s.ax - 4.6, 0.9) * np.exp(-0.5 * ((s.q - 55) / 6.5) ** 2)
    crows = sum(
        lines(s.q - 38.0 - slope * (s.ax - 47.0), 0.7) for slope in (-0.7, -0.15, 0.35)
    ) * smoothstep((s.ax - 47.0) / 3.0) * fall(s.ax - 53.0, 8.0)  # fmt: skip
    nose = lines((s.q - 28.0 + 0.25 * s.ax) % 5.0 - 2.5, 0.6) * s.gauss(5, 28, 6.5, 7)
    fold = lines(s.ax - nasolabial_x_mm(s.q), 1.9) * nasolabial_mask(s.q)
    under_eye = lines(s.q - 29.5 - 0.012 * (s.ax - 31.0) ** 2, 0.9) * fall(np.abs(s.ax - 33.0) - 8, 8)
    chin = s.gauss(0, -50, 15, 2.2)
    marionette = lines(s.ax - 28.5 - 0.15 * (-36 - s.q), 1.0) * np.exp(-0.5 * ((s.q + 42) / 6.0) ** 2)
    return [
        ((1,), 0.24 * forehead), ((2,), 0.12 * forehead), ((4,), 0.42 * glabella), ((6,), 0.30 * crows),
        ((9,), 0.28 * nose), ((12, 10), 0.24 * fold), ((9,), 0.10 * fold), ((6, 7), 0.14 * under_eye),
        ((17,), 0.25 * chin), ((15,), 0.26 * marionette),
    ]  # fmt: skip


def _paint_mouth(rgb: np.ndarray, s: Sheet, y: np.ndarray) -> None:
    """Paint the dark line of a closed mouth, or teeth and darkness in an open one."""
    inside = (np.abs(s.mouth_t) < 1.0) & (s.mouth_s < 1.0)
    rows = np.flatnonzero((np.abs(s.mouth_t) < 1.0).any(1))
    if not len(rows):
        return
    band = slice(rows[0], rows[-1] + 1)
    top, bottom = y[rows[0]], y[rows[-1]]
    gap = np.maximum(top - bottom, 0.0)[None, :]
    from_top = top[None, :] - y[band]
    red, dark = np.array([0.36, 0.12, 0.12]), np.array([0.12, 0.04, 0.04])
    paint = rgb[band].copy()
    _blend(paint, red, np.ones_like(from_top) * smoothstep((gap - 0.2) / 1.0) + 0.55)
    _blend(
        paint, dark, smoothstep((from_top - 0.25 * gap) / np.maximum(0.5 * gap, 0.5)) * smoothstep((gap - 1.5) / 4.0)
    )
    teeth = smoothstep((gap - 2.0) / 2.0) * smoothstep((np.minimum(7.5, 0.55 * gap) - from_top) / 1.0)
    teeth *= smoothstep((20.0 - s.ax[band]) / 4.0)
    between = 0.12 * np.exp(-0.5 * (((s.x[band] + 3.6) % 7.2 - 3.6) / 0.5) ** 2)
    _blend(paint, np.array([0.86, 0.82, 0.74]), 0.95 * teeth * (1 - between))
    rgb[band] = np.where(inside[band][..., None], paint, rgb[band])


def _paint_eye(
    rgb: np.ndarray, identity: Identity, s: Sheet, x: np.ndarray, y: np.ndarray, centre: np.ndarray, side: float
) -> None:
    t, along = s.eye_t, s.eye_s
    half = s.side == side
    rows = np.flatnonzero((np.abs(t) < 1.7).any(1))
    columns = np.flatnonzero((half & (np.abs(along) < 1.25)).any(0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    t, along, x, y, paint = t[box], along[box], x[box], y[box], rgb[box].copy()
    ball = (np.abs(t) < 1.0) & (np.abs(along) < 1.0)
    distance = np.hypot(x - centre[0], y - centre[1] - 0.2)
    white = np.array([0.88, 0.86, 0.84])
    eye = np.broadcast_to(white.astype(np.float32), paint.shape).copy()
    _blend(eye, [0.80, 0.62, 0.58], 0.6 * smoothstep((np.abs(along) - 0.72) / 0.28))
    iris = smoothstep((IRIS_RADIUS_MM - distance) / 0.5)
    _blend(eye, identity.iris_rgb, iris)
    _blend(eye, identity.iris_rgb * 0.35, 0.7 * np.exp(-0.5 * ((distance - IRIS_RADIUS_MM + 0.5) / 0.5) ** 2))
    _blend(eye, [0.02, 0.02, 0.02], smoothstep((PUPIL_RADIUS_MM - distance) / 0.4))
    glint = np.hypot(x - centre[0] - 1.8, y - centre[1] - 2.2)
    _blend(eye, [1.0, 1.0, 1.0], 0.9 * smoothstep((0.9 - glint) / 0.4))
    eye *= (1 - 0.45 * smoothstep((t - 0.25) / 0.75))[..., None]  # the upper lid's shadow
    paint = np.where(ball[..., None], eye, paint)
    edge = np.exp(-0.5 * ((t - 1.0) / 0.22) ** 2) + 0.45 * np.exp(-0.5 * ((t + 1.0) / 0.18) ** 2)
    _blend(paint, [0.08, 0.06, 0.05], 0.8 * edge * smoothstep((1.08 - np.abs(along)) / 0.1))
    rgb[box] = np.where(half[box][..., None], paint, rgb[box])
