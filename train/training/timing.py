"""How long a run took, over all its interruptions, and on what. Kept apart from what must be the same each time."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shared.schema import canonical_json
from shared.store.storage import write_file
from train.training.environment import describe_environment

TIMING_JSON = "timing.json"


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
    value: dict[str, Any] = {
        name: round((read_seconds(run, name) or 0.0) + spent, 1) for name, spent in clock.read().items()
    }
    value["environment"] = describe_environment()
    write_file(run / TIMING_JSON, canonical_json(value).encode())


def read_seconds(run: Path, name: str = "seconds") -> float | None:
    """Seconds of training and testing, `cpu_seconds` of all cores together; None where it is not known: a damaged file is no
    reason to train again."""
    try:
        seconds = float(json.loads((run / TIMING_JSON).read_bytes())[name])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def read_environment(run: Path) -> dict[str, str]:
    """What `describe_environment` said where the run was trained last; empty where it is not known."""
    try:
        value = json.loads((run / TIMING_JSON).read_bytes())["environment"]
        return {str(name)[:80]: str(text)[:400] for name, text in value.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
