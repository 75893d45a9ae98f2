"""Images of a run's items, loaded once into RAM or the GPU's memory: a batch is then a gather."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from shared.cache import Cache
from shared.errors import FacetError
from shared.schema import ARRAYS
from shared.store.chunk_reads import ABSENT
from shared.store.paths import is_remote
from train.data.items import Item, find_rows_in_use
from train.data.memory import free_ram_bytes
from train.data.pixels import view_as_tensor
from train.data.stream import Allocate, BufferPool, ImageSource, PendingImages, StoredImages

# What auto may take: the rest is for the model, its activations, and everybody else.
RAM_SHARE, GPU_SHARE = 0.5, 0.7
ROWS_A_READ = 64
GATHER_THREADS = 2  # one core does not fill the memory's bandwidth


@dataclass(frozen=True)
class FinishedImages:
    images: torch.Tensor

    def result(self) -> torch.Tensor:
        return self.images


@dataclass(frozen=True)
class PendingGather:
    parts: list[Future[None]]
    out: np.ndarray

    def result(self) -> np.ndarray:
        for part in self.parts:
            part.result()
        return self.out


@dataclass(frozen=True)
class Table:
    """Images of one modality. place: i64 (rows of the cache,): where a row's image stands, −1 where it was not loaded."""

    images: np.ndarray | torch.Tensor  # (n, V, H, W, …)
    place: np.ndarray

    def find(self, rows: np.ndarray) -> np.ndarray:
        """i64 (len(rows),): places of rows, −1 where a row is ABSENT."""
        found: np.ndarray = np.where(rows == ABSENT, -1, self.place[rows])
        assert ((found >= 0) | (rows == ABSENT)).all(), "a row was asked for that no item of the run has"
        return found


class ImagesInRam:
    """Gathers batches out of RAM, in the background."""

    def __init__(self, tables: dict[str, Table], slots: BufferPool) -> None:
        self._tables, self._slots = tables, slots
        self._threads = ThreadPoolExecutor(GATHER_THREADS, thread_name_prefix="gather")

    def start(self, modality: str, rows: np.ndarray, slot: int) -> PendingImages:
        table = self._tables[modality]
        places, out = table.find(rows), self._slots.take(modality, slot, len(rows))
        cuts = np.array_split(np.arange(len(rows)), GATHER_THREADS)
        parts = [slice(int(cut[0]), int(cut[-1]) + 1) for cut in cuts if len(cut)]
        return PendingGather([self._threads.submit(_gather, table, places[p], out[p]) for p in parts], out)


def _gather(table: Table, places: np.ndarray, out: np.ndarray) -> None:
    if not len(table.images):
        out[...] = 0
        return
    np.take(
        table.images, places, axis=0, out=out, mode="clip"
    )  # mode "raise" would gather into memory of its own first
    if (places < 0).any():
        out[places < 0] = 0


class ImagesOnDevice:
    """Gathers batches on the device; images travel to it once."""

    def __init__(self, tables: dict[str, Table], device: torch.device) -> None:
        self._tables, self._device = tables, device

    def start(self, modality: str, rows: np.ndarray, slot: int) -> PendingImages:
        table = self._tables[modality]
        assert isinstance(table.images, torch.Tensor)
        places = table.find(rows)
        if not len(table.images):
            return FinishedImages(table.images.new_zeros((len(rows), *table.images.shape[1:])))
        index = torch.from_numpy(places).to(self._device)
        images = table.images.index_select(0, index.clamp(min=0))
        if (places < 0).any():
            images[index < 0] = 0
        return FinishedImages(images)


def load_resident(
    cache: Cache,
    items: Sequence[Item],
    modalities: Sequence[str],
    kind: str,
    device: torch.device,
    *,
    num_sharing: int = 1,
    allocate: Allocate = np.empty,
) -> ImageSource | None:
    """Loads every image that items may be seen by, and shows how far it is.

    Args:
        kind: one of config.RESIDENT; auto: the GPU's memory if 70 % of what is free hold them, else RAM if half of it does.
        num_sharing: processes that do the same at the same time, each with a share of what is free.
        allocate: memory of the batches that are gathered in RAM.
    Returns:
        None: images stay in their files (off, or auto where they fit nowhere).
    Raises:
        FacetError: they do not fit where they were asked to be, there is no GPU, or no file to map in an object store.
        CacheError: stored images are missing or damaged.
    """
    if kind == "mapped":
        if is_remote(cache.path):
            raise FacetError(f"--resident mapped: {cache.path} is in object storage; use --resident ram")
        return StoredImages(cache, arrays=cache.open_arrays(mapped=True), allocate=allocate)
    rows = {m: _rows_with(cache, items, m) for m in modalities}
    shapes = cache.info.arrays()
    num_bytes = sum(len(rows[m]) * int(np.prod(shapes[m][1:])) * np.dtype(ARRAYS[m].dtype).itemsize for m in modalities)
    where = _choose_place(kind, num_bytes, device, num_sharing)
    if where == "off":
        return None
    with tqdm(
        total=sum(map(len, rows.values())), desc=f"load into {where}", unit="image", dynamic_ncols=True, leave=None,
        disable=None, delay=1.0,
    ) as bar:  # fmt: skip
        tables = {}
        for modality in modalities:
            place = np.full(len(cache.samples), -1, np.int64)
            place[rows[modality]] = np.arange(len(rows[modality]))
            shape = (len(rows[modality]), *shapes[modality][1:])
            tables[modality] = Table(_load(cache, modality, rows[modality], shape, where, device, bar), place)
    if where == "gpu":
        return ImagesOnDevice(tables, device)
    return ImagesInRam(tables, BufferPool(shapes, allocate))


def _rows_with(cache: Cache, items: Sequence[Item], modality: str) -> np.ndarray:
    """Sorted rows that items may be seen by and that have such an image."""
    return np.array([row for row in find_rows_in_use(items) if cache.samples[row].has(modality)], np.int64)


def _choose_place(kind: str, num_bytes: int, device: torch.device, num_sharing: int) -> str:
    if kind == "off":
        return "off"
    free_gpu = torch.cuda.mem_get_info(device)[0] // num_sharing if device.type == "cuda" else 0
    free_ram = free_ram_bytes() // num_sharing
    if kind == "auto":
        if num_bytes <= GPU_SHARE * free_gpu:
            return "gpu"
        return "ram" if num_bytes <= RAM_SHARE * free_ram else "off"
    if kind == "gpu" and device.type != "cuda":
        raise FacetError(f"--resident gpu: the run is on {device}; use --resident ram")
    free = free_gpu if kind == "gpu" else free_ram
    if num_bytes > free:
        raise FacetError(
            f"--resident {kind}: the run's images take {num_bytes / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
            f"{' for each job' if num_sharing > 1 else ''}; use --resident auto or off"
        )
    return kind


def _load(
    cache: Cache, modality: str, rows: np.ndarray, shape: tuple[int, ...], where: str, device: torch.device, bar: tqdm
) -> np.ndarray | torch.Tensor:
    dtype = np.dtype(ARRAYS[modality].dtype)
    if where == "ram":
        images = np.empty(shape, dtype)
        for part, pending in _read_ahead(cache, modality, rows, [images[p] for p in _parts(len(rows))]):
            pending.result()
            bar.update(len(part))
        return images
    on_device = torch.empty(shape, dtype=torch.uint8 if dtype == np.uint8 else torch.int16, device=device)
    buffers = [np.empty((ROWS_A_READ, *shape[1:]), dtype) for _ in range(2)]
    outs = [buffers[number % 2][: p.stop - p.start] for number, p in enumerate(_parts(len(rows)))]
    done = 0
    for part, pending in _read_ahead(cache, modality, rows, outs):
        found = pending.result()
        # The copy has ended when it returns: the buffer is free for the part after the next.
        on_device[done : done + len(part)] = view_as_tensor(found)
        done += len(part)
        bar.update(len(part))
    return on_device


def _parts(num: int) -> list[slice]:
    return [slice(first, min(first + ROWS_A_READ, num)) for first in range(0, num, ROWS_A_READ)]


def _read_ahead(
    cache: Cache, modality: str, rows: np.ndarray, outs: Sequence[np.ndarray]
) -> Iterator[tuple[np.ndarray, PendingImages]]:
    """Reads parts of rows into their memory, one part ahead; a part's memory is written before the one before is done with."""
    waiting: list[tuple[np.ndarray, PendingImages]] = []
    for part, out in zip(_parts(len(rows)), outs, strict=True):
        waiting.append((rows[part], cache.arrays.start_into(modality, rows[part], out)))
        if len(waiting) == 2:
            yield waiting.pop(0)
    yield from waiting
