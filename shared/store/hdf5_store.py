"""Write, check and read the HDF5 store: views/shard-00000.h5 …, one file per shard, chunks with fletcher32.

The library checks a chunk's checksum on reading. What it would accept from a hostile file is checked here: where a data set
lies, how it is stored, and what its chunks unpack to.
"""

from __future__ import annotations

import functools
import io
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import CacheError, first_line
from shared.modalities import MODALITIES
from shared.schema import ARRAYS, FORMAT_VERSION, SHARD_ROWS, CacheInfo
from shared.store.arrays import ABSENT, ArrayReader, PendingRead, StoredRows
from shared.store.paths import file_system, is_remote, report_storage_errors

VIEWS_HDF5 = "views"
_READ_AHEAD_BYTES = 256 << 10  # of an object store: about one sample
_BLOSC_FILTER = 32001  # its number with The HDF Group
_MOST_BLOSC_ADDS = 64  # its header, and fletcher32's sum, where it could make nothing smaller
MAX_OPEN_FILES = 32
_ERRORS = (OSError, KeyError, ValueError, RuntimeError, AttributeError, TypeError)  # of h5py, on a damaged file


def hdf5_shard_file(shard: int) -> str:
    return f"{VIEWS_HDF5}/shard-{shard:05d}.h5"


def encode_hdf5_shard(
    info: CacheInfo, shard: int, arrays: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> dict[str, bytes]:
    import h5py
    import hdf5plugin

    buffer = io.BytesIO()
    with h5py.File(buffer, "w", track_order=False) as file:
        file.attrs["facet_format_version"] = FORMAT_VERSION
        file.attrs["first_row"] = shard * SHARD_ROWS
        for name, (array, mask) in arrays.items():
            spec = ARRAYS[name]
            shuffle = hdf5plugin.Blosc.SHUFFLE if array.dtype.itemsize > 1 else hdf5plugin.Blosc.NOSHUFFLE
            blosc: Any = hdf5plugin.Blosc(cname="lz4", clevel=5, shuffle=shuffle)
            dataset = file.create_dataset(
                name,
                shape=array.shape,
                dtype=spec.dtype,
                chunks=(min(spec.chunk_rows, len(array)), *array.shape[1:]),
                fillvalue=np.asarray(spec.fill, array.dtype),
                fletcher32=True,
                **({} if info.compression == "none" else blosc),
            )
            dataset.attrs["unit"] = spec.unit
            for axis, label in enumerate(spec.dims):
                dataset.dims[axis].label = label
            if spec.chunk_rows == 1:
                for row in np.flatnonzero(mask):
                    dataset[row] = array[row]
            else:
                dataset[:] = np.where(
                    mask.reshape(-1, *[1] * (array.ndim - 1)), array, np.asarray(spec.fill, array.dtype)
                )
    return {hdf5_shard_file(shard): buffer.getvalue()}


def check_hdf5_file(path: Path, info: CacheInfo, shard: int, name: str, data: bytes | None) -> dict[str, StoredRows]:
    """Check a shard's file; see `storage.check_shard_file`."""
    import h5py

    found = {}
    try:
        with _open_file(path / name) if data is None else h5py.File(io.BytesIO(data), "r") as file:
            for array in info.arrays():
                found[array] = _check_array(_find_array(path / name, file, info, shard, array), verify=data is not None)
    except _ERRORS as error:
        raise CacheError(f"{path / name}: its structure is damaged ({first_line(error)})") from error
    return found


def _check_array(dataset: Any, *, verify: bool) -> StoredRows:
    num_rows, chunk_rows = dataset.shape[0], dataset.chunks[0]
    present = np.zeros(num_rows, bool)
    for chunk in range(dataset.id.get_num_chunks()):
        first = int(dataset.id.get_chunk_info(chunk).chunk_offset[0])
        present[first : first + chunk_rows] = True
    intact = present.copy()
    for row in np.flatnonzero(present)[::chunk_rows] if verify else ():
        try:
            _check_chunk(dataset, int(row))
            dataset[row]
        except (OSError, ValueError):
            intact[row : row + chunk_rows] = False
    return StoredRows(present, intact)


def _find_array(path: Path, file: Any, info: CacheInfo, shard: int, name: str) -> Any:
    """Return an array's data set in an open shard file, stored exactly as `encode_hdf5_shard` writes it.

    Raises:
        CacheError: a link, another shape, type or layout. KeyError: there is none.
    """
    import h5py
    import hdf5plugin  # noqa: F401  (registers the Blosc filter)

    if not isinstance(file.get(name, getlink=True), h5py.HardLink) or file.get(name, getclass=True) is not h5py.Dataset:
        if name not in file:
            raise KeyError(name)
        raise CacheError(f"{path}: {name} is not a data set of this file")
    dataset, spec = file[name], ARRAYS[name]
    shape = (min(SHARD_ROWS, info.num_samples - shard * SHARD_ROWS), *info.arrays()[name][1:])
    if dataset.shape != shape or dataset.dtype != np.dtype(spec.dtype):
        raise CacheError(f"{path}: {name} is {dataset.dtype} {dataset.shape}, which is not this cache's")
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    expected = [*([] if info.compression == "none" else [_BLOSC_FILTER]), h5py.h5z.FILTER_FLETCHER32]
    chunks = (min(spec.chunk_rows, shape[0]), *shape[1:])  # chunks are never virtual, nor in other files
    if dataset.chunks != chunks or filters != expected:
        raise CacheError(f"{path}: {name} is not stored as this program writes it")
    return dataset


def _check_chunk(dataset: Any, row: int) -> None:
    """Check that a row's chunk unpacks to the size of a chunk; the Blosc filter trusts the size in its header.

    Raises:
        ValueError: it is another, the chunk is larger than its content, or an image is not stored.
    """
    offset = (row - row % dataset.chunks[0], *[0] * (dataset.ndim - 1))
    found = dataset.id.get_chunk_info_by_coord(offset)
    num_bytes = int(np.prod(dataset.chunks)) * dataset.dtype.itemsize
    if not found.byte_offset:
        if dataset.chunks[0] == 1 and dataset.ndim > 3:
            raise ValueError("it is not stored")
        return
    if found.filter_mask & 1 or dataset.id.get_create_plist().get_nfilters() == 1:
        return  # stored as it is
    if found.size > num_bytes + _MOST_BLOSC_ADDS:
        raise ValueError(f"a chunk of {found.size} bytes for {num_bytes}")
    stored = dataset.id.read_direct_chunk(offset)[1]
    if int.from_bytes(stored[4:8], "little") != num_bytes:
        raise ValueError("a chunk that unpacks to another size")


def _open_file(path: Path) -> Any:
    """Open a shard file for reading, in an object store piece by piece."""
    import h5py

    if not is_remote(path):
        return h5py.File(path, "r", locking=False)  # what is finished stays as it is, and some file systems cannot lock
    fs, key = file_system(path)
    with report_storage_errors(path):
        return h5py.File(fs.open(key, "rb", cache_type="readahead", block_size=_READ_AHEAD_BYTES), "r")


class Hdf5Reader(ArrayReader):
    """Reads the arrays of one cache with h5py in a background thread, a few files open at a time."""

    def __init__(self, path: Path, info: CacheInfo, views: Sequence[int] | None = None) -> None:
        super().__init__(path, info, views)
        # shard → its open file, and the arrays of it that were checked
        self._files: OrderedDict[int, tuple[Any, dict[str, Any]]] = OrderedDict()
        self._checked: set[tuple[int, str, int]] = set()  # chunks that unpack to their size

    def start_into(self, name: str, rows: Sequence[int] | np.ndarray, out: np.ndarray) -> PendingRead:
        self._check_name(name)
        return PendingRead(out, [_thread().submit(self._read_rows, name, np.asarray(rows, np.int64), out)])

    def _read_rows(self, name: str, rows: np.ndarray, out: np.ndarray) -> None:
        """Fill `out` with rows, in the background thread."""
        out[rows == ABSENT] = 0
        for i in np.argsort(rows, kind="stable").tolist():  # shard by shard, each file opened once
            if rows[i] == ABSENT:
                continue
            try:
                self._read_row(name, int(rows[i]), out, i)
            except _ERRORS as error:
                raise self._damaged(name, int(rows[i]), first_line(error)) from error

    def _read_row(self, name: str, row: int, out: np.ndarray, i: int) -> None:
        shard, row = divmod(row, SHARD_ROWS)
        file, arrays = self._open(shard)
        if name not in arrays:
            arrays[name] = _find_array(self._path, file, self._info, shard, name)
        dataset = arrays[name]
        chunk = shard, name, row // dataset.chunks[0]
        if chunk not in self._checked:
            _check_chunk(dataset, row)
            self._checked.add(chunk)
        if self._views is not None and name in MODALITIES:
            out[i] = dataset[row][list(self._views)]
        else:
            dataset.read_direct(out, np.s_[row], np.s_[i])

    def _open(self, shard: int) -> tuple[Any, dict[str, Any]]:
        if shard in self._files:
            self._files.move_to_end(shard)
        else:
            self._files[shard] = _open_file(self._path / hdf5_shard_file(shard)), {}
            if len(self._files) > MAX_OPEN_FILES:
                self._files.popitem(last=False)[1][0].close()
        return self._files[shard]


@functools.cache
def _thread() -> ThreadPoolExecutor:
    """Return one background thread for all readers of a process: HDF5 has one lock, so more would only wait for it."""
    return ThreadPoolExecutor(1, thread_name_prefix="hdf5-reads")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_thread.cache_clear)  # threads do not survive a fork
