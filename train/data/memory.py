"""How much RAM can be had, in a container or a cluster's job as outside."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def free_ram_bytes(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """What can be had without swapping or being killed: the machine's, or what the limits of this process's control groups
    leave (containers, a cluster's jobs), whichever is less.

    Args:
        cgroups, membership: where the kernel shows control groups, of version 1 or 2.
    """
    free = int(psutil.virtual_memory().available)
    for folder, limit, usage, cached in _find_groups(cgroups, membership):
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            most = int((folder / limit).read_text())
            free = min(free, most - int((folder / usage).read_text()) + _read_cached(folder, cached))
    return max(free, 0)


def _find_groups(cgroups: Path, membership: Path) -> Iterator[tuple[Path, str, str, str]]:
    """The memory groups that this process is in, each within the next: (folder, names of limit, usage and cached pages)."""
    with contextlib.suppress(OSError):
        for line in membership.read_text().splitlines():
            _, controllers, place = [*line.split(":", 2), "", ""][:3]
            if controllers == "":
                root, names = cgroups, ("memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                root, names = (
                    cgroups / "memory",
                    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
                )
            else:
                continue
            folder = root / place.lstrip("/")
            # within a container the group may go by the name it has outside, where nothing is: its own is the root then
            for group in (folder, *folder.parents):
                yield group, *names
                if group == root:
                    break


def _read_cached(folder: Path, name: str) -> int:
    """Bytes of pages of files that count as used and that the kernel drops when it needs room."""
    for line in (folder / "memory.stat").read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
