"""Builds a cache: finds the scans, plans the rows, has unfinished shards rendered by workers, writes the tables.

Whatever is killed at any moment, the same command goes on where it stopped and ends with the same bytes.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from preprocess.build.attempts import forget_quarantine
from preprocess.build.cache_folder import (
    finish_cache,
    lock_cache,
    open_for_writing,
    read_records,
    settings_fingerprint,
    software_versions,
    start_cache,
)
from preprocess.build.plan import find_unfinished, gather_sequences, plan_rows
from preprocess.build.run_shards import Work, run_shards
from preprocess.build.workers import Workers
from preprocess.datasets.scan import SCAN_GONE, SYNTHETIC_MARKER, DatasetReader, ScanRecord
from preprocess.sequences.apex import estimate_apexes
from shared.cache import FAILURES_CSV, Failure, num_shards, record_path
from shared.errors import FacetError
from shared.groups import gather_groups
from shared.labels import EXPRESSIONS
from shared.processors import num_cores
from shared.schema import CacheInfo, RenderSettings
from shared.store.paths import is_file

VISIBLE_SECONDS = 90  # NFS believes for 60 s at most that a file is not there
SYNTHETIC_LICENCE = "Synthetic faces, drawn by this software: nobody real is shown"


@dataclass
class BuildReport:
    """What a build did: its workers' work in this run; failures of the whole cache. wall_seconds: of the rendering."""

    info: CacheInfo
    failures: list[Failure]  # and warnings
    work: Work
    wall_seconds: float

    @property
    def num_rendered(self) -> int:
        return self.work.num_scans


def build_cache(
    dataset: DatasetReader,
    root: Path,
    cache: Path,
    settings: RenderSettings,
    *,
    store: str = "zarr",
    compression: str = "lz4",
    num_workers: int | None = None,
    workers: Workers | None = None,
    strict: bool = False,
    repair: bool = False,
    overwrite: bool = False,
) -> BuildReport:
    """Renders every scan of a data set into a cache, or what an earlier build left unfinished.

    Args:
        root: the data set's folder. cache: the folder to write; a new one is made with mode 0700, for these are faces.
        num_workers: processes of this machine, 1: this process itself; default one a core.
        workers: who renders, in place of `num_workers`: a cluster, for example.
        strict: stop at the first scan that fails instead of listing it.
        repair: compare every stored byte with its record and render what is damaged again; try quarantined scans again.
        overwrite: render everything again when the cache was made with other settings.
    Raises:
        FacetError: no such data set, no usable scan, no scheduler, or workers die and no single scan is to blame.
        CacheError: the cache holds other settings, or another build is writing it.
    """
    listing = dataset.find(root)
    scans = listing.records
    if not scans:
        raise FacetError(f"{root}: no scans of {dataset.title} found; check --root")
    for line in listing.notes:
        print(line)  # what a partial copy lacks is said, not refused
    info = CacheInfo(
        dataset=dataset.name,
        licence=SYNTHETIC_LICENCE if is_synthetic(root) else dataset.licence,
        class_names=class_names_of(dataset, scans),
        settings=settings,
        store=store,
        compression=compression,
        num_landmarks=dataset.num_landmarks,
        au_names=dataset.au_names,
        target_names=dataset.target_names,
        settings_fingerprint=settings_fingerprint(dataset.name, settings, store, compression),
        software=software_versions(),
    )
    with lock_cache(cache):
        advice = "choose another --cache, or render everything again with --overwrite"
        start_cache(cache, info, overwrite=overwrite, advice=advice)
        plan = plan_rows(scans, cache)
        if plan.num_reworded:
            print(f"labels, subjects or other words of {plan.num_reworded:,} rows are new; their images are kept")
        info = dataclasses.replace(info, num_samples=len(plan.samples), num_shards=num_shards(len(plan.samples)))
        tasks = [plan.task(dataset, root, cache, info, shard, strict) for shard in range(info.num_shards)]
        if repair:
            forget_quarantine(cache, range(info.num_shards))
        unfinished = []
        for task, needed in tqdm(find_unfinished(tasks, repair=repair), "check", len(tasks), unit="shard", delay=2):
            if needed:
                unfinished.append(task)
        open_for_writing(cache, info, plan.samples, unfinished=bool(unfinished))
        workers = workers or Workers(num_workers or num_cores())
        started = time.monotonic()
        work = run_shards(cache, unfinished, workers)
        wall_seconds = time.monotonic() - started
        _await_records(cache, [task.shard for task in unfinished])
        records = read_records(cache, info)
        samples = [sample for record in records for sample in record.samples]
        sequences = gather_sequences(samples, plan.scans, dataset.frames_per_second)
        groups = gather_groups([scan.groups if scan else () for scan in plan.scans])
        sequences = estimate_apexes(cache, info, records, sequences)
        info, failures = finish_cache(cache, info, samples, sequences, groups)
    if not info.complete:
        failures = [f for f in failures if f.kind == "failed" and f.reason != SCAN_GONE]
        raise FacetError(
            f"none of {len(scans)} scans could be read; the first: {_name_once(failures[0])} "
            f"(all of them in {cache / FAILURES_CSV})"
        )
    return BuildReport(info, failures, work, wall_seconds)


def _name_once(failure: Failure) -> str:
    """What failed and why; most reasons begin with the file already."""
    return failure.reason if failure.reason.startswith(failure.source) else f"{failure.source}: {failure.reason}"


def _await_records(cache: Path, shards: Sequence[int]) -> None:
    """Network file systems show what another machine wrote some time later; a record that never comes is told by its reader."""
    deadline = time.monotonic() + VISIBLE_SECONDS
    for shard in shards:
        while not is_file(record_path(cache, shard)) and time.monotonic() < deadline:
            time.sleep(0.5)


def class_names_of(dataset: DatasetReader, scans: Sequence[ScanRecord]) -> tuple[str, ...]:
    """A data set's own vocabulary; for a user's scans the labels found, expressions in their usual order first."""
    if dataset.class_names:
        return dataset.class_names
    found = {scan.label for scan in scans if scan.label}
    return (*(name for name in EXPRESSIONS if name in found), *sorted(found - set(EXPRESSIONS)))


def is_synthetic(root: Path) -> bool:
    """Whether a folder in a data set's layout holds synthetic faces, as its marker says."""
    return (root / SYNTHETIC_MARKER).is_file()
