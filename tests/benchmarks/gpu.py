"""Everything that only a GPU can show: its tests, the share of waiting, the MFU, rendering in the loop, a fold from embeddings.

    make gpu        or        .venv/bin/python tests/benchmarks/gpu.py [--out FILE] [--only tests,training,preload,repeated]

Set half an hour aside: most of it is compiling, and drawing the faces. Writes what each part printed, with its exit code, the
machine and the versions, into one file of Markdown (default gpu-results.md here), for RESULTS.md to quote. Exit code 0: all
parts reached their targets; 1: one missed them or failed; 2: no GPU here.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import TextIO

import torch

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = Path("tests/benchmarks")


def list_parts(scratch: Path) -> dict[str, tuple[str, list[str]]]:
    """Name → what it measures, the command. Both trainings share the faces and the cache that the first one makes."""
    training = [str(BENCHMARKS / "gpu_training.py"), "--out", str(scratch)]
    return {
        "tests": (
            "what the GPU computes is what the CPU computes",
            ["-m", "pytest", "-v", "-rs", "tests/test_cuda.py"],
        ),
        "training": ("ViT-B/16 fully tuned, images read from their files", training),
        "preload": ("the same, images in the GPU's memory", [*training, "--preload", "gpu"]),
        "repeated": ("a fold from embeddings", [str(BENCHMARKS / "repeated_training.py")]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-results.md"))
    parser.add_argument("--only", default="tests,training,preload,repeated")
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device here: nothing is measured")
        return 2
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    codes = {}
    with tempfile.TemporaryDirectory() as scratch, chosen.out.open("w", encoding="utf-8") as report:
        parts = list_parts(Path(scratch))
        report.write(
            f"# {date.today()} · {', '.join(names)} · {os.cpu_count()} cores · Python {sys.version.split()[0]}, torch "
            f"{torch.__version__}, CUDA {torch.version.cuda}\n"
        )
        for name in chosen.only.split(","):
            about, command = parts[name]
            report.write(f"\n## {name}: {about}\n\n`python {' '.join(command)}`\n\n")
            codes[name] = run(command, report)
            report.write(f"\nexit code {codes[name]}\n")
    print(
        f"\n{chosen.out}: " + ", ".join(f"{name} {'reached' if not code else 'MISSED'}" for name, code in codes.items())
    )
    return int(any(codes.values()))


def run(command: list[str], report: TextIO) -> int:
    """Runs a Python script from the checkout; what it prints is shown and kept. Returns its exit code."""
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            report.write(line)
            report.flush()
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
