"""Read chunks of the Zarr store from shard files; threads check and decode them into the caller's memory.

This takes a quarter of the processor time of the libraries for Zarr, which decode into new memory for every batch: mapping
that in costs more than decoding.
"""

from __future__ import annotations

import errno
import functools
import math
import os
import struct
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from shared.errors import CacheError, describe_os_error, first_line
from shared.processors import num_cores
from shared.schema import ARRAYS, SHARD_ROWS, CacheInfo
from shared.store.arrays import ABSENT, ArrayReader, PendingRead
from shared.store.paths import file_size, is_file, is_remote, read_range, read_ranges
from shared.store.zarr_store import (
    ABSENT_CHUNK,
    CHECKSUM_BYTES,
    decode_zarr_index,
    is_crc32c,
    zarr_index_bytes,
    zarr_shard_files,
)

MAX_OPEN_FILES = 256
ROWS_A_TASK = 8  # more than handing a task to a thread costs, and enough tasks in a batch for every thread
_ABSENT = int(ABSENT_CHUNK)
_BLOSC_HEADER_BYTES = 16  # c-blosc README_CHUNK_FORMAT.rst: …, nbytes, blocksize, cbytes: u32 little-endian


class _Shard:
    """A shard file of one array and its index. A local file stays open until this object is deleted."""

    def __init__(self, path: Path, chunk_rows: int) -> None:
        """Open the file and read its index.

        Raises:
            OSError: there is no such file. CacheError: its index is damaged.
        """
        self.path, num_bytes = path, zarr_index_bytes(chunk_rows)
        if is_remote(path):
            size = file_size(path) or 0
            tail = read_range(path, max(0, size - num_bytes), size)
        else:
            self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            tail = os.pread(self.number, num_bytes, max(0, os.fstat(self.number).st_size - num_bytes))
        if len(tail) < num_bytes:
            raise CacheError(f"{path}: too short to hold its index")
        self._index: list[list[int]] = decode_zarr_index(path, tail).tolist()

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)

    def is_stored(self, chunk: int) -> bool:
        return self._index[chunk][0] != _ABSENT

    def locate(self, chunk: int, num_bytes: int) -> tuple[int, int]:
        """Return a chunk's offset, and its length without the checksum.

        Args:
            num_bytes: the most that it can be.
        Raises:
            ValueError: it is not stored, or longer than that.
        """
        if not self.is_stored(chunk):
            raise ValueError("it is not stored")
        offset, length = self._index[chunk]
        if not CHECKSUM_BYTES < length <= num_bytes + CHECKSUM_BYTES or offset >= 1 << 62:
            raise ValueError(f"{length} bytes stored, expected at most {num_bytes + CHECKSUM_BYTES}")
        return offset, length - CHECKSUM_BYTES


class ZarrReader(ArrayReader):
    """Reads the arrays of one cache, a few files open at a time."""

    def __init__(self, path: Path, info: CacheInfo, views: Sequence[int] | None = None) -> None:
        super().__init__(path, info, views)
        self._shards: OrderedDict[tuple[str, int], _Shard] = OrderedDict()
        self._most_bytes = {
            name: ARRAYS[name].chunk_rows * math.prod(shape[1:]) * np.dtype(ARRAYS[name].dtype).itemsize
            + _BLOSC_HEADER_BYTES
            for name, shape in self._shapes.items()
        }
        self._is_raw, self._is_remote = info.compression == "none", is_remote(path)

    def start_into(self, name: str, rows: Sequence[int] | np.ndarray, out: np.ndarray) -> PendingRead:
        self._check_name(name)
        rows = np.asarray(rows, np.int64)
        assert out.flags.c_contiguous and len(out) == len(rows)
        if ARRAYS[name].chunk_rows > 1:
            return PendingRead(self._read_small(name, rows, out))
        shards = [None if row == ABSENT else self._find_shard(name, row) for row in rows.tolist()]
        step = len(rows) if self._is_remote else ROWS_A_TASK  # an object store is asked for all at once
        parts = [slice(first, first + step) for first in range(0, len(rows), step or 1)]
        pool = _threads()
        tasks = [pool.submit(self._read_images, name, rows[part], shards[part], out[part]) for part in parts]
        return PendingRead(out, tasks)

    def _read_small(self, name: str, rows: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Fill `out` with rows of an array whose shards are one chunk each; rows that are not stored have the fill value."""
        spec = ARRAYS[name]
        out[rows == ABSENT] = 0
        for number in np.unique(rows[rows != ABSENT] // SHARD_ROWS).tolist():
            mine = np.flatnonzero(rows // SHARD_ROWS == number)
            chunk = np.full((spec.chunk_rows, *self._shapes[name][1:]), spec.fill, spec.dtype)
            if is_file(self._shard_path(name, number)):
                shard = self._find_shard(name, number * SHARD_ROWS)
                if shard.is_stored(0):
                    row = int(rows[mine[0]])
                    self._read_chunk(name, row, shard, chunk, *self._fetch(name, [row], [shard]))
            out[mine] = chunk[rows[mine] % SHARD_ROWS]
        return out

    def _shard_path(self, name: str, number: int) -> Path:
        return self._path / zarr_shard_files(self._info, number)[name]

    def _find_shard(self, name: str, row: int) -> _Shard:
        """Return a row's shard file, opened if it is not open yet."""
        key = name, row // SHARD_ROWS
        if (shard := self._shards.get(key)) is not None:
            self._shards.move_to_end(key)
            return shard
        try:
            shard = self._shards[key] = _Shard(self._shard_path(*key), ARRAYS[name].chunk_rows)
        except (CacheError, OSError) as error:
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                raise CacheError(describe_os_error(error)) from error
            raise self._damaged(name, row, first_line(error)) from error
        if len(self._shards) > MAX_OPEN_FILES:
            self._shards.popitem(last=False)
        return shard

    def _read_images(self, name: str, rows: np.ndarray, shards: Sequence[_Shard | None], out: np.ndarray) -> None:
        """Fill `out` with rows, in a background thread."""
        shape = self._shapes[name][1:]
        fetched = self._fetch(name, rows.tolist(), shards)
        for row, shard, image, stored in zip(rows.tolist(), shards, out, fetched, strict=True):
            if shard is None:
                image[...] = 0
            elif self._views is None:
                self._read_chunk(name, row, shard, image, stored)
            else:  # a chunk has all views, and one checksum over them
                whole = _scratch("image", math.prod(shape) * image.itemsize).view(image.dtype).reshape(shape)
                self._read_chunk(name, row, shard, whole, stored)
                for view, index in zip(image, self._views, strict=True):
                    view[...] = whole[index]

    def _fetch(self, name: str, rows: Sequence[int], shards: Sequence[_Shard | None]) -> list[bytes | None]:
        """Return the stored bytes of rows in an object store, asked for at once; None for each row of a local cache.

        Raises:
            CacheError: a row is not stored. StorageError: the object store cannot be read.
        """
        fetched: list[bytes | None] = [None] * len(rows)
        if not self._is_remote:
            return fetched
        ranges = {}
        for i, (row, shard) in enumerate(zip(rows, shards, strict=True)):
            if shard is not None:
                try:
                    offset, length = shard.locate(self._chunk(name, row), self._most_bytes[name])
                except ValueError as error:
                    raise self._damaged(name, row, first_line(error)) from error
                ranges[i] = (shard.path, offset, offset + length + CHECKSUM_BYTES)
        for i, stored in zip(ranges, read_ranges(list(ranges.values())), strict=True):
            fetched[i] = stored
        return fetched

    def _read_chunk(self, name: str, row: int, shard: _Shard, target: np.ndarray, stored: bytes | None) -> None:
        """Read, check and decode a row's chunk into `target`, C-contiguous. stored: its bytes, where they are fetched."""
        target = target.reshape(-1).view(np.uint8)
        try:
            offset, length = shard.locate(self._chunk(name, row), self._most_bytes[name])
            body, checksum = target if self._is_raw else _scratch("chunk", length), bytearray(CHECKSUM_BYTES)
            if self._is_raw and length != len(target):
                raise ValueError(f"{length} bytes stored, expected {len(target)}")
            if stored is None and hasattr(os, "preadv"):
                num_bytes = os.preadv(shard.number, [body.data, checksum], offset)
            else:  # an object store, or a system without preadv (macOS): a copy more
                stored = os.pread(shard.number, length + CHECKSUM_BYTES, offset) if stored is None else stored
                num_bytes = len(stored)
                if num_bytes == length + CHECKSUM_BYTES:
                    body[:], checksum[:] = np.frombuffer(stored, np.uint8, length), stored[length:]
            if num_bytes != length + CHECKSUM_BYTES:
                raise ValueError("the file ends early")
            if not is_crc32c(body, checksum):
                raise ValueError("its checksum does not match")
            if not self._is_raw:
                _decode(body, target)
        except (ValueError, RuntimeError, OSError) as error:
            raise self._damaged(name, row, first_line(error)) from error

    @staticmethod
    def _chunk(name: str, row: int) -> int:
        return row % SHARD_ROWS // ARRAYS[name].chunk_rows


def _decode(body: np.ndarray, target: np.ndarray) -> None:
    from numcodecs import blosc

    if len(body) < _BLOSC_HEADER_BYTES:
        raise ValueError("too short to be a Blosc chunk")
    num_bytes, _, num_stored = struct.unpack_from("<III", body.data, 4)
    if (num_bytes, num_stored) != (len(target), len(body)):  # which Blosc itself would believe
        raise ValueError(f"a Blosc chunk of {num_bytes} bytes in {num_stored}, expected {len(target)} in {len(body)}")
    blosc.decompress(body, target)


def _scratch(use: str, num_bytes: int) -> np.ndarray:
    """Return u8 (num_bytes,) of memory that the thread uses again and again."""
    memory: np.ndarray | None = getattr(_of_thread, use, None)
    if memory is None or len(memory) < num_bytes:
        memory = np.empty(num_bytes + num_bytes // 4, np.uint8)
        setattr(_of_thread, use, memory)
    return memory[:num_bytes]


_of_thread = threading.local()


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """Return one pool for all readers of a process. Reading and decoding release Python's lock: a thread a core is enough."""
    return ThreadPoolExecutor(max(2, num_cores()), thread_name_prefix="chunk-reads")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)  # threads do not survive a fork
