"""Plan the rows of a cache and find the shards that must be rendered. A row never changes its number."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass
from pathlib import Path

from preprocess.alignment.scan_aligner import frames_needed
from preprocess.build.engine import map_files, read_finished, shard_rows
from preprocess.build.isolate import DRAWING, READING
from preprocess.build.ledger import ShardNote, read_note, write_note
from preprocess.build.shard import ShardTask, hash_source, hash_times, list_sources, stat_sources
from preprocess.datasets.scan import DatasetReader, ScanRecord
from preprocess.sequences.apex import describe_marks
from shared.cache import SAMPLES_CSV, find_records, read_info, read_record, record_path, write_record
from shared.csv_tables import read_table
from shared.errors import CacheError, FacetError, ScanError
from shared.schema import CacheInfo, Sample, Sequence, ShardRecord
from shared.sequences import group_frames
from shared.store.paths import is_file, list_files, remove_file
from shared.store.storage import hash_file

_LABEL_COLUMNS = ("subject", "sequence", "frame", "label", "intensity", "task")


@dataclass(frozen=True)
class Plan:
    """Row k is samples[k], made from scans[k] (None: the scan has vanished). Samples lack the results of rendering."""

    samples: list[Sample]
    scans: list[ScanRecord | None]
    num_relabelled: int = 0  # rows of an existing cache whose label, subject or other columns changed

    def tasks(
        self,
        dataset: DatasetReader,
        root: Path,
        cache: Path,
        info: CacheInfo,
        *,
        strict: bool = False,
        build_id: str = "",
    ) -> list[ShardTask]:
        """Return one task per shard."""
        groups = group_frames(self.scans)
        sequences = {name: [scan for i in frames if (scan := self.scans[i])] for name, frames in groups.items()}
        tasks = []
        for shard in range(info.num_shards):
            rows = shard_rows(info, shard)
            scans = self.scans[rows.start : rows.stop]
            names = dict.fromkeys(scan.sequence for scan in scans if scan is not None and scan.sequence)
            inside = {scan.sample_id for scan in scans if scan is not None}
            context = [
                frame
                for name in names
                for frame in frames_needed(sequences[name], inside, stabilised=info.settings.stabilised)
            ]
            tasks.append(
                ShardTask(
                    dataset=dataset,
                    root=root,
                    cache=cache,
                    info=info,
                    shard=shard,
                    samples=tuple(self.samples[rows.start : rows.stop]),
                    scans=tuple(scans),
                    context=tuple(context),
                    strict=strict,
                    build_id=build_id,
                )
            )
        return tasks


def plan_rows(scans: AbstractSequence[ScanRecord], cache: Path) -> Plan:
    """Return the rows of an existing cache in their order, then new scans in the order they were found.

    Raises:
        FacetError: two scans share a sample_id, or a file name is not UTF-8.
        CacheError: the cache's row order is lost (samples.csv damaged).
    """
    found: dict[str, ScanRecord] = {}
    for scan in scans:
        if scan.sample_id in found:
            raise FacetError(
                f"{scan.source}: sample_id {scan.sample_id!r} is already {found[scan.sample_id].source}; make them unique"
            )
        if any("\ud800" <= letter <= "\udfff" for letter in scan.source + scan.texture + scan.landmarks):
            raise FacetError(f"{scan.source!a}: a name there is not UTF-8 text; rename the file or the folder")
        found[scan.sample_id] = scan
    samples: list[Sample] = []
    rows: list[ScanRecord | None] = []
    num_relabelled = 0
    for old in _read_rows(cache):
        kept = found.pop(old.sample_id, None)
        rows.append(kept)
        samples.append(_forget(old) if kept is None else _plan_sample(kept))
        num_relabelled += kept is not None and any(getattr(samples[-1], n) != getattr(old, n) for n in _LABEL_COLUMNS)
    for scan in found.values():
        rows.append(scan)
        samples.append(_plan_sample(scan))
    return Plan(samples, rows, num_relabelled)


def _read_rows(cache: Path) -> list[Sample]:
    """Return the rows of an existing cache: its table if that is as it was written, else what the shards' records hold."""
    try:
        info = read_info(cache)
    except CacheError:
        info = None  # not begun, or killed before it was written
    rows, error = [], None
    try:
        rows = read_table(cache / SAMPLES_CSV, Sample) if is_file(cache / SAMPLES_CSV) else []
        if info is not None and info.complete and hash_file(cache / SAMPLES_CSV) == info.file_hashes.get(SAMPLES_CSV):
            return rows
    except (CacheError, OSError) as damage:
        error = damage
    is_lost = False
    for shard in sorted(find_records(cache)):
        try:
            record = read_record(cache, shard)
        except CacheError:
            continue  # its shard is rendered again
        is_lost |= record is not None and record.first_row > len(rows)
        if record is not None and not is_lost:
            rows[record.first_row : record.first_row + len(record.samples)] = record.samples
    if info is not None and info.complete:
        rows = rows[: info.num_samples]
        is_lost |= len(rows) < info.num_samples
    if is_lost or (error and not rows) or len({row.sample_id for row in rows}) < len(rows):
        what = error or f"{cache / SAMPLES_CSV}: damaged"
        raise CacheError(f"{what}; the order of its rows is lost, so render everything again with --overwrite")
    return rows


def _plan_sample(scan: ScanRecord) -> Sample:
    """Return a row as it is before rendering."""
    return Sample(**{name: getattr(scan, name) for name in ("sample_id", "source", *_LABEL_COLUMNS)})


def _forget(row: Sample) -> Sample:
    """Return the row of a vanished scan: it is in no sequence, and what it was labelled may be no class any more."""
    return Sample(
        sample_id=row.sample_id,
        subject=row.subject,
        sequence="",
        frame=None,
        label="",
        intensity="",
        task="",
        source=row.source,
    )


def find_unfinished(cache: Path, tasks: AbstractSequence[ShardTask], *, repair: bool) -> Iterator[bool]:
    """Yield for each task whether its shard is finished: a record, unchanged inputs, and all files are there.

    Frames of a sequence are aligned together, so other sequences, or another order of frames, are other inputs. Where only
    labels, subjects or the like of a finished shard changed, its record is updated here.

    Args:
        repair: also compare the bytes of every file with its record; quarantined scans count as unfinished.
    """
    stored = list_files(cache)  # once: each request to an object store takes time
    return map_files(cache, lambda task: _is_finished(task, stored, repair), tasks)


def _is_finished(task: ShardTask, stored: Collection[str], repair: bool) -> bool:
    if record_path(task.cache, task.shard).relative_to(task.cache).as_posix() not in stored:
        return False
    record = read_finished(task.cache, task.info, task.shard, stored, hash_files=repair)
    if record is None:
        return False
    if repair and any(sample.reason in (READING, DRAWING) for sample in record.samples):
        write_note(task.cache, task.shard, ShardNote(num_crashed=1))  # try its scans one by one
        remove_file(record_path(task.cache, task.shard))
        return False
    orders = [list(group_frames(samples).values()) for samples in (task.samples, record.samples)]
    if orders[0] != orders[1] or not _are_inputs_unchanged(task, record):
        return False
    samples = tuple(
        dataclasses.replace(made, **{name: getattr(planned, name) for name in _LABEL_COLUMNS})
        for planned, made in zip(task.samples, record.samples, strict=True)
    )
    if samples != record.samples:
        write_record(task.cache, dataclasses.replace(record, samples=samples))
    return True


def _are_inputs_unchanged(task: ShardTask, record: ShardRecord) -> bool:
    """Compare a shard's sources with its record: by sizes and times where these are as noted, else by contents."""
    try:
        files = list_sources(task.dataset, task.root, task.sources)
    except ScanError:
        return False
    times = stat_sources(files)
    note, finished = read_note(task.cache, task.shard), hash_times(task, record.input_fingerprint, times)
    if note.finished == finished:
        return True
    hashes = {sample_id: hash_source(paths) for sample_id, paths in files.items()}
    if "" in hashes.values() or task.fingerprint(hashes) != record.input_fingerprint:
        return False
    write_note(task.cache, task.shard, dataclasses.replace(note, num_crashed=0, finished=finished))
    return True


def gather_sequences(
    samples: AbstractSequence[Sample], scans: AbstractSequence[ScanRecord | None], frames_per_second: float | None
) -> list[Sequence]:
    """Return one row of sequences.csv per sequence, in the order of their first frames."""
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
