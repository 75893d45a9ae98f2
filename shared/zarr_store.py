"""The Zarr v3 store: views.zarr/, one array a modality, 64 samples a shard file, one sample an inner chunk.

A shard file (Zarr v3 core, codec `sharding_indexed`): the inner chunks one after another, each its Blosc bytes and their
crc32c; then the index, u64 offset and length of each inner chunk (2⁶⁴ − 1 twice where there is none), and its own crc32c.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import CacheError, StorageError, first_line
from shared.paths import file_size, file_system, is_remote, read_range
from shared.schema import ARRAYS, FORMAT_VERSION, SHARD_ROWS, ArraySpec, CacheInfo

VIEWS_ZARR = "views.zarr"
_ABSENT = np.uint64(2**64 - 1)
_CHECKSUM_BYTES = 4


def encode_zarr_metadata(info: CacheInfo) -> dict[str, bytes]:
    """zarr.json of the group and of each array: relative path -> bytes."""
    import zarr

    store = zarr.storage.MemoryStore()
    group = zarr.create_group(store, attributes={"facet_format_version": FORMAT_VERSION})
    for name, shape in info.arrays().items():
        _create_zarr_array(group, ARRAYS[name], shape)
    return {f"{VIEWS_ZARR}/{key}": value.to_bytes() for key, value in store._store_dict.items()}


def zarr_shard_files(info: CacheInfo, shard: int) -> dict[str, str]:
    """Array name -> its shard's file, relative to the cache."""
    return {name: f"{VIEWS_ZARR}/{name}/c/{shard}" + "/0" * (len(shape) - 1) for name, shape in info.arrays().items()}


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


def encode_zarr_shard(
    info: CacheInfo, shard: int, arrays: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> dict[str, bytes]:
    """A shard's files in the bytes that zarr-python writes (tested), at a quarter of its time: relative path -> bytes."""
    files = {}
    for name, path in sorted(zarr_shard_files(info, shard).items()):
        data = _encode_array(ARRAYS[name], *arrays[name])
        if data:
            files[path] = data
    return files


def _encode_array(spec: ArraySpec, array: np.ndarray, mask: np.ndarray) -> bytes:
    """One shard file; b"" where all rows hold the fill value, as absent ones do. Chunks of it alone are not stored."""
    import google_crc32c
    from numcodecs import Blosc

    def checked(data: bytes) -> bytes:
        return data + google_crc32c.value(data).to_bytes(_CHECKSUM_BYTES, "little")

    dtype = np.dtype(spec.dtype).newbyteorder("<")
    fill = np.asarray(spec.fill, dtype)
    codec = Blosc(cname="lz4", clevel=5, shuffle=Blosc.SHUFFLE if dtype.itemsize > 1 else Blosc.NOSHUFFLE)
    num_chunks = SHARD_ROWS // spec.chunk_rows
    places = np.full((num_chunks, 2), _ABSENT, "<u8")
    pieces: list[bytes] = []
    end = 0
    for chunk in range(-(-len(array) // spec.chunk_rows)):
        rows = slice(chunk * spec.chunk_rows, (chunk + 1) * spec.chunk_rows)
        values = np.full((spec.chunk_rows, *array.shape[1:]), fill, dtype)
        values[: len(array[rows])][mask[rows]] = array[rows][mask[rows]]
        if (np.isnan(values) if np.isnan(spec.fill) else values == fill).all():
            continue
        pieces.append(checked(bytes(codec.encode(values))))
        places[chunk] = end, len(pieces[-1])
        end += len(pieces[-1])
    return b"".join([*pieces, checked(places.tobytes())]) if pieces else b""


def check_zarr_shard(path: Path, chunk_rows: int, num_rows: int, data: bytes | None) -> tuple[np.ndarray, np.ndarray]:
    """Which rows a shard file holds, and which of them pass their checksum (all, where only the index is read).

    Args:
        data: the file's bytes; None: read its index from its end, and nothing else.
    Returns:
        present, intact: bool (num_rows,).
    Raises:
        CacheError: the index is damaged, or speaks of other bytes than the file has.
    """
    import google_crc32c

    num_chunks = SHARD_ROWS // chunk_rows
    index_bytes = 16 * num_chunks + _CHECKSUM_BYTES
    size = file_size(path) if data is None else len(data)
    if size is None or size < index_bytes:
        raise CacheError(f"{path}: too short to hold its index")
    tail = read_range(path, size - index_bytes, size) if data is None else data[-index_bytes:]
    if google_crc32c.value(tail[:-_CHECKSUM_BYTES]) != int.from_bytes(tail[-_CHECKSUM_BYTES:], "little"):
        raise CacheError(f"{path}: its index is damaged")
    places = np.frombuffer(tail[:-_CHECKSUM_BYTES], "<u8").reshape(num_chunks, 2)
    stored = ~(places == _ABSENT).all(1)
    end = 0
    for chunk in sorted(
        np.flatnonzero(stored), key=lambda chunk: int(places[chunk, 0])
    ):  # back to back, nothing between
        if int(places[chunk, 0]) != end or int(places[chunk, 1]) <= _CHECKSUM_BYTES:
            break
        end += int(places[chunk, 1])
    if end != size - index_bytes:
        raise CacheError(f"{path}: holds {size} bytes, its index speaks of {end + index_bytes}")
    intact = stored.copy()
    for chunk in np.flatnonzero(stored) if data is not None else ():
        start, length = (int(value) for value in places[chunk])
        body = memoryview(data)[start : start + length]  # type: ignore[arg-type]
        checksum = int.from_bytes(body[-_CHECKSUM_BYTES:], "little")
        intact[chunk] = google_crc32c.value(bytes(body[:-_CHECKSUM_BYTES])) == checksum
    rows = np.arange(num_rows) // chunk_rows
    return stored[rows], intact[rows]


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


class ZarrReader:
    """Reads through tensorstore, which decodes the samples of a batch in parallel."""

    def __init__(self, path: Path, info: CacheInfo) -> None:
        self._path = path
        self._shapes = info.arrays()
        self._arrays: dict[str, Any] = {}
        self._context: Any = None

    def _open(self, name: str) -> Any:
        import tensorstore

        if name not in self._arrays:
            if name not in self._shapes:
                raise CacheError(f"{self._path}: holds no {name}; it holds {', '.join(self._shapes)}")
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
            _refuse_unreachable(self._path, error)
            raise CacheError(
                f"{self._path}: a sample of {self._name} is missing or damaged ({first_line(error)}); "
                "`python -m preprocess verify` names it, `build --repair` renders it again"
            ) from error
        return array


def _refuse_unreachable(path: Path, error: Exception) -> None:
    """An object store that does not answer is no damaged cache."""
    if is_remote(path) and any(
        word in str(error) for word in ("UNAVAILABLE", "DEADLINE", "Connect", "PERMISSION_DENIED")
    ):
        raise StorageError(f"{path}: the object store cannot be read: {first_line(error)}") from error
