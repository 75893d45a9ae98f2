"""Count what the workers of a build have done: a progress bar while they work, a table of times at the end."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from tqdm import tqdm

from preprocess.build.executors import Workers, run_shards
from preprocess.build.isolate import ShardWork
from preprocess.build.shard import ShardTask


@dataclass
class Work:
    """Totals over all workers. seconds: core seconds by stage, "other" for the rest."""

    num_scans: int = 0
    num_failed: int = 0
    num_warnings: int = 0
    num_workers_died: int = 0
    peak_memory_bytes: int = 0  # of the worker that held most
    wall_seconds: float = 0.0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, done: ShardWork) -> None:
        result = done.result
        for stage, spent in result.seconds.items():
            self.seconds[stage] += spent
        self.seconds["other"] += max(done.seconds - sum(result.seconds.values()), 0.0)
        self.num_scans += result.num_scans
        self.num_failed += len(result.failures)
        self.num_warnings += result.num_warnings
        self.num_workers_died += done.num_crashed
        self.peak_memory_bytes = max(self.peak_memory_bytes, done.peak_memory_bytes)

    def describe_stages(self) -> list[str]:
        """Return a table: core seconds, their part of the total and ms per scan for each stage; [] if nothing was rendered."""
        total = sum(self.seconds.values())
        if not self.num_scans or not total:
            return []
        lines = [f"{'stage':<10}{'core s':>9}{'part':>8}{'ms/scan':>10}"]
        for stage, spent in [*self.seconds.items(), ("total", total)]:
            lines.append(f"{stage:<10}{spent:>9.1f}{spent / total:>8.0%}{1000 * spent / self.num_scans:>10.1f}")
        memory = f"; peak memory of a worker {self.peak_memory_bytes / 1e6:.0f} MB" if self.peak_memory_bytes else ""
        per_second = self.num_scans / max(self.wall_seconds, 1e-9)
        lines.append(
            f"{self.num_scans} scans in {self.wall_seconds:.0f} s: {per_second:.1f} scans/s, "
            f"{self.num_scans / total:.1f} per core{memory}"
        )
        return lines


class RowCount:
    """Move a progress bar by the rows of each shard that are done."""

    def __init__(self, bar: tqdm) -> None:
        self._bar = bar
        self._seen: dict[int, int] = {}

    def note(self, shard: int, num_rows: int) -> None:
        """Count rows of a shard; after a crash the bar stands still until the shard is as far again."""
        if (more := num_rows - self._seen.get(shard, 0)) > 0:
            self._seen[shard] = num_rows
            self._bar.update(more)


def render(tasks: Sequence[ShardTask], workers: Workers) -> Work:
    """Build shards behind a progress bar; print each failed scan above it.

    Raises:
        Whatever `run_shards` raises.
    """
    work = Work()
    if not tasks:
        return work
    started = time.monotonic()
    with tqdm(desc="render", total=sum(len(task.samples) for task in tasks), unit="scan", smoothing=0.05) as bar:
        count = RowCount(bar)
        for done in run_shards(tasks, workers, count.note):
            work.add(done)
            for failure in done.result.failures:
                tqdm.write(f"  failed: {failure}", file=sys.stderr)
            if done.num_crashed and not done.quarantined:
                tqdm.write(f"  shard {done.result.shard}: its worker was killed; built again", file=sys.stderr)
            bar.set_postfix(failed=work.num_failed, warnings=work.num_warnings, refresh=False)
            count.note(done.result.shard, done.result.num_samples)
    work.wall_seconds = time.monotonic() - started
    return work
