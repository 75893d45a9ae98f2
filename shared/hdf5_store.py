"""The HDF5 store: views/shard-00000.h5 …, one file a shard, the same arrays under the same names, chunks with fletcher32."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import CacheError, first_line
from shared.paths import file_system, is_remote, report_storage_errors
from shared.schema import ARRAYS, FORMAT_VERSION, SHARD_ROWS, CacheInfo

VIEWS_HDF5 = "views"
_READ_AHEAD_BYTES = 256 << 10  # of an object store: about one sample


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
            dataset = file.create_dataset(
                name,
                shape=array.shape,
                dtype=spec.dtype,
                chunks=(min(spec.chunk_rows, len(array)), *array.shape[1:]),
                fillvalue=np.asarray(spec.fill, array.dtype),
                fletcher32=True,
                **hdf5plugin.Blosc(cname="lz4", clevel=5, shuffle=shuffle),
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
                dataset, spec = file[name], ARRAYS[name]
                if dataset.shape != (num_rows, *shape[1:]) or dataset.dtype != np.dtype(spec.dtype):
                    raise CacheError(f"{path}: {name} is {dataset.dtype} {dataset.shape}, which is not this cache's")
                present = np.zeros(num_rows, bool)
                for chunk in range(dataset.id.get_num_chunks()):
                    first = int(dataset.id.get_chunk_info(chunk).chunk_offset[0])
                    present[first : first + spec.chunk_rows] = True
                intact = present.copy()
                for row in np.flatnonzero(present)[:: spec.chunk_rows] if data is not None else ():
                    try:
                        dataset[row]
                    except OSError:
                        intact[row : row + spec.chunk_rows] = False
                found[name] = present, intact
    except (OSError, KeyError, ValueError, RuntimeError, AttributeError, TypeError) as error:
        raise CacheError(f"{path}: its structure is damaged ({first_line(error)})") from error
    return found


def _open_file(path: Path) -> Any:
    """A shard file for reading, from an object store piece by piece."""
    import h5py

    if not is_remote(path):
        return h5py.File(path, "r")
    fs, key = file_system(path)
    with report_storage_errors(path):
        return h5py.File(fs.open(key, "rb", cache_type="readahead", block_size=_READ_AHEAD_BYTES), "r")


class Hdf5Reader:
    """Reads shard files with h5py, a few of them open at a time."""

    MAX_OPEN_FILES = 32

    def __init__(self, path: Path, info: CacheInfo) -> None:
        self._path = path
        self._shapes = info.arrays()
        self._files: OrderedDict[int, Any] = OrderedDict()

    def _shard(self, shard: int) -> Any:
        import hdf5plugin  # noqa: F401  (registers the Blosc filter)

        if shard in self._files:
            self._files.move_to_end(shard)
            return self._files[shard]
        self._files[shard] = _open_file(self._path / hdf5_shard_file(shard))
        if len(self._files) > self.MAX_OPEN_FILES:
            self._files.popitem(last=False)[1].close()
        return self._files[shard]

    def read(self, name: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        if name not in self._shapes:
            raise CacheError(f"{self._path}: holds no {name}; it holds {', '.join(self._shapes)}")
        rows = np.asarray(rows, np.int64)
        out = np.empty((len(rows), *self._shapes[name][1:]), ARRAYS[name].dtype)
        for place in np.argsort(rows, kind="stable"):  # shard by shard, each file opened once
            shard, row = divmod(int(rows[place]), SHARD_ROWS)
            try:
                self._shard(shard)[name].read_direct(out, np.s_[row], np.s_[place])
            except (OSError, KeyError) as error:
                raise CacheError(
                    f"{self._path}: row {rows[place]} of {name} is missing or damaged ({first_line(error)}); "
                    "`python -m preprocess verify` names it, `build --repair` renders it again"
                ) from error
        return out

    def start(self, name: str, rows: Sequence[int] | np.ndarray) -> Any:
        return _FinishedRead(self.read(name, rows))


class _FinishedRead:
    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def result(self) -> np.ndarray:
        return self._array
