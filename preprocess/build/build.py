"""Build a cache: find the scans, plan the rows, have workers render unfinished shards, write the tables.

A build that was killed at any moment is continued by the same command, and ends with the same bytes.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from preprocess.build.cache_folder import describe_build, finish_cache, lock_cache, open_for_writing, start_cache
from preprocess.build.child import map_in_children
from preprocess.build.engine import read_records
from preprocess.build.executors import Workers
from preprocess.build.ledger import claim_build
from preprocess.build.plan import find_unfinished, gather_sequences, plan_rows
from preprocess.build.progress import Work, render
from preprocess.datasets.scan import SCAN_GONE, SYNTHETIC_MARKER, DatasetReader, ScanRecord
from preprocess.sequences.apex import estimate_apexes
from shared.cache import FAILURES_CSV, Failure, record_path
from shared.errors import FacetError
from shared.groups import gather_groups
from shared.labels import EXPRESSIONS
from shared.processors import num_cores
from shared.schema import CacheInfo, RenderSettings
from shared.store.paths import is_file

FRAMES_PER_CHILD = 1000  # to start a process takes as long as about as many frames
VISIBLE_SECONDS = 90  # NFS may cache for up to 60 s that a file does not exist
SYNTHETIC_LICENCE = "Synthetic faces, drawn by this software: nobody real is shown"


@dataclass
class BuildReport:
    """Result of a build. work: of this run; failures: of the whole cache, warnings included."""

    info: CacheInfo
    failures: list[Failure]
    work: Work

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
    quiet: bool = False,
) -> BuildReport:
    """Render every scan of a data set into a cache; shards that an earlier build finished are not rendered again.

    Args:
        root: the data set's folder. cache: the folder to write; a new one gets mode 0700, because it holds faces.
        num_workers: processes of this machine, 1: this process itself; default: one per core.
        workers: who renders, in place of `num_workers`: a cluster, for example.
        strict: stop at the first scan that fails instead of listing it.
        repair: compare every stored byte with its record and render damaged shards again; try quarantined scans again.
        overwrite: render everything again when the cache was made with other settings.
        quiet: print no line for a scan that fails; the report names them all.
    Raises:
        FacetError: no such data set, no usable scan, no scheduler, or workers crash and no single scan is to blame.
        CacheError: the cache has other settings, or another build is writing it.
    """
    listing = dataset.find(root)
    scans = listing.records
    if not scans:
        raise FacetError(f"{root}: no scans of {dataset.title} found; check --root")
    for line in listing.notes:
        print(line)  # a partial copy is reported, not refused
    info = CacheInfo(
        dataset=dataset.name,
        licence=SYNTHETIC_LICENCE if is_synthetic(root) else dataset.licence,
        class_names=class_names_of(dataset, scans),
        settings=settings,
        store=store,
        compression=compression,
        num_landmarks=dataset.num_landmarks,
        au_names=listing.au_names or dataset.au_names,
        target_names=dataset.target_names,
    )
    with lock_cache(cache):
        advice = "choose another --cache, or render everything again with --overwrite"
        start_cache(cache, describe_build(info), overwrite=overwrite, advice=advice)
        plan = plan_rows(scans, cache)
        if plan.num_relabelled:
            print(
                f"labels, subjects or other columns of {plan.num_relabelled:,} rows changed; only frames of other sequences "
                "are drawn anew"
            )
        info = describe_build(dataclasses.replace(info, num_samples=len(plan.samples)))
        with claim_build(cache) as build_id:
            tasks = plan.tasks(dataset, root, cache, info, strict=strict, build_id=build_id)
            checks = tqdm(find_unfinished(cache, tasks, repair=repair), "check", len(tasks), unit="shard", delay=2)
            unfinished = [task for task, is_finished in zip(tasks, checks, strict=True) if not is_finished]
            open_for_writing(cache, info, plan.samples, unfinished=bool(unfinished))
            workers = workers or Workers(num_workers or num_cores())
            work = render(unfinished, workers, quiet=quiet)
        _await_records(cache, [task.shard for task in unfinished])
        records = read_records(cache, info)
        samples = [sample for record in records for sample in record.samples]
        sequences = gather_sequences(samples, plan.scans, dataset.frames_per_second)
        groups = gather_groups([scan.groups if scan else () for scan in plan.scans])
        run = partial(_map_sequences, num_cores() if workers.remote else workers.num_processes)
        sequences = estimate_apexes(cache, info, records, sequences, run)
        info, failures = finish_cache(cache, info, samples, sequences, groups)
    if not info.complete:
        failures = [f for f in failures if f.kind == "failed" and f.reason != SCAN_GONE]
        raise FacetError(
            f"none of {len(scans)} scans could be read; the first: {_name_once(failures[0])} "
            f"(all of them in {cache / FAILURES_CSV})"
        )
    return BuildReport(info, failures, work)


def _map_sequences(num_processes: int, function: Callable[..., Any], items: Sequence[list[int]]) -> Iterable[Any]:
    """Apply a function to the rows of each sequence, in child processes where there is enough to do for each."""
    num_processes = min(num_processes, sum(map(len, items)) // FRAMES_PER_CHILD)
    return map_in_children(function, items, num_processes) if num_processes > 1 else map(function, items)


def _name_once(failure: Failure) -> str:
    """Return the file and the reason; most reasons begin with the file already."""
    return failure.reason if failure.reason.startswith(failure.source) else f"{failure.source}: {failure.reason}"


def _await_records(cache: Path, shards: Sequence[int]) -> None:
    """Wait until a network file system shows the records that other machines wrote; `read_records` reports lost ones."""
    deadline = time.monotonic() + VISIBLE_SECONDS
    for shard in shards:
        while not is_file(record_path(cache, shard)) and time.monotonic() < deadline:
            time.sleep(0.5)


def class_names_of(dataset: DatasetReader, scans: Sequence[ScanRecord]) -> tuple[str, ...]:
    """Return a data set's class names; for a user's own scans the labels found, expressions in their usual order first."""
    if dataset.class_names:
        return dataset.class_names
    found = {scan.label for scan in scans if scan.label}
    return (*(name for name in EXPRESSIONS if name in found), *sorted(found - set(EXPRESSIONS)))


def is_synthetic(root: Path) -> bool:
    """Return whether a marker file in a data set's folder declares its faces synthetic."""
    return (root / SYNTHETIC_MARKER).is_file()
