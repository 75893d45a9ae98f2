"""Which row each scan gets, and which shards must be rendered. Rows keep their place for ever."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Set
from collections.abc import Sequence as AbstractSequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from preprocess.alignment.placement import frames_needed
from preprocess.build.cache_folder import REQUESTS_AT_ONCE
from preprocess.build.shards import with_outcome
from preprocess.build.sources import (
    ShardTask,
    hash_sources,
    shard_fingerprint,
    sources_untouched,
    stat_sources,
    write_stats,
)
from preprocess.datasets.scan import DatasetReader, ScanRecord
from shared.cache import SAMPLES_CSV, find_records, read_record, record_path, write_record
from shared.csv_tables import read_table
from shared.errors import CacheError, FacetError
from shared.schema import SHARD_ROWS, CacheInfo, Sample, Sequence, ShardRecord
from shared.sequences import group_frames
from shared.store.paths import is_file, is_remote, list_files
from shared.store.storage import hash_file, shard_files

_WORDS = ("subject", "sequence", "frame", "label", "intensity", "task")
MOMENTS = ("onset", "apex", "offset")


@dataclass(frozen=True)
class Plan:
    """Row k is samples[k], made from scans[k] (None: the scan has vanished). Not yet valid: records say what became of it."""

    samples: list[Sample]
    scans: list[ScanRecord | None]
    num_reworded: int = 0  # rows of an existing cache whose label, subject or other words are new

    def task(
        self, dataset: DatasetReader, root: Path, cache: Path, info: CacheInfo, shard: int, strict: bool
    ) -> ShardTask:
        rows = slice(shard * SHARD_ROWS, (shard + 1) * SHARD_ROWS)
        return ShardTask(
            dataset=dataset,
            root=root,
            cache=cache,
            info=info,
            shard=shard,
            samples=tuple(self.samples[rows]),
            scans=tuple(self.scans[rows]),
            context=tuple(self._context(rows, info.settings.stabilised)),
            strict=strict,
        )

    @cached_property
    def _frames(self) -> dict[str, list[ScanRecord]]:
        groups = group_frames(self.scans)
        return {name: [scan for i in frames if (scan := self.scans[i])] for name, frames in groups.items()}

    def _context(self, rows: slice, stabilised: bool) -> list[ScanRecord]:
        own = [scan for scan in self.scans[rows] if scan is not None and scan.sequence]
        inside = {scan.sample_id for scan in own}
        needed = []
        for sequence in dict.fromkeys(scan.sequence for scan in own):
            needed += frames_needed(self._frames[sequence], inside, stabilised=stabilised)
        return needed


def plan_rows(scans: AbstractSequence[ScanRecord], cache: Path) -> Plan:
    """Rows of an existing cache in their order, then new scans in the order they were found.

    Raises:
        FacetError: two scans share a sample_id, or a name is no UTF-8.
        CacheError: the cache's row order is lost (samples.csv damaged).
    """
    found: dict[str, ScanRecord] = {}
    for scan in scans:
        if scan.sample_id in found:
            raise FacetError(
                f"{scan.source}: sample_id {scan.sample_id!r} is already {found[scan.sample_id].source}; make them unique"
            )
        if not _is_utf8(scan.source + scan.texture + scan.landmarks):
            raise FacetError(f"{scan.source!a}: a name there is not UTF-8 text; rename the file or the folder")
        found[scan.sample_id] = scan
    samples: list[Sample] = []
    rows: list[ScanRecord | None] = []
    num_reworded = 0
    for old in _read_rows(cache):
        scan_or_none = found.pop(old.sample_id, None)
        rows.append(scan_or_none)
        new = old if scan_or_none is None else _sample_of(scan_or_none)
        num_reworded += any(getattr(new, name) != getattr(old, name) for name in _WORDS)
        samples.append(new)
    for scan in found.values():
        rows.append(scan)
        samples.append(_sample_of(scan))
    return Plan(samples, rows, num_reworded)


def _is_utf8(name: str) -> bool:
    """False where a file's name holds bytes that are no text: samples.csv could not hold it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_rows(cache: Path) -> list[Sample]:
    if not is_file(cache / SAMPLES_CSV) and not find_records(cache):
        return []
    try:
        return read_table(cache / SAMPLES_CSV, Sample)
    except CacheError as error:
        # The records hold the same rows: all of them together restore the table.
        rows: list[Sample] = []
        shard = 0
        while (record := read_record(cache, shard)) is not None:
            rows.extend(record.samples)
            shard += 1
        if rows and len(find_records(cache)) == shard:
            return rows
        raise CacheError(
            f"{error}; the order of its rows is lost, so render everything again with --overwrite"
        ) from error


def _sample_of(scan: ScanRecord) -> Sample:
    return Sample(
        sample_id=scan.sample_id,
        subject=scan.subject,
        sequence=scan.sequence,
        frame=scan.frame,
        label=scan.label,
        intensity=scan.intensity,
        task=scan.task,
        source=scan.source,
    )


def find_unfinished(tasks: Iterable[ShardTask], *, repair: bool) -> Iterable[tuple[ShardTask, bool]]:
    """Each task with whether its shard must be rendered: no record, changed inputs, or missing files.

    A finished shard whose rows changed in words only (a label, a subject) gets its record rewritten here.

    Args:
        tasks: all of one cache.
        repair: also compare every file's bytes with its record.
    """
    tasks = list(tasks)
    if not tasks:
        return
    stored = set(list_files(tasks[0].cache))  # asked for once: an object store takes its time for every answer
    with ThreadPoolExecutor(REQUESTS_AT_ONCE if is_remote(tasks[0].cache) else 1) as pool:
        finished = pool.map(lambda task: _is_finished(task, stored, repair), tasks)
        yield from ((task, not done) for task, done in zip(tasks, finished, strict=True))


def _is_finished(task: ShardTask, stored: Set[str], repair: bool) -> bool:
    if record_path(task.cache, task.shard).relative_to(task.cache).as_posix() not in stored:
        return False
    try:
        record = read_record(task.cache, task.shard)
    except CacheError:
        return False  # a damaged record vouches for nothing
    if record is None or len(record.samples) != len(task.samples):
        return False
    if not set(record.files) <= set(shard_files(task.info, task.shard)):
        return False
    for name, digest in record.files.items():
        if name not in stored or (repair and hash_file(task.cache / name) != digest):
            return False
    if not sources_untouched(task, record.input_fingerprint):
        sources = task.sources()
        stats = stat_sources(task.dataset, task.root, sources)
        hashes = [hash_sources(task.dataset, task.root, scan) if scan else "" for scan in sources]
        if "" in (h for h, scan in zip(hashes, sources, strict=True) if scan is not None):
            return False
        if shard_fingerprint(task.info, sources, hashes) != record.input_fingerprint:
            return False
        write_stats(task, record.input_fingerprint, stats)
    _update_words(task, record)
    return True


def _update_words(task: ShardTask, record: ShardRecord) -> None:
    samples = tuple(with_outcome(*rows) for rows in zip(task.samples, record.samples, strict=True))
    if samples != record.samples:
        write_record(task.cache, dataclasses.replace(record, samples=samples))


def gather_sequences(
    samples: AbstractSequence[Sample], scans: AbstractSequence[ScanRecord | None], frames_per_second: float | None
) -> list[Sequence]:
    """One row a sequence, in the order of their first frames."""
    sequences = []
    for name, members in group_frames(samples).items():
        first = members[0]
        scan = scans[first]
        onset, apex, offset = (None, None, None) if scan is None else scan.moments
        sequences.append(
            Sequence(
                sequence=name,
                subject=samples[first].subject,
                first_row=first,
                num_frames=len(members),
                frames_per_second=frames_per_second,
                label=samples[first].label,
                onset=onset,
                apex=apex,
                offset=offset,
                marks=describe_marks((onset, apex, offset), estimated=()),
            )
        )
    return sequences


def describe_marks(moments: tuple[int | None, int | None, int | None], *, estimated: AbstractSequence[str]) -> str:
    """Sequence.marks: where onset, apex and offset come from.

    Args:
        moments: onset, apex and offset, None where unknown. estimated: names of those that were estimated.
    """
    known = [name for name, moment in zip(MOMENTS, moments, strict=True) if moment is not None]
    groups = {
        "given": [name for name in known if name not in estimated],
        "estimated": [name for name in known if name in estimated],
    }
    held = {word: names for word, names in groups.items() if names}
    if len(held) <= 1:
        return next(iter(held), "")
    return "; ".join(f"{','.join(names)} {word}" for word, names in held.items())
