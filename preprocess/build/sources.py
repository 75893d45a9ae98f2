"""What a shard is made from: its task, the hash of its scans' files and options, and notes that spare reading them again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from preprocess.datasets.scan import DatasetReader, ScanRecord
from shared.errors import ScanError
from shared.schema import CacheInfo, Sample, canonical_json, fingerprint
from shared.store.paths import read_bytes
from shared.store.storage import write_file


@dataclass(frozen=True)
class ShardTask:
    """What a worker needs to build one shard. `scans` holds None where a row's scan has vanished from the data set."""

    dataset: DatasetReader
    root: Path
    cache: Path
    info: CacheInfo
    shard: int
    samples: tuple[Sample, ...]
    scans: tuple[ScanRecord | None, ...]
    context: tuple[ScanRecord, ...] = ()  # frames of other shards that decide where this shard's frames go
    strict: bool = False

    def sources(self) -> list[ScanRecord | None]:
        """Every scan that the shard's bytes depend on, its own first."""
        return [*self.scans, *self.context]


def hash_sources(dataset: DatasetReader, root: Path, scan: ScanRecord) -> str:
    """sha256 over the contents of every file a row is made from, missing ones counted as missing; "" if unreadable."""
    digest = hashlib.sha256()
    try:
        for path in dataset.source_files(root, scan):
            if not path.is_file():
                digest.update(b"missing\n")
                continue
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    except (OSError, ScanError):
        return ""  # equals no record's hash: tried again at the next build
    return digest.hexdigest()


def shard_fingerprint(info: CacheInfo, scans: Sequence[ScanRecord | None], source_hashes: Sequence[str]) -> str:
    """What decides a shard's bytes: settings, and for each source the scan's place, options and file contents."""
    rows = [
        None
        if scan is None
        else [
            *(scan.sample_id, scan.source, scan.texture, scan.landmarks, scan.options, scan.aus, scan.targets),
            source_hash,
        ]
        for scan, source_hash in zip(scans, source_hashes, strict=True)
    ]
    return fingerprint({"settings": info.settings_fingerprint, "rows": rows})


# --- the builder's notes on file times: what spares a second build from reading every scan again ---


def _planned(task: ShardTask) -> str:
    """What the plan says of a shard's scans, whatever their files hold: a changed option changes what is drawn."""
    return shard_fingerprint(task.info, task.sources(), [""] * len(task.sources()))


def stat_path(cache: Path, shard: int) -> Path:
    return cache / ".build" / f"times-{shard:05d}.json"


def stat_sources(dataset: DatasetReader, root: Path, scans: Sequence[ScanRecord | None]) -> list[list[int]]:
    """Size and modification time of every source file of a shard; [-1, -1] for a missing one."""
    stats = []
    for scan in scans:
        for path in dataset.source_files(root, scan) if scan is not None else ():
            try:
                status = path.stat()
                stats.append([status.st_size, status.st_mtime_ns])
            except OSError:
                stats.append([-1, -1])
    return stats


def sources_untouched(task: ShardTask, input_fingerprint: str) -> bool:
    """Whether sizes and times of a shard's sources, and the plan's options for them, are those noted when the record with
    this fingerprint was written."""
    try:
        note = json.loads(read_bytes(stat_path(task.cache, task.shard)))
        return bool(note == [input_fingerprint, _planned(task), stat_sources(task.dataset, task.root, task.sources())])
    except (OSError, ValueError, ScanError):
        return False


def write_stats(task: ShardTask, input_fingerprint: str, stats: list[list[int]]) -> None:
    write_file(stat_path(task.cache, task.shard), canonical_json([input_fingerprint, _planned(task), stats]).encode())
