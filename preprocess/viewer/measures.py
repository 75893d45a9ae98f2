"""Five numbers a face, and the faces whose numbers lie far from the others'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.schema import DEPTH_STEP_MM, DEPTH_ZERO

# Modified z-score of Iglewicz & Hoaglin 1993, "How to detect and handle outliers", who advise 3.5.
OUTLIER_SCORE = 3.5
MEASURES = ("covered", "brightness", "contrast", "tilt", "depth_mm")
# The least difference from the others that matters, in each measure's unit; a measure that is not named has no such floor.
# Faces of one narrow cache differ by less in everything, and none of them is amiss; people's skin differs by up to 70 levels.
MIN_DIFFERENCE = {"covered": 0.1, "brightness": 80.0, "contrast": 15.0, "tilt": 8.0, "depth_mm": 6.0}
_MEASURED_PX = 112  # larger images are measured on every second, third … pixel


@dataclass(frozen=True)
class Outlier:
    """A row whose measure lies far from the others'."""

    row: int
    measure: str
    value: float
    median: float
    score: float  # modified z-score


def measure(images: dict[str, np.ndarray]) -> list[float]:
    """MEASURES of one view, NaN where a modality is missing.

    covered: share of pixels with a surface. brightness, contrast: mean and standard deviation of the texture's grey, 0…255.
    tilt: the mean normal's angle to the camera, degrees. depth_mm: mean depth of the surface.
    """
    step = max(min(next(iter(images.values())).shape[:2]) // _MEASURED_PX, 1)
    images = {name: image[::step, ::step] for name, image in images.items()}
    some = next(iter(images.values()))
    surface = some > 0 if some.ndim == 2 else some.any(-1)
    found = dict.fromkeys(MEASURES, float("nan")) | {"covered": float(surface.mean())}
    if not surface.any():
        return [found[name] for name in MEASURES]
    if "texture" in images:
        grey = images["texture"][surface].mean(-1)
        found |= {"brightness": float(grey.mean()), "contrast": float(grey.std())}
    if "normal" in images:
        mean = (images["normal"][surface].astype(np.float32) - 128).mean(0)
        found["tilt"] = float(np.degrees(np.arctan2(np.hypot(mean[0], mean[1]), mean[2])))
    if "depth" in images:
        found["depth_mm"] = float(((images["depth"][surface].astype(np.float32) - DEPTH_ZERO) * DEPTH_STEP_MM).mean())
    return [found[name] for name in MEASURES]


def find_outliers(rows: Sequence[int], values: np.ndarray) -> tuple[Outlier, ...]:
    """Values f64 (n, MEASURES) whose modified z-score passes OUTLIER_SCORE, in units of the median deviation, and whose
    difference from the median is MIN_DIFFERENCE or more."""
    found = []
    for column, name in enumerate(MEASURES):
        known = values[:, column][np.isfinite(values[:, column])]
        if len(known) < 8:
            continue
        median = float(np.median(known))
        spread = float(np.median(np.abs(known - median))) / 0.6745
        # where more than half are equal: the mean deviation, as the authors advise
        spread = spread or float(np.abs(known - median).mean()) * 1.253314
        if spread == 0:
            continue
        distances = np.abs(values[:, column] - median)
        scores = np.where(distances >= MIN_DIFFERENCE.get(name, 0.0), distances / spread, 0.0)
        found += [
            Outlier(row, name, float(value), median, float(score))
            for row, value, score in zip(rows, values[:, column], scores, strict=True)
            if score > OUTLIER_SCORE
        ]
    return tuple(sorted(found, key=lambda outlier: -outlier.score))
