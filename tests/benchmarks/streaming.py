"""Samples a second of our stream and of other loaders: the same images, batches of 32, fully shuffled, side by side.

.venv/bin/python tests/benchmarks/streaming.py [--peers data_cache/streaming_peers] [--data DIR] [--rounds 2]   (10 minutes)
.venv/bin/python tests/benchmarks/streaming.py --minutes 60 [--data DIR]
A sample is five renders of 224 × 224 × 3 bytes; there are 512 (385 MB), in the page cache. Each loader runs in a process of its
own, which reads one epoch that is checked, then timed ones; each is tried with 0 and 2 worker processes where it has such, all
in turn, and keeps its best epoch. Peers that can store raw bytes do. tensorstore, which reads our Zarr files where they lie in
object storage, and a gather in RAM are shown beside. Memory is the peak of a loader's processes.
--minutes: instead of comparing, reads for so long and watches the memory of the process.
Exit code 0 when ours reach every target ratio (or, with --minutes, when memory stays flat); else 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from benchmarks.streaming_peers import read_ours, read_peers  # noqa: E402
from benchmarks.streaming_peers.environment import install_peers  # noqa: E402
from benchmarks.streaming_peers.images import make_images, open_images, write_cache  # noqa: E402

from shared.errors import FacetError, run_command_line  # noqa: E402

HERE = Path(__file__).parent / "streaming_peers"
GATHER = "gather into a reused buffer"
NO_PEERS = ("tensorstore", GATHER)  # the library that reads our files elsewhere, and what memory allows: shown beside
TARGETS = (("ours, Zarr, none", 1.0), ("ours, Zarr, lz4", 1.0))
PRELOADED, PRELOADED_TARGET = "ours, preloaded in RAM", 0.8
EPOCHS = 3
GROWTH_MB = 16.0  # what a flat process may grow by, after its first tenth of the time
S3_VARIABLES = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass
class Candidate:
    name: str
    workers: int
    python: Path
    rates: list[float] = field(default_factory=list)  # samples a second, an epoch each
    peak_mb: float = 0.0
    error: str = ""

    @property
    def is_ours(self) -> bool:
        return self.name in read_ours.OPENERS

    @property
    def best(self) -> float:
        return max(self.rates, default=0.0)

    def measure(self, folder: Path, byte_sum: int | None) -> int | None:
        """One process. Returns the sum over all bytes that it delivered, None where it cut the epoch or failed."""
        command = [str(self.python), str(HERE / "measure.py"), self.name, str(folder), str(self.workers), str(EPOCHS)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=HERE)
        if done.returncode != 0:
            self.error = (done.stderr.strip() or "no message").splitlines()[-1][:100]
            return None
        found = json.loads(done.stdout.strip().splitlines()[-1])
        if byte_sum is not None and found["sum"] not in (None, byte_sum):
            raise FacetError(f"{self.name}: delivers other bytes than it was given")
        self.rates += found["rates"]
        self.peak_mb = max(self.peak_mb, found["peak_mb"])
        return found["sum"]


def main() -> int:
    options = parse_options()
    with contextlib.ExitStack() as stack:
        folder = options.data or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder = folder.resolve()
        print(f"rendering 512 samples in {folder} …", flush=True)
        make_images(folder)
        if options.minutes:
            return watch_memory(folder, options.minutes)
        print(f"installing the peers in {options.peers} …", flush=True)
        python = install_peers(options.peers.absolute())
        written = subprocess.run(
            [str(python), str(HERE / "write_peers.py"), str(folder)], capture_output=True, text=True
        )
        if written.returncode != 0:
            raise FacetError(f"the peers' files cannot be written: {written.stderr.strip().splitlines()[-1]}")
        stack.enter_context(serve_s3(folder))
        words = options.only.split(",")
        candidates = [c for c in find_candidates(python) if any(word in c.name for word in words)]
        byte_sum = None
        for number in range(options.rounds):
            for candidate in candidates:
                byte_sum = candidate.measure(folder, byte_sum) or byte_sum
                if not number:
                    print(describe(candidate), flush=True)
    return report(candidates)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", type=Path, default=ROOT / "data_cache" / "streaming_peers", help="their environment")
    parser.add_argument("--data", type=Path, help="keep the images here, for another time (3 GB; default: deleted)")
    parser.add_argument(
        "--only", default="", help="loaders whose names hold one of these words, for example ours,gather"
    )
    parser.add_argument("--rounds", type=int, default=2, help="processes of each loader; the best epoch counts")
    parser.add_argument("--minutes", type=float, default=0.0, help="watch the memory for so long instead")
    return parser.parse_args()


def find_candidates(python: Path) -> list[Candidate]:
    ours = [Candidate(name, 0, Path(sys.executable)) for name in read_ours.OPENERS]
    peers = [
        Candidate(name, workers, python)
        for name in read_peers.OPENERS
        for workers in ((0,) if name in read_peers.WITHOUT_WORKERS else (0, 2))
    ]
    return [*ours, *peers]


@contextlib.contextmanager
def serve_s3(folder: Path) -> Iterator[None]:
    """An S3 server on loopback, in memory, with the Zarr store in it; the environment leads there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        os.environ.update(S3_VARIABLES, AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}")
        os.environ[read_ours.S3_URL] = "s3://faces/zarr"
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.2)
        import s3fs

        s3fs.S3FileSystem().mkdir("faces")
        cache = open_images(str(folder / "zarr-lz4"))
        import numpy as np

        images = np.load(folder / "images.npy", mmap_mode="r")
        write_cache(os.environ[read_ours.S3_URL], cache.info, cache.samples, images)
        yield
    finally:
        server.kill()
        server.wait()


def describe(candidate: Candidate) -> str:
    text = f"failed: {candidate.error}" if candidate.error else f"{candidate.best:,.0f} samples/s"
    return f"  {candidate.name}, {candidate.workers} workers: {text}"


def report(candidates: list[Candidate]) -> int:
    """Prints the table and what was reached; returns the exit code."""
    by_name = {c.name: c for c in sorted(candidates, key=lambda c: c.best)}  # each at its best setting
    peers = [c for c in by_name.values() if not c.is_ours and c.name not in NO_PEERS]
    if not peers:
        raise FacetError("--only: names no peer to compare with")
    fastest = max(peers, key=lambda c: c.best)
    print(f"\n{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}\n")
    print(f"| loader | workers | samples/s | of {fastest.name} | peak MB |\n|---|---|---|---|---|")
    for c in sorted(by_name.values(), key=lambda c: -c.best):
        rate = f"{c.best:,.0f}" if c.rates else f"failed: {c.error}"
        print(f"| {c.name} | {c.workers} | {rate} | {c.best / fastest.best:.2f} × | {c.peak_mb:,.0f} |")
    goals = [(name, fastest.name, target) for name, target in TARGETS]
    goals.append((PRELOADED, GATHER, PRELOADED_TARGET))
    print()
    all_reached = True
    for name, other, target in goals:
        if name in by_name and other in by_name:
            ratio = by_name[name].best / by_name[other].best
            all_reached &= ratio >= target
            print(
                f"{name} over {other}: {ratio:.2f} × (target {target:g} ×) {'reached' if ratio >= target else 'MISSED'}"
            )
    return 0 if all_reached else 1


def watch_memory(folder: Path, minutes: float) -> int:
    """Reads epoch after epoch; the process' memory must not grow after the first tenth of the time."""
    import psutil

    process, epoch_of = psutil.Process(), read_ours.OPENERS["ours, Zarr, lz4"](folder, 0)
    started, epoch, num = time.monotonic(), 0, 0
    marks: list[float] = []
    print("| minutes | samples | MB |\n|---|---|---|")
    while (spent := (time.monotonic() - started) / 60) < minutes:
        for batch in epoch_of(epoch):
            num += len(batch)
        epoch += 1
        if spent >= minutes / 10 * (len(marks) + 1):
            marks.append(process.memory_info().rss / 1e6)
            print(f"| {spent:.1f} | {num:,} | {marks[-1]:.1f} |", flush=True)
    growth = max(marks) - marks[0]
    print(f"\ngrowth after the first tenth: {growth:.1f} MB (may be {GROWTH_MB:g})")
    return 0 if growth <= GROWTH_MB else 1


if __name__ == "__main__":
    sys.exit(run_command_line(main))
