"""Check a cache: tables against hashes, shards against records, rows against their index; every byte, or quickly."""

from __future__ import annotations

import os
from collections.abc import Collection
from collections.abc import Sequence as AbstractSequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from preprocess.build.engine import PARALLEL_REQUESTS, shard_rows
from shared.cache import (
    SAMPLES_CSV,
    find_caption_files,
    find_text_files,
    hash_content,
    read_info,
    read_record,
    record_path,
)
from shared.captions import read_captions
from shared.csv_tables import read_table
from shared.errors import CacheError, name_some
from shared.modalities import MODALITIES
from shared.schema import CacheInfo, Sample, ShardRecord
from shared.store.hdf5_store import VIEWS_HDF5
from shared.store.paths import is_remote, list_files, read_bytes
from shared.store.storage import PARTIAL_SUFFIX, check_shard_file, encode_metadata, hash_bytes, hash_file, shard_files
from shared.store.zarr_store import VIEWS_ZARR
from shared.text import read_text_embeddings

_MIN_ROW_BYTES = 13  # of samples.csv: twelve commas and the line's end


def verify_cache(cache: Path, *, quick: bool = False) -> list[str]:
    """Return one line per problem of a cache, with the file and the damaged samples; [] if there is none.

    Args:
        quick: check only existence, length and index of the shards, not every byte.
    Raises:
        CacheError: no cache here, or cache.json itself is damaged.
        StorageError: the object store cannot be reached.
    """
    info = read_info(cache)
    problems: list[str] = []
    if not info.complete:
        problems.append("cache.json: the cache is not finished; run the same build again")
    stored = list_files(cache)
    if SAMPLES_CSV in stored and info.num_samples > stored[SAMPLES_CSV] // _MIN_ROW_BYTES:
        raise CacheError(
            f"{cache / SAMPLES_CSV}: too short for the {info.num_samples} rows of cache.json; run build again"
        )
    for name, digest in info.file_hashes.items():
        if name not in stored:
            problems.append(f"{name}: missing")
        elif hash_file(cache / name) != digest:
            problems.append(f"{name}: changed since the cache was built")
    try:
        samples = read_table(cache / SAMPLES_CSV, Sample)
    except CacheError as error:
        samples = None
        problems.append(_inside(cache, error))

    def check(shard: int) -> _ShardCheck:
        return _check_shard(cache, info, shard, samples, stored, quick)

    with ThreadPoolExecutor(PARALLEL_REQUESTS if is_remote(cache) else min(4, os.cpu_count() or 1)) as pool:
        checks = list(tqdm(pool.map(check, range(info.num_shards)), "verify", info.num_shards, unit="shard", delay=2))
    problems += [problem for checked in checks for problem in checked.problems]
    expected = {name for checked in checks for name in checked.files}
    problems += _find_strays(info, stored, expected)
    digests = [checked.record_digest for checked in checks]
    if info.complete and not problems and info.content_hash != hash_content(info.file_hashes, digests):
        problems.append("cache.json: its content hash is not that of its tables and records")
    readers = [(path, read_text_embeddings) for path in find_text_files(cache)]
    for path, read in (*readers, *((path, read_captions) for path in find_caption_files(cache))):
        try:
            read(path)
            if f"text/{path.name}.sha256" not in stored:
                problems.append(f"text/{path.name}.sha256: missing; run `python -m preprocess prompts` again")
        except CacheError as error:
            problems.append(_inside(cache, error))
    return problems


def _inside(cache: Path, error: CacheError) -> str:
    return str(error).replace(f"{cache}/", "")


@dataclass(frozen=True)
class _ShardCheck:
    """Problems of a shard; its record's sha256 and files, where the record can be read."""

    problems: list[str]
    record_digest: str = ""
    files: Collection[str] = ()


def _check_shard(
    cache: Path,
    info: CacheInfo,
    shard: int,
    samples: AbstractSequence[Sample] | None,
    stored: Collection[str],
    quick: bool,
) -> _ShardCheck:
    path, rows = record_path(cache, shard), shard_rows(info, shard)
    name = path.relative_to(cache).as_posix()
    expected = list(samples[rows.start : rows.stop]) if samples is not None else []
    lost = (
        f"; without it these samples do not count: {name_some([s.sample_id for s in expected], 5)}" if expected else ""
    )
    try:
        record = read_record(cache, shard)
    except CacheError as error:
        return _ShardCheck([_inside(cache, error) + lost], files=shard_files(info, shard))
    if record is None:
        return _ShardCheck([f"{name}: missing{lost}"], files=shard_files(info, shard))
    if len(record.samples) != len(rows):
        problem = f"{name}: expected {len(rows)} rows, found {len(record.samples)}"
        return _ShardCheck([problem], hash_file(path), record.files)
    problems: list[str] = []
    if samples is not None and list(record.samples) != expected:
        different = [found.sample_id for s, found in zip(expected, record.samples, strict=False) if s != found]
        problems.append(f"{name}: does not agree with samples.csv on {name_some(different, 5)}")
    foreign = sorted(set(record.files) - set(shard_files(info, shard)))
    if foreign:
        problems.append(f"{name}: names {foreign[0]}, which is no file of this shard")
    present: dict[str, np.ndarray] = {}
    are_known = True
    for file in [name for name in record.files if name not in foreign]:
        problem, found_rows = _check_file(cache, info, record, file, file in stored, quick)
        problems += [problem] if problem else []
        are_known &= not problem
        present |= found_rows
    if are_known:
        problems += _check_rows(info, record, present)
    return _ShardCheck(problems, hash_file(path), record.files)


def _check_file(
    cache: Path, info: CacheInfo, record: ShardRecord, name: str, is_stored: bool, quick: bool
) -> tuple[str, dict[str, np.ndarray]]:
    """Return the problem with one file of a shard, or ""; array name → bool (R,), the rows stored in it."""
    claimed = _claimed_rows(info, record, name)
    every = _name_rows(record, np.logical_or.reduce(list(claimed.values())))
    if not is_stored:
        return f"{name}: missing; it holds {every}", {}
    data = None if quick else read_bytes(cache / name)
    is_changed = data is not None and hash_bytes(data) != record.files[name]
    changed = f"{name}: its bytes are not those that were written"
    try:
        rows = check_shard_file(cache, info, record.shard, name, data)
    except CacheError as error:  # its index or structure: no row in it can be trusted
        return f"{changed if is_changed else _inside(cache, error)}; damaged: {every}", {}
    if not is_changed:
        return "", {array: found.present for array, found in rows.items()}
    damaged = np.zeros(len(record.samples), bool)
    for array, is_claimed in claimed.items():
        found = rows[array]
        # A small array is one chunk, which is not stored if it holds only fill values.
        damaged |= is_claimed & ~found.intact & (found.present | (array in MODALITIES))
    if damaged.any():
        return f"{changed}; damaged: {_name_rows(record, damaged)}", {}
    return f"{changed}; every sample still reads, any may be damaged: {every}", {}


def _claimed_rows(info: CacheInfo, record: ShardRecord, name: str) -> dict[str, np.ndarray]:
    """Array name → bool (R,): the rows that a file of the shard should hold, according to the record."""
    claimed = {}
    for array in info.arrays():
        if info.store == "hdf5" or name.split("/")[1] == array:
            rows = [sample.has(array) if array in MODALITIES else sample.valid for sample in record.samples]
            claimed[array] = np.array(rows, bool)
    return claimed


def _check_rows(info: CacheInfo, record: ShardRecord, present: dict[str, np.ndarray]) -> list[str]:
    """Compare the images that each row claims with those in the shard's index."""
    problems = []
    for modality in info.settings.modalities:
        claimed = np.array([sample.has(modality) for sample in record.samples], bool)
        found = present.get(modality, np.zeros(len(claimed), bool))
        name = f"records/{record.shard:05d}.json"
        if (claimed & ~found).any():
            problems.append(f"{name}: no {modality} is stored of {_name_rows(record, claimed & ~found)}")
        if (found & ~claimed).any():
            problems.append(f"{name}: {modality} is stored, but not claimed, of {_name_rows(record, found & ~claimed)}")
    return problems


def _find_strays(info: CacheInfo, stored: Collection[str], expected: set[str]) -> list[str]:
    """Report files among the arrays or records that belong to no record: a reader might take them for data."""
    expected = expected | set(encode_metadata(info)) | {f"records/{shard:05d}.json" for shard in range(info.num_shards)}
    folders = (f"{VIEWS_ZARR}/", f"{VIEWS_HDF5}/", "records/")
    strays = [name for name in stored if name.startswith(folders) and name not in expected]
    return [f"{name}: belongs to no record; remove it" for name in strays if not name.endswith(PARTIAL_SUFFIX)]


def _name_rows(record: ShardRecord, rows: np.ndarray) -> str:
    names = [s.sample_id for s, hit in zip(record.samples, rows, strict=True) if hit and s.valid]
    return name_some(names, 5)
