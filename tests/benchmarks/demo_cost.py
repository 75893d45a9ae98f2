"""What `make demo` costs after set-up: wall time, peak memory of all its processes together, bytes on disk.

Run from anywhere:  .venv/bin/python tests/benchmarks/demo_cost.py
Exit code 0 when it took at most 4 minutes and 4 GB, else 1. The demo's own folder is removed first.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "data_cache" / "demo"
MAX_SECONDS, MAX_BYTES = 240.0, 4e9


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    shutil.rmtree(DEMO, ignore_errors=True)
    started = time.monotonic()
    process = subprocess.Popen(["make", "demo"], cwd=ROOT)
    peak = 0
    while process.poll() is None:
        peak = max(peak, memory_of_tree(process.pid))
        time.sleep(0.25)
    seconds = time.monotonic() - started
    if process.returncode != 0:
        print(f"make demo failed with exit code {process.returncode}")
        return 1
    print()
    for name in ("scans", "cache", "run"):
        size = sum(path.stat().st_size for path in (DEMO / name).rglob("*") if path.is_file())
        print(f"{name:8} {size / 1e6:8.1f} MB on disk")
    good = seconds <= MAX_SECONDS and peak <= MAX_BYTES
    print(
        f"make demo: {seconds:.0f} s (at most {MAX_SECONDS:.0f}), peak memory {peak / 1e9:.2f} GB (at most 4): ", end=""
    )
    print("pass" if good else "FAIL")
    return 0 if good else 1


def memory_of_tree(pid: int) -> int:
    """Bytes held by a process and all its descendants, pages that they share counted once (PSS)."""
    total = 0
    try:
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in tree:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied, AttributeError):
            continue
    return total


if __name__ == "__main__":
    sys.exit(main())
