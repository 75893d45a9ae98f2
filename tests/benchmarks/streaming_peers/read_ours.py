"""How we read the same batches, through what the trainer itself calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.streaming_peers.images import open_images

from shared.schema import COMPRESSIONS
from train.data.items import find_items
from train.data.order import epoch_order, split_batches
from train.data.stream import ImageSource, StoredImages, stream_batches

BATCH = 32
S3_URL = "STREAMING_BENCHMARK_S3"  # where the images are in the object store

Epoch = Callable[[int], Iterable[Any]]


def open_ours(kind: str, folder: Path, workers: int, *, preload: bool = False) -> Epoch:
    """kind: STORE-COMPRESSION or s3. workers: of a loader that has such; ours reads in threads."""
    cache = open_images(os.environ[S3_URL] if kind == "s3" else str(folder / kind))
    items = find_items(cache, ["texture"])
    source: ImageSource | None = StoredImages(cache)
    if preload:
        import torch

        from train.data.preload import preload_images

        source = preload_images(cache, items, ["texture"], "ram", torch.device("cpu"))

    def epoch_of(epoch: int) -> Iterable[Any]:
        batches = [[items[i] for i in places] for places in split_batches(epoch_order(len(items), 0, epoch), BATCH)]
        stream = stream_batches(cache, batches, ["texture"], 1, source=source)
        return (raw.images["texture"][:, 0] for raw in stream)

    return epoch_of


def _openers() -> dict[str, Callable[[Path, int], Epoch]]:
    openers: dict[str, Callable[[Path, int], Epoch]] = {}
    for store, word in (("Zarr", "zarr"), ("HDF5", "hdf5")):
        for compression in COMPRESSIONS:
            openers[f"ours, {store}, {compression}"] = partial(open_ours, f"{word}-{compression}")
    openers["ours, preloaded in RAM"] = partial(open_ours, "zarr-lz4", preload=True)
    openers["ours, Zarr in S3"] = partial(open_ours, "s3")
    return openers


OPENERS = _openers()
