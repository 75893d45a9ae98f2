"""Zarr against HDF5 on the same rows: bytes on disk, rows written a second, rows read a second in shuffled order.

    python tests/benchmarks/stores.py [--rows 512] [--size 224] [--rounds 3]

Rows are scans of a synthetic person, rendered once at the size asked for, three views, three modalities, so that they compress
as a user's do. Reading is what training does: batches of 32 rows in shuffled order, the next three read ahead where the store
can, from the page cache (a first round warms it and is not counted); and one row at a time, as a person who browses does. Each
figure is the median of the rounds, the two stores by turns. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from shared.cache import num_shards, open_cache  # noqa: E402
from shared.schema import SHARD_ROWS, CacheInfo  # noqa: E402
from shared.store.storage import STORES, encode_metadata, encode_shard, open_arrays, write_file  # noqa: E402

BATCH_ROWS = 32
READ_AHEAD = 3


def render_rows(folder: Path, size_px: int) -> tuple[CacheInfo, dict[str, np.ndarray]]:
    """A subject's 25 scans of the synthetic data set in BU-3DFE's layout, as a cache's own arrays."""
    command = [sys.executable, "-m", "preprocess"]
    for step in (
        ["synth", "bu3dfe", "--out", str(folder / "scans"), "--subjects", "1"],
        ["build", "bu3dfe", "--root", str(folder / "scans"), "--cache", str(folder / "c"), "--size", str(size_px)],
    ):
        subprocess.run([*command, *step], cwd=ROOT, check=True, capture_output=True)
    cache = open_cache(folder / "c")
    rows = np.arange(cache.info.num_samples)
    return cache.info, {name: cache.arrays.read(name, rows) for name in cache.info.arrays()}


def write_store(path: Path, info: CacheInfo, arrays: dict[str, np.ndarray]) -> float:
    """Encodes and writes every shard, flushed to the disk; returns seconds."""
    started = time.perf_counter()
    for name, data in encode_metadata(info).items():
        write_file(path / name, data)
    num_drawn = len(arrays["scan_to_face"])
    for shard in range(info.num_shards):
        rows = np.arange(shard * SHARD_ROWS, min((shard + 1) * SHARD_ROWS, info.num_samples)) % num_drawn
        files = encode_shard(info, shard, {name: array[rows] for name, array in arrays.items()}, {})
        for name, data in files.items():
            write_file(path / name, data)
    return time.perf_counter() - started


def read_shuffled(path: Path, info: CacheInfo, batch_rows: int, seed: int) -> float:
    """Reads every row's images once, in shuffled batches; returns seconds, opening included."""
    order = np.random.default_rng(seed).permutation(info.num_samples)
    batches = np.array_split(order, -(-len(order) // batch_rows))
    reader = open_arrays(path, info)
    waiting: deque[list[Any]] = deque()
    started = time.perf_counter()
    for batch in batches:
        waiting.append([reader.start(modality, batch) for modality in info.settings.modalities])
        if len(waiting) > READ_AHEAD:
            for read in waiting.popleft():
                read.result()
    for pending in waiting:
        for read in pending:
            read.result()
    return time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        drawn, arrays = render_rows(folder, arguments.size)
        seconds: dict[tuple[str, str], list[float]] = {}
        sizes: dict[str, int] = {}
        for attempt in range(arguments.rounds + 1):  # the first warms the page cache and the libraries
            for store in STORES:
                info = dataclasses.replace(
                    drawn, store=store, num_samples=arguments.rows, num_shards=num_shards(arguments.rows)
                )
                path = folder / f"{store}-{attempt}"
                spent = {
                    "write": write_store(path, info, arrays),
                    "batches": read_shuffled(path, info, BATCH_ROWS, attempt),
                    "single": read_shuffled(path, info, 1, attempt),
                }
                for what, value in spent.items():
                    seconds.setdefault((store, what), []).append(value)
                sizes[store] = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
                subprocess.run(["rm", "-r", str(path)], check=True)
        print(f"{arguments.rows} rows, 3 views of {arguments.size} px, {'+'.join(drawn.settings.modalities)}; "
              f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}\n")  # fmt: skip
        print(
            "| store | MB on disk | kB a row | rows written/s | rows read/s, batches of 32 | rows read/s, one by one |"
        )
        print("|---|---|---|---|---|---|")
        for store in STORES:
            rates = [
                arguments.rows / statistics.median(seconds[store, what][1:]) for what in ("write", "batches", "single")
            ]
            size = sizes[store]
            cells = [f"{size / 1e6:.1f}", f"{size / 1e3 / arguments.rows:.1f}", *(f"{rate:,.0f}" for rate in rates)]
            print(f"| {store} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
