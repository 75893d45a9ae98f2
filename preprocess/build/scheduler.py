"""dask.distributed: the same tasks on processes of this machine and on those of a cluster."""

from __future__ import annotations

import logging
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import distributed
from distributed.comm.core import CommClosedError
from tqdm import tqdm

from preprocess.build.attempts import ShardWork, build_shard_safely
from preprocess.build.local import MEMORY_SHARE, start_workers
from preprocess.build.plan_file import check_current, read_task
from preprocess.build.workers import Workers
from shared.errors import FacetError, shorten
from shared.store.paths import open_path

TASKS_A_THREAD = 2  # given out ahead, so that no worker waits for its next shard
ROUNDS = 2  # how often a shard is given out whose workers keep dying; each time dask itself tries several workers
CONNECT_SECONDS = 20
ROWS_EVERY_SECONDS = 2.0  # a worker; hundreds of them tell one scheduler
SILENT_SECONDS = 10  # without a finished shard, after which it is checked whether there are workers at all


def dask_setup(worker: distributed.Worker) -> None:
    """Called in each local worker as it starts: Ctrl-C is for the builder to handle, not for its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def connect(workers: Workers, *, num_shards: int) -> Iterator[distributed.Client]:
    """A client of the scheduler that `workers` names, or of one in this process with worker processes of its own.

    Local connections are encrypted with keys made for this build, so that nobody else on the machine can use them.

    Raises:
        FacetError: no scheduler answers.
    """
    for name in ("distributed", "distributed.client"):  # what matters is said in our own words
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if workers.remote:
        with _connect_remote(workers) as client:
            yield client
        return
    with start_workers(min(workers.num_processes, num_shards), workers.memory_bytes) as client:
        yield client


@contextmanager
def _connect_remote(workers: Workers) -> Iterator[distributed.Client]:
    path = workers.scheduler_file
    where = f"--scheduler-file {path}" if path is not None else f"--scheduler {workers.scheduler}"
    if path is not None and not path.is_file():
        raise FacetError(f"{where}: no such file; start a scheduler with `dask scheduler --scheduler-file {path}`")
    address = {"scheduler_file": str(path)} if path is not None else {"address": workers.scheduler}
    try:
        client = distributed.Client(timeout=CONNECT_SECONDS, **address)
    except (OSError, ValueError, TimeoutError, KeyError, TypeError, AssertionError) as error:
        reason = " ".join(str(error).split()) or "it names none"  # dask asserts where a file holds no address
        raise FacetError(f"{where}: no scheduler answers ({reason}); start one with `dask scheduler`") from error
    with client:
        yield client


def stream_shards(
    client: distributed.Client, cache: Path, digest: str, shards: Sequence[int], note: Callable[[int, int], None]
) -> Iterator[ShardWork]:
    """Has shards of a plan built, a bounded number given out at a time; yields each as it is finished.

    Args:
        note: called in another thread, now and then, with a shard and how many of its rows are done.
    Raises:
        FacetError: a shard's workers died again and again, or the scheduler was lost; or what a task raised.
    """
    token = uuid.uuid4().hex[:8]
    build = _portable_task()
    waiting = iter(shards)
    running: dict[distributed.Future, tuple[int, int]] = {}

    def submit(shard: int, attempt: int) -> None:
        key = f"shard-{shard:05d}-{token}-{attempt}"
        future = client.submit(build, str(cache), digest, shard, key=key, pure=False, priority=-shard)
        running[future] = (shard, attempt)

    topic = _rows_topic(digest)
    client.subscribe_topic(topic, lambda event: note(*event[1]))
    try:
        while True:
            for _ in range(max(_window(client) - len(running), 0)):
                shard = next(waiting, None)
                if shard is None:
                    break
                submit(shard, 1)
            if not running:
                return
            for future in _wait(client, running):
                shard, attempt = running.pop(future)
                try:
                    outcome = future.result()
                except distributed.scheduler.KilledWorker as error:
                    if attempt == ROUNDS:
                        raise FacetError(
                            f"shard {shard}: its workers die although each of its scans can be read by itself; give them "
                            "more memory (fewer --workers, a larger --worker-memory) and run the same command again"
                        ) from error
                    submit(shard, attempt + 1)
                    continue
                except (ImportError, RuntimeError) as error:
                    reason = shorten(" ".join(str(error).split()), 300)
                    raise FacetError(
                        f"the cluster cannot run a task ({reason}); the same Python packages must be installed everywhere, "
                        "and this program must lie under the same path on every worker's machine"
                    ) from error
                if isinstance(outcome, Exception):
                    raise outcome
                yield outcome
    except (CommClosedError, CancelledError) as error:
        raise FacetError(
            "the connection to the scheduler was lost; run the same command again, what is finished is kept"
        ) from error
    finally:
        client.unsubscribe_topic(topic)
        client.cancel(list(running), force=True)


def _portable_task() -> Callable[[str, str, int], Any]:
    """A task that dask pickles by value, as a function inside another is: the scheduler needs no copy of this program, and
    workers find theirs where the builder's lies."""
    checkout = str(Path(__file__).resolve().parents[2])

    def build(cache: str, digest: str, shard: int) -> Any:
        import sys

        if checkout not in sys.path:
            sys.path.insert(0, checkout)
        from preprocess.build.scheduler import build_planned_shard

        return build_planned_shard(cache, digest, shard)

    return build


def _window(client: distributed.Client) -> int:
    return TASKS_A_THREAD * max(sum(client.nthreads().values()), 1)


def _wait(client: distributed.Client, running: dict[distributed.Future, tuple[int, int]]) -> list[distributed.Future]:
    told = False
    while True:
        try:
            return list(distributed.wait(list(running), timeout=SILENT_SECONDS, return_when="FIRST_COMPLETED").done)
        except TimeoutError:
            if not told and not client.nthreads():
                tqdm.write("  waiting: the scheduler has no workers", file=sys.stderr)
                told = True


def build_planned_shard(cache_name: str, digest: str, shard: int) -> ShardWork | Exception:
    """What a worker does with a shard's number. An error comes back as a value: it is for the user, not for dask's log."""
    try:
        cache = open_path(cache_name)
        task = read_task(cache, digest, shard)
        limit = _memory_limit_bytes()
        return build_shard_safely(
            task,
            before_writing=partial(check_current, cache, digest),
            on_row=_tell_rows(_rows_topic(digest), shard),
            memory_limit_bytes=limit,
        )
    except (FacetError, OSError) as error:
        return error
    except MemoryError:
        return FacetError("a worker is out of memory; run the same command again with fewer --workers")


def _rows_topic(digest: str) -> str:
    """Of dask's events: how far the workers of a plan are. A scheduler may serve several."""
    return f"facet-rows-{digest[:16]}"


def _tell_rows(topic: str, shard: int) -> Callable[[int], None]:
    """Tells the scheduler's clients how far this worker is, every ROWS_EVERY_SECONDS."""
    worker, last = distributed.get_worker(), time.monotonic()

    def tell(num_rows: int) -> None:
        nonlocal last
        if time.monotonic() - last >= ROWS_EVERY_SECONDS:
            last = time.monotonic()
            worker.log_event(topic, (shard, num_rows))

    return tell


def _memory_limit_bytes() -> int | None:
    limit = distributed.get_worker().memory_manager.memory_limit
    return int(limit * MEMORY_SHARE) if limit else None
