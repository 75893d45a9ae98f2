"""What the images of a cache are like, from some of its rows: outliers, and scans that look like each other."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from preprocess.viewer.pictures import Pictures
from shared.cache import Cache
from shared.schema import DEPTH_STEP_MM, DEPTH_ZERO, Sample

NUM_LOOKED_AT = 256
# Modified z-score of Iglewicz & Hoaglin 1993, "How to detect and handle outliers", who advise 3.5.
OUTLIER_SCORE = 3.5
HASH_SIDE = 32
ALIKE_BITS = 8  # of HASH_SIDE²; different synthetic people differ in 60 and more, scans of one in 5 and more
MEASURES = ("covered", "brightness", "contrast", "tilt", "depth_mm")


@dataclass(frozen=True)
class Outlier:
    """A row whose measure lies far from the others'."""

    row: int
    measure: str
    value: float
    median: float
    score: float  # modified z-score


@dataclass(frozen=True)
class Statistics:
    """What was found in the rows looked at."""

    rows: tuple[int, ...]
    outliers: tuple[Outlier, ...]  # the farthest first
    alike: tuple[tuple[int, int, int], ...]  # two rows and the number of bits they differ in, the most alike first


class Statistician:
    """Looks at rows when asked for the first time; a second visitor waits for the first."""

    def __init__(self, cache: Cache, pictures: Pictures, view: int) -> None:
        self._cache, self._pictures, self._view = cache, pictures, view
        self._lock = threading.Lock()
        self._found: Statistics | None = None

    def statistics(self) -> Statistics:
        """Raises CacheError where stored bytes are damaged."""
        with self._lock:
            if self._found is None:
                self._found = self._look()
            return self._found

    def _look(self) -> Statistics:
        valid = [row for row, sample in enumerate(self._cache.samples) if sample.valid]
        num = min(len(valid), NUM_LOOKED_AT)
        rows = [valid[place * len(valid) // num] for place in range(num)]
        measured, hashes = [], []
        for row in rows:
            sample = self._cache.samples[row]
            images = {
                m: self._pictures.read(row, m)[self._view]
                for m in self._cache.info.settings.modalities
                if sample.has(m)
            }
            measured.append(measure(images))
            hashes.append(hash_image(images))
        values = np.array(measured).reshape(len(rows), len(MEASURES))
        return Statistics(tuple(rows), find_outliers(rows, values), find_alike(self._cache.samples, rows, hashes))


def measure(images: dict[str, np.ndarray]) -> list[float]:
    """MEASURES of one view, NaN where a modality is missing.

    covered: share of pixels with a surface. brightness, contrast: mean and standard deviation of the texture's grey, 0…255.
    tilt: the mean normal's angle to the camera, degrees. depth_mm: mean depth of the surface.
    """
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


def hash_image(images: dict[str, np.ndarray]) -> np.ndarray:
    """bool (HASH_SIDE²,), fewer for small images: whether each patch of a downscaled view is brighter than that to its left.

    Of the first modality there is. A difference hash: it tells nothing of overall brightness.
    """
    pixels = next(iter(images.values())).astype(np.float32)
    grey = pixels if pixels.ndim == 2 else pixels.mean(-1)
    height, width = grey.shape
    rows = np.arange(min(HASH_SIDE, height)) * height // min(HASH_SIDE, height)
    columns = np.arange(min(HASH_SIDE + 1, width)) * width // min(HASH_SIDE + 1, width)
    sums = np.add.reduceat(np.add.reduceat(grey, rows, axis=0), columns, axis=1)
    small = sums / np.diff(
        columns, append=width
    )  # patches are compared within their row, so that its height does not matter
    bits: np.ndarray = (np.diff(small, axis=1) > 0).ravel()
    return bits


def find_outliers(rows: Sequence[int], values: np.ndarray) -> tuple[Outlier, ...]:
    """Values f64 (n, MEASURES) whose modified z-score passes OUTLIER_SCORE, in units of the median deviation."""
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
        scores = np.abs(values[:, column] - median) / spread
        found += [
            Outlier(row, name, float(value), median, float(score))
            for row, value, score in zip(rows, values[:, column], scores, strict=True)
            if score > OUTLIER_SCORE
        ]
    return tuple(sorted(found, key=lambda outlier: -outlier.score))


def find_alike(
    samples: Sequence[Sample], rows: Sequence[int], hashes: Sequence[np.ndarray]
) -> tuple[tuple[int, int, int], ...]:
    """Pairs of rows whose hashes differ in at most ALIKE_BITS bits.

    Frames of one subject's recordings are left out: neighbours are alike by nature, and so are the faces they begin from.
    """
    if not rows:
        return ()
    bits = np.array(hashes, np.int32)
    different = bits @ (1 - bits.T) + (1 - bits) @ bits.T
    pairs = np.argwhere(np.triu(different <= ALIKE_BITS, 1)).tolist()
    found = [
        (rows[a], rows[b], int(different[a, b]))
        for a, b in pairs
        if samples[rows[a]].frame is None or samples[rows[a]].subject != samples[rows[b]].subject
    ]
    return tuple(sorted(found, key=lambda pair: (pair[2], pair)))


def find_same_sources(samples: Sequence[Sample]) -> list[list[int]]:
    """Groups of valid rows made from the very same bytes, of all rows of a cache."""
    groups: dict[str, list[int]] = defaultdict(list)
    for row, sample in enumerate(samples):
        if sample.valid and sample.source_hash:
            groups[sample.source_hash].append(row)
    return [rows for rows in groups.values() if len(rows) > 1]
