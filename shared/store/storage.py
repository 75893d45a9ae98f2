"""Write files of a cache whole or not at all, and its arrays to either store, Zarr v3 or HDF5.

Shards are encoded in memory. On a disk they are written under a temporary name, then renamed; in an object store a put is
whole or nothing. So a file under its final name is complete, whatever was killed. Equal arrays give equal bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared.errors import CacheError
from shared.schema import ARRAYS, SHARD_ROWS, CacheInfo
from shared.store.arrays import ArrayReader, StoredRows
from shared.store.hdf5_store import Hdf5Reader, check_hdf5_file, encode_hdf5_shard, hdf5_shard_file
from shared.store.paths import file_system, is_remote, read_bytes, report_storage_errors
from shared.store.zarr_reader import ZarrReader
from shared.store.zarr_store import check_zarr_file, encode_zarr_metadata, encode_zarr_shard, zarr_shard_files

PARTIAL_SUFFIX = ".partial"


def write_file(path: Path, data: bytes, *, like: Path | None = None) -> str:
    """Write a whole file or nothing: temporary name, flush to the disk, rename. Missing folders are made.

    Args:
        like: a folder, such as the cache that was drawn from. The file gets no permission that this folder lacks.
            Without effect in an object store.
    Returns:
        sha256 of `data`, hexadecimal.
    Raises:
        OSError: it cannot be written; names `path`.
        StorageError: an object store refuses it.
    """
    if is_remote(path):
        fs, key = file_system(path)
        with report_storage_errors(path):
            fs.pipe_file(key, data)
        return hashlib.sha256(data).hexdigest()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if like is not None:
            partial.chmod(partial.stat().st_mode & _mode(like))
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        error.filename = str(path)  # a full disk is reported on the file the user knows
        raise
    return hashlib.sha256(data).hexdigest()


def make_folder(folder: Path, *, like: Path) -> None:
    """Make a folder with no more permissions than another folder has. Missing folders above it get the usual ones.

    Does nothing if the folder exists or lies in an object store.

    Args:
        like: the other folder; if it is gone or lies in an object store, only the owner may enter the new one.
    """
    if not is_remote(folder):
        folder.mkdir(mode=_mode(like), parents=True, exist_ok=True)


def _mode(folder: Path) -> int:
    """Return a folder's access rights; only the owner's for an object store or a missing folder."""
    try:
        return 0o700 if is_remote(folder) else folder.stat().st_mode & 0o777
    except OSError:
        return 0o700


def check_writable(path: Path) -> None:
    """Check before hours of work that a file can be written: create and remove one beside it.

    Raises:
        OSError: it cannot; names the file.
    """
    if is_remote(path):
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        partial.unlink()
    except OSError as error:
        error.filename = str(path)
        raise


def hash_bytes(data: bytes) -> str:
    """Return the sha256 of bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def hash_file(path: Path) -> str:
    """Return the sha256 of a file's bytes, read in pieces."""
    if is_remote(path):
        return hash_bytes(read_bytes(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Store:
    """The layout of one kind of store; the functions below describe each field."""

    encode_metadata: Callable[[CacheInfo], dict[str, bytes]]
    encode_shard: Callable[[CacheInfo, int, Mapping[str, tuple[np.ndarray, np.ndarray]]], dict[str, bytes]]
    shard_files: Callable[[CacheInfo, int], list[str]]
    check_file: Callable[[Path, CacheInfo, int, str, bytes | None], dict[str, StoredRows]]
    reader: type[ArrayReader]


STORES = {
    "zarr": Store(
        encode_zarr_metadata,
        encode_zarr_shard,
        lambda info, shard: list(zarr_shard_files(info, shard).values()),
        check_zarr_file,
        ZarrReader,
    ),
    "hdf5": Store(
        lambda info: {}, encode_hdf5_shard, lambda info, shard: [hdf5_shard_file(shard)], check_hdf5_file, Hdf5Reader
    ),
}


def encode_metadata(info: CacheInfo) -> dict[str, bytes]:
    """Encode the files that describe the arrays to readers: relative path -> bytes."""
    return STORES[info.store].encode_metadata(info)


def encode_shard(
    info: CacheInfo, shard: int, arrays: Mapping[str, np.ndarray], present: Mapping[str, np.ndarray]
) -> dict[str, bytes]:
    """Encode one shard: relative path -> bytes.

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
    return STORES[info.store].encode_shard(info, shard, checked)


def shard_files(info: CacheInfo, shard: int) -> list[str]:
    """List every file that a shard can have, relative to the cache; files without content are not written."""
    return STORES[info.store].shard_files(info, shard)


def check_shard_file(path: Path, info: CacheInfo, shard: int, name: str, data: bytes | None) -> dict[str, StoredRows]:
    """Check one file of a shard; return its stored and intact rows by array name.

    Args:
        path: the cache. name: the file, relative to it.
        data: the file's bytes, every chunk of which is checked; None: its index or structure alone is read.
    Raises:
        CacheError: the index or structure itself is damaged or does not fit the file: no row of it can be trusted.
    """
    return STORES[info.store].check_file(path, info, shard, name, data)


def open_arrays(path: Path, info: CacheInfo, *, views: Sequence[int] | None = None) -> ArrayReader:
    """Return a reader over the cache's own store, for one thread at a time.

    Args:
        views: the indices of the views that are delivered of each image; None: all.
    """
    return STORES[info.store].reader(path, info, views)
