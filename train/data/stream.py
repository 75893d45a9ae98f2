"""Batches of a cache's items, read ahead of the training step into reused buffers."""

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
from shared.store.arrays import ABSENT, ArrayReader
from train.tasks.item import Item

READ_AHEAD = 3  # batches being read while one is computed
Allocate = Callable[[tuple[int, ...], np.dtype], np.ndarray]


@dataclass(frozen=True)
class RawBatch:
    """B items as stored in the cache. The images are valid until the next batch is requested, which reuses their memory."""

    items: list[Item]
    # modality → u8 (B, T, V, H, W, 3) or u16 (B, T, V, H, W), 0 if absent: an array, or a tensor with i16 for u16
    images: dict[str, Any]
    present: np.ndarray  # bool (B, T, M)
    # bool (B,): whether frame 0 is the item's reference, else to be ignored; None: there are no references
    has_reference: np.ndarray | None = None


class PendingImages(Protocol):
    def result(self) -> Any: ...


class ImageSource(Protocol):
    """A source of images, for one stream at a time."""

    def start(self, modality: str, rows: np.ndarray, slot: int) -> PendingImages:
        """Start to read images (len(rows), V, H, W, …) of rows of the cache, zeros where a row is ABSENT.

        The result may use the buffer of the slot, 0 … READ_AHEAD, until the next call for this slot.
        """
        ...


class BufferPool:
    """Buffers for READ_AHEAD + 1 batches of each modality. Page faults of fresh memory would cost more than reading."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], allocate: Allocate = np.empty) -> None:
        """
        Args:
            shapes: array of the cache → its shape.
            allocate: (shape, dtype) → array, page-locked for a GPU.
        """
        self._shapes, self._allocate = shapes, allocate
        self._memory: dict[tuple[str, int], np.ndarray] = {}

    def take(self, modality: str, slot: int, num_rows: int) -> np.ndarray:
        memory = self._memory.get((modality, slot))
        if memory is None or len(memory) < num_rows:
            shape = (num_rows, *self._shapes[modality][1:])
            memory = self._memory[modality, slot] = self._allocate(shape, np.dtype(ARRAYS[modality].dtype))
        return memory[:num_rows]


class StoredImages:
    """Images read from the cache's files."""

    def __init__(self, cache: Cache, *, arrays: ArrayReader | None = None, allocate: Allocate = np.empty) -> None:
        """
        Args:
            arrays: a reader to use instead of the cache's own.
        """
        self._arrays = arrays or cache.arrays
        self._slots = BufferPool(cache.info.arrays(), allocate)

    def start(self, modality: str, rows: np.ndarray, slot: int) -> PendingImages:
        return self._arrays.start_into(modality, rows, self._slots.take(modality, slot, len(rows)))


def sample_rows(rows: Sequence[int], num_frames: int, jitter: Sequence[float] | None = None) -> list[int]:
    """Return one row from each of num_frames equal segments (Wang et al. 2016, "Temporal segment networks").

    Args:
        jitter: position within each segment, 0…1; None: the middle. Short sequences repeat rows.
    """
    within = np.full(num_frames, 0.5) if jitter is None else np.asarray(jitter)
    positions = (np.arange(num_frames) + within) * len(rows) / num_frames
    return [rows[min(int(position), len(rows) - 1)] for position in positions]


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
    """Read batches in the given order, READ_AHEAD ahead. A batch's images are valid until the next batch is requested.

    Args:
        jitter: (seed, epoch): sample frames at random within their segments (training); None: the middle frames.
        references: put each item's reference before its frames.
        source: source of the images; None: the cache's files, with buffers of this stream alone.
    Raises:
        CacheError: stored images are missing or damaged.
    """
    source, shapes = source or StoredImages(cache), cache.info.arrays()
    waiting: deque[tuple[list[Item], np.ndarray, dict[str, PendingImages]]] = deque()
    remaining = enumerate(batches)
    held: dict[str, list[bool]] = {}

    def presence(text: str) -> list[bool]:
        """Return which modalities a row has. Cached: reader threads wait for the GIL while a batch is assembled."""
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
    finally:  # no read may write into the source's buffers when its next stream begins
        for _, _, reads in waiting:
            for read in reads.values():
                with contextlib.suppress(FacetError):
                    read.result()


def choose_rows(item: Item, num_frames: int, jitter: tuple[int, int] | None, references: bool) -> list[int]:
    """Return the rows of an item's frames, preceded by its reference if requested. jitter: as in `stream_batches`."""
    draws = None
    if jitter is not None and len(item.rows) > 1:
        draws = np.random.default_rng([*jitter, item.index, 1 + item.repeat]).random(num_frames).tolist()
    rows = sample_rows(item.rows, num_frames, draws) if len(item.rows) > 1 else [item.rows[0]] * num_frames
    if not references:
        return rows
    return [rows[0] if item.reference is None else item.reference, *rows]
