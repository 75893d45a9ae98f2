"""One epoch of samples, in the order of its seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from shared.cache import Cache
from train.data.batch_transform import BatchTransform
from train.data.embeddings import RowBatch
from train.data.order import count_repeats
from train.data.stream import RawBatch
from train.tasks.item import Item


def stream_epoch(
    cache: Cache,
    items: Sequence[Item],
    order: Sequence[np.ndarray],
    transform: BatchTransform,
    num_frames: int,
    *,
    jitter: tuple[int, int] | None,
    references: bool,
    chosen: slice = slice(None),
    part: Callable[[np.ndarray], np.ndarray] = lambda batch: batch,
) -> Iterator[tuple[np.ndarray, RawBatch | RowBatch]]:
    """Yield the item indices of each batch, and its images as `BatchTransform.stream` does.

    Args:
        order: indices of the items of each batch of the whole epoch, as `epoch_batches`.
        num_frames, jitter, references: as in `BatchTransform.stream`.
        chosen: batches of the epoch.
        part: returns the slice of a batch that this process takes.
    """
    own = [part(batch) for batch in order[chosen]]
    repeats = [part(counts) for counts in count_repeats(list(order))[chosen]]
    batches = [
        [items[i].again(n) for i, n in zip(indices, counts, strict=True)]
        for indices, counts in zip(own, repeats, strict=True)
    ]
    stream = transform.stream(cache, batches, num_frames, jitter=jitter, references=references)
    yield from zip(own, stream, strict=True)
