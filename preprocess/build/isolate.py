"""Build a shard although one of its scans may crash the process: a fault in a native library, or too much memory.

A crash leaves a count in the shard's note. If there is one, the shard's scans are first tried one by one in a child process. A
scan that crashes the child twice is quarantined: an invalid row with its reason, until its files change or with --repair. A
worker that was killed from outside thus costs time and nothing else.
"""

from __future__ import annotations

import dataclasses
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from preprocess.alignment.scan_aligner import ScanAligner
from preprocess.build.child import Child, receive_any
from preprocess.build.engine import ShardArrays
from preprocess.build.ledger import clear_crashes, read_note, write_note
from preprocess.build.shard import ShardResult, ShardTask, build_shard, hash_source, render_row
from preprocess.datasets.scan import ScanRecord
from shared.errors import FacetError, ScanError

CRASHES_TO_QUARANTINE = 2
READING = "its worker died while reading it (twice)"
DRAWING = "its worker died while drawing it (twice)"


@dataclass(frozen=True)
class _Trial:
    scan: ScanRecord
    row: int | None  # None: only read and align it by itself; else render it as this row of its shard


def build_shard_safely(
    task: ShardTask, memory_limit_bytes: int | None = None, on_row: Callable[[int], None] | None = None
) -> ShardResult:
    """Build a shard without the scans that crash their process.

    Args:
        memory_limit_bytes: a child process that tries scans is killed above it; None: no limit.
        on_row: of `build_shard`.
    Raises:
        Whatever `build_shard` raises.
    """
    started = time.monotonic()
    note = read_note(task.cache, task.shard)
    skip = {
        scan.sample_id: note.quarantined[scan.sample_id][1]
        for scan in task.sources
        if scan.sample_id in note.quarantined
        and note.quarantined[scan.sample_id][0] == hash_source(task.dataset.source_files(task.root, scan))
    }
    write_note(task.cache, task.shard, dataclasses.replace(note, num_crashed=note.num_crashed + 1))
    try:
        if note.num_crashed:
            skip |= find_crashing(dataclasses.replace(task, skip=skip), memory_limit_bytes=memory_limit_bytes)
        result = build_shard(dataclasses.replace(task, skip=skip), on_row)
    except BaseException:  # an error, even Ctrl-C, is no crash
        with suppress(OSError, FacetError):  # on a full disk, the first error is the one to report
            clear_crashes(task.cache, task.shard)
        raise
    result.seconds["other"] = max(time.monotonic() - started - sum(result.seconds.values()), 0.0)
    result.num_crashed, result.num_quarantined = note.num_crashed, len(skip)
    result.peak_memory_bytes = peak_memory_bytes()
    return result


def find_crashing(task: ShardTask, *, memory_limit_bytes: int | None = None) -> dict[str, str]:
    """Return the scans of a shard that crash the process which works on them: sample_id → reason.

    Each source is first read and aligned by itself. Then the rows are rendered, without the scans found so far.

    Args:
        memory_limit_bytes: a child process that holds more is killed, as a worker would be.
    Raises:
        FacetError: the child process cannot be started.
    """
    trials = [_Trial(scan, None) for scan in task.sources]
    trials += [_Trial(scan, row) for row, scan in enumerate(task.scans) if scan is not None]
    found: dict[str, str] = {}
    crashes: Counter[_Trial] = Counter()
    while trials:
        last = _run_trials(dataclasses.replace(task, skip={**task.skip, **found}), trials, memory_limit_bytes)
        if last is None:
            break
        trials = trials[max(last, 0) :]
        crashes[trials[0]] += 1
        if crashes[trials[0]] < CRASHES_TO_QUARANTINE:
            continue
        if last < 0:
            raise FacetError("a process that tries scans one by one crashes as it starts; is there enough memory?")
        guilty = trials[0]
        found[guilty.scan.sample_id] = READING if guilty.row is None else DRAWING
        trials = [trial for trial in trials if trial.scan.sample_id != guilty.scan.sample_id]
    return found


def _run_trials(task: ShardTask, trials: list[_Trial], memory_limit_bytes: int | None) -> int | None:
    """Return the number of the trial that crashed the child process, -1 if it crashed before the first; None if none did."""
    child = Child(memory_limit_bytes)
    last = -1
    try:
        child.call(_try_scans, task, trials)
        while True:
            for _, message in receive_any([child]):
                if message.kind == "progress":
                    last = message.value
                elif message.kind == "result":
                    return None
                elif message.kind == "error":
                    raise message.value
                elif message.value == -signal.SIGTERM:  # the machine is shut down: this is not the scan's fault
                    raise FacetError("stopped while scans were tried; run the same command again")
                else:
                    return last
    finally:
        child.stop()


def _try_scans(task: ShardTask, trials: list[_Trial], report: Callable[[int], None]) -> None:
    arrays = ShardArrays(task.info, task.shard)
    for number, trial in enumerate(trials):
        report(number)
        sources = [trial.scan] if trial.row is None else task.sources
        aligner = ScanAligner(task.dataset, task.root, task.info.settings, sources, skip=task.skip)
        with suppress(ScanError, OSError, MemoryError):  # what the builder handles by itself
            if trial.row is None:
                aligner.align(trial.scan, aligner.read(trial.scan))
            else:
                render_row(task, aligner, trial.row, task.samples[trial.row], arrays, defaultdict(float))


def peak_memory_bytes() -> int:
    """Return the most memory that this process has held (resident), in bytes; 0 where the system does not report it."""
    try:
        with Path("/proc/self/status").open() as status:
            return next((int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:")), 0)
    except OSError:
        return 0
