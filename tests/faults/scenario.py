"""Shared by the fault scripts: scans, an undisturbed cache to compare with, builds through the command line, a verdict."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from crashing_reader import CRASHING as CRASHING  # noqa: E402
from crashing_reader import mark as mark  # noqa: E402
from scan_folders import cache_bytes as cache_bytes  # noqa: E402
from scan_folders import write_scan as write_scan  # noqa: E402
from scan_folders import write_scan_folder  # noqa: E402

NUM_SCANS = 140  # three shards


class Fault(Exception):
    """What went wrong, in one line."""


def run_scenario(scenario: Callable[[Path], str]) -> None:
    """Run a scenario in an empty folder and print its outcome; exit with 1 after a Fault."""
    name = Path(sys.argv[0]).stem
    with tempfile.TemporaryDirectory(prefix=f"facet-{name}-") as folder:
        started = time.monotonic()
        try:
            outcome = scenario(Path(folder))
        except Fault as fault:
            print(f"{name}: FAILED: {fault}")
            sys.exit(1)
        print(f"{name}: survived: {outcome} ({time.monotonic() - started:.0f} s)")


def prepare(folder: Path, num_scans: int = NUM_SCANS) -> tuple[Path, dict[str, bytes], float]:
    """Scans, the files of the cache that an undisturbed build makes of them, and the seconds it takes."""
    scans = folder / "scans"
    write_scan_folder(scans, num_scans)
    started = time.monotonic()
    expect(build(scans, folder / "whole"), 0)
    return scans, cache_bytes(folder / "whole"), time.monotonic() - started


def command(scans: Path, cache: Path, *options: str) -> list[str]:
    fixed = ["folder", "--root", str(scans), "--cache", str(cache), "--size", "32", "--workers", "2"]
    return [sys.executable, "-m", "preprocess", "build", *fixed, *options]


def build(
    scans: Path, cache: Path, *options: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(scans, cache, *options),
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )


def start(scans: Path, cache: Path, *options: str) -> subprocess.Popen[str]:
    """A build in a process group of its own."""
    return subprocess.Popen(
        command(scans, cache, *options),
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_group(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def expect(result: subprocess.CompletedProcess[str], exit_code: int, *words: str) -> None:
    """The exit code, no traceback, and after an error one line with these words."""
    if result.returncode != exit_code:
        raise Fault(f"exit code {result.returncode}, expected {exit_code}: {result.stdout}{result.stderr}")
    if "Traceback" in result.stderr:
        raise Fault(f"a traceback: {result.stderr}")
    if exit_code == 2:
        errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        if len(errors) != 1 or not all(word in errors[0] for word in words):
            raise Fault(f"expected one error line with {words}, found {errors}")


def compare(cache: Path, whole: dict[str, bytes]) -> None:
    found = cache_bytes(cache)
    different = sorted(name for name in {*found, *whole} if found.get(name) != whole.get(name))
    if different:
        raise Fault(f"{len(different)} files differ from the undisturbed cache, first {different[0]}")
