"""Damaged files of every format, made at random: read or refused, and no kind of bug escapes the fuzzer."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from fuzz.sandbox import run_target
from fuzz.targets import Target

from shared.errors import ScanError

ROOT = Path(__file__).resolve().parents[1]


def test_damaged_files_are_read_or_refused() -> None:
    command = [sys.executable, "tests/fuzz/run.py", "--mutations", "600", "--seed", "7", "--minutes", "1"]
    skipped = "mesh to images,XLSX,images"  # slow: compilers, large images
    done = subprocess.run([*command, "--skip", skipped], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\| all \| [56]\d\d ", done.stdout)


def test_the_fuzzer_sees_each_kind_of_bug(tmp_path: Path) -> None:
    """A reader that does what none may do: without this, a clean run would prove nothing."""
    outside = tmp_path / "outside.txt"
    outside.write_text("secret")

    def misbehave(path: Path) -> object:
        match path.name:
            case "0":
                raise ScanError(f"{path}: refused, as it should be")
            case "1":
                os.kill(os.getpid(), signal.SIGKILL)
            case "2":
                return bytearray(3 << 30)
            case "3":
                return outside.read_text()
            case "4":
                raise ScanError("no file is named")
            case "5":
                raise ScanError(f"{path}: {'a' * 2000}")
            case "6":
                return np.full(3, np.inf)
            case "7":
                signal.setitimer(signal.ITIMER_PROF, 0.05)  # as if the 5 s were nearly over
                while True:
                    pass
        return None

    def prepare(_rng: random.Random, case: int, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        return folder / str(case)

    target = Target("misbehaving", 1, prepare, misbehave)
    tally = run_target(target, range(9), tmp_path, seed=0, deadline=time.monotonic() + 60)
    assert (tally.cases, tally.read, tally.refused) == (9, 1, 1)
    assert dict(tally.findings) == {
        "crash": 1, "MemoryError": 1, "outside read": 1, "bad message": 2, "breaks its rules": 1, "hang": 1,
    }  # fmt: skip
