"""Reads the Zarr store: images of a local cache chunk by chunk, everything else through tensorstore."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import CacheError, StorageError, first_line
from shared.schema import ARRAYS, MODALITIES, SHARD_ROWS, CacheInfo
from shared.store.chunk_reads import ABSENT, ChunkPlaces, ChunkReader, FinishedRead, Pending, ShardFile
from shared.store.paths import file_system, is_remote
from shared.store.zarr_store import (
    ABSENT_CHUNK,
    VIEWS_ZARR,
    decode_zarr_index,
    is_crc32c,
    zarr_index_bytes,
    zarr_shard_files,
)
from shared.views import ChosenViews, delivered_shape


class ZarrReader:
    """Reads images of a local cache chunk by chunk, and all else through tensorstore, which also reads object stores."""

    def __init__(
        self,
        path: Path,
        info: CacheInfo,
        *,
        verify: bool = True,
        mapped: bool = False,
        views: ChosenViews | None = None,
    ) -> None:
        """verify, mapped, views: as `open_arrays`. Small arrays, and object stores, are always checked."""
        self._path, self._info, self._views = path, info, views
        self._shapes = info.arrays()
        self._arrays: dict[str, Any] = {}
        self._context: Any = None
        self._chunks = ChunkReader(path, self._open_shard, is_crc32c if verify else None, mapped=mapped, views=views)
        self._is_direct: dict[str, bool] = {}

    def start_into(self, name: str, rows: Sequence[int] | np.ndarray, out: np.ndarray) -> Pending:
        rows = np.asarray(rows, np.int64)
        if name not in self._shapes:
            raise CacheError(f"{self._path}: holds no {name}; it holds {', '.join(self._shapes)}")
        if name not in self._is_direct:
            self._is_direct[name] = (
                ARRAYS[name].chunk_rows == 1
                and not is_remote(self._path)
                and _has_our_layout(self._path / VIEWS_ZARR / name / "zarr.json", self._info, name)
            )
        if self._is_direct[name]:
            return self._chunks.start(name, rows, out)
        import tensorstore

        array = self._open(name)
        places = np.flatnonzero(rows != ABSENT)
        if len(places) != len(rows):
            out[rows == ABSENT] = 0
        if not len(places):
            return FinishedRead(out)
        wanted = array[rows[places]]
        if self._views is not None and name in MODALITIES:
            wanted = wanted[:, list(self._views.places)]
        return _PendingWrite(tensorstore.array(out)[places].write(wanted), out, self._path, name)

    def start(self, name: str, rows: Sequence[int] | np.ndarray) -> Pending:
        if name not in self._shapes:
            raise CacheError(f"{self._path}: holds no {name}; it holds {', '.join(self._shapes)}")
        shape = delivered_shape(name, self._shapes[name][1:], self._views)
        return self.start_into(name, rows, np.empty((len(rows), *shape), ARRAYS[name].dtype))

    def read(self, name: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        return self.start(name, rows).result()

    def _open_shard(self, name: str, shard: int) -> ShardFile:
        path = self._path / zarr_shard_files(self._info, shard)[name]
        is_raw = self._info.compression == "none"
        return ShardFile(path, lambda number: _read_index(path, number, is_raw=is_raw))

    def _open(self, name: str) -> Any:
        import tensorstore

        if name in self._arrays:
            return self._arrays[name]
        remote = is_remote(self._path)
        spec = {
            "driver": "zarr3",
            "kvstore": _kvstore(self._path / VIEWS_ZARR / name),
            # An absent image is an error here, never zeros: plain Zarr readers give zeros for a lost shard.
            "fill_missing_data_reads": ARRAYS[name].chunk_rows != 1,
            **(_REMOTE_OPTIONS if remote else {}),
        }
        if remote and self._context is None:
            self._context = tensorstore.Context(_REMOTE_CONTEXT)
        try:
            array = tensorstore.open(spec, open=True, read=True, context=self._context).result()
        except (ValueError, OSError) as error:
            _refuse_unreachable(self._path, error)
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
        return array


@dataclass(frozen=True)
class _PendingWrite:
    """tensorstore's copy of stored rows into the caller's memory."""

    future: Any
    out: np.ndarray
    path: Path
    name: str

    def result(self) -> np.ndarray:
        try:
            self.future.result()
        except (ValueError, OSError) as error:
            _refuse_unreachable(self.path, error)
            raise CacheError(
                f"{self.path}: a sample of {self.name} is missing or damaged ({first_line(error)}); "
                "`python -m preprocess verify` names it, `build --repair` renders it again"
            ) from error
        return self.out


def _has_our_layout(path: Path, info: CacheInfo, name: str) -> bool:
    """Whether an array is laid out as `zarr_store` writes it; tensorstore reads, or refuses, every other."""
    shape = info.arrays()[name]
    codecs = ["bytes", "crc32c"] if info.compression == "none" else ["bytes", "blosc", "crc32c"]
    try:
        found = json.loads(path.read_bytes())
        (sharding,) = found["codecs"]
        inner = sharding["configuration"]
        return bool(
            found["shape"] == list(shape)
            and found["data_type"] == ARRAYS[name].dtype
            and found["chunk_grid"]["configuration"]["chunk_shape"] == [SHARD_ROWS, *shape[1:]]
            and found["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "/"}}
            and sharding["name"] == "sharding_indexed"
            and inner["chunk_shape"] == [1, *shape[1:]]
            and [codec["name"] for codec in inner["codecs"]] == codecs
            and inner["codecs"][0].get("configuration", {}).get("endian", "little") == "little"
            and [codec["name"] for codec in inner["index_codecs"]] == ["bytes", "crc32c"]
            and inner["index_location"] == "end"
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _read_index(path: Path, number: int, *, is_raw: bool) -> ChunkPlaces:
    """Places of a shard file of images, from its end."""
    size, index_bytes = os.fstat(number).st_size, zarr_index_bytes(1)
    if size < index_bytes:
        raise CacheError(f"{path}: too short to hold its index")
    index = decode_zarr_index(path, os.pread(number, index_bytes, size - index_bytes))
    offsets, lengths = np.where(index == ABSENT_CHUNK, 0, index).T
    if (lengths > size).any() or (offsets > size - lengths).any():
        raise CacheError(f"{path}: its index speaks of bytes beyond its end")
    return ChunkPlaces(offsets.astype(np.int64), lengths.astype(np.int64), np.full(len(index), is_raw))


def _refuse_unreachable(path: Path, error: Exception) -> None:
    """An object store that does not answer is no damaged cache."""
    if is_remote(path) and any(
        word in str(error)
        for word in ("UNAVAILABLE", "DEADLINE", "Connect", "PERMISSION_DENIED", "retry attempts failed")
    ):
        raise StorageError(f"{path}: the object store cannot be read: {first_line(error)}") from error


def _kvstore(folder: Path) -> dict[str, Any]:
    """tensorstore's address of a folder."""
    if not is_remote(folder):
        return {"driver": "file", "path": str(folder)}
    fs, key = file_system(folder)
    bucket, _, prefix = key.partition("/")
    if "gs" in fs.protocol:
        return {"driver": "gcs", "bucket": bucket, "path": prefix + "/"}
    spec: dict[str, Any] = {"driver": "s3", "bucket": bucket, "path": prefix + "/"}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        spec |= {"endpoint": endpoint, "aws_region": region or "us-east-1"}
    if os.environ.get("AWS_ACCESS_KEY_ID"):  # else tensorstore looks where AWS' own tools do
        spec["aws_credentials"] = {"type": "environment"}
    return spec


# An object store is asked for a shard's index once; and one that is away is given up on in a minute, not in an hour.
_REMOTE_OPTIONS: dict[str, Any] = {"recheck_cached_data": "open", "recheck_cached_metadata": "open"}
_REMOTE_CONTEXT = {
    "cache_pool": {"total_bytes_limit": 64 << 20},
    "s3_request_retries": {"max_retries": 5, "max_delay": "8s"},
    "gcs_request_retries": {"max_retries": 5, "max_delay": "8s"},
}
