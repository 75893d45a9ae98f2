"""Free RAM, also in a container or a cluster's job."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def free_ram_bytes(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Return the RAM that is free on the machine and within the limits of this process's control groups.

    Args:
        cgroups, membership: paths of the kernel's control groups, version 1 or 2.
    """
    free = int(psutil.virtual_memory().available)
    for folder, limit, usage, cached in _find_groups(cgroups, membership):
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            most = int((folder / limit).read_text())
            free = min(free, most - int((folder / usage).read_text()) + _read_cached(folder, cached))
    return max(free, 0)


def _find_groups(cgroups: Path, membership: Path) -> Iterator[tuple[Path, str, str, str]]:
    """Yield the memory groups of this process, innermost first: folder, file names of limit and usage, key of cached pages."""
    with contextlib.suppress(OSError):
        for line in membership.read_text().splitlines():
            _, controllers, path = [*line.split(":", 2), "", ""][:3]
            if controllers == "":
                root, names = cgroups, ("memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                root, names = (
                    cgroups / "memory",
                    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
                )
            else:
                continue
            folder = root / path.lstrip("/")
            # a container may see the outer name of its group, which does not exist there; then the root is its own
            for group in (folder, *folder.parents):
                yield group, *names
                if group == root:
                    break


def _read_cached(folder: Path, name: str) -> int:
    """Return the bytes of cached file pages, which count as used but are freed when memory is needed."""
    for line in (folder / "memory.stat").read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
