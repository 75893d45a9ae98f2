"""Find images that look wrong, in the background: outliers, mirrored scans, one face under two names."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from preprocess.inspection.sheet import spread
from shared.cache import Cache
from shared.errors import CacheError, FacetError, first_line
from shared.likeness import MOST_COMPARED, Hashes, choose_compared, count_different, find_alike, hash_image
from shared.modalities import DEPTH_STEP_MM, DEPTH_ZERO, get_modality
from shared.pairs import group_pairs
from shared.schema import Sample
from shared.store.paths import is_remote

# All of BU-3DFE and Bosphorus, in about half a minute; of larger caches an even selection. Object stores charge by the byte.
MAX_CHECKED, MAX_CHECKED_REMOTE = MOST_COMPARED, 256
MAX_PAIRS = 1000
# Modified z-score of Iglewicz & Hoaglin 1993, "How to detect and handle outliers", who advise 3.5.
OUTLIER_SCORE = 3.5
MIN_VALUES = 8  # fewer have no outliers
# A mirrored scan differs from its subject's others in fewer bits once it is mirrored back. Measured ratios: two synthetic and
# two real mirrored scans, and a scan of another person, 0.00 to 0.86; 736 correct scans 0.995 and more.
MIRRORED_RATIO = 0.9
MAX_OTHERS, MIN_OTHERS = 64, 3  # other scans of the subject that a scan is compared with
_BATCH = 64
Triple = tuple[int, int, int]
_MEASURED_PX = 112  # larger images are measured on every second, third … pixel


class Measure(NamedTuple):
    title: str
    form: str
    min_difference: float  # smaller differences from the median do not matter, however alike the other faces are


MEASURES = {
    "covered": Measure("covered", "{:.0%}", 0.1),
    "brightness": Measure("brightness", "{:.0f} of 255", 80.0),  # people's skin differs by up to 70
    "contrast": Measure("contrast", "{:.0f} of 255", 15.0),
    "tilt": Measure("turned by", "{:.1f}°", 8.0),
    "depth_mm": Measure("depth", "{:.1f} mm", 6.0),
}


class Outlier(NamedTuple):
    """A row with a measure far from the others'."""

    row: int
    measure: str
    value: float
    median: float
    score: float  # modified z-score


def measure(images: dict[str, np.ndarray]) -> dict[str, float]:
    """Measure one view, given as modality → stored image (H, W, …); a measure without its modality is left out.

    covered: fraction of pixels with a surface. brightness, contrast: mean and standard deviation of the texture's grey, 0…255.
    tilt: angle between the mean normal and the camera, degrees. depth_mm: mean depth of the surface.
    """
    step = max(min(next(iter(images.values())).shape[:2]) // _MEASURED_PX, 1)
    images = {name: image[::step, ::step] for name, image in images.items()}
    name, first = next(iter(images.items()))
    surface = get_modality(name).find_surface(first)
    found = {"covered": float(surface.mean())}
    if not surface.any():
        return found
    if "texture" in images:
        grey = images["texture"][surface].mean(-1)
        found |= {"brightness": float(grey.mean()), "contrast": float(grey.std())}
    if "normal" in images:
        mean = (images["normal"][surface].astype(np.float32) - 128).mean(0)
        found["tilt"] = float(np.degrees(np.arctan2(np.hypot(mean[0], mean[1]), mean[2])))
    if "depth" in images:
        found["depth_mm"] = float(((images["depth"][surface].astype(np.float32) - DEPTH_ZERO) * DEPTH_STEP_MM).mean())
    return found


def score_values(values: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the median of values (n,), and their differences from it in units of the median deviation."""
    median = float(np.median(values))
    deviations = np.abs(values - median)
    # if more than half of the values are equal: the mean deviation, as the authors advise
    unit = float(np.median(deviations)) / 0.6745 or float(deviations.mean()) * 1.253314
    return median, (values - median) / max(unit, 1e-12)


def find_outliers(rows: Sequence[int], measured: Sequence[dict[str, float]]) -> tuple[Outlier, ...]:
    """Find rows with a measure far from the median, in units of the median deviation; the farthest first."""
    found = []
    for name, about in MEASURES.items():
        values = {row: one[name] for row, one in zip(rows, measured, strict=True) if name in one}
        if len(values) < MIN_VALUES:
            continue
        median, scores = score_values(np.array([*values.values()]))
        for (row, value), score in zip(values.items(), np.abs(scores).tolist(), strict=True):
            if score > OUTLIER_SCORE and abs(value - median) >= about.min_difference:
                found.append(Outlier(row, name, value, median, score))
    return tuple(sorted(found, key=lambda outlier: -outlier.score))


def mirror_image(modality: str, pixels: np.ndarray) -> np.ndarray:
    """Mirror a front view (H, W, …) as if the face were mirrored: the x of normals changes its sign, too."""
    kind = get_modality(modality)
    mirrored: np.ndarray = kind.negate_x(np.flip(pixels, kind.column_axis).copy())
    return mirrored


def find_mirrored(
    samples: Sequence[Sample], rows: Sequence[int], hashes: Sequence[np.ndarray], mirrored: Sequence[np.ndarray]
) -> tuple[Triple, ...]:
    """Find rows that match their subject's other scans better once they are mirrored.

    Args:
        hashes, mirrored: `hash_image` of each row's image, and of its `mirror_image`.
    Returns:
        (row, differing bits, differing bits once mirrored), each the median over the others; the clearest first.
    """
    shown = [(samples[row].subject, samples[row].modalities.split("+")[0]) for row in rows]
    groups = group_pairs((key, index) for index, key in enumerate(shown) if key[0])
    found = []
    for members in groups.values():
        if len(members) <= MIN_OTHERS:
            continue
        others = members[:: -(-len(members) // MAX_OTHERS)]
        bits = np.array([hashes[index] for index in others])
        own, back = (
            count_different(np.array([some[index] for index in members]), bits).astype(float)
            for some in (hashes, mirrored)
        )
        itself = np.array(members)[:, None] == np.array(others)
        own[itself] = back[itself] = np.nan
        for index, a, b in zip(members, np.nanmedian(own, axis=1), np.nanmedian(back, axis=1), strict=True):
            if b < MIRRORED_RATIO * a:
                found.append((rows[index], round(a), round(b)))
    return tuple(sorted(found, key=lambda item: (item[2] - item[1], item)))


def find_same_sources(samples: Sequence[Sample]) -> list[list[int]]:
    """Group the valid rows that were made from identical files."""
    groups = group_pairs((s.source_hash, row) for row, s in enumerate(samples) if s.valid and s.source_hash)
    return [rows for rows in groups.values() if len(rows) > 1]


@dataclass(frozen=True)
class Findings:
    """What the rows checked so far show."""

    rows: tuple[int, ...]
    damaged: tuple[tuple[int, str], ...]  # row and reason
    num_wanted: int  # rows that will be checked
    outliers: tuple[Outlier, ...]
    alike: tuple[Triple, ...]  # two rows and their differing bits; the most alike first, at most MAX_PAIRS
    mirrored: tuple[Triple, ...]  # as `find_mirrored`

    @property
    def finished(self) -> bool:
        return len(self.rows) + len(self.damaged) == self.num_wanted


class _Face(NamedTuple):
    row: int
    measured: dict[str, float]
    hashes: Hashes
    mirrored: np.ndarray  # hash of the first modality's mirrored image


class ImageChecker:
    """Reads the front view of many rows in a thread of its own, from the first call of `findings` on."""

    def __init__(self, cache: Cache) -> None:
        self._cache, self._wanted = cache, _choose_rows(cache)
        self._arrays = cache.open_arrays()  # a reader serves one thread at a time
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="image-checks")
        self._task: Future[None] | None = None
        self._lock, self._stopped = threading.Lock(), threading.Event()
        # Changed under the lock, by the thread only. Tuples, so that a page's copy stays as it is.
        self._faces: tuple[_Face, ...] = ()
        self._damaged: tuple[tuple[int, str], ...] = ()
        self._alike: tuple[Triple, ...] = ()

    def findings(self, wait_seconds: float = 1.0) -> Findings:
        """Return what is found by now, or after a short wait.

        Raises:
            StorageError: an object store does not answer.
            FacetError: another error ended the checks. After either, the next call continues them.
        """
        with self._lock:
            if self._task is None and not self._stopped.is_set():
                self._task = self._pool.submit(self._run)
            task = self._task
        if task is not None:
            wait([task], wait_seconds)
            if task.done() and (error := task.exception()):
                with self._lock:
                    self._task = None if self._task is task else self._task
                raise error
        with self._lock:
            faces, damaged, alike = self._faces, self._damaged, self._alike
        rows = tuple(face.row for face in faces)
        first = [next(iter(face.hashes.values())) for face in faces]
        mirrored = find_mirrored(self._cache.samples, rows, first, [face.mirrored for face in faces])
        outliers = find_outliers(rows, [face.measured for face in faces])
        return Findings(rows, damaged, len(self._wanted), outliers, alike, mirrored)

    def stop(self) -> None:
        """Stop after the row that is being read."""
        self._stopped.set()
        self._pool.shutdown()

    def _run(self) -> None:
        done = {*(face.row for face in self._faces), *(row for row, _ in self._damaged)}
        rows = [row for row in self._wanted if row not in done]
        try:
            for start in range(0, len(rows), _BATCH):
                self._check(rows[start : start + _BATCH])
        except FacetError:
            raise
        except Exception as error:
            num = len(self._faces) + len(self._damaged)
            raise FacetError(
                f"{self._cache.path}: checking the images stopped after {num:,} of {len(self._wanted):,} "
                f"({type(error).__name__}: {first_line(error)}); run `python -m preprocess verify`, then open the page again"
            ) from error

    def _check(self, rows: Sequence[int]) -> None:
        faces, damaged = list(self._faces), list(self._damaged)
        try:
            for row in rows:
                if self._stopped.is_set():
                    break
                try:
                    faces.append(self._read(row))
                except CacheError as error:
                    damaged.append((row, str(error)))
        finally:  # an error does not lose the rows before it
            hashes, samples = [face.hashes for face in faces], self._cache.samples
            new = find_alike(samples, [face.row for face in faces], hashes, since=len(self._faces), most=MAX_PAIRS)
            alike = tuple(sorted([*self._alike, *new], key=lambda pair: (pair[2], pair))[:MAX_PAIRS])
            with self._lock:
                self._faces, self._damaged, self._alike = tuple(faces), tuple(damaged), alike

    def _read(self, row: int) -> _Face:
        names = [name for name in self._cache.info.settings.modalities if self._cache.samples[row].has(name)]
        if not names:
            raise CacheError("no picture")
        pending, view = [self._arrays.start(name, [row]) for name in names], self._cache.info.settings.front_view
        images = {name: read.result()[0, view] for name, read in zip(names, pending, strict=True)}
        hashes = {name: hash_image(name, image) for name, image in images.items()}
        return _Face(row, measure(images), hashes, hash_image(names[0], mirror_image(names[0], images[names[0]])))


def _choose_rows(cache: Cache) -> list[int]:
    """Choose the valid rows to check: first those that a training compares, then others, evenly over the cache.

    They are shuffled, so that the first ones already represent the whole cache.
    """
    valid = [row for row, sample in enumerate(cache.samples) if sample.valid]
    num = min(len(valid), MAX_CHECKED_REMOTE if is_remote(cache.path) else MAX_CHECKED)
    chosen = spread(choose_compared(cache), num)
    chosen += spread(sorted({*valid} - {*chosen}), num - len(chosen))
    random.Random(0).shuffle(chosen)
    return chosen
