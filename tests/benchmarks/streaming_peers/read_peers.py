# mypy: ignore-errors
# (run by the peers' Python: their packages are not in this one)
"""How each peer reads shuffled batches of 32 samples: opener(folder, workers) → number of an epoch → its batches."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 32
SHAPE = (5, 224, 224, 3)
NUM_SAMPLES = 512
Epoch = Callable[[int], Iterable[Any]]
warnings.filterwarnings("ignore")  # torch about tensors over bytes, which nobody writes to


def orders(epoch: int) -> list[np.ndarray]:
    return np.array_split(np.random.default_rng(epoch).permutation(NUM_SAMPLES), NUM_SAMPLES // BATCH)


def to_tensors(samples: list[bytes]) -> Any:
    """One batch; in a worker process torch puts it into shared memory at once."""
    import torch
    from torch.utils.data import default_collate

    return default_collate([torch.frombuffer(data, dtype=torch.uint8).view(SHAPE) for data in samples])


def loader_options(workers: int) -> dict[str, Any]:
    return {"num_workers": workers, **({"persistent_workers": True, "prefetch_factor": 4} if workers else {})}


class ByIndex:
    """A map-style dataset of single samples, opened in each worker."""

    def __init__(self, open_it: Callable[[], Callable[[int], np.ndarray]]) -> None:
        self.open_it, self.get = open_it, None

    def __len__(self) -> int:
        return NUM_SAMPLES

    def __getitem__(self, place: int) -> Any:
        import torch

        if self.get is None:
            self.get = self.open_it()
        return torch.from_numpy(self.get(place))


def through_loader(open_it: Callable[[], Callable[[int], np.ndarray]], workers: int) -> Epoch:
    from torch.utils.data import DataLoader

    loader = DataLoader(ByIndex(open_it), batch_size=BATCH, shuffle=True, **loader_options(workers))
    return lambda epoch: loader


def open_png(folder: Path, workers: int) -> Epoch:
    from PIL import Image

    def get(place: int) -> np.ndarray:
        return np.stack(
            [np.asarray(Image.open(folder / "png" / f"{place:04d}-{view}.png")) for view in range(SHAPE[0])]
        )

    return through_loader(lambda: get, workers)


def open_webdataset(folder: Path, workers: int) -> Epoch:
    import webdataset as wds
    from torch.utils.data import DataLoader

    shards = [str(path) for path in sorted((folder / "webdataset").glob("*.tar"))]
    pipeline = (
        wds.WebDataset(shards, shardshuffle=len(shards), empty_check=False)
        .shuffle(NUM_SAMPLES, initial=NUM_SAMPLES)
        .to_tuple("bin")
        .map(lambda sample: sample[0])
        .batched(BATCH, collation_fn=to_tensors)
    )
    loader = DataLoader(pipeline, batch_size=None, **loader_options(workers))
    return lambda epoch: loader


def open_litdata(folder: Path, workers: int) -> Epoch:
    from litdata import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(str(folder / "litdata"), shuffle=True)
    options = {"collate_fn": lambda samples: to_tensors([sample["image"] for sample in samples])}
    loader = StreamingDataLoader(dataset, batch_size=BATCH, **options, **loader_options(workers))
    return lambda epoch: loader


def open_mds(folder: Path, workers: int) -> Epoch:
    from streaming import StreamingDataLoader, StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()
    dataset = StreamingDataset(local=str(folder / "mds"), shuffle=True, batch_size=BATCH)
    options = {"collate_fn": lambda samples: to_tensors([sample["image"] for sample in samples])}
    loader = StreamingDataLoader(dataset, batch_size=BATCH, **options, **loader_options(workers))
    return lambda epoch: loader


def open_huggingface(folder: Path, workers: int) -> Epoch:
    import datasets
    from torch.utils.data import DataLoader

    dataset = datasets.load_from_disk(str(folder / "huggingface")).with_format("arrow")

    class Rows:
        def __len__(self) -> int:
            return NUM_SAMPLES

        def __getitems__(self, places: list[int]) -> list[Any]:
            return dataset[places]["image"]

    def collate(column: Any) -> Any:  # bytes of Arrow's own buffers, not copied before they become a batch
        return to_tensors([np.frombuffer(value.as_buffer(), np.uint8) for value in column])

    loader = DataLoader(Rows(), batch_size=BATCH, shuffle=True, collate_fn=collate, **loader_options(workers))
    return lambda epoch: loader


def open_zarr_python(folder: Path, workers: int) -> Epoch:
    def open_it() -> Callable[[int], np.ndarray]:
        import zarr

        array = zarr.open_array(folder / "zarr-none" / "views.zarr" / "texture", mode="r")
        return lambda place: np.asarray(array[place])

    return through_loader(open_it, workers)


def open_zarr_python_batches(folder: Path, workers: int) -> Epoch:
    import zarr

    array = zarr.open_array(folder / "zarr-none" / "views.zarr" / "texture", mode="r")
    return lambda epoch: (array.oindex[np.sort(order)] for order in orders(epoch))


def open_h5py(folder: Path, workers: int) -> Epoch:
    def open_it() -> Callable[[int], np.ndarray]:
        import h5py
        import hdf5plugin  # noqa: F401

        files = [h5py.File(path, "r")["texture"] for path in sorted((folder / "hdf5-none" / "views").glob("*.h5"))]
        return lambda place: files[place // 64][place % 64]

    return through_loader(open_it, workers)


def open_tensorstore(folder: Path, workers: int) -> Epoch:
    import tensorstore

    kvstore = {"driver": "file", "path": str(folder / "zarr-none" / "views.zarr" / "texture")}
    array = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}, open=True, read=True).result()

    def epoch_of(epoch: int) -> Iterator[np.ndarray]:
        waiting = []
        for order in orders(epoch):
            waiting.append(array[order].read())
            if len(waiting) > 3:
                yield waiting.pop(0).result()
        for read in waiting:
            yield read.result()

    return epoch_of


def open_gather(folder: Path, workers: int) -> Epoch:
    """No peer: what memory allows, np.take into a reused buffer."""
    images = np.load(folder / "images.npy")
    buffer = np.empty((BATCH, *SHAPE), np.uint8)
    return lambda epoch: (np.take(images, order, axis=0, out=buffer, mode="clip") for order in orders(epoch))


OPENERS = {
    "torch DataLoader, PNG": open_png,
    "WebDataset": open_webdataset,
    "LitData": open_litdata,
    "MosaicML Streaming": open_mds,
    "Hugging Face datasets": open_huggingface,
    "zarr-python, a sample at a time": open_zarr_python,
    "zarr-python, a batch at a time": open_zarr_python_batches,
    "h5py": open_h5py,
    "tensorstore": open_tensorstore,
    "gather into a reused buffer": open_gather,
}
WITHOUT_WORKERS = ("zarr-python, a batch at a time", "tensorstore", "gather into a reused buffer")
