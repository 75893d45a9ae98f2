"""The HDF5 store: views/shard-00000.h5 …, one file a shard, the same arrays under the same names, chunks with fletcher32."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import CacheError, first_line
from shared.schema import ARRAYS, FORMAT_VERSION, MODALITIES, SHARD_ROWS, CacheInfo
from shared.store.chunk_reads import ABSENT, ChunkPlaces, ChunkReader, FinishedRead, Pending, ShardFile
from shared.store.hdf5_tables import find_dataset
from shared.store.paths import file_system, is_remote, report_storage_errors
from shared.views import ChosenViews, delivered_shape

VIEWS_HDF5 = "views"
_READ_AHEAD_BYTES = 256 << 10  # of an object store: about one sample
_BLOSC_FILTER = 32001  # its number with The HDF Group
_MOST_BLOSC_ADDS = 64  # its header, and fletcher32's sum, where it could make nothing smaller
_FLETCHER_WORDS = 8192
_FLETCHER_WEIGHTS = np.arange(_FLETCHER_WORDS, 0, -1.0)


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


def check_hdf5_shard(
    path: Path, info: CacheInfo, num_rows: int, data: bytes | None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Which rows of each array a shard file holds, and which of them can be read (all, where only the structure is).

    Args:
        data: the file's bytes, every chunk of which is read and so checked; None: look at the structure alone.
    Returns:
        Array name -> present, intact: bool (num_rows,).
    Raises:
        CacheError: the structure is damaged, or not that of this cache.
    """
    import h5py
    import hdf5plugin  # noqa: F401  (registers the Blosc filter)

    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    try:
        with _open_file(path) if data is None else h5py.File(io.BytesIO(data), "r") as file:
            for name, shape in info.arrays().items():
                spec = ARRAYS[name]
                dataset = _find_array(path, file, name, (num_rows, *shape[1:]), is_raw=info.compression == "none")
                present = np.zeros(num_rows, bool)
                for chunk in range(dataset.id.get_num_chunks()):
                    first = int(dataset.id.get_chunk_info(chunk).chunk_offset[0])
                    present[first : first + spec.chunk_rows] = True
                intact = present.copy()
                for row in np.flatnonzero(present)[:: spec.chunk_rows] if data is not None else ():
                    try:
                        _check_unpacked(dataset, int(row))
                        dataset[row]
                    except (OSError, ValueError):
                        intact[row : row + spec.chunk_rows] = False
                found[name] = present, intact
    except (OSError, KeyError, ValueError, RuntimeError, AttributeError, TypeError) as error:
        raise CacheError(f"{path}: its structure is damaged ({first_line(error)})") from error
    return found


def _find_array(path: Path, file: Any, name: str, shape: tuple[int, ...], *, is_raw: bool) -> Any:
    """An array's data set in a shard file, which is exactly what `encode_hdf5_shard` writes.

    Raises:
        CacheError: another shape, type or way of storing. KeyError, ValueError: as `find_dataset`.
    """
    import h5py

    dataset, spec = find_dataset(file, name), ARRAYS[name]
    if dataset.shape != shape or dataset.dtype != np.dtype(spec.dtype):
        raise CacheError(f"{path}: {name} is {dataset.dtype} {dataset.shape}, which is not this cache's")
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(place)[0] for place in range(properties.get_nfilters())]
    expected = [h5py.h5z.FILTER_FLETCHER32] if is_raw else [_BLOSC_FILTER, h5py.h5z.FILTER_FLETCHER32]
    if dataset.chunks != (min(spec.chunk_rows, shape[0]), *shape[1:]) or filters != expected:
        raise CacheError(f"{path}: {name} is not stored as this program writes it")
    return dataset


def _check_unpacked(dataset: Any, row: int) -> None:
    """Compares the size that a row's chunk says it unpacks to, which the Blosc filter believes, with a chunk's.

    Raises:
        ValueError: it is another, or the chunk is larger than its content.
    """
    offset = (row - row % dataset.chunks[0], *[0] * (dataset.ndim - 1))
    found = dataset.id.get_chunk_info_by_coord(offset)
    num_bytes = int(np.prod(dataset.chunks)) * dataset.dtype.itemsize
    if not found.byte_offset or found.filter_mask & 1 or dataset.id.get_create_plist().get_nfilters() == 1:
        return  # not stored, or stored as it is
    if found.size > num_bytes + _MOST_BLOSC_ADDS:
        raise ValueError(f"a chunk of {found.size} bytes for {num_bytes}")
    stored = dataset.id.read_direct_chunk(offset)[1]
    if int.from_bytes(stored[4:8], "little") != num_bytes:
        raise ValueError("a chunk that unpacks to another size")


def _open_file(path: Path) -> Any:
    """A shard file for reading, from an object store piece by piece."""
    import h5py

    if not is_remote(path):
        return h5py.File(path, "r", locking=False)  # what is finished stays as it is, and some file systems cannot lock
    fs, key = file_system(path)
    with report_storage_errors(path):
        return h5py.File(fs.open(key, "rb", cache_type="readahead", block_size=_READ_AHEAD_BYTES), "r")


def is_fletcher32(body: bytes | np.ndarray, checksum: bytes | bytearray) -> bool:
    """Whether 4 stored bytes are what HDF5's filter fletcher32 makes of others (H5checksum.c, H5_checksum_fletcher32).

    Two sums modulo 65535 over 16-bit words, the second weighing a word by how many words end with it. Modulo 65535 words of
    swapped bytes have sums of swapped bytes, so words are read as this machine has them. In float64 every sum is exact.
    """
    words = np.frombuffer(body if len(body) % 2 == 0 else bytes(body) + b"\0", "<u2")
    plain = weighted = 0
    for first in range(0, len(words), _FLETCHER_WORDS):  # pieces that stay in the processor's cache
        piece = words[first : first + _FLETCHER_WORDS].astype(np.float64)
        part = int(piece.sum())
        following = len(words) - first - len(piece)
        weighted += int(piece @ _FLETCHER_WEIGHTS[-len(piece) :]) + part * following
        plain += part
    sums = plain, weighted
    stored = int.from_bytes(checksum, "little")
    return all(
        (value % 65535 - int.from_bytes(part.to_bytes(2, "big"), "little")) % 65535 == 0
        for value, part in zip(sums, (stored & 0xFFFF, stored >> 16), strict=True)
    )


class Hdf5Reader:
    """Reads images of a local cache chunk by chunk, and all else with h5py, a few files open at a time."""

    MAX_OPEN_FILES = 32

    def __init__(
        self,
        path: Path,
        info: CacheInfo,
        *,
        verify: bool = True,
        mapped: bool = False,
        views: ChosenViews | None = None,
    ) -> None:
        """verify, mapped, views: as `open_arrays`. What h5py reads is always checked."""
        self._path, self._info, self._views = path, info, views
        self._shapes = info.arrays()
        self._files: OrderedDict[int, Any] = OrderedDict()
        self._checked: set[tuple[int, str, int]] = set()  # chunks that unpack to their size
        is_intact = is_fletcher32 if verify else None
        self._chunks = ChunkReader(path, self._open_shard, is_intact, mapped=mapped, views=views)

    def start_into(self, name: str, rows: Sequence[int] | np.ndarray, out: np.ndarray) -> Pending:
        rows = np.asarray(rows, np.int64)
        self._check_name(name)
        if ARRAYS[name].chunk_rows == 1 and not is_remote(self._path):
            return self._chunks.start(name, rows, out)
        out[rows == ABSENT] = 0
        for place in np.argsort(rows, kind="stable"):  # shard by shard, each file opened once
            if rows[place] == ABSENT:
                continue
            shard, row = divmod(int(rows[place]), SHARD_ROWS)
            try:
                dataset = self._array(shard, name)
                chunk = shard, name, row // dataset.chunks[0]
                if chunk not in self._checked:
                    _check_unpacked(dataset, row)
                    self._checked.add(chunk)
                if self._views is not None and name in MODALITIES:
                    out[place] = dataset[row][list(self._views.places)]
                else:
                    dataset.read_direct(out, np.s_[row], np.s_[place])
            except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
                raise CacheError(
                    f"{self._path}: row {rows[place]} of {name} is missing or damaged ({first_line(error)}); "
                    "`python -m preprocess verify` names it, `build --repair` renders it again"
                ) from error
        return FinishedRead(out)

    def start(self, name: str, rows: Sequence[int] | np.ndarray) -> Pending:
        self._check_name(name)
        shape = delivered_shape(name, self._shapes[name][1:], self._views)
        return self.start_into(name, rows, np.empty((len(rows), *shape), ARRAYS[name].dtype))

    def read(self, name: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        return self.start(name, rows).result()

    def _check_name(self, name: str) -> None:
        if name not in self._shapes:
            raise CacheError(f"{self._path}: holds no {name}; it holds {', '.join(self._shapes)}")

    def _array(self, shard: int, name: str) -> Any:
        import hdf5plugin  # noqa: F401  (registers the Blosc filter)

        path = self._path / hdf5_shard_file(shard)
        if shard in self._files:
            self._files.move_to_end(shard)
        else:
            self._files[shard] = _open_file(path)
            if len(self._files) > self.MAX_OPEN_FILES:
                self._files.popitem(last=False)[1].close()
        num_rows = min(SHARD_ROWS, self._info.num_samples - shard * SHARD_ROWS)
        shape, is_raw = (num_rows, *self._shapes[name][1:]), self._info.compression == "none"
        return _find_array(path, self._files[shard], name, shape, is_raw=is_raw)

    def _open_shard(self, name: str, shard: int) -> ShardFile:
        path = self._path / hdf5_shard_file(shard)
        num_rows = min(SHARD_ROWS, self._info.num_samples - shard * SHARD_ROWS)
        shape, is_raw = (num_rows, *self._shapes[name][1:]), self._info.compression == "none"
        return ShardFile(path, lambda number: _find_chunks(path, number, name, shape, is_raw=is_raw))


def _find_chunks(path: Path, number: int, name: str, shape: tuple[int, ...], *, is_raw: bool) -> ChunkPlaces:
    """Places of a shard file's images of one array, as its own tables tell them."""
    import h5py

    chunks: list[Any] = []
    try:
        with open(number, "rb", closefd=False) as same, h5py.File(same, "r") as file:
            _find_array(path, file, name, shape, is_raw=is_raw).id.chunk_iter(chunks.append)
    except (OSError, KeyError, ValueError, RuntimeError, AttributeError, TypeError) as error:
        raise CacheError(f"{path}: its structure is damaged ({first_line(error)})") from error
    size = os.fstat(number).st_size
    offsets, lengths, plain = np.zeros(shape[0], np.int64), np.zeros(shape[0], np.int64), np.zeros(shape[0], bool)
    # Bit 0 of the mask: Blosc was left out, as h5py lets it be where it would save nothing.
    masks = (0,) if is_raw else (0, 1)
    for chunk in chunks:
        row = int(chunk.chunk_offset[0])
        fits = 0 <= row < len(lengths) and 0 <= chunk.byte_offset <= size - chunk.size
        if not fits or chunk.filter_mask not in masks:
            raise CacheError(f"{path}: its tables speak of what is not in the file")
        offsets[row], lengths[row], plain[row] = chunk.byte_offset, chunk.size, is_raw or chunk.filter_mask == 1
    return ChunkPlaces(offsets, lengths, plain)
