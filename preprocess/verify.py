"""Checks a cache byte by byte: tables against hashes, shards against records, records against rows."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from shared.cache import (
    SAMPLES_CSV,
    SEQUENCES_CSV,
    read_info,
    read_record,
    read_table,
    record_path,
)
from shared.errors import CacheError
from shared.schema import MODALITIES, SHARD_ROWS, CacheInfo, Sample, Sequence, ShardRecord, fingerprint
from shared.storage import encode_metadata, hash_file, open_arrays
from shared.text import read_text_embeddings


def verify_cache(cache: Path) -> list[str]:
    """Everything that is wrong with a cache, a line each, naming the file and, where it can, the samples; [] if nothing is.

    Raises:
        CacheError: no cache here, or cache.json itself cannot be trusted.
    """
    info = read_info(cache)
    problems: list[str] = []
    if not info.complete:
        problems.append("cache.json: the cache is not finished; run the same build again")
    for name, digest in info.file_hashes.items():
        if not (cache / name).is_file():
            problems.append(f"{name}: missing")
        elif hash_file(cache / name) != digest:
            problems.append(f"{name}: changed since the cache was built")
    for name, data in encode_metadata(info).items():
        if (cache / name).is_file() and (cache / name).read_bytes() != data:
            problems.append(f"{name}: does not describe the arrays that cache.json promises")
    samples = _read(cache, SAMPLES_CSV, Sample, problems)
    sequences = _read(cache, SEQUENCES_CSV, Sequence, problems)
    digests = []
    for shard in tqdm(range(info.num_shards), "verify", unit="shard", delay=2):
        record = _check_record(cache, info, shard, samples, problems)
        if record is not None:
            digests.append(hash_file(record_path(cache, shard)))
            _check_files(cache, info, record, problems)
    if samples is not None:
        _check_counts(info, samples, sequences, problems)
    tables = [info.file_hashes.get(SAMPLES_CSV), info.file_hashes.get(SEQUENCES_CSV)]
    if info.complete and not problems and info.content_hash != fingerprint({"tables": tables, "records": digests}):
        problems.append("cache.json: its content hash is not that of its tables and records")
    for path in sorted((cache / "text").glob("*.h5")):
        try:
            read_text_embeddings(path)
            if not path.with_name(path.name + ".sha256").is_file():
                problems.append(f"text/{path.name}.sha256: missing; run `python -m preprocess prompts` again")
        except CacheError as error:
            problems.append(str(error).replace(f"{cache}/", ""))
    return problems


def _read(cache: Path, name: str, row_type: type, problems: list[str]) -> list | None:
    try:
        return read_table(cache / name, row_type)
    except CacheError as error:
        problems.append(str(error).replace(f"{cache}/", ""))
        return None


def _check_record(
    cache: Path, info: CacheInfo, shard: int, samples: list[Sample] | None, problems: list[str]
) -> ShardRecord | None:
    name = record_path(cache, shard).relative_to(cache)
    try:
        record = read_record(cache, shard)
    except CacheError as error:
        problems.append(str(error).replace(f"{cache}/", ""))
        return None
    if record is None:
        problems.append(f"{name}: missing, so its samples do not count")
        return None
    first = shard * SHARD_ROWS
    num_rows = min(SHARD_ROWS, info.num_samples - first)
    if (record.shard, record.first_row, len(record.samples)) != (shard, first, num_rows):
        problems.append(
            f"{name}: expected {num_rows} rows from row {first}, "
            f"found {len(record.samples)} from row {record.first_row} (shard {record.shard})"
        )
        return None
    if samples is not None and list(record.samples) != samples[first : first + num_rows]:
        rows = [s.sample_id for s, r in zip(samples[first : first + num_rows], record.samples, strict=False) if s != r]
        problems.append(f"{name}: does not agree with samples.csv on {_name(rows)}")
    return record


def _check_files(cache: Path, info: CacheInfo, record: ShardRecord, problems: list[str]) -> None:
    for name, digest in record.files.items():
        if not (cache / name).is_file():
            problems.append(f"{name}: missing; it holds {_name([s.sample_id for s in record.samples if s.valid])}")
        elif hash_file(cache / name) != digest:
            hit = _find_damaged(cache, info, record, name)
            problems.append(
                f"{name}: its bytes are not those that were written; "
                + (f"damaged: {_name(hit)}" if hit else "every sample of it still reads")
            )


def _find_damaged(cache: Path, info: CacheInfo, record: ShardRecord, name: str) -> list[str]:
    """Samples whose images no longer decode; their checksums tell."""
    arrays = open_arrays(cache, info)
    modalities = [m for m in MODALITIES if m in info.settings.modalities and (info.store == "hdf5" or f"/{m}/" in name)]
    damaged = []
    for offset, sample in enumerate(record.samples):
        try:
            for modality in modalities:
                if sample.has(modality):
                    arrays.read(modality, [record.first_row + offset])
        except CacheError:
            damaged.append(sample.sample_id)
    return damaged


def _check_counts(
    info: CacheInfo, samples: list[Sample], sequences: list[Sequence] | None, problems: list[str]
) -> None:
    if len(samples) != info.num_samples:
        problems.append(f"{SAMPLES_CSV}: {len(samples)} rows, cache.json says {info.num_samples}")
    ids = [sample.sample_id for sample in samples]
    if len(set(ids)) != len(ids):
        problems.append(f"{SAMPLES_CSV}: a sample_id stands twice")
    unknown = sorted({s.label for s in samples if s.label} - set(info.class_names))
    if unknown:
        problems.append(f"{SAMPLES_CSV}: label {unknown[0]!r} is not among {', '.join(info.class_names)}")
    num_valid = sum(sample.valid for sample in samples)
    if info.complete and num_valid != info.num_valid:
        problems.append(f"{SAMPLES_CSV}: {num_valid} valid rows, cache.json says {info.num_valid}")
    frames: dict[str, int] = {}
    for sample in samples:
        if sample.sequence:
            frames[sample.sequence] = frames.get(sample.sequence, 0) + 1
    if sequences is not None and info.complete and {s.sequence: s.num_frames for s in sequences} != frames:
        problems.append(f"{SEQUENCES_CSV}: its sequences and frames are not those of {SAMPLES_CSV}")


def _name(samples: list[str]) -> str:
    shown = ", ".join(samples[:5])
    return shown + (f" and {len(samples) - 5} more" if len(samples) > 5 else "")
