"""How long a run took, over all its interruptions, and on what. Kept apart from what must be the same each time."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.schema import canonical_json
from shared.storage import write_file
from train.environment import describe_environment

TIMING_JSON = "timing.json"


@contextmanager
def count_seconds(run: Path) -> Iterator[None]:
    """Adds the time spent inside to the run's timing.json."""
    started = time.monotonic()
    try:
        yield
    finally:
        add_seconds(run, time.monotonic() - started)


def add_seconds(run: Path, seconds: float) -> None:
    """Adds time spent to the run's timing.json, which also tells on what it was spent last."""
    total = round((read_seconds(run) or 0.0) + seconds, 1)
    value = {"seconds": total, "environment": describe_environment()}
    write_file(run / TIMING_JSON, canonical_json(value).encode())


def read_seconds(run: Path) -> float | None:
    """Seconds of training and testing; None where it is not known: a damaged file is no reason to train again."""
    try:
        seconds = float(json.loads((run / TIMING_JSON).read_bytes())["seconds"])
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
