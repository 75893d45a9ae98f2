"""Builds one shard of a cache: 64 scans from their files to encoded arrays and a record. Runs in worker processes."""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from preprocess.alignment.placement import Placer
from preprocess.build.salvage import Salvage, salvage_shard
from preprocess.build.sources import ShardTask, hash_sources, shard_fingerprint, stat_sources, write_stats
from preprocess.datasets.scan import SCAN_GONE, ScanRecord
from preprocess.render.cameras import build_cameras
from shared.cache import record_path, write_record
from shared.errors import ScanError
from shared.schema import ARRAYS, MODALITIES, SHARD_ROWS, CacheInfo, Sample, ShardRecord
from shared.store.paths import is_file, remove_file
from shared.store.storage import encode_shard, hash_bytes, shard_files, write_file


@dataclass
class ShardResult:
    """What happened: rows of the shard, scans that were read, failures as "source: reason", seconds spent in each stage.

    num_warnings: valid rows whose images lack something that their files ask for.
    """

    shard: int
    num_samples: int
    num_scans: int = 0
    failures: list[str] = field(default_factory=list)
    num_warnings: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))


def build_shard(
    task: ShardTask,
    *,
    before_writing: Callable[[], None] | None = None,
    on_row: Callable[[int], None] | None = None,
) -> ShardResult:
    """Renders a shard's scans, writes its files, then its record. A scan that fails leaves an invalid row with its
    reason; a valid row's reason says what its files ask for and its images lack.

    Where a finished shard only lost bytes, rows that are still whole are kept and the others rendered again.

    Args:
        before_writing: called when everything is rendered and nothing is written; what it raises ends the shard so.
        on_row: called before each row with how many are done.
    Raises:
        ScanError: with task.strict, at the first scan that fails or whose images lack something.
        OSError: the cache cannot be written (full disk, permissions).
    """
    result = ShardResult(task.shard, len(task.samples))
    stats = stat_sources(
        task.dataset, task.root, task.sources()
    )  # before reading: a file changed meanwhile is read again
    salvage = _find_salvage(task)
    samples, source_hashes, files = _render_rows(task, salvage, result, on_row)
    if salvage is not None and {name: hash_bytes(data) for name, data in files.items()} != salvage.record.files:
        result.failures.clear()  # a kept row was not what its checksum said, or the renderer has changed: nothing is kept
        samples, source_hashes, files = _render_rows(task, None, result, on_row)
    if before_writing is not None:
        before_writing()
    started = time.perf_counter()
    # The record goes first: from here to its rewriting the shard does not count.
    remove_file(record_path(task.cache, task.shard))
    for name in shard_files(task.info, task.shard):
        if name not in files:
            remove_file(task.cache / name)
    hashes = {name: write_file(task.cache / name, data) for name, data in files.items()}
    source_hashes += [hash_sources(task.dataset, task.root, scan) for scan in task.context]
    input_fingerprint = shard_fingerprint(task.info, task.sources(), source_hashes)
    write_record(
        task.cache,
        ShardRecord(task.shard, task.shard * SHARD_ROWS, tuple(samples), input_fingerprint, hashes),
    )
    write_stats(task, input_fingerprint, stats)
    result.seconds["write"] += time.perf_counter() - started
    return result


def _find_salvage(task: ShardTask) -> Salvage | None:
    """What can be kept of a shard that was finished from the same scans and lost bytes since."""
    if not is_file(record_path(task.cache, task.shard)):
        return None
    sources = task.sources()
    hashes = [hash_sources(task.dataset, task.root, scan) if scan else "" for scan in sources]
    return salvage_shard(task.cache, task.info, task.shard, shard_fingerprint(task.info, sources, hashes))


def _render_rows(
    task: ShardTask, salvage: Salvage | None, result: ShardResult, on_row: Callable[[int], None] | None
) -> tuple[list[Sample], list[str], dict[str, bytes]]:
    """Renders the rows that cannot be kept; returns all rows' samples, their source hashes, and the shard's files."""
    arrays, present = empty_arrays(task.info, len(task.samples))
    samples: list[Sample] = []
    source_hashes: list[str] = []
    present_scans = [scan for scan in task.sources() if scan is not None]
    placer = Placer(task.dataset, task.root, task.info.settings, present_scans)
    for row, (sample, scan) in enumerate(zip(task.samples, task.scans, strict=True)):
        if on_row is not None:
            on_row(row)
        if salvage is not None and salvage.kept[row]:
            made = salvage.record.samples[row]
            samples.append(with_outcome(sample, made))
            source_hashes.append(made.source_hash)
            for name in arrays:
                arrays[name][row] = salvage.arrays[name][row]
                present[name][row] = made.has(name) if name in MODALITIES else made.valid
            continue
        if scan is None:
            samples.append(dataclasses.replace(_blank(sample), reason=SCAN_GONE))
            source_hashes.append("")
            continue
        started = time.perf_counter()
        source_hash = hash_sources(task.dataset, task.root, scan)
        result.seconds["hash"] += time.perf_counter() - started
        source_hashes.append(source_hash)
        sample = dataclasses.replace(_blank(sample), source_hash=source_hash)
        try:
            sample = render_row(task, placer, scan, sample, row, arrays, present, result.seconds)
            sample = dataclasses.replace(sample, reason=_relative(sample.reason, task.root))
            if sample.reason and task.strict:
                raise ScanError(sample.reason)
            result.num_warnings += bool(sample.reason)
        except ScanError as error:
            sample = dataclasses.replace(sample, reason=_relative(str(error), task.root))
            result.failures.append(f"{sample.source}: {sample.reason}")
            if task.strict:
                raise ScanError(f"{task.root / sample.source}: {sample.reason} (stopped by --strict)") from error
        result.num_scans += 1
        samples.append(sample)
    started = time.perf_counter()
    files = encode_shard(task.info, task.shard, arrays, present)
    result.seconds["compress"] += time.perf_counter() - started
    return samples, source_hashes, files


def with_outcome(planned: Sample, made: Sample) -> Sample:
    """A row's planned words, such as its label, with what became of its scan when it was rendered."""
    return dataclasses.replace(
        planned,
        source_hash=made.source_hash,
        valid=made.valid,
        reason=made.reason,
        modalities=made.modalities,
        alignment=made.alignment,
        misfit_mm=made.misfit_mm,
        eye_distance_mm=made.eye_distance_mm,
    )


def empty_arrays(info: CacheInfo, num_rows: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Arrays of so many rows that hold nothing yet, and which of their rows are present: none."""
    arrays, present = {}, {}
    for name, shape in info.arrays().items():
        arrays[name] = np.full((num_rows, *shape[1:]), ARRAYS[name].fill, ARRAYS[name].dtype)
        present[name] = np.zeros(num_rows, bool)
    return arrays, present


def _blank(sample: Sample) -> Sample:
    return dataclasses.replace(
        sample,
        source_hash="",
        valid=False,
        reason="",
        modalities="",
        alignment="",
        misfit_mm=None,
        eye_distance_mm=None,
    )


def _relative(message: str, root: Path) -> str:
    """A failure's reason as it goes into the cache: one line, no folder of this machine in it."""
    return " ".join(message.replace(f"{root}/", "").replace(f"{root.resolve()}/", "").split())


def render_row(
    task: ShardTask,
    placer: Placer,
    scan: ScanRecord,
    sample: Sample,
    row: int,
    arrays: dict[str, np.ndarray],
    present: dict[str, np.ndarray],
    seconds: dict[str, float],
) -> Sample:
    """Reads, places and draws one scan into its row of `arrays`; returns the row's sample, valid, its notes as the reason.

    Raises:
        ScanError: it cannot be read, placed or drawn, or its images show no face.
    """
    from preprocess.build.row_check import check_row
    from preprocess.render.views import render_views

    settings = task.info.settings
    started = time.perf_counter()
    mesh = placer.read(scan)
    read = time.perf_counter()
    aligned = placer.place(scan, mesh)
    placed = time.perf_counter()
    views = render_views(
        aligned.mesh,
        build_cameras(settings.views),
        size_px=settings.size_px,
        supersampling=settings.supersampling,
        with_texture="texture" in settings.modalities,
    )
    check_row(views, settings)
    images = {"texture": views.texture, "normal": views.normal, "depth": views.depth}
    held = [name for name in settings.modalities if images[name] is not None]
    if not held:
        raise ScanError(f"the scan has no texture, and {','.join(settings.modalities)} is all that was asked for")
    for name in held:
        arrays[name][row], present[name][row] = images[name], True
    arrays["scan_to_face"][row], present["scan_to_face"][row] = aligned.scan_to_face, True
    landmarks = aligned.mesh.landmarks_mm
    if task.info.num_landmarks and landmarks is not None:
        arrays["landmarks"][row, : len(landmarks)] = landmarks[: task.info.num_landmarks]
        present["landmarks"][row] = True
    for name, values in (("aus", scan.aus), ("targets", scan.targets)):
        if values:
            arrays[name][row], present[name][row] = values, True
    seconds["read"] += read - started
    seconds["align"] += placed - read
    seconds["render"] += time.perf_counter() - placed
    reason = "; ".join(dict.fromkeys((*mesh.notes, *aligned.notes)))
    return dataclasses.replace(
        sample,
        valid=True,
        reason=reason,
        modalities="+".join(held),
        alignment=aligned.how,
        misfit_mm=round(aligned.misfit_mm, 2),
        eye_distance_mm=round(aligned.eye_distance_mm, 1),
    )
