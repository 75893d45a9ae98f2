"""Accuracy of the demo's training on unseen subjects over three seeds, and the same with shuffled training labels.

Run after `make demo`:  .venv/bin/python tests/benchmarks/demo_accuracy.py     (about 10 minutes on 2 cores)
Every seed draws its own folds, weights and order. Exit code 0 when the mean accuracy is at least 0.90 and, with shuffled
labels, the 95 % interval of the mean (Student's t over the runs) contains chance, 1/6; else 1.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy import stats

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "data_cache" / "demo" / "cache"
SEEDS = (0, 1, 2)
CHANCE, WANTED = 1 / 6, 0.90


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    if not (CACHE / "cache.json").is_file():
        print(f"{CACHE}: no cache; run `make demo` first", file=sys.stderr)
        return 2
    options = demo_options()
    print(f"python -m train fit {' '.join(options)}")
    with tempfile.TemporaryDirectory() as folder:
        real = np.array([run(Path(folder), options, seed) for seed in SEEDS])
        control = np.array([run(Path(folder), options, seed, shuffled=True) for seed in SEEDS])
    half = stats.t.ppf(0.975, len(control) - 1) * stats.sem(control)
    low, high = control.mean() - half, control.mean() + half
    good = real.mean() >= WANTED and low <= CHANCE <= high
    print(f"unseen subjects, seeds {SEEDS}: {np.round(real, 3)}, mean {real.mean():.3f} (at least {WANTED})")
    print(
        f"shuffled training labels: {np.round(control, 3)}, mean {control.mean():.3f}, "
        f"95 % interval {low:.3f} to {high:.3f} (must contain {CHANCE:.3f})"
    )
    print("pass" if good else "FAIL")
    return 0 if good else 1


def demo_options() -> list[str]:
    """What the Makefile's demo gives to `fit`, but for cache, run and seed: the recipe stands in one place."""
    line = next(line for line in (ROOT / "Makefile").read_text().splitlines() if "-m train fit" in line)
    words = shlex.split(re.sub(r"\$\(\w+\)", "", line.split("-m train fit")[1]))
    kept: list[str] = []
    for name, value in zip(words[::2], words[1::2], strict=True):
        if name not in ("--cache", "--out", "--seed"):
            kept += [name, value]
    return kept


def run(folder: Path, options: list[str], seed: int, *, shuffled: bool = False) -> float:
    out = folder / f"{'shuffled' if shuffled else 'real'}-{seed}"
    command = [sys.executable, "-m", "train", "fit", "--cache", str(CACHE), "--out", str(out), *options]
    command += ["--seed", str(seed)]
    if shuffled:
        command += ["--shuffle-labels"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        sys.exit(f"fit failed with exit code {done.returncode}")
    accuracy = float(json.loads((out / "metrics.json").read_text())["accuracy"])
    print(f"{'shuffled labels' if shuffled else 'real labels':16} seed {seed}: {accuracy:.3f}", flush=True)
    return accuracy


if __name__ == "__main__":
    sys.exit(main())
