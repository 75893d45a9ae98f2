"""Lets a build run out of disk space, at three fill levels; with space again it must end byte-identical.

The disk is a small tmpfs in a mount namespace of this script's own, where the system lets us have one (root, or user
namespaces); else a limit on the size of files stands in for it. Which one it was is printed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from scenario import ROOT, build, command, compare, expect, prepare, run_scenario

NAMESPACED = "FACET_OWN_MOUNTS"
SHARES = (0.15, 0.5, 0.9)


def scenario(folder: Path) -> str:
    scans, whole, _ = prepare(folder)
    num_bytes = sum(map(len, whole.values()))
    if NAMESPACED not in os.environ:
        limited(scans, folder / "c")
        expect(build(scans, folder / "c"), 0)
        compare(folder / "c", whole)
        return "no mount is allowed here, so files were limited to 8 KB; one clear line, then the same bytes"
    for share in SHARES:
        disk = folder / f"disk{share}"
        disk.mkdir()
        mount("-t", "tmpfs", "-o", f"size={int(share * num_bytes) // 4096 * 4096}", "tmpfs", str(disk))
        try:
            expect(build(scans, disk / "c"), 2, "disk is full", str(disk / "c"))
            expect(build(scans, disk / "c"), 2, "disk is full", str(disk / "c"))  # again, with what the first one left
            mount("-o", f"remount,size={8 * num_bytes + (16 << 20)}", str(disk))
            expect(build(scans, disk / "c"), 0)
            compare(disk / "c", whole)
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    return f"tmpfs filled at {', '.join(f'{share:.0%}' for share in SHARES)} of the cache; one clear line, then the same bytes"


def limited(scans: Path, cache: Path) -> None:
    script = f"trap '' XFSZ; ulimit -f 8; exec {' '.join(command(scans, cache))}"
    result = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    expect(result, 2, str(cache))


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    if NAMESPACED not in os.environ:
        for options in (["--mount"], ["--mount", "--map-root-user"]):
            probe = subprocess.run(
                ["unshare", *options, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
            )
            if probe.returncode == 0:
                os.environ[NAMESPACED] = "1"
                os.execvp("unshare", ["unshare", *options, sys.executable, *sys.argv])
    run_scenario(scenario)
