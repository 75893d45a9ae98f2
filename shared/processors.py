"""How many processor cores this process may use."""

from __future__ import annotations

import os


def num_cores() -> int:
    """Those that a cluster's job or `taskset` leaves to this process; where the system does not say (macOS), the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
