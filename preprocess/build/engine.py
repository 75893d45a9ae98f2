"""Write a cache shard by shard: inputs → fingerprint → files → record. Used by `build` and `dynamic`.

A shard counts only with its record, which names the fingerprint of its inputs and the hash of each file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from shared.cache import read_record, record_path, write_record
from shared.errors import CacheError
from shared.schema import ARRAYS, SHARD_ROWS, CacheInfo, Sample, ShardRecord
from shared.store.paths import is_remote, remove_file
from shared.store.storage import encode_shard, hash_file, shard_files, write_file

PARALLEL_REQUESTS = 16  # to an object store
Item = TypeVar("Item")
Result = TypeVar("Result")


def shard_rows(info: CacheInfo, shard: int) -> range:
    """Return the rows of a cache that one shard holds."""
    return range(shard * SHARD_ROWS, min((shard + 1) * SHARD_ROWS, info.num_samples))


def map_files(cache: Path, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield function(item) in order; items are processed in parallel where the cache is in an object store."""
    with ThreadPoolExecutor(PARALLEL_REQUESTS if is_remote(cache) else 1) as pool:
        yield from pool.map(function, items)


class ShardArrays:
    """The arrays of one shard while it is filled. A row that is never set stays absent."""

    def __init__(self, info: CacheInfo, shard: int) -> None:
        self._info, self._shard = info, shard
        num_rows = len(shard_rows(info, shard))
        self._arrays = {
            name: np.full((num_rows, *shape[1:]), ARRAYS[name].fill, ARRAYS[name].dtype)
            for name, shape in info.arrays().items()
        }
        self._present = {name: np.zeros(num_rows, bool) for name in self._arrays}

    def set(self, name: str, row: int, value: object) -> None:
        """Store one row of an array; `row` counts from the shard's first."""
        self._arrays[name][row] = value
        self._present[name][row] = True

    def encode(self) -> dict[str, bytes]:
        """Return the shard's files: path relative to the cache → bytes."""
        return encode_shard(self._info, self._shard, self._arrays, self._present)


def write_shard(
    cache: Path, info: CacheInfo, shard: int, samples: Sequence[Sample], files: dict[str, bytes], input_fingerprint: str
) -> None:
    """Write a shard's files, then its record; remove files that an earlier version of the shard had.

    Raises:
        OSError: the cache cannot be written (full disk, permissions).
    """
    remove_file(record_path(cache, shard))  # the shard does not count until its new record is written
    for name in shard_files(info, shard):
        if name not in files:
            remove_file(cache / name)
    hashes = {name: write_file(cache / name, data) for name, data in files.items()}
    write_record(cache, ShardRecord(shard, shard * SHARD_ROWS, tuple(samples), input_fingerprint, hashes))


def read_finished(
    cache: Path, info: CacheInfo, shard: int, stored: Collection[str], *, hash_files: bool
) -> ShardRecord | None:
    """Return the record of a shard whose files are all stored; None where the shard must be written again.

    Args:
        stored: every file of the cache, by its relative path.
        hash_files: also compare the bytes of each file with the record.
    """
    try:
        record = read_record(cache, shard)
    except CacheError:
        return None
    if record is None or len(record.samples) != len(shard_rows(info, shard)):
        return None
    if not set(record.files) <= set(shard_files(info, shard)):
        return None
    for name, digest in record.files.items():
        if name not in stored or (hash_files and hash_file(cache / name) != digest):
            return None
    return record


def read_records(cache: Path, info: CacheInfo) -> list[ShardRecord]:
    """Return the records of all shards.

    Raises:
        CacheError: a record is missing or damaged.
    """
    records = []
    for shard, record in enumerate(map_files(cache, partial(read_record, cache), range(info.num_shards))):
        if record is None:
            raise CacheError(f"{record_path(cache, shard)}: missing although the build has ended; run it again")
        records.append(record)
    return records
