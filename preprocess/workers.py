"""Runs shard tasks in processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for_exit

from tqdm import tqdm

from preprocess.shards import ShardResult, ShardTask, build_shard
from shared.errors import FacetError

# One worker's libraries stay on one thread: there is a worker a core.
SINGLE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS", "NUMBA_NUM_THREADS")


def run_shards(tasks: list[ShardTask], num_workers: int) -> tuple[dict[str, float], int]:
    """Builds shards in worker processes, each finished shard kept whatever happens to the others.

    Returns:
        Seconds that all workers spent in each stage; scans that were read.
    Raises:
        FacetError: a worker died. ScanError: a scan failed under --strict. OSError: the cache cannot be written.
    """
    seconds: dict[str, float] = defaultdict(float)
    num_rendered = num_failed = 0
    if not tasks:
        return seconds, 0
    bar = tqdm(desc="render", total=sum(len(task.samples) for task in tasks), unit="scan", smoothing=0.05)
    with bar:
        for result in _results(tasks, min(num_workers, len(tasks))):
            for stage, spent in result.seconds.items():
                seconds[stage] += spent
            num_rendered += result.num_scans
            num_failed += len(result.failures)
            for failure in result.failures:
                tqdm.write(f"  failed: {failure}", file=sys.stderr)
            bar.update(result.num_samples)
            bar.set_postfix(failed=num_failed)
    return seconds, num_rendered


def _results(tasks: list[ShardTask], num_workers: int) -> Iterator[ShardResult]:
    if num_workers == 1:  # in this process: nothing to start, and a profiler or debugger sees it
        yield from map(build_shard, tasks)
        return
    with _single_threaded():
        pool = ProcessPoolExecutor(
            num_workers, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent
        )
    waiting = iter(tasks)
    running: dict[Future[ShardResult], ShardTask] = {}
    try:
        with _single_threaded():
            for task in waiting:
                running[pool.submit(build_shard, task)] = task
                if len(running) < 2 * num_workers:  # plans of a few shards wait in the workers' queue, not all of them
                    continue
                yield from _take(running)
            while running:
                yield from _take(running)
    except BrokenProcessPool as error:
        raise FacetError(
            "a worker process died, most often for want of memory; run the same command again with fewer --workers "
            "(finished shards are kept)"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _take(running: dict[Future[ShardResult], ShardTask]) -> Iterator[ShardResult]:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        del running[future]
        yield future.result()


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Workers inherit the environment when they start, which is as tasks are handed in."""
    before = {name: os.environ.get(name) for name in SINGLE_THREAD}
    os.environ.update(dict.fromkeys(SINGLE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _end_with_parent() -> None:
    """A worker whose parent was killed must not go on writing into a cache that the next build has taken over."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; running shards are finished
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait_for_exit([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
