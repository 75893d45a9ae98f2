"""Count the processor cores that this process may use."""

from __future__ import annotations

import os


def num_cores() -> int:
    """Return the number of cores that this process may use; where the system does not report it (macOS), the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
