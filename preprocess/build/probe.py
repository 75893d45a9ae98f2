"""Tries the scans of a shard in a child process and finds those that bring it down: python -m preprocess.build.probe.

The child reads a pickled list of trials from its standard input and writes the number of each trial to a pipe before it begins
with it: the last number says what killed it. It ends with its parent, whose end of the standard input then closes.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from preprocess.alignment.placement import Placer
from preprocess.build.shards import empty_arrays, render_row
from preprocess.build.sources import ShardTask
from preprocess.datasets.scan import DatasetReader, ScanRecord
from preprocess.geometry.mesh import Mesh
from shared.errors import FacetError, ScanError

DEATHS_TO_QUARANTINE = 2
POLL_SECONDS = 0.05
READING = "its worker died while reading it (twice)"
DRAWING = "its worker died while drawing it (twice)"


@dataclass(frozen=True)
class _Trial:
    scan: ScanRecord
    row: int | None  # None: only read and placed by itself; else drawn as this row of its shard


def find_deadly(task: ShardTask, *, memory_limit_bytes: int | None = None) -> dict[str, str]:
    """Which of the scans that a shard is made of kill the process that works on them: sample_id → reason.

    Each source is read and placed by itself first; rows are drawn then, without those that were fatal to read.

    Args:
        memory_limit_bytes: a child that holds more is killed, as a worker would be.
    Raises:
        FacetError: the child cannot be started.
    """
    reading = [_Trial(scan, None) for scan in task.sources() if scan is not None]
    trials = reading + [_Trial(scan, row) for row, scan in enumerate(task.scans) if scan is not None]
    deadly: dict[str, str] = {}
    deaths: Counter[_Trial] = Counter()
    while trials:
        begun = _run_child(without(task, deadly), trials, memory_limit_bytes)
        if begun is None:
            break
        trials = trials[max(begun, 0) :]  # -1: it died before it began with anything
        deaths[trials[0]] += 1
        if deaths[trials[0]] < DEATHS_TO_QUARANTINE:
            continue
        if begun < 0:
            raise FacetError("a process that tries scans one by one dies as it starts; is there enough memory?")
        fatal = trials[0]
        deadly[fatal.scan.sample_id] = READING if fatal.row is None else DRAWING
        trials = [trial for trial in trials if trial.scan.sample_id != fatal.scan.sample_id]
    return deadly


def without(task: ShardTask, reasons: Mapping[str, str]) -> ShardTask:
    """The task with scans that fail with a reason as soon as they are read."""
    if not reasons:
        return task
    reader = dataclasses.replace(task.dataset, read=partial(_read_unless_quarantined, task.dataset, dict(reasons)))
    return dataclasses.replace(task, dataset=reader)


def _read_unless_quarantined(dataset: DatasetReader, reasons: Mapping[str, str], root: Path, scan: ScanRecord) -> Mesh:
    if scan.sample_id in reasons:
        raise ScanError(reasons[scan.sample_id])
    return dataset.read(root, scan)


def _run_child(task: ShardTask, trials: list[_Trial], memory_limit_bytes: int | None) -> int | None:
    """The number of the trial that killed the child; None if it came through."""
    told, tells = os.pipe()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    child = subprocess.Popen(
        [sys.executable, "-m", "preprocess.build.probe", str(tells)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[tells],
        env=environment,
    )
    os.close(tells)
    assert child.stdin is not None
    with os.fdopen(told, "rb") as progress:
        try:
            with child:
                try:
                    pickle.dump((task, trials), child.stdin)
                    child.stdin.flush()
                    _wait(child, memory_limit_bytes)
                except BaseException:
                    child.kill()
                    raise
        except BrokenPipeError:  # it died before it had read what to do
            child.wait()
        begun = progress.read().split()
    if child.returncode == 0:
        return None
    if child.returncode == -signal.SIGTERM:  # the machine is taken from us: says nothing about a scan
        raise FacetError("stopped while scans were tried; run the same command again")
    return int(begun[-1]) if begun else -1


def _wait(child: subprocess.Popen[bytes], memory_limit_bytes: int | None) -> None:
    while True:
        try:
            child.wait(POLL_SECONDS)
            return
        except subprocess.TimeoutExpired:
            if memory_limit_bytes is not None and _resident_bytes(child.pid) > memory_limit_bytes:
                child.kill()


def _resident_bytes(pid: int) -> int:
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:  # it has just ended
        return 0


def _main() -> None:
    tells = int(sys.argv[1])
    task, trials = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number, trial in enumerate(trials):
        os.write(tells, f"{number}\n".encode())
        try:
            _try(task, trial)
        except (ScanError, OSError, MemoryError):
            continue  # what the builder handles by itself is not deadly
    os._exit(0)


def _try(task: ShardTask, trial: _Trial) -> None:
    if trial.row is None:
        placer = Placer(task.dataset, task.root, task.info.settings, [trial.scan])
        placer.place(trial.scan, placer.read(trial.scan))
        return
    placer = Placer(task.dataset, task.root, task.info.settings, [scan for scan in task.sources() if scan is not None])
    arrays, present = empty_arrays(task.info, 1)
    seconds: dict[str, float] = defaultdict(float)
    render_row(task, placer, trial.scan, task.samples[trial.row], 0, arrays, present, seconds)


def _end_with_parent() -> None:
    while sys.stdin.buffer.read(1 << 16):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.path[:] = list(dict.fromkeys([str(Path(__file__).resolve().parents[2]), *sys.path]))
    _main()
