"""The viewer in a browser on a large cache: starting up, the first picture, a page of sixty, filters, memory.

.venv/bin/python tests/benchmarks/viewer_speed.py [--samples 10000] [--subjects 0] [--rounds 5]
(about a minute for 10,000, three for 100,000; needs Chromium and Playwright)
Rows: three 224 × 224 views of texture, normal and depth, frames of sequences or, with --subjects, single scans of so many
people; shards are links to two that hold images. Each round is a server and a browser that know nothing yet; the server's
memory of drawn pictures is warm for the page that is gone back to, and cold for the others.
Exit code 0 when, in the middle round, the first picture is there in < 1 s, a page of 60 samples in < 0.3 s, and the server
never takes more than 500 MB.
"""

from __future__ import annotations

import argparse
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests"))

from browser import Watched, browsed, find_chromium  # noqa: E402
from large_cache import write_large_cache  # noqa: E402

SHOWN = "[...document.querySelectorAll('.tile img')].filter(i => i.complete && i.naturalWidth > 0).length"


NAMES = (
    "server up, from the command line",
    "first picture",
    "first page, all pictures",
    "another page, samples",
    "… all 60 pictures",
    "back, all pictures",
    "last page, all pictures",
    "one class of all, all pictures",
    "one subject, a picture",
    "rows that are not valid",
    "a sample's page, relief lit",
    "coverage, its tables",
    "coverage, the first pictures that stand out",
)
TARGET_FIRST_SECONDS, TARGET_PAGE_SECONDS, TARGET_MB = 1.0, 0.3, 500


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--subjects", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rounds: list[list[float]] = []
    memory: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cache"
        write_large_cache(path, arguments.samples, num_subjects=arguments.subjects)
        for _ in range(arguments.rounds):
            seconds, megabytes = _measure(path, arguments.samples)
            rounds.append(seconds)
            memory.append(megabytes)
    columns = list(zip(*rounds, strict=True))
    middle = dict(zip(NAMES, map(statistics.median, columns), strict=True))
    print(f"{arguments.samples:,} samples\n\n| | seconds (median) | range |\n|---|---|---|")
    for name, values in zip(NAMES, columns, strict=True):
        print(f"| {name} | {middle[name]:.2f} | {min(values):.2f} to {max(values):.2f} |")
    print(f"| peak memory of the server | {statistics.median(memory):.0f} MB | {min(memory)} to {max(memory)} MB |")
    fast = middle["first picture"] < TARGET_FIRST_SECONDS and middle["another page, samples"] < TARGET_PAGE_SECONDS
    return 0 if fast and max(memory) < TARGET_MB else 1


def _measure(path: Path, num_rows: int) -> tuple[list[float], int]:
    began = time.perf_counter()
    command = [sys.executable, "-m", "preprocess", "inspect", "--cache", str(path), "--no-open"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        try:
            assert server.stdout
            found = re.search(r"(http://\S+)/\?token=\S+", server.stdout.readline())
            assert found, "the server did not start"
            up = time.perf_counter() - began
            with browsed(find_chromium()) as watched:
                seconds = _visit(watched, found[0], found[1], num_rows)
            peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{server.pid}/status").read_text())
            return [up, *seconds], int(peak[1]) // 1024 if peak else 0
        finally:
            server.send_signal(signal.SIGINT)


def _visit(watched: Watched, first_address: str, address: str, num_rows: int) -> list[float]:
    began = time.perf_counter()
    watched.page.goto(first_address, wait_until="commit")
    watched.until(f"{SHOWN} > 0")
    first = time.perf_counter() - began
    watched.until(f"{SHOWN} === 60")
    last = -(-num_rows // 60)
    return [
        first,
        time.perf_counter() - began,
        *_turn(watched, "PageDown", 2),
        _turn(watched, "PageUp", 1)[1],
        _turn(watched, "End", last, num_rows - 60 * (last - 1))[1],
        _open(watched, f"{address}/?label=anger", f"{SHOWN} >= 59"),
        _open(
            watched,
            f"{address}/?subject={watched.page.locator('.tile .name').first.inner_text().split('/')[0]}",
            f"{SHOWN} > 0",
        ),
        _open(watched, f"{address}/?validity=invalid", "document.querySelector('.tile .failed')"),
        _open(watched, f"{address}/sample/{num_rows // 2}", "document.querySelectorAll('.views canvas').length === 3"),
        _open(watched, f"{address}/coverage", "document.querySelector('main h2')"),
        _open(watched, f"{address}/coverage", "document.body.textContent.includes('Nearly the same')"),
    ]


def _open(watched: Watched, address: str, shown: str) -> float:
    began = time.perf_counter()
    watched.page.goto(address, wait_until="commit")
    watched.until(shown)
    return time.perf_counter() - began


def _turn(watched: Watched, key: str, page: int, num_tiles: int = 60) -> tuple[float, float]:
    """Seconds until a page's samples stand there, and until all of their pictures do."""
    began = time.perf_counter()
    watched.page.keyboard.press(key)
    watched.until(f"document.querySelector('.pages .where').textContent.startsWith('page {page:,} ')")
    samples = time.perf_counter() - began
    watched.until(f"{SHOWN} >= {num_tiles - 1}")  # one of them may not be valid
    return samples, time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
