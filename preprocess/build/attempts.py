"""Builds a shard although a scan in it may bring its worker down (a fault in a native library, want of memory).

A note in the cache's .build folder says that somebody has begun the shard, and goes when that ends in any way but death. Who
finds such a note lets a child process try the shard's scans first (probe.py). One that brings down the child twice is
quarantined: an invalid row with its reason, remembered for as long as its files stay the same. A worker that was killed
from outside thus costs its successor some time and nothing else.
"""

from __future__ import annotations

import dataclasses
import json
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from preprocess.build.probe import DRAWING, READING, find_deadly, without
from preprocess.build.shards import ShardResult, build_shard
from preprocess.build.sources import ShardTask, hash_sources
from shared.cache import read_record, record_path
from shared.errors import CacheError, FacetError
from shared.schema import canonical_json
from shared.store.paths import read_bytes, remove_file
from shared.store.storage import write_file


@dataclass
class ShardWork:
    """What one worker did for one shard. attempts: workers that died over it before; seconds: of everything, wall time."""

    result: ShardResult
    quarantined: list[str]
    attempts: int
    seconds: float
    peak_memory_bytes: int
    host: str = field(default_factory=socket.gethostname)


@dataclass
class _Note:
    """begun: workers that have begun the shard and not ended. quarantined: sample_id → [hash of its sources, reason]."""

    begun: int = 0
    quarantined: dict[str, tuple[str, str]] = field(default_factory=dict)


def note_path(cache: Path, shard: int) -> Path:
    return cache / ".build" / f"attempts-{shard:05d}.json"


def build_shard_safely(
    task: ShardTask,
    *,
    before_writing: Callable[[], None] | None = None,
    on_row: Callable[[int], None] | None = None,
    memory_limit_bytes: int | None = None,
) -> ShardWork:
    """Builds a shard as `build_shard` does, without its deadly scans when an earlier worker died over it.

    Args:
        before_writing, on_row: as in `build_shard`.
        memory_limit_bytes: a child process that tries scans is stopped above it; None: no limit.
    Raises:
        what build_shard raises.
    """
    started = time.monotonic()
    note = _read_note(task.cache, task.shard)
    quarantined = {
        scan.sample_id: note.quarantined[scan.sample_id]
        for scan in task.sources()
        if scan is not None
        and scan.sample_id in note.quarantined
        and note.quarantined[scan.sample_id][0] == hash_sources(task.dataset, task.root, scan)
    }
    died = note.begun
    _write_note(task.cache, task.shard, _Note(died + 1, quarantined))
    try:
        if died:
            reasons = {sample_id: reason for sample_id, (_, reason) in quarantined.items()}
            found = find_deadly(without(task, reasons), memory_limit_bytes=memory_limit_bytes)
            sources = {scan.sample_id: scan for scan in task.sources() if scan is not None}
            for sample_id, reason in found.items():
                quarantined[sample_id] = (hash_sources(task.dataset, task.root, sources[sample_id]), reason)
        reasons = {sample_id: reason for sample_id, (_, reason) in quarantined.items()}
        result = build_shard(without(task, reasons), before_writing=before_writing, on_row=on_row)
        _write_note(task.cache, task.shard, _Note(0, quarantined))
    except BaseException:  # an error, even Ctrl-C, is no death: nothing to be careful about at the next attempt
        with suppress(OSError, FacetError):  # where the disk is full, that is the error to tell
            _write_note(task.cache, task.shard, _Note(0, quarantined))
        raise
    return ShardWork(result, sorted(quarantined), died, time.monotonic() - started, peak_memory_bytes())


def forget_quarantine(cache: Path, shards: Iterable[int]) -> None:
    """Lets quarantined scans be tried again: their shards count as unfinished."""
    for shard in shards:
        try:
            record = read_record(cache, shard)
        except CacheError:
            continue  # rendered again as it is
        if record is not None and any(sample.reason in (READING, DRAWING) for sample in record.samples):
            _write_note(cache, shard, _Note(1))  # and carefully
            remove_file(record_path(cache, shard))


def peak_memory_bytes() -> int:
    """The most memory that this process has held (resident), in bytes; 0 where the system does not say."""
    try:
        with Path("/proc/self/status").open() as status:
            return next((int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:")), 0)
    except OSError:
        return 0


def _read_note(cache: Path, shard: int) -> _Note:
    try:
        value = json.loads(read_bytes(note_path(cache, shard)))
        quarantined = {str(name): (str(digest), str(reason)) for name, (digest, reason) in value["quarantined"].items()}
        return _Note(int(value["begun"]), quarantined)
    except FileNotFoundError:
        return _Note()
    except (ValueError, KeyError, TypeError, AttributeError):
        return _Note(begun=1)  # a damaged note: be careful


def _write_note(cache: Path, shard: int, note: _Note) -> None:
    path = note_path(cache, shard)
    if note == _Note():
        remove_file(path)
    else:
        write_file(path, canonical_json(dataclasses.asdict(note)).encode())
