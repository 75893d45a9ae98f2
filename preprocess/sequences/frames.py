"""Read the frames of a sequence one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from shared.store.arrays import ArrayReader

BATCH_FRAMES = 16


def stream_frames(arrays: ArrayReader, name: str, rows: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield the rows of an array, (V, H, W, …) each; the next batch is read while one is used.

    Raises:
        CacheError: stored images are missing or damaged.
    """
    batches = [rows[start : start + BATCH_FRAMES] for start in range(0, len(rows), BATCH_FRAMES)]
    following = arrays.start(name, batches[0])
    for batch in batches[1:]:
        images = following.result()
        following = arrays.start(name, batch)
        yield from images
    yield from following.result()
