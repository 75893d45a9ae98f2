"""Write and check the Zarr v3 store: views.zarr/, one array per modality, 64 samples per shard file, one per inner chunk.

A shard file (Zarr v3 core, codec `sharding_indexed`): the inner chunks one after another, each its Blosc bytes (without
compression: its values, little-endian) and their crc32c; then the index, u64 offset and length of each inner chunk (2⁶⁴ − 1
twice where there is none), and its own crc32c.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import CacheError
from shared.schema import ARRAYS, FORMAT_VERSION, SHARD_ROWS, ArraySpec, CacheInfo
from shared.store.arrays import StoredRows
from shared.store.paths import file_size, read_range

VIEWS_ZARR = "views.zarr"
ABSENT_CHUNK = np.uint64(2**64 - 1)
CHECKSUM_BYTES = 4


def encode_zarr_metadata(info: CacheInfo) -> dict[str, bytes]:
    """Encode zarr.json of the group and of each array: relative path -> bytes."""
    import zarr

    store = zarr.storage.MemoryStore()
    group = zarr.create_group(store, attributes={"facet_format_version": FORMAT_VERSION})
    for name, shape in info.arrays().items():
        _create_zarr_array(group, ARRAYS[name], shape, info.compression)
    return {f"{VIEWS_ZARR}/{key}": value.to_bytes() for key, value in store._store_dict.items()}


def zarr_shard_files(info: CacheInfo, shard: int) -> dict[str, str]:
    """Return the shard's file of each array, relative to the cache, by array name."""
    return {name: f"{VIEWS_ZARR}/{name}/c/{shard}" + "/0" * (len(shape) - 1) for name, shape in info.arrays().items()}


def _create_zarr_array(group: Any, spec: ArraySpec, shape: tuple[int, ...], compression: str) -> Any:
    from zarr.codecs import BloscCodec, Crc32cCodec

    item_bytes = np.dtype(spec.dtype).itemsize
    shuffle = "shuffle" if item_bytes > 1 else "noshuffle"
    blosc = BloscCodec(typesize=item_bytes, cname="lz4", clevel=5, shuffle=shuffle)  # type: ignore[arg-type]
    return group.create_array(
        spec.name,
        shape=shape,
        dtype=spec.dtype,
        chunks=(spec.chunk_rows, *shape[1:]),
        shards=(SHARD_ROWS, *shape[1:]),
        filters=None,
        compressors=[Crc32cCodec()] if compression == "none" else [blosc, Crc32cCodec()],
        fill_value=spec.fill,
        dimension_names=spec.dims,
        attributes={"unit": spec.unit},
    )


def encode_zarr_shard(
    info: CacheInfo, shard: int, arrays: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> dict[str, bytes]:
    """Encode a shard as zarr-python would (tested), in a quarter of its time: relative path -> bytes."""
    files = {}
    for name, path in sorted(zarr_shard_files(info, shard).items()):
        data = _encode_array(ARRAYS[name], *arrays[name], info.compression)
        if data:
            files[path] = data
    return files


def _encode_array(spec: ArraySpec, array: np.ndarray, mask: np.ndarray, compression: str) -> bytes:
    """Encode one shard file; b"" where all rows hold the fill value. Chunks of fill values are not stored."""
    from crc32c import crc32c
    from numcodecs import Blosc

    def checked(data: bytes) -> bytes:
        return data + crc32c(data).to_bytes(CHECKSUM_BYTES, "little")

    dtype = np.dtype(spec.dtype).newbyteorder("<")
    fill = np.asarray(spec.fill, dtype)
    codec = Blosc(cname="lz4", clevel=5, shuffle=Blosc.SHUFFLE if dtype.itemsize > 1 else Blosc.NOSHUFFLE)
    num_chunks = SHARD_ROWS // spec.chunk_rows
    offsets = np.full((num_chunks, 2), ABSENT_CHUNK, "<u8")
    pieces: list[bytes] = []
    end = 0
    for chunk in range(-(-len(array) // spec.chunk_rows)):
        rows = slice(chunk * spec.chunk_rows, (chunk + 1) * spec.chunk_rows)
        values = np.full((spec.chunk_rows, *array.shape[1:]), fill, dtype)
        values[: len(array[rows])][mask[rows]] = array[rows][mask[rows]]
        if (np.isnan(values) if np.isnan(spec.fill) else values == fill).all():
            continue
        pieces.append(checked(values.tobytes() if compression == "none" else bytes(codec.encode(values))))
        offsets[chunk] = end, len(pieces[-1])
        end += len(pieces[-1])
    return b"".join([*pieces, checked(offsets.tobytes())]) if pieces else b""


def is_crc32c(body: bytes | np.ndarray, checksum: bytes | bytearray) -> bool:
    """Return whether 4 little-endian bytes are the CRC-32C of `body` (RFC 3720, appendix B.4).

    By a library that lets go of Python's lock, so that every core checks what it reads: google-crc32c does not.
    """
    from crc32c import crc32c

    data: Any = body  # an array is a buffer, which type checkers learn from Python 3.12 on
    return bool(crc32c(data) == int.from_bytes(checksum, "little"))


def zarr_index_bytes(chunk_rows: int) -> int:
    """Return the length of the index at a shard file's end."""
    return 16 * (SHARD_ROWS // chunk_rows) + CHECKSUM_BYTES


def decode_zarr_index(path: Path, tail: bytes) -> np.ndarray:
    """Decode an index, u64 (chunks, 2): offset and length of each inner chunk, both ABSENT_CHUNK where it is not stored.

    Raises:
        CacheError: the index is damaged.
    """
    if not is_crc32c(tail[:-CHECKSUM_BYTES], tail[-CHECKSUM_BYTES:]):
        raise CacheError(f"{path}: its index is damaged")
    return np.frombuffer(tail[:-CHECKSUM_BYTES], "<u8").reshape(-1, 2)


def check_zarr_file(path: Path, info: CacheInfo, shard: int, name: str, data: bytes | None) -> dict[str, StoredRows]:
    """Check one file of a shard; see `storage.check_shard_file`."""
    num_rows = min(SHARD_ROWS, info.num_samples - shard * SHARD_ROWS)
    arrays = [array for array, file in zarr_shard_files(info, shard).items() if file == name]
    return {array: _check_array(path / name, ARRAYS[array].chunk_rows, num_rows, data) for array in arrays}


def _check_array(path: Path, chunk_rows: int, num_rows: int, data: bytes | None) -> StoredRows:
    index_bytes = zarr_index_bytes(chunk_rows)
    size = file_size(path) if data is None else len(data)
    if size is None or size < index_bytes:
        raise CacheError(f"{path}: too short to hold its index")
    tail = read_range(path, size - index_bytes, size) if data is None else data[-index_bytes:]
    index = decode_zarr_index(path, tail)
    stored = index[:, 0] != ABSENT_CHUNK
    chunks = sorted((int(offset), int(length), i) for i, (offset, length) in enumerate(index) if stored[i])
    end = 0
    intact = stored.copy()
    for offset, length, i in chunks:  # back to back, nothing between
        if offset != end or length <= CHECKSUM_BYTES:
            break
        end += length
        if data is not None:
            intact[i] = is_crc32c(data[offset : end - CHECKSUM_BYTES], data[end - CHECKSUM_BYTES : end])
    if end != size - index_bytes:
        raise CacheError(f"{path}: holds {size} bytes, its index {end + index_bytes}")
    rows = np.arange(num_rows) // chunk_rows
    return StoredRows(stored[rows], intact[rows])
