"""What the images of a cache are like: outliers, faces that look alike, mirrored ones. Found while others look at pages."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np

from preprocess.viewer.likeness import find_mirrored, mirror_image
from preprocess.viewer.measures import MEASURES, Outlier, find_outliers, measure
from shared.cache import Cache
from shared.errors import CacheError, FacetError, first_line
from shared.likeness import MOST_COMPARED, Hashes, choose_compared, find_alike, hash_image
from shared.store.paths import is_remote
from shared.store.storage import open_arrays

# All of BU-3DFE and Bosphorus, in about half a minute; beyond that evenly over the cache. An object store charges by the byte.
MOST_LOOKED_AT, MOST_LOOKED_AT_REMOTELY = MOST_COMPARED, 256
MOST_PAIRS = 1000
_BATCH = 64


@dataclass(frozen=True)
class Statistics:
    """What was found in the rows looked at so far."""

    rows: tuple[int, ...]
    num_wanted: int  # rows that are looked at in the end
    finished: bool
    outliers: tuple[Outlier, ...]  # the farthest first
    # two rows and the bits they differ in, the most alike first, MOST_PAIRS at most
    alike: tuple[tuple[int, int, int], ...]
    mirrored: tuple[tuple[int, int, int], ...]  # row, bits from its subject's others, and once mirrored
    damaged: tuple[tuple[int, str], ...]  # row and reason


@dataclass
class _Looked:
    """Rows that were looked at, and what each of them told; rows that are damaged stand apart."""

    rows: list[int] = field(default_factory=list)
    measured: list[list[float]] = field(default_factory=list)
    hashes: list[Hashes] = field(default_factory=list)
    mirrored: list[np.ndarray] = field(default_factory=list)
    damaged: list[tuple[int, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows) + len(self.damaged)

    def extended(self, other: _Looked) -> _Looked:
        return _Looked(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


class Statistician:
    """AttentionRecords at rows in a thread of its own, from when it is first asked."""

    def __init__(self, cache: Cache, view: int) -> None:
        self._cache, self._view, self._wanted = cache, view, _choose_rows(cache)
        self._arrays = open_arrays(cache.path, cache.info)  # of this thread alone: a reader is used by one at a time
        self._thread: threading.Thread | None = None
        self._lock, self._ended, self._stopped = threading.Lock(), threading.Event(), threading.Event()
        self._looked = _Looked()  # replaced whole, by the thread alone: what a page took of it stays as it is
        self._alike: list[tuple[int, int, int]] = []
        self._error: FacetError | None = None  # what ended the thread
        self._told = False  # whether somebody was told of it

    def statistics(self, wait_seconds: float = 1.0) -> Statistics:
        """What is known by now, or after a short wait.

        Raises:
            StorageError: an object store does not answer.
            FacetError: anything else that ended looking. After either, the next call goes on where it ended.
        """
        with self._lock:
            if self._thread is None or self._told:
                self._error, self._told = None, False
                self._ended.clear()
                self._thread = threading.Thread(target=self._look, daemon=True)
                self._thread.start()
        self._ended.wait(wait_seconds)
        with self._lock:
            if self._error is not None:
                self._told = True
                raise self._error
            looked, alike = self._looked, tuple(self._alike)
        rows = tuple(looked.rows)
        values = np.array(looked.measured).reshape(len(rows), len(MEASURES))
        first = [next(iter(one.values())) for one in looked.hashes]
        mirrored = find_mirrored(self._cache.samples, rows, first, looked.mirrored)
        outliers, damaged = find_outliers(rows, values), tuple(looked.damaged)
        num_wanted = len(self._wanted)
        return Statistics(rows, num_wanted, len(looked) == num_wanted, outliers, alike, tuple(mirrored), damaged)

    def stop(self) -> None:
        """Ends looking, after the row that is being looked at."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        before = {*self._looked.rows, *(row for row, _ in self._looked.damaged)}
        left = [row for row in self._wanted if row not in before]
        error: FacetError | None = None
        try:
            for start in range(0, len(left), _BATCH):
                if not self._stopped.is_set():
                    self._look_at(left[start : start + _BATCH])
        except FacetError as reason:
            error = reason
        except Exception as reason:  # nobody would see it in a thread: the page would wait, or show a part as the whole
            error = FacetError(
                f"{self._cache.path}: looking at the pictures ended after {len(self._looked):,} of {len(self._wanted):,} "
                f"({type(reason).__name__}: {first_line(reason)}); run `python -m preprocess verify`, then open the page again"
            )
            error.__cause__ = reason
        with self._lock:
            self._error = error
            self._ended.set()

    def _look_at(self, rows: list[int]) -> None:
        new = _Looked()
        try:
            for row in rows:
                if self._stopped.is_set():
                    break
                try:
                    images = self._read(row)
                except CacheError as error:  # a damaged row does not hide the others
                    new.damaged.append((row, str(error)))
                    continue
                name, pixels = next(iter(images.items()))
                new.measured.append(measure(images))
                new.rows.append(row)
                new.hashes.append({one: hash_image(one, image) for one, image in images.items()})
                new.mirrored.append(hash_image(name, mirror_image(name, pixels)))
        finally:  # what was looked at before an error is not looked at again
            self._keep(new)

    def _keep(self, new: _Looked) -> None:
        looked, since = self._looked.extended(new), len(self._looked.rows)
        alike = find_alike(self._cache.samples, looked.rows, looked.hashes, since=since, most=MOST_PAIRS)
        alike = sorted([*self._alike, *alike], key=lambda pair: (pair[2], pair))[:MOST_PAIRS]
        with self._lock:  # which pages wait for: nothing is computed under it
            self._looked, self._alike = looked, alike

    def _read(self, row: int) -> dict[str, np.ndarray]:
        names = [m for m in self._cache.info.settings.modalities if self._cache.samples[row].has(m)]
        if not names:
            raise CacheError("no picture")
        pending = [self._arrays.start(name, [row]) for name in names]
        return {name: read.result()[0, self._view] for name, read in zip(names, pending, strict=True)}


def _choose_rows(cache: Cache) -> list[int]:
    """The valid rows to look at: those that are compared before a training, then more evenly over the cache. In an order that
    soon covers all of it: by the reversed bits of their place."""
    valid = [row for row, sample in enumerate(cache.samples) if sample.valid]
    num = min(len(valid), MOST_LOOKED_AT_REMOTELY if is_remote(cache.path) else MOST_LOOKED_AT)
    chosen = _spread(choose_compared(cache), num)
    among = {*chosen}
    chosen += _spread([row for row in valid if row not in among], num - len(chosen))
    chosen.sort()
    bits = max(num - 1, 0).bit_length()
    order = sorted(range(num), key=lambda place: int(f"{place:0{bits or 1}b}"[::-1], 2))
    return [chosen[place] for place in order]


def _spread(rows: list[int], num: int) -> list[int]:
    num = min(num, len(rows))
    return [rows[place * len(rows) // num] for place in range(num)]
