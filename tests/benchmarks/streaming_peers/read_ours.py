"""How we read the same batches, through what the trainer itself calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.streaming_peers.images import open_images

from shared.storage import open_arrays
from train.items import find_items
from train.order import epoch_order, split_batches
from train.stream import ImageSource, StoredImages, stream_batches

BATCH = 32
S3_URL = "STREAMING_BENCHMARK_S3"  # where the images are in the object store

Epoch = Callable[[int], Iterable[Any]]


def open_ours(folder: Path, store: str, *, verify: bool = True, resident: bool = False) -> Epoch:
    cache = open_images(os.environ[S3_URL] if store == "s3" else str(folder / store))
    items = find_items(cache, ["texture"])
    source: ImageSource | None = StoredImages(cache, arrays=open_arrays(cache.path, cache.info, verify=verify))
    if resident:
        import torch

        from train.resident import load_resident

        source = load_resident(cache, items, ["texture"], "ram", torch.device("cpu"))

    def epoch_of(epoch: int) -> Iterable[Any]:
        batches = [[items[i] for i in places] for places in split_batches(epoch_order(len(items), 0, epoch), BATCH)]
        stream = stream_batches(cache, batches, ["texture"], 1, source=source)
        return (raw.images["texture"][:, 0] for raw in stream)

    return epoch_of


OPENERS: dict[str, Callable[[Path, int], Epoch]] = {
    "ours, Zarr, verified": lambda folder, workers: open_ours(folder, "zarr"),
    "ours, Zarr, unverified": lambda folder, workers: open_ours(folder, "zarr", verify=False),
    "ours, resident in RAM": lambda folder, workers: open_ours(folder, "zarr", resident=True),
    "ours, HDF5, verified": lambda folder, workers: open_ours(folder, "hdf5"),
    "ours, HDF5, unverified": lambda folder, workers: open_ours(folder, "hdf5", verify=False),
    "ours, Zarr in S3": lambda folder, workers: open_ours(folder, "s3"),
}
