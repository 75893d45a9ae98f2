"""One reader in a process of its own: python measure.py NAME FOLDER WORKERS EPOCHS. Prints a line of JSON.

The first epoch warms the page cache and is checked: every byte of every sample is added up. The others are timed. What
takes longer than CUT_SECONDS is cut there, and not checked.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import psutil

CUT_SECONDS = 6.0
NUM_SAMPLES = 512


def peak_mb() -> float:
    """The most that this process had in memory, and what its workers have of their own beside what they share with it."""
    status = Path("/proc/self/status").read_text()
    own = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024
    workers = psutil.Process().children(recursive=True)
    return (own + sum(worker.memory_full_info().uss for worker in workers)) / 1e6


def main() -> None:
    name, folder, workers, epochs = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    if name.startswith("ours"):
        sys.path[:0] = [str(Path(__file__).parents[3]), str(Path(__file__).parents[2])]
    # Each module imports what only its own environment has.
    module = import_module("benchmarks.streaming_peers.read_ours" if name.startswith("ours") else "read_peers")
    epoch_of = module.OPENERS[name](folder, workers)
    rates, total, is_whole = [], 0, False
    for epoch in range(1 + epochs):
        num, started = 0, time.perf_counter()
        for batch in epoch_of(epoch):
            array = np.asarray(batch)
            num += len(array)
            if epoch == 0:
                total += int(array.sum(dtype=np.uint64))
            else:
                array[:, 0, 112, 112, 0].sum()
            if time.perf_counter() - started > CUT_SECONDS:
                break
        is_whole = is_whole if epoch else num == NUM_SAMPLES
        rates.append(num / (time.perf_counter() - started))
    print(json.dumps({"rates": rates[1:], "peak_mb": peak_mb(), "sum": total if is_whole else None}), flush=True)


if __name__ == "__main__":
    main()
