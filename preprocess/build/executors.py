"""Run the shards of a build: in this process, in child processes of this machine, or on a cluster."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from preprocess.build.child import Child, receive_any
from preprocess.build.isolate import build_shard_safely
from preprocess.build.ledger import clear_crashes
from preprocess.build.shard import ShardResult, ShardTask
from shared.errors import FacetError

MAX_CRASHES = 3  # over one shard, although none of its scans crashes its process alone
OnRows = Callable[[int, int], None]


@dataclass(frozen=True)
class Workers:
    """Who renders. num_processes: on this machine, 1 = this process itself; not used with a dask scheduler."""

    num_processes: int = 1
    memory_bytes: int | None = None  # of a local worker, None: an equal part of the machine's; it is killed above it
    scheduler: str = ""  # tcp://host:port or tls://host:port
    scheduler_file: Path | None = None

    @property
    def remote(self) -> bool:
        return bool(self.scheduler) or self.scheduler_file is not None


def run_shards(tasks: Sequence[ShardTask], workers: Workers, on_rows: OnRows) -> Iterator[ShardResult]:
    """Build shards; yield each as it is finished. Finished shards remain whatever happens to the others.

    Args:
        on_rows: called with a shard and the number of its rows that are done; not on a cluster.
    Raises:
        FacetError: no scheduler answers, or workers crash and no single scan is to blame; or a task's own error.
    """
    if workers.remote:
        from preprocess.build.cluster import run_on_cluster

        return run_on_cluster(tasks, workers.scheduler, workers.scheduler_file)
    if workers.num_processes == 1:  # nothing to start, and a profiler or debugger sees it
        return (build_shard_safely(task, on_row=partial(on_rows, task.shard)) for task in tasks)
    return _run_in_children(tasks, workers, on_rows)


def _run_in_children(tasks: Sequence[ShardTask], workers: Workers, on_rows: OnRows) -> Iterator[ShardResult]:
    memory_bytes = workers.memory_bytes or psutil.virtual_memory().total // workers.num_processes
    waiting = deque(tasks)
    crashes: Counter[int] = Counter()
    running: dict[Child, ShardTask] = {}

    def start(child: Child) -> None:
        running[child] = waiting.popleft()
        child.call(build_shard_safely, running[child], memory_bytes)

    try:
        for _ in range(min(workers.num_processes, len(tasks))):
            start(Child(memory_bytes))
        while running:
            for child, message in receive_any(running):
                task = running[child]
                if message.kind == "progress":
                    on_rows(task.shard, message.value)
                    continue
                if message.kind == "error":
                    raise message.value
                del running[child]
                if message.kind == "exit":
                    child.stop()
                    child = Child(memory_bytes)
                    waiting.appendleft(task)
                    crashes[task.shard] += 1
                    if crashes[task.shard] > MAX_CRASHES:
                        raise crash_error(task)
                else:
                    yield message.value
                if waiting:
                    start(child)
                else:
                    child.stop()
    finally:
        for child, task in running.items():
            child.stop()
            with suppress(OSError, FacetError):  # on a full disk, the first error is the one to report
                clear_crashes(task.cache, task.shard)


def crash_error(task: ShardTask) -> FacetError:
    return FacetError(
        f"shard {task.shard}: its workers crash although each of its scans can be read by itself; give them more memory "
        "(fewer --workers, a larger --worker-memory) and run the same command again"
    )
