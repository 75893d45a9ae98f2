"""Build one shard of a cache: 64 scans from their files to encoded arrays and a record. Runs in worker processes."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from blake3 import blake3

from preprocess.alignment.scan_aligner import ScanAligner
from preprocess.build.engine import ShardArrays, write_shard
from preprocess.build.ledger import ShardNote, check_current, write_note
from preprocess.datasets.scan import SCAN_GONE, DatasetReader, ScanRecord
from preprocess.geometry.mesh import Mesh
from preprocess.rendering.cameras import build_cameras
from shared.cache import Failure
from shared.errors import ScanError
from shared.schema import CacheInfo, RenderSettings, Sample, fingerprint

if TYPE_CHECKING:
    from preprocess.rendering.views import Views

PROGRESS_SECONDS = 0.1


@dataclass(frozen=True)
class ShardTask:
    """Everything that a worker needs to build one shard."""

    dataset: DatasetReader
    root: Path
    cache: Path
    info: CacheInfo
    shard: int
    samples: tuple[Sample, ...]
    scans: tuple[ScanRecord | None, ...]  # None where a row's scan has vanished from the data set
    context: tuple[ScanRecord, ...] = ()  # frames of other shards that decide the poses of this shard's frames
    strict: bool = False
    build_id: str = ""  # of `ledger.claim_build`
    skip: Mapping[str, str] = field(default_factory=dict)  # quarantined scans: sample_id → reason

    @property
    def sources(self) -> list[ScanRecord]:
        """Every scan that the shard's bytes depend on, its own first."""
        return [*(scan for scan in self.scans if scan is not None), *self.context]

    def fingerprint(self, source_hashes: Mapping[str, str]) -> str:
        """Return a hash of what decides the shard's bytes: settings, and each source's options and file contents.

        Args:
            source_hashes: sample_id → `hash_source`; missing ones count as "".
        """
        rows = [
            None
            if scan is None
            else [
                *(scan.sample_id, scan.source, scan.texture, scan.landmarks, scan.options, scan.aus, scan.targets),
                source_hashes.get(scan.sample_id, ""),
            ]
            for scan in (*self.scans, *self.context)
        ]
        return fingerprint({"settings": self.info.settings_fingerprint, "rows": rows})


def list_sources(dataset: DatasetReader, root: Path, scans: Sequence[ScanRecord]) -> dict[str, Sequence[Path]]:
    """Return sample_id → the scan's files. They are listed once: an OBJ file must be read to know its materials."""
    return {scan.sample_id: dataset.source_files(root, scan) for scan in scans}


def hash_source(paths: Sequence[Path]) -> str:
    """Return the BLAKE3 hash over the contents of a scan's files, missing ones included; "" if one is unreadable.

    It is used only to compare contents, for every scan: it takes a quarter of the time of sha256.
    """
    digest = blake3()
    try:
        for path in paths:
            if not path.is_file():
                digest.update(b"missing\n")
                continue
            with path.open("rb", buffering=0) as file:
                digest.update(hashlib.file_digest(file, blake3).digest())  # type: ignore[arg-type]
    except OSError:
        return ""  # equals no record's hash: tried again at the next build
    return f"blake3:{digest.hexdigest()}"


def stat_sources(files: Mapping[str, Sequence[Path]]) -> tuple[tuple[int, int], ...]:
    """Return size and modification time in ns of every file of `list_sources`; (-1, -1) for a missing one."""
    times = []
    for path in chain.from_iterable(files.values()):
        try:
            status = path.stat()
            times.append((status.st_size, status.st_mtime_ns))
        except OSError:
            times.append((-1, -1))
    return tuple(times)


@dataclass
class ShardResult:
    """What one worker did for one shard."""

    shard: int
    num_samples: int
    num_scans: int = 0
    failures: list[Failure] = field(default_factory=list)
    num_warnings: int = 0  # valid rows whose images lack something that their files refer to
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # by stage
    num_crashed: int = 0  # workers that crashed over it before
    num_quarantined: int = 0
    peak_memory_bytes: int = 0


def build_shard(task: ShardTask, on_row: Callable[[int], None] | None = None) -> ShardResult:
    """Render a shard's scans, write its files, then its record.

    A scan that fails leaves an invalid row with its reason. A valid row's reason is a warning.

    Args:
        on_row: called before a row with the number of rows done, at most ten times a second.
    Raises:
        ScanError: with task.strict, at the first scan that fails or has a warning.
        FacetError: another build has claimed the cache; nothing was written.
        OSError: the cache cannot be written (full disk, permissions).
    """
    result = ShardResult(task.shard, len(task.samples))
    # Before reading: a file that changes meanwhile is read again by the next build.
    files = list_sources(task.dataset, task.root, task.sources)
    times = stat_sources(files)
    arrays = ShardArrays(task.info, task.shard)
    aligner = ScanAligner(task.dataset, task.root, task.info.settings, task.sources, skip=task.skip)
    samples: list[Sample] = []
    last_call = -np.inf
    hashes: dict[str, str] = {}
    for row, (sample, scan) in enumerate(zip(task.samples, task.scans, strict=True)):
        if on_row is not None and time.monotonic() > last_call + PROGRESS_SECONDS:
            on_row(row)
            last_call = time.monotonic()
        if scan is None:
            samples.append(dataclasses.replace(sample, reason=SCAN_GONE))
            continue
        with _timed(result.seconds, "hash"):
            hashes[scan.sample_id] = hash_source(files[scan.sample_id])
        sample = dataclasses.replace(sample, source_hash=hashes[scan.sample_id])
        samples.append(_render_or_fail(task, aligner, row, sample, arrays, result))
        result.num_scans += 1
    with _timed(result.seconds, "compress"):
        encoded = arrays.encode()
    with _timed(result.seconds, "write"):
        check_current(task.cache, task.build_id)
        hashes |= {scan.sample_id: hash_source(files[scan.sample_id]) for scan in task.context}
        inputs = task.fingerprint(hashes)
        write_shard(task.cache, task.info, task.shard, samples, encoded, inputs)
        quarantined = {sample_id: (hashes[sample_id], reason) for sample_id, reason in task.skip.items()}
        note = ShardNote(quarantined=quarantined, finished=hash_times(task, inputs, times))
        write_note(task.cache, task.shard, note)
    return result


def hash_times(task: ShardTask, input_fingerprint: str, times: Sequence[tuple[int, int]]) -> str:
    """Return a hash over the inputs of a finished shard as its record, its task and `stat_sources` describe them."""
    return fingerprint([input_fingerprint, task.fingerprint({}), times])


def _render_or_fail(
    task: ShardTask, aligner: ScanAligner, row: int, sample: Sample, arrays: ShardArrays, result: ShardResult
) -> Sample:
    """Render a row; a scan that cannot be rendered gives an invalid row with the reason."""
    try:
        made = render_row(task, aligner, row, sample, arrays, result.seconds)
        reason = _shorten_paths(made.reason, task.root)
        result.num_warnings += bool(reason)
        failed = bool(reason) and task.strict
    except ScanError as error:
        reason = _shorten_paths(str(error), task.root).removeprefix(f"{sample.source}: ")
        made, failed = sample, True
        result.failures.append(Failure(sample.source, sample.sample_id, "failed", reason))
    if failed and task.strict:
        raise ScanError(f"{task.root / sample.source}: {reason} (stopped by --strict)")
    return dataclasses.replace(made, reason=reason)


def _shorten_paths(message: str, root: Path) -> str:
    """Return a reason as it is stored in the cache: one line, paths relative to the data set."""
    if not message:  # `resolve` looks at every folder above
        return ""
    return " ".join(message.replace(f"{root}/", "").replace(f"{root.resolve()}/", "").split())


def render_row(
    task: ShardTask, aligner: ScanAligner, row: int, sample: Sample, arrays: ShardArrays, seconds: dict[str, float]
) -> Sample:
    """Read, align and draw one scan into its row of `arrays`; return the valid sample, its warnings as the reason.

    Raises:
        ScanError: the scan cannot be read, aligned or drawn, or its images show no face.
    """
    settings, scan = task.info.settings, task.scans[row]
    assert scan is not None
    with _timed(seconds, "read"):
        mesh = aligner.read(scan)
    with _timed(seconds, "align"):
        aligned = aligner.align(scan, mesh)
    with _timed(seconds, "render"):
        views = render_face(aligned.mesh, settings)
    drawn = [name for name in settings.modalities if name in views.images]
    if not drawn:
        raise ScanError(f"the scan has no texture, and only {','.join(settings.modalities)} was requested")
    for name in drawn:
        arrays.set(name, row, views.images[name])
    arrays.set("scan_to_face", row, aligned.scan_to_face)
    landmarks = aligned.mesh.landmarks_mm
    if task.info.num_landmarks and landmarks is not None:
        points = np.full((task.info.num_landmarks, 3), np.nan, np.float32)  # a file may hold fewer
        points[: len(landmarks)] = landmarks[: len(points)]
        arrays.set("landmarks", row, points)
    for name, values in (("aus", scan.aus), ("targets", scan.targets)):
        if values:
            arrays.set(name, row, values)
    return dataclasses.replace(
        sample,
        valid=True,
        reason="; ".join(dict.fromkeys((*mesh.notes, *aligned.notes))),
        modalities="+".join(drawn),
        alignment=aligned.method,
        misfit_mm=round(aligned.misfit_mm, 2),
        eye_distance_mm=round(aligned.eye_distance_mm, 1),
    )


def render_face(mesh: Mesh, settings: RenderSettings) -> Views:
    """Draw a mesh in the face frame as a row of a cache with these settings.

    Raises:
        ScanError: a view shows almost no surface, or the images show no face.
    """
    from preprocess.build.row_check import check_row
    from preprocess.rendering.views import render_views

    views = render_views(
        mesh,
        build_cameras(settings.views),
        size_px=settings.size_px,
        radius_mm=settings.crop_radius_mm,
        supersampling=settings.supersampling,
        with_texture="texture" in settings.modalities,
    )
    check_row(views, settings)
    return views


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds[stage] += time.perf_counter() - started
