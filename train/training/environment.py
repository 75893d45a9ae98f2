"""On what a run was trained: versions, processor, GPUs. Kept beside its time, apart from what must be the same each time."""

from __future__ import annotations

import importlib.metadata
import platform
from contextlib import suppress
from functools import cache
from pathlib import Path

from shared.processors import num_cores

PACKAGES = ("torch", "open_clip_torch", "numpy", "zarr")
PROCESSORS = Path("/proc/cpuinfo")  # Linux


@cache
def describe_environment() -> dict[str, str]:
    """Name → version or description, of this process. Names no user, host or folder."""
    import torch

    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    found["system"] = f"{platform.system()} {platform.release()}, {platform.machine()}"
    found["processor"] = f"{_processor()}; {num_cores()} cores, {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        found["gpus"] = ", ".join(names)
        found["cuda"] = str(torch.version.cuda)
    return found


def _processor() -> str:
    with suppress(OSError):
        for line in PROCESSORS.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"
