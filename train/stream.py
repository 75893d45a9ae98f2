"""Batches of a cache's items, read ahead of the training step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.cache import Cache
from train.items import Item

READ_AHEAD = 3  # batches being read while one is computed


@dataclass(frozen=True)
class RawBatch:
    """B items as they are in the cache.

    images: modality → u8 (B, T, V, H, W, 3) or u16 (B, T, V, H, W), 0 where absent; present bool (B, T, M), in the order of
    the modalities asked for. has_reference bool (B,): None: there are no references; otherwise frame 0 is the face to compare
    with (where there is none, the item's own, to be ignored), and the T − 1 others follow.
    """

    items: list[Item]
    images: dict[str, np.ndarray]
    present: np.ndarray
    has_reference: np.ndarray | None = None


def sample_rows(rows: Sequence[int], num_frames: int, jitter: Sequence[float] | None = None) -> list[int]:
    """One row from each of num_frames equal segments: its middle, or the point that jitter (0…1 each) says.

    Segment sampling as in Wang et al. 2016, "Temporal segment networks". Short sequences repeat rows.
    """
    within = np.full(num_frames, 0.5) if jitter is None else np.asarray(jitter)
    places = (np.arange(num_frames) + within) * len(rows) / num_frames
    return [rows[min(int(p), len(rows) - 1)] for p in places]


def epoch_order(num_items: int, seed: int, epoch: int) -> np.ndarray:
    """The order of training items in an epoch, a function of (seed, epoch) alone: every item once."""
    return np.random.default_rng([seed, epoch]).permutation(num_items)


def split_batches(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Consecutive batches of nearly equal size, none above batch_size: no tiny last batch to spoil batch statistics."""
    return np.array_split(order, -(-len(order) // batch_size))


def stream_batches(
    cache: Cache,
    batches: Sequence[Sequence[Item]],
    modalities: Sequence[str],
    num_frames: int,
    jitter: tuple[int, int] | None = None,
    references: bool = False,
) -> Iterator[RawBatch]:
    """Reads batches in the given order, a few ahead.

    Args:
        jitter: (seed, epoch): draw frames at random within their segments instead of the middle ones (training).
        references: put each item's reference before its frames.
    Raises:
        CacheError: stored images are missing or damaged.
    """
    waiting: deque[tuple[list[Item], np.ndarray, dict[str, Any]]] = deque()
    remaining = iter(batches)

    def start_next() -> None:
        items = next(remaining, None)
        if items is None:
            return
        rows = np.array([choose_rows(item, num_frames, jitter, references) for item in items])
        present = np.array([[[cache.samples[r].has(m) for m in modalities] for r in sample] for sample in rows])
        reads = {m: cache.arrays.start(m, rows[present[..., i]]) for i, m in enumerate(modalities)}
        waiting.append((list(items), present, reads))

    for _ in range(READ_AHEAD):
        start_next()
    while waiting:
        items, present, reads = waiting.popleft()
        images = {}
        for index, modality in enumerate(modalities):
            mask, found = present[..., index], reads[modality].result()
            if mask.all():
                images[modality] = found.reshape(*mask.shape, *found.shape[1:])
            else:
                images[modality] = np.zeros((*mask.shape, *found.shape[1:]), found.dtype)
                images[modality][mask] = found
        start_next()
        has_reference = np.array([item.reference is not None for item in items]) if references else None
        yield RawBatch(items, images, present, has_reference)


def choose_rows(item: Item, num_frames: int, jitter: tuple[int, int] | None, references: bool) -> list[int]:
    """The rows of an item's frames, its reference's before them where asked for. jitter: as `stream_batches`."""
    draws = None
    if jitter is not None and len(item.rows) > 1:
        # The trailing 1 keeps these draws apart from those of augmentation, which come from the same three numbers.
        draws = np.random.default_rng([*jitter, item.place, 1]).random(num_frames).tolist()
    rows = sample_rows(item.rows, num_frames, draws)
    if not references:
        return rows
    return [rows[0] if item.reference is None else item.reference, *rows]
