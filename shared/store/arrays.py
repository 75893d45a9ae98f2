"""Define the reader that both stores implement: rows of a cache's arrays, read in the background and checked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shared.errors import CacheError
from shared.modalities import MODALITIES
from shared.schema import ARRAYS, CacheInfo

ABSENT = -1  # a row index that reads as zeros


@dataclass(frozen=True)
class StoredRows:
    """What a shard's file holds of one array: bool (R,) each, R = the shard's rows.

    present: the row's chunk is stored. intact: its checksum holds, as far as it was checked.
    """

    present: np.ndarray
    intact: np.ndarray


@dataclass(frozen=True)
class PendingRead:
    """A read that background tasks are writing into `out`; without tasks it is finished."""

    out: np.ndarray
    tasks: list[Future[None]] = field(default_factory=list)

    def result(self) -> np.ndarray:
        """Wait for all tasks and return the rows. Raises CacheError where stored bytes are missing or damaged."""
        wait(self.tasks)  # all of them, so that nobody writes into `out` after an error
        while self.tasks:  # removed, as a cycle of error and task would keep the reader's files open
            self.tasks.pop(0).result()
        return self.out


class ArrayReader(ABC):
    """Reads rows of a cache's arrays, every checksum verified. For one thread at a time.

    Rows that do not hold a modality must not be asked for.
    """

    def __init__(self, path: Path, info: CacheInfo, views: Sequence[int] | None = None) -> None:
        """Prepare to read; no file is opened yet.

        Args:
            views: indices of the stored views that are delivered, in this order; None: all.
        """
        self._path, self._info, self._views = path, info, views
        self._shapes = info.arrays()

    @abstractmethod
    def start_into(self, name: str, rows: Sequence[int] | np.ndarray, out: np.ndarray) -> PendingRead:
        """Start to read rows into the caller's memory, in background threads.

        Args:
            rows: ABSENT gives zeros.
            out: C-contiguous (len(rows), …) of the array's dtype; to be left alone until `.result()` returns it.
        Raises:
            CacheError: the cache has no such array, or a shard's file is missing or damaged.
        """

    def start(self, name: str, rows: Sequence[int] | np.ndarray) -> PendingRead:
        """Start to read rows into new memory, in the background where the store can.

        Returns:
            The read; its `.result()` waits and returns the rows, (len(rows), …), or raises CacheError as `read` does.
        Raises:
            CacheError: the cache has no such array, or a shard's file is missing or damaged.
        """
        self._check_name(name)
        shape = self._shapes[name][1:]
        if self._views is not None and name in MODALITIES:
            shape = (len(self._views), *shape[1:])
        return self.start_into(name, rows, np.empty((len(rows), *shape), ARRAYS[name].dtype))

    def read(self, name: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return rows in the given order, (len(rows), …). Raises CacheError where stored bytes are missing or damaged."""
        return self.start(name, rows).result()

    def _check_name(self, name: str) -> None:
        if name not in self._shapes:
            raise CacheError(f"{self._path}: holds no {name}; it holds {', '.join(self._shapes)}")

    def _damaged(self, name: str, row: int, why: str) -> CacheError:
        return CacheError(
            f"{self._path}: row {row} of {name} is missing or damaged ({why}); "
            "`python -m preprocess verify` names it, `build --repair` renders it again"
        )
