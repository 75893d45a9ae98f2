"""What a variant costs: parameters, time and memory, as its folds recorded them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from train.runs.results import FoldResult
from train.training.progress import LOG_JSONL
from train.training.timing import read_seconds


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
    memory = [most for run, _ in folds if (most := _read_memory(run)) is not None]
    return Cost(
        num_parameters=found.pop() if len(found) == 1 else None,
        seconds=_mean(result.seconds for _, result in folds),
        cpu_seconds=_mean(read_seconds(run, "cpu_seconds") for run, _ in folds),
        memory_bytes=max(memory, default=None),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def _read_memory(run: Path) -> int | None:
    try:
        lines = (run / LOG_JSONL).read_text(encoding="utf-8").splitlines()
        return max((int(json.loads(line)["memory_bytes"]) for line in lines), default=None)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None  # a damaged log is no reason to train again
