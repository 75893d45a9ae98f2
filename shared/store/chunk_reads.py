"""Images out of local shard files, straight into the caller's memory: found once, read, checked and decoded by a few threads.

Both stores keep an image as one chunk (Blosc's, or plain bytes) and its checksum, at a place that the shard file tells.
Reading those bytes and decoding them where they are wanted takes a quarter of the processor time that the stores' own
libraries do: these decode into memory of their own, which is new for every batch, and new memory costs more than decoding.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from shared.errors import CacheError, describe_os_error, first_line
from shared.processors import num_cores
from shared.schema import SHARD_ROWS
from shared.store.mapped_file import MappedFile, map_file
from shared.views import ChosenViews

MAX_DESCRIPTORS = 256  # of open files; a mapped one takes two
ROWS_A_TASK = 8  # more than handing a task to a thread costs, and enough tasks in a batch for every thread
ABSENT = -1  # asked for as a row: zeros
CHECKSUM_BYTES = 4
_BLOSC_HEADER_BYTES = 16  # c-blosc README_CHUNK_FORMAT.rst: …, nbytes, blocksize, cbytes: u32 little-endian


# (stored bytes u8 (n,), their checksum's bytes) → whether they belong together
IsIntact = Callable[[np.ndarray, bytes | bytearray], bool]


class Pending(Protocol):
    """A read that was started."""

    def result(self) -> np.ndarray:
        """Waits for it. Raises CacheError where stored bytes are missing or damaged."""
        ...


@dataclass(frozen=True)
class FinishedRead:
    """Of a store that reads at once, or of nothing at all."""

    array: np.ndarray

    def result(self) -> np.ndarray:
        return self.array


@dataclass(frozen=True)
class ChunkPlaces:
    """Where a shard file has the images of one array: i64 (R,) each, length 0 = not stored.

    is_raw: bool (R,): plain bytes: a cache without compression, or Blosc could not make it smaller.
    """

    offsets: np.ndarray
    lengths: np.ndarray  # with the checksum
    is_raw: np.ndarray


class ShardFile:
    """An open shard file and where it has the images of one array. Who still reads from it keeps it open."""

    def __init__(self, path: Path, find_places: Callable[[int], ChunkPlaces]) -> None:
        """find_places: file descriptor → places, so that they are those of the very file that is read from.

        Raises:
            OSError: there is no such file. CacheError: find_places' own.
        """
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        self.places = find_places(self.number)
        self.mapping: MappedFile | None = None  # to take what is in memory from

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class ChunkReader:
    """Reads the images of one cache, a few files open at a time."""

    def __init__(
        self,
        path: Path,
        open_shard: Callable[[str, int], ShardFile],
        is_intact: IsIntact | None,
        *,
        mapped: bool,
        views: ChosenViews | None = None,
    ) -> None:
        """open_shard: (array's name, shard) → its file. is_intact: None: nothing is checked. mapped: map files, too. views:
        which of an image's are delivered; None: all."""
        self._path, self._open_shard, self._is_intact, self._mapped = path, open_shard, is_intact, mapped
        self._views = views
        self._files: OrderedDict[tuple[str, int], ShardFile] = OrderedDict()

    def start(self, name: str, rows: np.ndarray, out: np.ndarray) -> Pending:
        """Starts to fill out, C-contiguous (len(rows), …), with rows; zeros where a row is ABSENT.

        Raises:
            CacheError: a shard file is missing, or its index damaged.
        """
        tasks: list[Future[None]] = []
        assert out.flags.c_contiguous and len(out) == len(rows)
        files = [None if row == ABSENT else self._find(name, int(row)) for row in rows]
        for first in range(0, len(rows), ROWS_A_TASK):
            part = slice(first, first + ROWS_A_TASK)
            tasks.append(_threads().submit(self._read_rows, name, rows[part], files[part], out[part]))
        return _PendingChunks(tasks, out)

    def _find(self, name: str, row: int) -> ShardFile:
        key = name, row // SHARD_ROWS
        if (file := self._files.get(key)) is not None:
            self._files.move_to_end(key)
            return file
        try:
            file = self._files[key] = self._open_shard(*key)
        except (CacheError, OSError) as error:
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                raise CacheError(describe_os_error(error)) from error
            raise self._lost(name, row, first_line(error)) from error
        if self._mapped:
            file.mapping = map_file(file.number)
        if len(self._files) * (1 if file.mapping is None else 2) > MAX_DESCRIPTORS:
            self._files.popitem(last=False)
        return file

    def _read_rows(self, name: str, rows: np.ndarray, files: Sequence[ShardFile | None], out: np.ndarray) -> None:
        for row, file, image in zip(rows.tolist(), files, out, strict=True):
            if file is None:
                image[...] = 0
                continue
            try:
                if self._views is None:
                    _read_image(file, row % SHARD_ROWS, image, self._is_intact)
                    continue
                # a chunk has all views, and one checksum over them
                whole = _take_memory("image", self._views.num_stored * image[0].nbytes).view(image.dtype)
                whole = whole.reshape(self._views.num_stored, *image.shape[1:])
                _read_image(file, row % SHARD_ROWS, whole, self._is_intact)
                for view, place in zip(image, self._views.places, strict=True):
                    view[...] = whole[place]
            except (ValueError, RuntimeError, OSError) as error:
                raise self._lost(name, row, first_line(error)) from error

    def _lost(self, name: str, row: int, why: str) -> CacheError:
        return CacheError(
            f"{self._path}: row {row} of {name} is missing or damaged ({why}); "
            "`python -m preprocess verify` names it, `build --repair` renders it again"
        )


@dataclass(frozen=True)
class _PendingChunks:
    tasks: list[Future[None]]
    out: np.ndarray

    def result(self) -> np.ndarray:
        wait(self.tasks)  # all of them, so that nobody writes into `out` after an error
        for task in self.tasks:
            task.result()
        return self.out


def _read_image(file: ShardFile, place: int, image: np.ndarray, is_intact: IsIntact | None) -> None:
    """Raises ValueError where what is stored is not, or not intact, an image of these bytes."""
    places = file.places
    offset, length = int(places.offsets[place]), int(places.lengths[place]) - CHECKSUM_BYTES
    if length <= 0:
        raise ValueError("it is not stored")
    is_raw, target = bool(places.is_raw[place]), image.reshape(-1).view(np.uint8)
    if is_raw and length != image.nbytes:
        raise ValueError(f"{length} bytes stored, expected {image.nbytes}")
    checksum: bytes | bytearray
    mapped = file.mapping.find(offset, length + CHECKSUM_BYTES) if file.mapping else None
    if mapped is not None:
        body, checksum = mapped[:length], mapped[length:].tobytes()
        if is_raw:
            target[:] = body
            body = target  # what is checked is what is delivered
    else:
        body, checksum = target if is_raw else _take_memory("chunk", length), bytearray(CHECKSUM_BYTES)
        if _read_at(file.number, [body.data, checksum], offset) != length + CHECKSUM_BYTES:
            raise ValueError("the file ends early")
    if is_intact is not None and not is_intact(body, checksum):
        raise ValueError("its checksum does not match")
    if not is_raw:
        _decode(body, image)


def _read_at(number: int, buffers: list[Any], offset: int) -> int:
    """preadv(2); where a system has none, a copy more."""
    if hasattr(os, "preadv"):
        return os.preadv(number, buffers, offset)
    data = os.pread(number, sum(len(buffer) for buffer in buffers), offset)
    start = 0
    for buffer in buffers:
        piece = data[start : start + len(buffer)]
        buffer[: len(piece)] = piece
        start += len(buffer)
    return len(data)


def _take_memory(use: str, num_bytes: int) -> np.ndarray:
    """u8 (num_bytes,) of memory that the thread uses again and again: fresh memory would have to be mapped in first."""
    memory: np.ndarray | None = getattr(_of_thread, use, None)
    if memory is None or len(memory) < num_bytes:
        memory = np.empty(num_bytes + num_bytes // 4, np.uint8)
        setattr(_of_thread, use, memory)
    return memory[:num_bytes]


def _decode(body: np.ndarray, image: np.ndarray) -> None:
    from numcodecs import blosc

    if len(body) < _BLOSC_HEADER_BYTES:
        raise ValueError("too short to be a Blosc chunk")
    num_bytes, _, num_stored = struct.unpack_from("<III", body.data, 4)
    if (num_bytes, num_stored) != (image.nbytes, len(body)):  # which Blosc itself would believe
        raise ValueError(f"a Blosc chunk of {num_bytes} bytes in {num_stored}, expected {image.nbytes} in {len(body)}")
    blosc.decompress(body, image)


_of_thread = threading.local()
_pool: ThreadPoolExecutor | None = None


def _threads() -> ThreadPoolExecutor:
    """One pool for all readers of a process. Reading and decoding let go of Python's lock, so a thread a core is enough."""
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(max(2, num_cores()), thread_name_prefix="chunk-reads")
    return _pool


def _forget_threads() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):  # Windows has none, and is to be told so in one line
    os.register_at_fork(after_in_child=_forget_threads)  # threads do not survive a fork
