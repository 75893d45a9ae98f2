"""Action units and emotions of each row, from the arrays `aus` and `targets` of a cache."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from shared.cache import Cache
from shared.store.arrays import ArrayReader

PRESENT, ABSENT = "present", "absent"
INTENSITY, SIDE = "_intensity", "_side"  # how the names of other columns of an action unit end
MAX_INTENSITY = 5  # E in FACS (Ekman, Friesen & Hager 2002); 0 = absent, 1 = A


class Labels:
    """Reads the labels that a row may have several of. No array is read before it is needed."""

    def __init__(self, cache: Cache) -> None:
        self._cache, self._lock = cache, threading.Lock()  # a reader serves one thread at a time
        self.names = (*cache.info.au_names, *cache.info.target_names)
        self.shown = tuple(name for name in self.names if not name.endswith((INTENSITY, SIDE)))  # present or absent

    def read(self, rows: Sequence[int]) -> np.ndarray:
        """Read i8 (n, len(names)): 1 or 0, or an intensity; -1 = not known.

        Raises:
            CacheError: stored bytes are missing or damaged.
        """
        found = np.full((len(rows), len(self.names)), -1, np.int8)
        valid = [i for i, row in enumerate(rows) if self._cache.samples[row].valid]
        start = 0
        for array, names in (("aus", self._cache.info.au_names), ("targets", self._cache.info.target_names)):
            if names and valid:
                with self._lock:
                    found[valid, start : start + len(names)] = self._reader.read(array, [rows[i] for i in valid])
            start += len(names)
        return found

    @cached_property
    def _reader(self) -> ArrayReader:
        return self._cache.open_arrays()

    @cached_property
    def _all(self) -> np.ndarray:
        return self.read(range(len(self._cache.samples)))

    def options(self) -> list[str]:
        """Return the values of the filter: `AU4 present`, `AU4 absent`, `AU4 intensity 3`."""
        values = []
        for name in self.names:
            if name in self.shown:
                values += [f"{name} {PRESENT}", f"{name} {ABSENT}"]
            elif name.endswith(INTENSITY):
                values += [f"{name.removesuffix(INTENSITY)} intensity {n}" for n in range(1, MAX_INTENSITY + 1)]
        return values

    def rows(self, value: str) -> np.ndarray:
        """Return the rows with a value of `options`, ascending, i64 (n,)."""
        name, _, word = value.partition(" ")
        kind, _, number = word.partition(" ")
        if kind == "intensity":
            name, word = name + INTENSITY, number
        wanted = {PRESENT: 1, ABSENT: 0}.get(word, int(word) if word.isascii() and word.isdigit() else -1)
        if name not in self.names or wanted < 0:
            return np.empty(0, int)
        return np.flatnonzero(self._all[:, self.names.index(name)] == wanted)

    def describe(self, row: int) -> list[str]:
        """Return what a row shows: `AU4`, or `AU6 3` where its intensity is known; `none`, or `not known`."""
        (values,) = self.read([row]).tolist()
        known = dict(zip(self.names, values, strict=True))
        present = [
            f"{name} {level}" if (level := known.get(name + INTENSITY, -1)) > 0 else name
            for name in self.shown
            if known[name] > 0
        ]
        return present or ["none" if any(known[name] == 0 for name in self.shown) else "not known"]
