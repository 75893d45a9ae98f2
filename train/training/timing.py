"""Record time and machine of a run in timing.json. The other files are equal if the run is repeated."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from shared.processors import num_cores
from shared.runs import TIMING_JSON, read_timing
from shared.schema import canonical_json
from shared.store.storage import write_file

PACKAGES = ("torch", "open_clip_torch", "numpy", "zarr")
PROCESSORS = Path("/proc/cpuinfo")  # Linux


@contextmanager
def count_seconds(run: Path) -> Iterator[None]:
    """Add the time spent inside to the run's timing.json: wall-clock, and CPU time of all cores of this process."""
    wall, cpu = time.monotonic(), time.process_time()
    try:
        yield
    finally:
        before = read_timing(run)
        value: dict[str, Any] = {
            "seconds": round((before.seconds or 0.0) + time.monotonic() - wall, 1),
            "cpu_seconds": round((before.cpu_seconds or 0.0) + time.process_time() - cpu, 1),
            "environment": describe_environment(),
        }
        write_file(run / TIMING_JSON, canonical_json(value).encode())


@cache
def describe_environment() -> dict[str, str]:
    """Return name → version or description of this process and machine, without names of users, hosts or folders."""
    import torch

    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    found["system"] = f"{platform.system()} {platform.release()}, {platform.machine()}"
    found["processor"] = f"{_processor()}; {num_cores()} cores, {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        found["gpus"] = ", ".join(names)
        found["cuda"] = str(torch.version.cuda)
    return found


def _processor() -> str:
    with suppress(OSError):
        for line in PROCESSORS.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"
