"""What a variant costs: parameters, time and memory, as its folds recorded them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.runs import read_log, read_timing
from train.runs.results import FoldResult


@dataclass(frozen=True)
class Cost:
    """None where it is not known. num_parameters: of the model. seconds: that a fold took to train and test, the mean;
    cpu_seconds: that all cores computed meanwhile. memory_bytes: the most that a line of the logs tells of the GPU, or of the
    process's RAM."""

    num_parameters: int | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    memory_bytes: int | None = None


def measure_cost(folds: Sequence[tuple[Path, FoldResult]]) -> Cost:
    """
    Args:
        folds: of one variant with all its seeds: each fold's folder and result.
    """
    numbers = [result.metrics.get("num_parameters") for _, result in folds]
    found = {number for number in numbers if type(number) is int}
    memory = [int(line["memory_bytes"]) for run, _ in folds for line in read_log(run) if "memory_bytes" in line]
    return Cost(
        num_parameters=found.pop() if len(found) == 1 else None,
        seconds=_mean(result.seconds for _, result in folds),
        cpu_seconds=_mean(read_timing(run).cpu_seconds for run, _ in folds),
        memory_bytes=max(memory, default=None),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None
