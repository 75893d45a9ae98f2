"""Batches of a cache's items, read ahead of the training step into memory that is used again and again."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from shared.cache import Cache
from shared.errors import FacetError
from shared.schema import ARRAYS
from shared.store.arrays import ABSENT
from shared.store.storage import ArrayReader
from train.data.items import Item

READ_AHEAD = 3  # batches being read while one is computed
Allocate = Callable[[tuple[int, ...], np.dtype], np.ndarray]


@dataclass(frozen=True)
class RawBatch:
    """B items as they are in the cache.

    images: modality → u8 (B, T, V, H, W, 3) or u16 (B, T, V, H, W), 0 where absent: an array, or a tensor on the device (u16 as
    i16 of the same bytes). Arrays are lent until the next batch is asked for: a later one is then read into them.
    present bool (B, T, M), in the order of the modalities asked for. has_reference bool (B,): None: there are no references;
    otherwise frame 0 is the face to compare with (where there is none, the item's own, to be ignored), and the T − 1 others
    follow.
    """

    items: list[Item]
    images: dict[str, Any]
    present: np.ndarray
    has_reference: np.ndarray | None = None


class PendingImages(Protocol):
    def result(self) -> Any: ...


class ImageSource(Protocol):
    """Where images come from. One stream at a time."""

    def start(self, modality: str, rows: np.ndarray, slot: int) -> PendingImages:
        """Starts to fetch images (len(rows), V, H, W, …) of rows of the cache, zeros where a row is ABSENT. They may lie in
        memory of the slot, 0 … READ_AHEAD, which the next call for it writes over."""
        ...


class BufferPool:
    """Memory for READ_AHEAD + 1 batches of each modality. Fresh memory would cost more than the reading: page faults."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], allocate: Allocate = np.empty) -> None:
        """shapes: of each array of the cache, axis 0 the sample. allocate: (shape, dtype) → array, page-locked for a GPU."""
        self._shapes, self._allocate = shapes, allocate
        self._memory: dict[tuple[str, int], np.ndarray] = {}

    def take(self, modality: str, slot: int, num_rows: int) -> np.ndarray:
        memory = self._memory.get((modality, slot))
        if memory is None or len(memory) < num_rows:
            shape = (num_rows, *self._shapes[modality][1:])
            memory = self._memory[modality, slot] = self._allocate(shape, np.dtype(ARRAYS[modality].dtype))
        return memory[:num_rows]


class StoredImages:
    """Images as they are asked for, from the cache's own files."""

    def __init__(self, cache: Cache, *, arrays: ArrayReader | None = None, allocate: Allocate = np.empty) -> None:
        """arrays: another reader of the same cache than its own."""
        self._arrays = arrays or cache.arrays
        self._slots = BufferPool(cache.info.arrays(), allocate)

    def start(self, modality: str, rows: np.ndarray, slot: int) -> PendingImages:
        return self._arrays.start_into(modality, rows, self._slots.take(modality, slot, len(rows)))


def sample_rows(rows: Sequence[int], num_frames: int, jitter: Sequence[float] | None = None) -> list[int]:
    """One row from each of num_frames equal segments: its middle, or the point that jitter (0…1 each) says.

    Segment sampling as in Wang et al. 2016, "Temporal segment networks". Short sequences repeat rows.
    """
    within = np.full(num_frames, 0.5) if jitter is None else np.asarray(jitter)
    places = (np.arange(num_frames) + within) * len(rows) / num_frames
    return [rows[min(int(p), len(rows) - 1)] for p in places]


def stream_batches(
    cache: Cache,
    batches: Sequence[Sequence[Item]],
    modalities: Sequence[str],
    num_frames: int,
    jitter: tuple[int, int] | None = None,
    references: bool = False,
    *,
    source: ImageSource | None = None,
) -> Iterator[RawBatch]:
    """Reads batches in the given order, a few ahead. A batch's images are valid until the next batch is asked for.

    Args:
        jitter: (seed, epoch): draw frames at random within their segments instead of the middle ones (training).
        references: put each item's reference before its frames.
        source: of the images, with the memory they are read into; None: the cache's files, memory for this stream alone.
    Raises:
        CacheError: stored images are missing or damaged.
    """
    source, shapes = source or StoredImages(cache), cache.info.arrays()
    waiting: deque[tuple[list[Item], np.ndarray, dict[str, PendingImages]]] = deque()
    remaining = enumerate(batches)
    held: dict[str, list[bool]] = {}

    def presence(text: str) -> list[bool]:
        """Which modalities a row has. Such texts are few, and readers wait for Python's lock while a batch is put together."""
        if text not in held:
            held[text] = [m in text.split("+") for m in modalities]
        return held[text]

    def start_next() -> None:
        number, items = next(remaining, (0, None))
        if items is None:
            return
        rows = np.array([choose_rows(item, num_frames, jitter, references) for item in items])
        present = np.array([presence(cache.samples[row].modalities) for row in rows.ravel().tolist()])
        present = present.reshape(*rows.shape, len(modalities))
        wanted = np.where(present, rows[..., None], ABSENT)
        reads: dict[str, PendingImages] = {}
        waiting.append((list(items), present, reads))
        for index, modality in enumerate(modalities):
            reads[modality] = source.start(modality, wanted[..., index].ravel(), number % (READ_AHEAD + 1))

    try:
        for _ in range(READ_AHEAD):
            start_next()
        while waiting:
            start_next()
            items, present, reads = waiting[0]
            images = {m: read.result().reshape(*present.shape[:2], *shapes[m][1:]) for m, read in reads.items()}
            waiting.popleft()
            has_reference = np.array([item.reference is not None for item in items]) if references else None
            yield RawBatch(items, images, present, has_reference)
    finally:  # nobody writes into the source's memory any more when its next stream begins
        for _, _, reads in waiting:
            for read in reads.values():
                with contextlib.suppress(FacetError):
                    read.result()


def choose_rows(item: Item, num_frames: int, jitter: tuple[int, int] | None, references: bool) -> list[int]:
    """The rows of an item's frames, its reference's before them where asked for. jitter: as `stream_batches`."""
    draws = None
    if jitter is not None and len(item.rows) > 1:
        draws = np.random.default_rng([*jitter, item.place, 1 + item.repeat]).random(num_frames).tolist()
    rows = sample_rows(item.rows, num_frames, draws) if len(item.rows) > 1 else [item.rows[0]] * num_frames
    if not references:
        return rows
    return [rows[0] if item.reference is None else item.reference, *rows]
