"""The two stores, Zarr v3 and HDF5: the only file that touches either library.

Shards are encoded in memory and written whole under a temporary name, then renamed: a file under its final name is
complete, whatever was killed. Equal arrays give equal bytes.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from shared.errors import CacheError
from shared.schema import ARRAYS, FORMAT_VERSION, SHARD_ROWS, ArraySpec, CacheInfo

VIEWS_ZARR = "views.zarr"
VIEWS_HDF5 = "views"
PARTIAL_SUFFIX = ".partial"


def write_file(path: Path, data: bytes) -> str:
    """Writes a whole file or nothing: temporary name, flush to the disk, rename. Returns the sha256 of `data`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        error.filename = str(path)  # a full disk is reported on the file the user knows
        raise
    return hashlib.sha256(data).hexdigest()


def hash_file(path: Path) -> str:
    """sha256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def encode_metadata(info: CacheInfo) -> dict[str, bytes]:
    """The files beside the shards that tell a reader what the arrays are: relative path -> bytes."""
    if info.store == "hdf5":
        return {}
    import zarr

    files: dict[str, bytes] = {}
    store = zarr.storage.MemoryStore()
    group = zarr.create_group(store, attributes={"facet_format_version": FORMAT_VERSION})
    for name, shape in info.arrays().items():
        _create_zarr_array(group, ARRAYS[name], shape)
    for key, value in store._store_dict.items():
        files[f"{VIEWS_ZARR}/{key}"] = value.to_bytes()
    return files


def encode_shard(
    info: CacheInfo, shard: int, arrays: Mapping[str, np.ndarray], present: Mapping[str, np.ndarray]
) -> dict[str, bytes]:
    """One shard's files: relative path -> bytes.

    Args:
        arrays: name -> (R, …) in the schema's dtype, R = this shard's rows.
        present: name -> bool (R,); rows that are absent are not stored. A missing name means all rows are present.
    Returns:
        Only files that hold something: a shard without any texture has no texture file.
    Raises:
        CacheError: an array's dtype or shape is not the schema's.
    """
    shapes = info.arrays()
    first = shard * SHARD_ROWS
    num_rows = min(SHARD_ROWS, info.num_samples - first)
    checked: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != (num_rows, *shape[1:]) or array.dtype != np.dtype(ARRAYS[name].dtype):
            raise CacheError(
                f"shard {shard}, {name}: expected {ARRAYS[name].dtype} {(num_rows, *shape[1:])}, "
                f"found {array.dtype} {array.shape}"
            )
        mask = np.asarray(present.get(name, np.ones(num_rows, bool)))
        if mask.shape != (num_rows,) or mask.dtype != bool:
            raise CacheError(
                f"shard {shard}, {name}: presence must be bool ({num_rows},), found {mask.dtype} {mask.shape}"
            )
        checked[name] = (array, mask)
    encode = _encode_zarr_shard if info.store == "zarr" else _encode_hdf5_shard
    return encode(info, shard, checked)


def shard_files(info: CacheInfo, shard: int) -> list[str]:
    """Every file a shard can have, relative to the cache; those that would hold nothing are not written."""
    if info.store == "hdf5":
        return [f"{VIEWS_HDF5}/shard-{shard:05d}.h5"]
    return [f"{VIEWS_ZARR}/{name}/c/{shard}" + "/0" * (len(shape) - 1) for name, shape in info.arrays().items()]


def _create_zarr_array(group: Any, spec: ArraySpec, shape: tuple[int, ...]) -> Any:
    from zarr.codecs import BloscCodec, Crc32cCodec

    shuffle = "shuffle" if np.dtype(spec.dtype).itemsize > 1 else "noshuffle"
    return group.create_array(
        spec.name,
        shape=shape,
        dtype=spec.dtype,
        chunks=(spec.chunk_rows, *shape[1:]),
        shards=(SHARD_ROWS, *shape[1:]),
        filters=None,
        compressors=[
            BloscCodec(typesize=np.dtype(spec.dtype).itemsize, cname="lz4", clevel=5, shuffle=shuffle),  # type: ignore[arg-type]
            Crc32cCodec(),
        ],
        fill_value=spec.fill,
        dimension_names=spec.dims,
        attributes={"unit": spec.unit},
    )


def _encode_zarr_shard(
    info: CacheInfo, shard: int, arrays: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> dict[str, bytes]:
    import zarr

    store = zarr.storage.MemoryStore()
    group = zarr.create_group(store)
    first = shard * SHARD_ROWS
    for name, (array, mask) in arrays.items():
        spec = ARRAYS[name]
        target = _create_zarr_array(group, spec, info.arrays()[name])
        rows = np.where(mask.reshape(-1, *[1] * (array.ndim - 1)), array, np.asarray(spec.fill, array.dtype))
        target[first : first + len(rows)] = rows  # chunks that hold only the fill value are not stored
    return {
        f"{VIEWS_ZARR}/{key}": value.to_bytes()
        for key, value in sorted(store._store_dict.items())
        if not key.endswith("zarr.json")
    }


def _encode_hdf5_shard(
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
    return {f"{VIEWS_HDF5}/shard-{shard:05d}.h5": buffer.getvalue()}


class ArrayReader(Protocol):
    """Reads rows of a cache's arrays. Rows that hold no such modality must not be asked for."""

    def read(self, name: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Rows in the given order, (len(rows), …). Raises CacheError where stored bytes are missing or damaged."""
        ...

    def start(self, name: str, rows: Sequence[int] | np.ndarray) -> Any:
        """Starts a read in the background where the store can; `.result()` gives what `read` gives."""
        ...


def open_arrays(path: Path, info: CacheInfo) -> ArrayReader:
    """A reader over the cache's own store."""
    return ZarrReader(path, info) if info.store == "zarr" else Hdf5Reader(path, info)


class ZarrReader:
    """Reads through tensorstore, which decodes the samples of a batch in parallel."""

    def __init__(self, path: Path, info: CacheInfo) -> None:
        self._path = path
        self._shapes = info.arrays()
        self._arrays: dict[str, Any] = {}

    def _open(self, name: str) -> Any:
        import tensorstore

        if name not in self._arrays:
            if name not in self._shapes:
                raise CacheError(f"{self._path}: holds no {name}; it holds {', '.join(self._shapes)}")
            spec = {
                "driver": "zarr3",
                "kvstore": {"driver": "file", "path": str(self._path / VIEWS_ZARR / name)},
                # An absent image is an error here, never zeros: plain Zarr readers give zeros for a lost shard.
                "fill_missing_data_reads": ARRAYS[name].chunk_rows != 1,
            }
            try:
                array = tensorstore.open(spec, open=True, read=True).result()
            except (ValueError, OSError) as error:
                raise CacheError(
                    f"{self._path / VIEWS_ZARR / name}: cannot be opened ({first_line(error)}); run verify"
                ) from error
            spec_of = ARRAYS[name]
            if tuple(array.shape) != self._shapes[name] or array.dtype.numpy_dtype != np.dtype(spec_of.dtype):
                raise CacheError(
                    f"{self._path / VIEWS_ZARR / name}: expected {spec_of.dtype} {self._shapes[name]}, "
                    f"found {array.dtype.numpy_dtype} {tuple(array.shape)}; run verify"
                )
            self._arrays[name] = array
        return self._arrays[name]

    def start(self, name: str, rows: Sequence[int] | np.ndarray) -> Any:
        array = self._open(name)
        return _PendingRead(array[np.asarray(rows, np.int64)].read(), self._path, name)

    def read(self, name: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        result: np.ndarray = self.start(name, rows).result()
        return result


class _PendingRead:
    def __init__(self, future: Any, path: Path, name: str) -> None:
        self._future, self._path, self._name = future, path, name

    def result(self) -> np.ndarray:
        try:
            array: np.ndarray = self._future.result()
        except (ValueError, OSError) as error:
            raise CacheError(
                f"{self._path}: a sample of {self._name} is missing or damaged ({first_line(error)}); "
                "`python -m preprocess verify` names it, `build --repair` renders it again"
            ) from error
        return array


class Hdf5Reader:
    """Reads shard files with h5py, a few of them open at a time."""

    MAX_OPEN_FILES = 32

    def __init__(self, path: Path, info: CacheInfo) -> None:
        self._path = path
        self._shapes = info.arrays()
        self._files: OrderedDict[int, Any] = OrderedDict()

    def _shard(self, shard: int) -> Any:
        import h5py
        import hdf5plugin  # noqa: F401  (registers the Blosc filter)

        if shard in self._files:
            self._files.move_to_end(shard)
            return self._files[shard]
        self._files[shard] = h5py.File(self._path / VIEWS_HDF5 / f"shard-{shard:05d}.h5", "r")
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


def first_line(error: BaseException) -> str:
    """The first line of another library's message, short enough for one line of ours."""
    return str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__


# --- HDF5 files of prompt embeddings ---


def encode_hdf5_tables(tables: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> bytes:
    """A small HDF5 file in memory; arrays of str become UTF-8 strings."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for key, value in sorted(attributes.items()):
            file.attrs[key] = value
        for name, array in sorted(tables.items()):
            if array.dtype.kind in "UO":
                file.create_dataset(name, data=array.astype(object), dtype=h5py.string_dtype("utf-8"))
            else:
                file.create_dataset(name, data=array)
    return buffer.getvalue()


def read_hdf5_tables(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The inverse of `encode_hdf5_tables`: tables (strings as object arrays of str) and attributes."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            tables = {
                name: dataset.asstr()[...] if h5py.check_string_dtype(dataset.dtype) else dataset[...]
                for name, dataset in file.items()
            }
            return tables, dict(file.attrs)
    except OSError as error:
        raise CacheError(
            f"{path}: not a readable HDF5 file ({first_line(error)}); run `python -m preprocess prompts` again"
        ) from error
