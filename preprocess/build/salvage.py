"""What of a damaged shard is still as it was written: its rows, so that only the others are rendered again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared.cache import read_record
from shared.errors import CacheError
from shared.schema import ARRAYS, MODALITIES, SHARD_ROWS, CacheInfo, ShardRecord
from shared.store.paths import is_file, read_bytes
from shared.store.storage import check_shard_file, open_arrays, shard_files


@dataclass(frozen=True)
class Salvage:
    """A shard's record, and the arrays of the rows that need not be rendered: name -> (R, …), of kept rows only meaningful.

    kept: bool (R,), R = the shard's rows.
    """

    record: ShardRecord
    kept: np.ndarray
    arrays: dict[str, np.ndarray]


def salvage_shard(cache: Path, info: CacheInfo, shard: int, input_fingerprint: str) -> Salvage | None:
    """The rows of a shard whose every array still passes its checksums; None where there is nothing to go on with.

    The record must be whole and speak of the same inputs. Checksums are of 32 bits: that kept rows are what was written is
    proved in the end by the encoded shard, which must have the record's hashes.

    Raises:
        StorageError: the object store cannot be reached.
    """
    try:
        record = read_record(cache, shard)
    except CacheError:
        return None
    num_rows = min(SHARD_ROWS, info.num_samples - shard * SHARD_ROWS)
    if record is None or record.input_fingerprint != input_fingerprint or len(record.samples) != num_rows:
        return None
    if not set(record.files) <= set(shard_files(info, shard)):
        return None
    kept = find_intact_rows(cache, info, record)
    reader = open_arrays(cache, info)
    arrays: dict[str, np.ndarray] = {}
    for name, shape in info.arrays().items():
        arrays[name] = np.full((num_rows, *shape[1:]), ARRAYS[name].fill, ARRAYS[name].dtype)
        for row in np.flatnonzero(kept):
            if name not in MODALITIES or record.samples[row].has(name):
                try:
                    arrays[name][row] = reader.read(name, [record.first_row + int(row)])[0]
                except CacheError:
                    kept[row] = False
    return Salvage(record, kept, arrays) if kept.any() else None


def find_intact_rows(cache: Path, info: CacheInfo, record: ShardRecord) -> np.ndarray:
    """bool (R,): the rows of a shard that no missing or damaged file of it has hit."""
    intact = np.ones(len(record.samples), bool)
    for name in record.files:
        intact &= ~find_hit_rows(cache, info, record, name, read_bytes(cache / name) if is_file(cache / name) else None)
    return intact


def find_hit_rows(cache: Path, info: CacheInfo, record: ShardRecord, name: str, data: bytes | None) -> np.ndarray:
    """Rows that a damaged or missing file of a shard hits.

    Args:
        name: the file, one of the record's. data: its bytes, or None where it is missing.
    Returns:
        bool (R,): rows that are stored in it and whose checksum fails, or that should be and are not.
    """
    held = _rows_held(info, record, name)
    if data is None:
        return np.logical_or.reduce(list(held.values()))
    try:
        stored = check_shard_file(cache, info, record.shard, name, data)
    except CacheError:  # its index or structure: nothing in it can be trusted
        return np.logical_or.reduce(list(held.values()))
    hit = np.zeros(len(record.samples), bool)
    for array, rows in held.items():
        found = stored[array]
        if array in MODALITIES:
            hit |= rows & ~(found.present & found.intact)
        else:  # a small array is one chunk, which is not stored where no row has anything to say
            hit |= rows & found.present & ~found.intact
    return hit


def _rows_held(info: CacheInfo, record: ShardRecord, name: str) -> dict[str, np.ndarray]:
    """Array name -> bool (R,), the rows that a file of the shard speaks of."""
    valid = np.array([sample.valid for sample in record.samples], bool)
    held = {}
    for array in info.arrays():
        if info.store == "hdf5" or name.split("/")[1] == array:
            has = np.array([sample.has(array) for sample in record.samples], bool)
            held[array] = has if array in MODALITIES else valid
    return held
