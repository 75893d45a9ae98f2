"""A build of many rows, its second run with nothing to do, and `verify --quick`: wall time, CPU time and memory of the program.

.venv/bin/python tests/benchmarks/scale.py [--rows 100000] [--out DIR]   (about 15 minutes the first time, most of it rendering)
Scans: links to eight small OBJ files with a material and a texture, 500 frames a sequence, found by a pattern; rows: one view
of 32 px, all three modalities. Files are in the page cache. Exit code 0 when the second run and the check each take less than
60 s of CPU time (wall time, if a core is free) and 1 GB.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests"))

from scan_folders import write_scan  # noqa: E402

FRAMES, KINDS = 500, 8
SEQUENCES = 8  # of a subject
MAX_SECONDS, MAX_BYTES = 60.0, 1e9


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument(
        "--out", type=Path, help="folder for scans and cache, kept for another run (default: a temporary one)"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = chosen.out or Path(temporary)
        scans, cache = out / "scans", out / "cache"
        if not scans.exists():
            write_frames(scans, chosen.rows)
        build = ["build", "folder", "--root", scans, "--pattern", "{subject}/{label}/{frame}.obj", "--cache", cache]
        build += ["--size", 32, "--views", 0, "--workers", chosen.workers]
        print(f"{chosen.rows:,} rows     wall s   CPU s      MB")
        measure("build", *build)
        good = [measure("build again", *build), measure("verify --quick", "verify", "--cache", cache, "--quick")]
    print("reached" if all(good) else "NOT reached")
    return 0 if all(good) else 1


def write_frames(root: Path, num_rows: int) -> None:
    kinds = root / "kinds"
    kinds.mkdir(parents=True)
    for kind in range(KINDS):
        write_scan(kinds, f"{kind}", 0.5 * kind)
    for row in range(num_rows):
        sequence, frame = divmod(row, FRAMES)
        folder = root / f"S{sequence // SEQUENCES:04d}" / f"T{sequence % SEQUENCES}"
        if frame == 0:
            folder.mkdir(parents=True)
            for kind in range(KINDS):
                for suffix in (".mtl", ".png"):
                    os.link(kinds / f"{kind}{suffix}", folder / f"{kind}{suffix}")
        os.link(kinds / f"{row % KINDS}.obj", folder / f"{frame:04d}.obj")


def measure(what: str, *words: object) -> bool:
    """Run a command of stage 1; print and judge what it took: CPU time with its workers', memory without."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "preprocess", *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    output = process.stdout.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    seconds, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
    print(f"{what:16} {time.monotonic() - started:8.1f} {seconds:7.1f} {peak / 1e6:7.0f}", flush=True)
    assert os.waitstatus_to_exitcode(status) == 0, output
    return seconds < MAX_SECONDS and peak < MAX_BYTES


if __name__ == "__main__":
    sys.exit(main())
