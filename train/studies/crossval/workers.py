"""Train folds in parallel worker processes; each worker trains one fold after another."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from shared.errors import FacetError
from shared.processors import num_cores
from shared.runs import WEIGHTS, record_hashes
from train.data.memory import free_ram_bytes
from train.experiment import Experiment, prepare_experiment
from train.options import Options, RunOptions
from train.training.checkpoint import CHECKPOINT
from train.training.fit import fit
from train.training.signals import Terminated, catch_signals, raise_on_sigterm

BYTES_A_WORKER = 3 << 30  # torch, a small tower and its batches


@dataclass(frozen=True)
class Outcome:
    """How a fold's training ended: code 0 and no error where it is finished; a code where a signal stopped it."""

    code: int = 0
    error: str = ""


@dataclass(frozen=True)
class Job:
    """What a worker needs to train any fold."""

    out: Path
    options: Options
    run: RunOptions


def choose_num_jobs(num_folds: int, device: str) -> int:
    """Return one fold per GPU; on CPUs as many as cores and memory allow."""
    if device.startswith("cuda:"):
        return 1
    if device != "cpu" and torch.cuda.is_available():
        return max(1, min(num_folds, torch.cuda.device_count()))
    room = free_ram_bytes() // BYTES_A_WORKER
    return max(1, min(num_folds, num_cores(), room))


def run_jobs(job: Job, experiment: Experiment, numbers: Sequence[int]) -> Iterator[tuple[int, Outcome]]:
    """Train folds, and yield each index with its outcome as it ends. A fold that fails does not stop the others.

    After SIGINT or SIGTERM the last outcome has the exit code; every fold in training has its checkpoint by then.
    """
    run = job.run
    num_jobs = min(run.jobs or choose_num_jobs(len(numbers), run.device), max(len(numbers), 1))
    if num_jobs == 1:
        for number in numbers:
            yield number, _run(job, experiment, number, run.device)
    else:
        yield from _run_side_by_side(job, numbers, num_jobs)


def _run(job: Job, experiment: Experiment, number: int, device: str) -> Outcome:
    run = job.out / experiment.fold(number).name
    try:
        code = fit(run, experiment, number, device=device, quiet=True)
    except FacetError as error:
        return Outcome(error=str(error))
    except torch.OutOfMemoryError:
        return Outcome(error="the GPU's memory is not enough; lower --batch-size or --jobs")
    if code == 0:  # finished: nothing will go on from the checkpoint
        (run / CHECKPOINT).unlink(missing_ok=True)
        if job.run.discard_weights:
            (run / WEIGHTS).unlink(missing_ok=True)
            record_hashes(run, (WEIGHTS,))
    return Outcome(code)


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    number: int | None = None  # the fold it is at


def _run_side_by_side(job: Job, numbers: Sequence[int], num_jobs: int) -> Iterator[tuple[int, Outcome]]:
    waiting = deque(numbers)
    workers: list[_Worker] = []
    with catch_signals() as caught:
        try:
            workers += [_start(job, place, num_jobs) for place in range(num_jobs)]
            for worker in workers:
                _hand_out(worker, waiting)
            while not caught and any(worker.number is not None for worker in workers):
                busy = {worker.connection: worker for worker in workers if worker.number is not None}
                for connection in wait(list(busy), timeout=0.5):
                    assert isinstance(connection, Connection)
                    worker = busy[connection]
                    number, worker.number = worker.number, None
                    assert number is not None
                    try:
                        outcome: Outcome = connection.recv()
                    except (EOFError, OSError):
                        if caught:
                            break
                        place = workers.index(worker)
                        workers[place] = worker = _start(job, place, num_jobs)
                        outcome = Outcome(
                            error="its process died, most often for want of memory; run again with fewer --jobs"
                        )
                    if outcome.code:  # a signal to the whole group of processes reached the worker first
                        caught.append(outcome.code - 128)
                    if caught:
                        break
                    _hand_out(worker, waiting)
                    yield number, outcome
            if caught:
                _end_after_checkpoint(workers)
                yield numbers[0], Outcome(128 + caught[0])
        finally:
            for worker in workers:
                worker.connection.close()  # tells it to end
                worker.process.join(timeout=10)
                worker.process.kill()


def _end_after_checkpoint(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        if worker.number is not None and worker.process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.process.pid, signal.SIGTERM)
        worker.connection.close()  # no more folds
    for worker in workers:
        worker.process.join()


def _start(job: Job, place: int, num_jobs: int) -> _Worker:
    context = multiprocessing.get_context("spawn")  # forked processes cannot use CUDA
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, job, place, num_jobs), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _hand_out(worker: _Worker, waiting: deque[int]) -> None:
    if waiting:
        worker.number = waiting.popleft()
        with contextlib.suppress(OSError):  # it died: recv() will tell
            worker.connection.send(worker.number)


def _work(connection: Connection, job: Job, place: int, num_jobs: int) -> None:
    """Train the folds whose indices arrive, until the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle: it asks with SIGTERM
    os.environ["TQDM_DISABLE"] = "1"  # the parent shows how many folds are done
    device = job.run.device
    if device in ("auto", "cuda") and torch.cuda.is_available():
        device = f"cuda:{place % torch.cuda.device_count()}"
    else:
        torch.set_num_threads(max(1, num_cores() // num_jobs))
    experiment = None
    # The parent has closed its end, or is dead; or SIGTERM came between two folds.
    with contextlib.suppress(EOFError, OSError, Terminated), raise_on_sigterm():
        while True:
            number = connection.recv()
            try:
                experiment = experiment or prepare_experiment(job.options, job.run, job.out)
                outcome = _run(job, experiment, number, device)
            except Terminated:
                outcome = Outcome(128 + signal.SIGTERM)
            except Exception as error:  # a fault of ours: the other folds go on, this one is listed
                where = traceback.format_exc().splitlines()[-2].strip()
                outcome = Outcome(error=f"{type(error).__name__}: {error} ({where})")
            connection.send(outcome)
