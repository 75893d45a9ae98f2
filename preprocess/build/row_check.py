"""Check that the images of a row show a face before they become part of a cache.

Rows are refused only for defects that no face scan has. Half faces, holes, hands before the mouth, dark skin and bad light
pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from preprocess.rendering.views import Views
from shared.errors import ScanError
from shared.modalities import DEPTH_STEP_MM, DEPTH_ZERO
from shared.schema import FIELD_OF_VIEW_MM, RenderSettings, View

# Thresholds lie between the worst good row and the best broken one, measured by tests/benchmarks/row_check.py.
MIN_AREA_MM2 = 2400.0  # that the view with most surface shows
MIN_RELIEF_MM = 2.0  # RMS distance of the surface from its best plane
# Covered part of the crop sphere's rim to the left and right of a frontal face. Cheeks and ears so far to the side are so far
# back that the sphere has cut them off: faces, heads and busts cover none of it.
MAX_RIM_SHARE = 0.35
MAX_CENTRE_MM = 30.0  # from the origin, where the tip of the nose should be, to the nearest surface
MIN_TEXTURE_SPREAD = 1.5  # levels of 255: between the 2nd and 98th percentile of the channel that differs most
# Views that show the face from the front, within which the sides of the rim are beside the cheeks.
_FRONTAL_YAW_DEG, _FRONTAL_PITCH_DEG = 25.0, 20.0
_RIM = (0.88, 0.99)  # of the crop radius, as seen in the image
_STEP = 3  # every third pixel of a row and a column is measured


@dataclass(frozen=True)
class RowMeasures:
    """Measurements on the images of one row. Areas and lengths on the surface, mm; NaN where no view shows any."""

    area_mm2: float
    relief_mm: float
    rim_share: float
    centre_mm: float
    texture_spread: float
    texture_level: float


def check_row(views: Views, settings: RenderSettings) -> None:
    """Refuse a row whose images show no face.

    Raises:
        ScanError: hardly any surface, a flat one, one that runs out of the image or lies beside its middle, or a texture of one
            colour; names the measured value.
    """
    seen = measure_row(views, settings)
    if not seen.area_mm2 >= MIN_AREA_MM2:
        raise ScanError(
            f"the images show {seen.area_mm2 / 100:.1f} cm² of surface, a face has at least {MIN_AREA_MM2 / 100:.0f}; "
            "is the scan whole, and in mm?"
        )
    if seen.relief_mm < MIN_RELIEF_MM:
        raise ScanError(
            f"the surface is flat within {seen.relief_mm:.1f} mm, no face; is this the scan, and is it upright?"
        )
    if seen.rim_share > MAX_RIM_SHARE:
        raise ScanError(
            f"the surface runs out of the image on both sides ({seen.rim_share:.0%} of the rim beside the cheeks); "
            "is it a face, and in mm?"
        )
    if seen.centre_mm > MAX_CENTRE_MM:
        raise ScanError(
            f"the nearest surface is {seen.centre_mm:.0f} mm from where the tip of the nose should be: the face lies beside "
            "the images' middle; check its landmarks or its orientation"
        )
    if seen.texture_spread < MIN_TEXTURE_SPREAD:
        color = "black" if seen.texture_level < 4 else f"of one colour (level {seen.texture_level:.0f} of 255)"
        raise ScanError(f"the texture is {color} all over; mend it, or remove it to keep the surface alone")


def measure_row(views: Views, settings: RenderSettings) -> RowMeasures:
    """Return the values that `check_row` compares, over all views."""
    pixels, x_mm, y_mm, *sides = _choose_pixels(settings)
    depth = views.depth.reshape(len(views.depth), -1)[:, pixels]
    shown = [np.flatnonzero(image > 0) for image in depth]
    known = all(map(len, sides))  # not in the smallest images
    frontal = [image for view, image in zip(settings.views, depth, strict=True) if known and _is_frontal(view)]
    rims = [min(np.count_nonzero(image[side]) / len(side) for side in sides) for image in frontal]
    points_mm = [
        np.stack([x_mm[at], y_mm[at], (image[at].astype(np.float64) - DEPTH_ZERO) * DEPTH_STEP_MM])
        for image, at in zip(depth, shown, strict=True)
    ]
    spread = level = np.nan
    if views.texture is not None and any(map(len, shown)):
        images = views.texture.reshape(len(shown), -1, 3)
        colors = np.concatenate([image.take(pixels[at], axis=0) for image, at in zip(images, shown, strict=True)])
        counts = np.stack([np.bincount(channel, minlength=256) for channel in colors.T])
        low, high = ((counts.cumsum(axis=1) < part * len(colors)).sum(axis=1) for part in (0.02, 0.98))
        spread, level = float((high - low).max()), float(colors.mean())
    return RowMeasures(
        area_mm2=max(map(len, shown)) * (settings.mm_per_px * _STEP) ** 2,
        relief_mm=max((_distance_from_plane(points) for points in points_mm if points.shape[1] > 3), default=np.nan),
        rim_share=max(rims, default=np.nan),
        centre_mm=min((_distance_from_origin(points) for points in points_mm if points.shape[1]), default=np.nan),
        texture_spread=spread,
        texture_level=level,
    )


@lru_cache(maxsize=4)
def _choose_pixels(settings: RenderSettings) -> tuple[np.ndarray, ...]:
    """Return indices of every third pixel of every third row, their x and y in mm, and those at the left and right rim."""
    chosen = np.arange(settings.size_px)[_STEP // 2 :: _STEP]
    centres = (chosen + 0.5) * settings.mm_per_px - FIELD_OF_VIEW_MM / 2
    x_mm, y_mm = (values.ravel() for values in np.meshgrid(centres, -centres))
    radius = np.hypot(x_mm, y_mm) / min(settings.crop_radius_mm, FIELD_OF_VIEW_MM / 2)
    beside = (radius > _RIM[0]) & (radius < _RIM[1]) & (np.abs(x_mm) > np.abs(y_mm))
    pixels = (chosen[:, None] * settings.size_px + chosen).ravel()
    return pixels, x_mm, y_mm, np.flatnonzero(beside & (x_mm < 0)), np.flatnonzero(beside & (x_mm > 0))


def _is_frontal(view: View) -> bool:
    return abs(view.yaw_deg) <= _FRONTAL_YAW_DEG and abs(view.pitch_deg) <= _FRONTAL_PITCH_DEG


def _distance_from_origin(points_mm: np.ndarray) -> float:
    """Return the distance of the nearest of some points (3, n)."""
    return float(np.sqrt(np.einsum("cn,cn->n", points_mm, points_mm).min()))


def _distance_from_plane(points_mm: np.ndarray) -> float:
    """Return the RMS distance of points (3, n) from the plane that fits them best (along the least principal axis)."""
    centred = points_mm - points_mm.mean(axis=1, keepdims=True)
    return float(np.sqrt(max(np.linalg.eigvalsh(centred @ centred.T / centred.shape[1])[0], 0.0)))
