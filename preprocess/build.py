"""Builds a cache: finds the scans, plans the rows, renders unfinished shards in worker processes, writes the tables.

Whatever is killed at any moment, the same command goes on where it stopped and ends with the same bytes.
"""

from __future__ import annotations

import dataclasses
import fcntl
import importlib.metadata
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from preprocess.plan import Plan, find_unfinished, gather_sequences, plan_rows
from preprocess.scan import SYNTHETIC_MARKER, DatasetReader, ScanRecord
from preprocess.workers import run_shards
from shared.cache import (
    CACHE_JSON,
    FAILURES_CSV,
    SAMPLES_CSV,
    SEQUENCES_CSV,
    Failure,
    encode_table,
    num_shards,
    read_info,
    read_record,
    record_path,
    write_info,
)
from shared.errors import CacheError, FacetError
from shared.labels import EXPRESSIONS
from shared.schema import FORMAT_VERSION, SHARD_ROWS, CacheInfo, RenderSettings, Sample, fingerprint
from shared.schema import Sequence as SequenceRow
from shared.storage import PARTIAL_SUFFIX, VIEWS_HDF5, VIEWS_ZARR, encode_metadata, hash_file, write_file

# What a folder may hold before its first build and still be taken for a cache in the making.
CACHE_PARTS = {
    ".build",
    "text",
    "records",
    VIEWS_ZARR,
    VIEWS_HDF5,
    SAMPLES_CSV,
    SEQUENCES_CSV,
    FAILURES_CSV,
    "README.md",
}
SYNTHETIC_LICENCE = "Synthetic faces, drawn by this software: nobody real is shown"
SOFTWARE = ("open3d", "numpy", "zarr", "h5py", "numcodecs", "pillow")


@dataclass
class BuildReport:
    """What a build did. seconds: time of all workers by stage; failures of the whole cache, not of this run alone."""

    info: CacheInfo
    num_rendered: int
    failures: list[Failure]
    seconds: dict[str, float] = field(default_factory=dict)
    wall_seconds: float = 0.0


def build_cache(
    dataset: DatasetReader,
    root: Path,
    cache: Path,
    settings: RenderSettings,
    *,
    store: str = "zarr",
    num_workers: int | None = None,
    strict: bool = False,
    repair: bool = False,
    overwrite: bool = False,
) -> BuildReport:
    """Renders every scan of a data set into a cache, or what an earlier build left unfinished.

    Args:
        root: the data set's folder. cache: the folder to write; made with mode 0700, for these are faces.
        num_workers: processes; default one a core.
        strict: stop at the first scan that fails instead of listing it.
        repair: compare every stored byte with its record and render damaged shards again.
        overwrite: render everything again when the cache was made with other settings.
    Raises:
        FacetError: no such data set, no usable scan, or a worker died.
        CacheError: the cache holds other settings, or another build is writing it.
    """
    started = time.monotonic()
    scans = dataset.find(root)
    if not scans:
        raise FacetError(f"{root}: no scans of {dataset.title} found; check --root")
    for line in dataset.summarise(root, scans) if dataset.summarise is not None else ():
        print(line)  # what a partial copy lacks is said, not refused
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _lock(cache):
        info = _start_info(dataset, root, scans, cache, settings, store, overwrite)
        _sweep(cache)
        plan = plan_rows(scans, cache)
        info = dataclasses.replace(
            info, num_samples=len(plan.samples), num_shards=num_shards(len(plan.samples)), software=_software()
        )
        tasks = [plan.task(dataset, root, cache, info, shard, strict) for shard in range(info.num_shards)]
        unfinished = []
        for task, needed in tqdm(find_unfinished(tasks, repair=repair), "check", len(tasks), unit="shard", delay=2):
            if needed:
                unfinished.append(task)
        if unfinished or not _is_finished(cache, info):
            write_info(cache, info)
            write_file(cache / SAMPLES_CSV, encode_table(Sample, plan.samples))
            for name, data in encode_metadata(info).items():
                write_file(cache / name, data)
        seconds, num_rendered = run_shards(unfinished, num_workers or len(os.sched_getaffinity(0)))
        info, failures = _finish(dataset, plan, cache, info)
    return BuildReport(info, num_rendered, failures, seconds, time.monotonic() - started)


def class_names_of(dataset: DatasetReader, scans: Sequence[ScanRecord]) -> tuple[str, ...]:
    """A data set's own vocabulary; for a user's scans the labels found, expressions in their usual order first."""
    if dataset.class_names:
        return dataset.class_names
    found = {scan.label for scan in scans if scan.label}
    return (*(name for name in EXPRESSIONS if name in found), *sorted(found - set(EXPRESSIONS)))


def is_synthetic(root: Path) -> bool:
    """Whether a folder in a data set's layout holds synthetic faces, as its marker says."""
    return (root / SYNTHETIC_MARKER).is_file()


def settings_fingerprint(dataset: str, settings: RenderSettings, store: str) -> str:
    """What must be equal for a build to go on in an existing cache."""
    return fingerprint(
        {
            "format_version": FORMAT_VERSION,
            "dataset": dataset,
            "settings": dataclasses.asdict(settings),
            "store": store,
            "shard_rows": SHARD_ROWS,
        }
    )


def _start_info(
    dataset: DatasetReader,
    root: Path,
    scans: Sequence[ScanRecord],
    cache: Path,
    settings: RenderSettings,
    store: str,
    overwrite: bool,
) -> CacheInfo:
    info = CacheInfo(
        dataset=dataset.name,
        licence=SYNTHETIC_LICENCE if is_synthetic(root) else dataset.licence,
        class_names=class_names_of(dataset, scans),
        settings=settings,
        store=store,
        num_landmarks=dataset.num_landmarks,
        au_names=dataset.au_names,
        target_names=dataset.target_names,
        settings_fingerprint=settings_fingerprint(dataset.name, settings, store),
    )
    if not (cache / CACHE_JSON).exists():
        strangers = [path.name for path in cache.iterdir() if path.name not in CACHE_PARTS]
        if strangers:
            raise CacheError(
                f"{cache}: not empty and not a cache (holds {sorted(strangers)[0]}); choose another --cache"
            )
        return info
    try:
        old = read_info(cache)
    except CacheError:
        if overwrite:
            return _clear(cache, info)
        raise
    if old.settings_fingerprint != info.settings_fingerprint:
        if overwrite:
            return _clear(cache, info)
        raise CacheError(
            f"{cache}: was built with other settings ({_describe_change(old, info)}); "
            "choose another --cache, or render everything again with --overwrite"
        )
    return info


def _describe_change(old: CacheInfo, new: CacheInfo) -> str:
    changes = []
    for name in ("dataset", "store"):
        if getattr(old, name) != getattr(new, name):
            changes.append(f"{name} {getattr(old, name)}, now {getattr(new, name)}")
    for field_ in dataclasses.fields(RenderSettings):
        before, after = getattr(old.settings, field_.name), getattr(new.settings, field_.name)
        if before != after:
            before, after = (
                ",".join(map(str, value)) if isinstance(value, tuple) else value for value in (before, after)
            )
            changes.append(f"{field_.name} {before}, now {after}")
    return "; ".join(changes) or "another version of the renderer"


def _clear(cache: Path, info: CacheInfo) -> CacheInfo:
    """Removes what a build wrote, cache.json first, so that a kill leaves no cache instead of half of one."""
    (cache / CACHE_JSON).unlink(missing_ok=True)
    for name in (SAMPLES_CSV, SEQUENCES_CSV, FAILURES_CSV):
        (cache / name).unlink(missing_ok=True)
    for folder in ("records", VIEWS_ZARR, VIEWS_HDF5):
        shutil.rmtree(cache / folder, ignore_errors=True)
    for note in (cache / ".build").glob("times-*.json"):
        note.unlink()
    return info


@contextmanager
def _lock(cache: Path) -> Iterator[None]:
    """Held by the kernel for as long as the process lives: a killed build leaves no stale lock."""
    (cache / ".build").mkdir(exist_ok=True)
    with (cache / ".build" / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CacheError(f"{cache}: another build is writing this cache; wait until it has ended") from error
        yield


def _sweep(cache: Path) -> None:
    for partial in cache.rglob(f".*{PARTIAL_SUFFIX}"):
        partial.unlink(missing_ok=True)


def _software() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in SOFTWARE}


# --- the tables of a finished cache ---


def _is_finished(cache: Path, info: CacheInfo) -> bool:
    try:
        old = read_info(cache)
    except CacheError:
        return False
    unfinished = dataclasses.replace(
        old, num_valid=0, num_subjects=0, num_sequences=0, content_hash="", file_hashes={}, complete=False
    )
    return old.complete and unfinished == info


def _finish(dataset: DatasetReader, plan: Plan, cache: Path, info: CacheInfo) -> tuple[CacheInfo, list[Failure]]:
    """Writes the tables from the records, then cache.json with `complete`."""
    samples: list[Sample] = []
    digests = []
    for shard in range(info.num_shards):
        record = read_record(cache, shard)
        if record is None:
            raise CacheError(f"{record_path(cache, shard)}: missing although the build has ended; run it again")
        samples.extend(record.samples)
        digests.append(hash_file(record_path(cache, shard)))
    failures = [Failure(s.source, s.sample_id, s.reason) for s in samples if not s.valid]
    valid = [sample for sample in samples if sample.valid]
    sequences = gather_sequences(samples, plan.scans, dataset.frames_per_second)
    tables = {
        SAMPLES_CSV: encode_table(Sample, samples),
        SEQUENCES_CSV: encode_table(SequenceRow, sequences),
        FAILURES_CSV: encode_table(Failure, failures),
    }
    hashes = {name: write_file(cache / name, data) for name, data in tables.items()}
    for name, data in encode_metadata(info).items():
        if not (cache / name).is_file() or (cache / name).read_bytes() != data:
            write_file(cache / name, data)
        hashes[name] = hash_file(cache / name)
    info = dataclasses.replace(
        info,
        num_valid=len(valid),
        num_subjects=len({sample.subject for sample in valid}),
        num_sequences=len(sequences),
        file_hashes=hashes,
        content_hash=fingerprint({"tables": [hashes[SAMPLES_CSV], hashes[SEQUENCES_CSV]], "records": digests}),
        complete=bool(valid),
    )
    write_info(cache, info)
    if not valid:
        raise FacetError(
            f"none of {len(samples)} scans could be read; the first: {failures[0].source}: {failures[0].reason} "
            f"(all of them in {cache / FAILURES_CSV})"
        )
    return info, failures
