"""How long a run took, over all its interruptions, and on what. Kept apart from what must be the same each time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shared.runs import TIMING_JSON, read_timing
from shared.schema import canonical_json
from shared.store.storage import write_file
from train.training.environment import describe_environment


@contextmanager
def count_seconds(run: Path) -> Iterator[None]:
    """Adds the time spent inside to the run's timing.json."""
    started = Clock()
    try:
        yield
    finally:
        add_seconds(run, started)


class Clock:
    """What it has been since this was made: seconds that went by, and seconds that all of this process's cores computed."""

    def __init__(self) -> None:
        self._start = time.monotonic(), time.process_time()

    def read(self) -> dict[str, float]:
        return {"seconds": time.monotonic() - self._start[0], "cpu_seconds": time.process_time() - self._start[1]}


def add_seconds(run: Path, clock: Clock) -> None:
    """Add the time spent to the run's timing.json, which also describes the last machine."""
    before = read_timing(run)
    value: dict[str, Any] = {
        name: round((getattr(before, name) or 0.0) + spent, 1) for name, spent in clock.read().items()
    }
    value["environment"] = describe_environment()
    write_file(run / TIMING_JSON, canonical_json(value).encode())
