"""What the images of a cache are like: outliers, faces that look alike, mirrored ones. Found while others look at pages."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from preprocess.viewer.likeness import find_alike, find_mirrored, hash_image, mirror_image
from preprocess.viewer.measures import MEASURES, Outlier, find_outliers, measure
from shared.cache import Cache
from shared.errors import CacheError, FacetError
from shared.paths import is_remote
from shared.storage import open_arrays

# All of BU-3DFE and Bosphorus, in about half a minute; beyond that evenly over the cache. An object store charges by the byte.
MOST_LOOKED_AT, MOST_LOOKED_AT_REMOTELY = 5000, 256
MOST_PAIRS = 1000
_BATCH = 64


@dataclass(frozen=True)
class Statistics:
    """What was found in the rows looked at so far."""

    rows: tuple[int, ...]
    num_wanted: int  # rows that are looked at in the end
    finished: bool
    outliers: tuple[Outlier, ...]  # the farthest first
    alike: tuple[
        tuple[int, int, int], ...
    ]  # two rows and the bits they differ in, the most alike first, MOST_PAIRS at most
    mirrored: tuple[tuple[int, int, int], ...]  # row, bits from its subject's others, and once mirrored
    damaged: tuple[tuple[int, str], ...]  # row and reason


class Statistician:
    """Looks at rows in a thread of its own, from when it is first asked."""

    def __init__(self, cache: Cache, view: int) -> None:
        self._cache, self._view = cache, view
        self._arrays = open_arrays(cache.path, cache.info)  # of this thread alone: a reader is used by one at a time
        self._thread: threading.Thread | None = None
        self._lock, self._finished, self._stopped = threading.Lock(), threading.Event(), threading.Event()
        self._rows: list[int] = []
        self._measured: list[list[float]] = []
        self._hashes: list[np.ndarray] = []
        self._mirrored: list[np.ndarray] = []
        self._alike: list[tuple[int, int, int]] = []
        self._damaged: list[tuple[int, str]] = []
        self._error: FacetError | None = None

    def statistics(self, wait_seconds: float = 1.0) -> Statistics:
        """What is known by now, or after a short wait. Raises StorageError where an object store does not answer."""
        wanted = _choose_rows(self._cache)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, args=(wanted,), daemon=True)
                self._thread.start()
        finished = self._finished.wait(wait_seconds)
        if self._error is not None:
            raise self._error
        with self._lock:
            rows = tuple(self._rows)
            values = np.array(self._measured).reshape(len(rows), len(MEASURES))
            mirrored = find_mirrored(self._cache.samples, rows, self._hashes, self._mirrored)
            alike, damaged = tuple(self._alike), tuple(self._damaged)
        return Statistics(rows, len(wanted), finished, find_outliers(rows, values), alike, tuple(mirrored), damaged)

    def stop(self) -> None:
        """Ends looking, after the row that is being looked at."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _look(self, wanted: list[int]) -> None:
        try:
            for start in range(0, len(wanted), _BATCH):
                if not self._stopped.is_set():
                    self._look_at(wanted[start : start + _BATCH])
        except FacetError as error:
            self._error = error
        finally:
            self._finished.set()

    def _look_at(self, rows: list[int]) -> None:
        seen, measured, hashes, mirrored, damaged = [], [], [], [], []
        for row in rows:
            if self._stopped.is_set():
                return
            try:
                images = self._read(row)
            except CacheError as error:  # a damaged row does not hide the others
                damaged.append((row, str(error)))
                continue
            seen.append(row)
            measured.append(measure(images))
            name, pixels = next(iter(images.items()))
            hashes.append(hash_image({name: pixels}))
            mirrored.append(hash_image({name: mirror_image(name, pixels)}))
        with self._lock:
            since = len(self._rows)
            self._rows += seen
            self._measured += measured
            self._hashes += hashes
            self._mirrored += mirrored
            self._damaged += damaged
            new = find_alike(self._cache.samples, self._rows, self._hashes, since=since)
            self._alike = sorted([*self._alike, *new], key=lambda pair: (pair[2], pair))[:MOST_PAIRS]

    def _read(self, row: int) -> dict[str, np.ndarray]:
        names = [m for m in self._cache.info.settings.modalities if self._cache.samples[row].has(m)]
        pending = [self._arrays.start(name, [row]) for name in names]
        return {name: read.result()[0, self._view] for name, read in zip(names, pending, strict=True)}


def _choose_rows(cache: Cache) -> list[int]:
    """The valid rows to look at, in an order that soon covers the whole cache: by the reversed bits of their place."""
    valid = [row for row, sample in enumerate(cache.samples) if sample.valid]
    num = min(len(valid), MOST_LOOKED_AT_REMOTELY if is_remote(cache.path) else MOST_LOOKED_AT)
    bits = max(num - 1, 0).bit_length()
    order = sorted(range(num), key=lambda place: int(f"{place:0{bits or 1}b}"[::-1], 2))
    return [valid[place * len(valid) // num] for place in order]
