"""Run the shards of a build behind a progress bar, and sum up what the workers did."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tqdm import tqdm

from preprocess.build.executors import OnRows, Workers, run_shards
from preprocess.build.shard import ShardResult, ShardTask
from shared.cache import Failure, generalise_reason

SHOWN_ALIKE = 3  # failures printed of each reason; failures.csv lists all


@dataclass
class Work:
    """Totals over all workers. seconds: core seconds by stage, "other" for the rest."""

    num_scans: int = 0
    num_failed: int = 0
    num_warnings: int = 0
    num_workers_died: int = 0
    peak_memory_bytes: int = 0  # of the worker that held most
    wall_seconds: float = 0.0
    seconds: Counter[str] = field(default_factory=Counter)

    def add(self, done: ShardResult) -> None:
        self.num_scans += done.num_scans
        self.num_failed += len(done.failures)
        self.num_warnings += done.num_warnings
        self.num_workers_died += done.num_crashed
        self.peak_memory_bytes = max(self.peak_memory_bytes, done.peak_memory_bytes)
        self.seconds.update(done.seconds)

    def describe(self) -> list[str]:
        """Return two lines: core milliseconds per scan of each stage, and the speed; [] if nothing was rendered."""
        if not self.num_scans:
            return []
        total = sum(self.seconds.values())
        stages = ", ".join(f"{stage} {1000 * spent / self.num_scans:.1f}" for stage, spent in self.seconds.items())
        memory = f"; peak memory of a worker {self.peak_memory_bytes / 1e6:.0f} MB" if self.peak_memory_bytes else ""
        return [
            f"ms per scan: {stages}, total {1000 * total / self.num_scans:.1f}",
            f"{self.num_scans} scans in {self.wall_seconds:.0f} s: "
            f"{self.num_scans / max(self.wall_seconds, 1e-9):.1f} scans/s, {self.num_scans / total:.1f} per core{memory}",
        ]


def count_rows(bar: tqdm) -> OnRows:
    """Return a function that moves a bar to the rows of a shard that are done; after a crash the bar waits until then."""
    num_done: Counter[int] = Counter()

    def note(shard: int, num_rows: int) -> None:
        bar.update(max(num_rows - num_done[shard], 0))
        num_done[shard] = max(num_rows, num_done[shard])

    return note


def render(tasks: Sequence[ShardTask], workers: Workers, *, quiet: bool = False) -> Work:
    """Build shards behind a progress bar; print the first scans that fail for each reason above it.

    Args:
        quiet: print none of them, and remove the bar at the end.

    Raises:
        Whatever `run_shards` raises.
    """
    work = Work()
    if not tasks:
        return work
    started = time.monotonic()
    total = sum(len(task.samples) for task in tasks)
    kinds: dict[str, list[Failure]] = {}
    with tqdm(desc="render", total=total, unit="scan", smoothing=0.05, delay=2 * quiet, leave=not quiet) as bar:
        note = count_rows(bar)
        for done in run_shards(tasks, workers, note):
            work.add(done)
            for failure in done.failures * (not quiet):
                alike = kinds.setdefault(generalise_reason(failure), [])
                alike.append(failure)
                if len(alike) <= SHOWN_ALIKE:
                    tqdm.write(f"  failed: {failure.source}: {failure.reason}", file=sys.stderr)
            if done.num_crashed and not done.num_quarantined:
                tqdm.write(f"  shard {done.shard}: its worker was killed; built again", file=sys.stderr)
            bar.set_postfix(failed=work.num_failed, warnings=work.num_warnings, refresh=False)
            note(done.shard, done.num_samples)
    for first, *others in kinds.values():
        if len(others) >= SHOWN_ALIKE:
            print(f"  {len(others) + 1} scans failed as {first.source}: {first.reason}", file=sys.stderr)
    work.wall_seconds = time.monotonic() - started
    return work
