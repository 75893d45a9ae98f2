"""Run the shards of a build on the workers of a dask scheduler."""

from __future__ import annotations

import hashlib
import logging
import pickle
import socket
import sys
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import distributed
from distributed.comm.core import CommClosedError
from tqdm import tqdm

from preprocess.build.cache_folder import software_versions
from preprocess.build.executors import crash_error
from preprocess.build.isolate import build_shard_safely
from preprocess.build.ledger import check_current
from preprocess.build.shard import ShardResult, ShardTask
from shared.errors import FacetError, shorten
from shared.store.paths import is_remote

CONNECT_SECONDS = 20
MEMORY_PART = 0.95  # of a worker's limit, for a child process that tries scans


def run_on_cluster(tasks: Sequence[ShardTask], scheduler: str, scheduler_file: Path | None) -> Iterator[ShardResult]:
    """Build shards on a cluster; yield each as it is finished. A task travels as pickled bytes.

    Raises:
        FacetError: no scheduler answers, the scheduler was lost, or a shard's workers crash again and again.
        The error of a task.
    """
    build, software, token = _portable_function(), software_of_workers(), uuid.uuid4().hex[:8]
    with _connect(scheduler, scheduler_file) as client:
        if not client.nthreads():
            tqdm.write("  waiting: the scheduler has no workers", file=sys.stderr)
        futures = {
            client.submit(build, _pack(task), software, key=f"shard-{task.shard:05d}-{token}", pure=False): task
            for task in tasks
        }
        try:
            for future in distributed.as_completed(list(futures)):
                outcome = future.result()
                if isinstance(outcome, Exception):
                    raise outcome
                del futures[future]  # its result takes memory of the scheduler
                yield outcome
        except distributed.scheduler.KilledWorker as error:  # several, one after the other: dask tries it on four
            raise crash_error(futures[future]) from error
        except (ImportError, RuntimeError) as error:
            reason = shorten(" ".join(str(error).split()), 300)
            raise FacetError(
                f"the cluster cannot run a task ({reason}); the same Python packages must be installed everywhere, "
                "and this program must have the same path on every worker's machine"
            ) from error
        except (CommClosedError, CancelledError) as error:
            raise FacetError(
                "the connection to the scheduler was lost; run the same command again, finished shards remain"
            ) from error
        finally:
            client.cancel(list(futures), force=True)


@contextmanager
def _connect(scheduler: str, scheduler_file: Path | None) -> Iterator[distributed.Client]:
    for name in ("distributed", "distributed.client"):  # errors are reported in our own words
        logging.getLogger(name).setLevel(logging.CRITICAL)
    where = f"--scheduler {scheduler}" if scheduler_file is None else f"--scheduler-file {scheduler_file}"
    if scheduler_file is not None and not scheduler_file.is_file():
        start = f"`dask scheduler --scheduler-file {scheduler_file}`"
        raise FacetError(f"{where}: no such file; start a scheduler with {start}")
    address = {"address": scheduler} if scheduler_file is None else {"scheduler_file": str(scheduler_file)}
    try:
        client = distributed.Client(timeout=CONNECT_SECONDS, **address)
    except (OSError, ValueError, TimeoutError, KeyError, TypeError, AssertionError) as error:
        reason = " ".join(str(error).split()) or "it names none"  # dask asserts where a file holds no address
        raise FacetError(f"{where}: no scheduler answers ({reason}); start one with `dask scheduler`") from error
    with client:
        yield client


def _pack(task: ShardTask) -> bytes:
    """Return a task as bytes, about 4 kB; its paths are absolute, as workers have other current folders."""
    cache = task.cache if is_remote(task.cache) else task.cache.absolute()
    return zlib.compress(pickle.dumps(replace(task, root=task.root.absolute(), cache=cache)), 1)


def _portable_function() -> Callable[[bytes, dict[str, str]], Any]:
    """Return a function that dask pickles by value, as it does with nested ones: the scheduler needs no copy of this program.

    Workers import the program from the path that it has here.
    """
    checkout = str(Path(__file__).resolve().parents[2])

    def build(packed: bytes, software: dict[str, str]) -> Any:
        import sys

        if checkout not in sys.path:
            sys.path.insert(0, checkout)
        from preprocess.build.cluster import build_packed_shard

        return build_packed_shard(packed, software)

    return build


def build_packed_shard(packed: bytes, software: dict[str, str]) -> ShardResult | Exception:
    """Build a shard on a worker. An error is returned as a value: it is for the user, not for dask's log."""
    try:
        check_software(software)
        task: ShardTask = pickle.loads(zlib.decompress(packed))
        check_current(task.cache, task.build_id)
        memory_bytes = distributed.get_worker().memory_manager.memory_limit
        return build_shard_safely(task, int(memory_bytes * MEMORY_PART) if memory_bytes else None)
    except (FacetError, OSError) as error:
        return error
    except MemoryError:
        return FacetError("a worker is out of memory; give workers more memory and run the same command again")


@lru_cache(maxsize=1)
def software_of_workers() -> dict[str, str]:
    """Return the versions that must be the same on all workers, so that they render the same bytes."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for folder in (package, package.parent / "shared"):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return {**software_versions(), "this program": digest.hexdigest()[:12]}


def check_software(expected: Mapping[str, str]) -> None:
    """Raise FacetError where this machine has other versions than the builder's, whose images might differ."""
    own = software_of_workers()
    names = [name for name in {**expected, **own} if own.get(name) != expected.get(name)]
    if names:
        differences = [f"{name} {own.get(name, 'none')} instead of {expected.get(name, 'none')}" for name in names]
        raise FacetError(
            f"a worker on {socket.gethostname()} has {', '.join(differences)}: its images might differ; "
            "install the same everywhere"
        )
