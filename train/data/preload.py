"""`--preload ram|gpu`: the images of a run, loaded once; a batch is then gathered from memory."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from shared.cache import Cache
from shared.errors import FacetError
from shared.schema import ARRAYS
from shared.store.arrays import ABSENT
from train.data.items import find_rows_in_use
from train.data.memory import free_ram_bytes
from train.data.pixels import view_as_tensor
from train.data.stream import Allocate, BufferPool, ImageSource
from train.tasks.item import Item

ROWS_PER_READ = 64
GATHER_THREADS = 2  # one core does not saturate the memory bandwidth


class PreloadedImages:
    """An `ImageSource` whose images are in RAM, or in GPU memory.

    Args:
        tables: modality → images (n, V, H, W, …), u8, or i16 with the bytes of u16.
        index: modality → i64 (rows of the cache,), a row's index in the table, −1 where it is not loaded.
        buffers: memory of the batches gathered from RAM.
    """

    def __init__(self, tables: dict[str, Tensor], index: dict[str, np.ndarray], buffers: BufferPool) -> None:
        self._tables, self._index, self._buffers = tables, index, buffers
        self._threads = ThreadPoolExecutor(GATHER_THREADS, thread_name_prefix="gather")

    def start(self, modality: str, rows: np.ndarray, slot: int) -> Future:
        """Gather rows (see `ImageSource.start`): from RAM in a thread, from GPU memory in the current CUDA stream."""
        images, is_absent = self._tables[modality], rows == ABSENT
        index = torch.from_numpy(np.where(is_absent, -1, self._index[modality][rows]))
        assert ((index >= 0).numpy() | is_absent).all(), "a row outside the items that were loaded"
        if images.device.type == "cpu":
            out = self._buffers.take(modality, slot, len(rows))
            return self._threads.submit(_gather, images, index, view_as_tensor(out))
        future: Future = Future()
        shape = (len(rows), *images.shape[1:])
        future.set_result(_gather(images, index.to(images.device), images.new_empty(shape)))
        return future


def _gather(images: Tensor, index: Tensor, out: Tensor) -> Tensor:
    """Copy images[index] into out, zeros where index is −1."""
    if not len(images):
        return out.zero_()
    torch.index_select(images, 0, index.clamp(min=0), out=out)
    if index.min() < 0:
        out[index < 0] = 0
    return out


def preload_images(
    cache: Cache,
    items: Sequence[Item],
    modalities: Sequence[str],
    where: str,
    device: torch.device,
    *,
    allocate: Allocate = np.empty,
) -> ImageSource | None:
    """Load every image that the items use, with a progress bar.

    Args:
        where: one of config.PRELOAD.
        allocate: allocates the memory of batches that are gathered in RAM.
    Returns:
        None for "none": images are read when they are needed.
    Raises:
        FacetError: the images do not fit, or there is no GPU.
        CacheError: stored images are missing or damaged.
    """
    if where == "none":
        return None
    if where == "gpu" and device.type != "cuda":
        raise FacetError(f"--preload gpu: the run is on {device}; use --preload ram")
    used, shapes = find_rows_in_use(items), cache.info.arrays()
    rows = {m: np.array([row for row in used if cache.samples[row].has(m)], np.int64) for m in modalities}
    num_bytes = sum(len(rows[m]) * int(np.prod(shapes[m][1:])) * np.dtype(ARRAYS[m].dtype).itemsize for m in modalities)
    free = torch.cuda.mem_get_info(device)[0] if where == "gpu" else free_ram_bytes()
    if num_bytes > free:
        raise FacetError(
            f"--preload {where}: the run's images take {num_bytes / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; leave it out"
        )
    tables, index = {}, {}
    with tqdm(
        total=sum(map(len, rows.values())), desc=f"load into {where}", unit="image", dynamic_ncols=True, leave=None,
        disable=None, delay=1.0,
    ) as bar:  # fmt: skip
        for modality in modalities:
            index[modality] = np.full(len(cache.samples), -1, np.int64)
            index[modality][rows[modality]] = np.arange(len(rows[modality]))
            images = np.empty((0, *shapes[modality][1:]), ARRAYS[modality].dtype)
            tables[modality] = view_as_tensor(images).new_empty(
                (len(rows[modality]), *images.shape[1:]), device=device if where == "gpu" else "cpu"
            )
            for part in np.split(rows[modality], range(ROWS_PER_READ, len(rows[modality]), ROWS_PER_READ)):
                first = index[modality][part[0]] if len(part) else 0
                tables[modality][first : first + len(part)] = view_as_tensor(cache.arrays.read(modality, part))
                bar.update(len(part))
    return PreloadedImages(tables, index, BufferPool(shapes, allocate))
