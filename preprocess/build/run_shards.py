"""Runs the shards of a plan: in this process, on local worker processes, or on a cluster; tells how it goes."""

from __future__ import annotations

import dataclasses
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tqdm import tqdm

from preprocess.build.attempts import ShardWork, build_shard_safely
from preprocess.build.plan_file import remove_plan, write_plan
from preprocess.build.sources import ShardTask
from preprocess.build.workers import Workers
from shared.store.paths import is_remote


@dataclass
class Work:
    """What all workers did together. seconds: by stage, in seconds of a core, "other" what no stage counts."""

    num_scans: int = 0
    num_failed: int = 0
    num_warnings: int = 0
    num_workers_died: int = 0
    peak_memory_bytes: int = 0  # of the worker that held most
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, done: ShardWork) -> None:
        result = done.result
        for stage, spent in result.seconds.items():
            self.seconds[stage] += spent
        self.seconds["other"] += max(done.seconds - sum(result.seconds.values()), 0.0)
        self.num_scans += result.num_scans
        self.num_failed += len(result.failures)
        self.num_warnings += result.num_warnings
        self.num_workers_died += done.attempts
        self.peak_memory_bytes = max(self.peak_memory_bytes, done.peak_memory_bytes)


class RowCount:
    """Moves a bar on by what workers report of their shards while they are at them, from any thread."""

    def __init__(self, bar: tqdm) -> None:
        self._bar, self._lock = bar, threading.Lock()
        self._seen: dict[int, int] = {}

    def note(self, shard: int, num_rows: int) -> None:
        """So many rows of a shard are done. Who begins anew after a worker's death is not counted until they are past it."""
        with self._lock:
            if (more := num_rows - self._seen.get(shard, 0)) > 0:
                self._seen[shard] = num_rows
                self._bar.update(more)


def run_shards(cache: Path, tasks: Sequence[ShardTask], workers: Workers) -> Work:
    """Builds shards, each finished one kept whatever happens to the others.

    Raises:
        FacetError: no scheduler answers, or a shard's workers die although each of its scans can be read by itself.
        ScanError: a scan failed under --strict. OSError: the cache cannot be written.
    """
    work = Work()
    if not tasks:
        return work
    with tqdm(desc="render", total=sum(len(task.samples) for task in tasks), unit="scan", smoothing=0.05) as bar:
        count = RowCount(bar)
        for done in _run(cache, tasks, workers, count.note):
            work.add(done)
            for failure in done.result.failures:
                tqdm.write(f"  failed: {failure}", file=sys.stderr)
            if done.attempts and not done.quarantined:
                tqdm.write(f"  shard {done.result.shard}: its worker was killed; built again", file=sys.stderr)
            bar.set_postfix(failed=work.num_failed, warnings=work.num_warnings, refresh=False)
            count.note(done.result.shard, done.result.num_samples)
    return work


def _run(
    cache: Path, tasks: Sequence[ShardTask], workers: Workers, note: Callable[[int, int], None]
) -> Iterator[ShardWork]:
    if workers.num_processes == 1 and not workers.remote:  # nothing to start, and a profiler or debugger sees it
        for task in tasks:
            yield build_shard_safely(task, on_row=partial(note, task.shard))
        return
    from preprocess.build.scheduler import connect, stream_shards

    cache = cache if is_remote(cache) else cache.absolute()  # workers of a cluster have other current folders
    digest = write_plan(cache, (dataclasses.replace(task, root=task.root.absolute(), cache=cache) for task in tasks))
    try:
        with connect(workers, num_shards=len(tasks)) as client:
            yield from stream_shards(client, cache, digest, [task.shard for task in tasks], note)
    finally:
        remove_plan(cache)  # a late worker of an interrupted build sees that its build is over
