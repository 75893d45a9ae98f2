"""How long until something happens: `python -m train --help`, and from a command to its first training step on a CPU.

    python tests/benchmarks/start_up.py [--repeats 5]

What importing torch and open_clip alone takes is measured in turn with it and taken away. Exit code 1: a target is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from conftest import write_tiny_cache  # noqa: E402

HELP_SECONDS, FIRST_STEP_SECONDS = 0.5, 2.0
# The command itself, which ends when its first step is done.
FIRST_STEP = """
import os, sys
import train.training.loop
step = train.training.loop.train_step
def first(*arguments, **options):
    step(*arguments, **options)
    os._exit(0)
train.training.loop.train_step = first
from train.__main__ import main
main(sys.argv[1:])
os._exit(1)
"""


def measure(command: list[str]) -> float:
    """Wall seconds of a command that must end with 0."""
    started = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description="Times how long commands take to begin.")
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        write_tiny_cache(cache, model="facet-tiny", text_dim=128, size_px=96, num_subjects=20)
        runs = iter(range(10_000))
        fit = ["fit", "--cache", str(cache), "--pretrained", "none", "--device", "cpu", "--epochs", "2", "--folds", "4"]
        kinds: dict[str, Callable[[], list[str]]] = {
            "--help": lambda: ["-m", "train", "--help"],
            "import torch, open_clip": lambda: ["-c", "import torch, open_clip"],
            "command to first step": lambda: ["-c", FIRST_STEP, *fit, "--out", f"{folder}/run{next(runs)}"],
        }
        seconds: dict[str, list[float]] = {name: [] for name in kinds}
        for repeat in range(repeats + 1):
            for name, command in kinds.items():
                taken = measure([sys.executable, *command()])
                if repeat:  # the first run warms the page cache
                    seconds[name].append(taken)
    beyond = [
        step - imports
        for step, imports in zip(seconds["command to first step"], seconds["import torch, open_clip"], strict=True)
    ]
    rows = {**seconds, "first step beyond the imports": beyond}
    targets = {"--help": HELP_SECONDS, "first step beyond the imports": FIRST_STEP_SECONDS}
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {repeats} runs in turn\n")
    print("| what | median s | best s | worst s | target s |\n|---|---|---|---|---|")
    missed = False
    for name, values in rows.items():
        target = targets.get(name)
        missed |= target is not None and statistics.median(values) > target
        print(
            f"| {name} | {statistics.median(values):.2f} | {min(values):.2f} | {max(values):.2f} "
            f"| {'' if target is None else f'< {target}'} |"
        )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
