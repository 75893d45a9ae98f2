"""Runs readers on damaged files in child processes, so that a crash, a hang or too much memory is a finding and not the end."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from mmap import mmap
from pathlib import Path

import numpy as np
from fuzz.targets import Target

from preprocess.geometry.mesh import Mesh
from shared.errors import FacetError

MAX_SECONDS = 5.0  # of computing, for one case
_MAX_WAIT_SECONDS = 60.0  # on a busy machine, or for something that never comes
MAX_BYTES = 2 << 30
_CASES_A_CHILD = 4000
_MAX_FINDINGS = 20  # of one target: what follows is most likely more of the same
_READ, _REFUSED, _CASE, _PEAK = range(4)  # what a child tells while it runs: four numbers in shared memory
_MAY_OPEN = (sys.prefix, sys.base_prefix, str(Path(__file__).resolve().parents[2]), "/usr/lib", "/usr/share/zoneinfo")


@dataclass
class Tally:
    """What came of a target's cases. findings: kind → how often; examples: a line each, with the case that shows it."""

    cases: int = 0
    read: int = 0
    refused: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0  # of a child beyond what it had before its first case
    findings: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)


def run_target(target: Target, cases: range, folder: Path, *, seed: int, deadline: float) -> Tally:
    """Runs a target's cases, as many as fit before the deadline (time.monotonic)."""
    tally = Tally()
    started = time.monotonic()
    if not target.native:
        target.warm_up(folder / "outer" / "case")  # children inherit what it has loaded
    place = cases.start
    while place < cases.stop and time.monotonic() < deadline and sum(tally.findings.values()) < _MAX_FINDINGS:
        place = _run_child(target, range(place, min(place + _CASES_A_CHILD, cases.stop)), folder, seed, deadline, tally)
    tally.seconds = time.monotonic() - started
    return tally


def _run_child(target: Target, cases: range, folder: Path, seed: int, deadline: float, tally: Tally) -> int:
    """Runs cases in a child until they are through or the child is lost. Returns the next case."""
    shared = mmap(-1, 32)
    log = folder / "findings.jsonl"
    shared[:] = struct.pack("<4q", 0, 0, cases.start, 0)
    log.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _run_cases(target, cases, folder, seed, deadline, shared, log)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    read, refused, case, peak = struct.unpack("<4q", shared[:])
    tally.read += read
    tally.refused += refused
    tally.peak_bytes = max(tally.peak_bytes, peak)
    last = case
    if log.exists():
        for line in log.read_text().splitlines():
            kind, where, what = json.loads(line)
            tally.findings[kind] += 1
            tally.examples.append(f"{kind}: {target.name} case {where}: {what}")
    if status:
        signum = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        kind = "hang" if signum in (signal.SIGALRM, signal.SIGPROF) else "crash"
        what = signal.Signals(signum).name if signum else f"exit code {os.WEXITSTATUS(status)}"
        tally.findings[kind] += 1
        tally.examples.append(f"{kind}: {target.name} case {last}: {what}")
    tally.cases += last + 1 - cases.start
    return last + 1


def _run_cases(target: Target, cases: range, folder: Path, seed: int, deadline: float, shared: mmap, log: Path) -> None:
    case_folder = folder / "outer" / "case"
    target.warm_up(case_folder)
    opened: list[str] = []
    _watch_opens(opened)
    baseline_bytes = _resident_bytes()
    address_space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (address_space + MAX_BYTES, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("error")  # a reader that lets NumPy warn prints on the user's terminal
    counts = [0, 0, cases.start, 0]
    may_open = (
        *_MAY_OPEN,
        str(folder.resolve() / "outer" / "case"),
        str(folder / "outer" / "case"),
        str(Path(tempfile.gettempdir()) / "facet-"),
    )
    with log.open("w") as findings:
        for case in cases:
            counts[_CASE] = case
            shared[:] = struct.pack("<4q", *counts)
            rng = random.Random(f"{seed} {target.name} {case}")
            path = target.prepare(rng, case, case_folder)
            opened.clear()
            signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)  # either ends the child: the parent sees by which signal
            signal.setitimer(signal.ITIMER_REAL, _MAX_WAIT_SECONDS)
            kind, what = _judge(target, path, case_folder)
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.setitimer(signal.ITIMER_PROF, 0)
            where = os.path.abspath if target.follows_links else os.path.realpath
            outside = [name for name in opened if not where(name).startswith(may_open)]
            if outside and kind in ("read", "refused"):
                kind, what = "outside read", outside[0]
            if kind in ("read", "refused"):
                counts[_READ if kind == "read" else _REFUSED] += 1
            else:
                findings.write(json.dumps([kind, case, what[:600]]) + "\n")
                findings.flush()
            if case % 50 == 0 or case == cases.stop - 1:
                counts[_PEAK] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - baseline_bytes
                if time.monotonic() > deadline:
                    break
        shared[:] = struct.pack("<4q", *counts)


def _judge(target: Target, path: Path, case_folder: Path) -> tuple[str, str]:
    """The outcome of one case: "read", "refused", or what is wrong."""
    try:
        result = target.read(path)
        wrong = _check(result)
        return ("breaks its rules", wrong) if wrong else ("read", "")
    except FacetError as error:
        message = str(error)
        if "\n" in message or "\r" in message or len(message) > 1000:
            return "bad message", repr(message)
        if target.names_file and str(case_folder) not in message:
            return "bad message", f"names no file: {message!r}"
        return "refused", ""
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        own = next(
            (f for f in reversed(traceback.extract_tb(error.__traceback__)) if "/preprocess/" in f.filename), frame
        )
        return type(error).__name__, f"{str(error)[:200]} at {own.filename}:{own.lineno} ({own.line})"


def _check(result: object) -> str:
    """What a result breaks of its rules; written apart from Mesh's own checks."""
    if isinstance(result, np.ndarray):
        return "infinite value" if result.dtype.kind == "f" and np.isinf(result).any() else ""
    if not isinstance(result, Mesh):
        return ""
    vertices, triangles = result.vertices_mm, result.triangles
    if len(result.notes) > 20 or not all(note.isprintable() and len(note) < 600 for note in result.notes):
        return f"notes: {result.notes!r:.300}"
    if vertices.dtype != np.float32 or vertices.ndim != 2 or vertices.shape[1] != 3 or len(vertices) < 3:
        return f"vertices {vertices.dtype} {vertices.shape}"
    if not np.isfinite(np.square(vertices.astype(np.float32)).sum()):
        return f"coordinates whose squares overflow: {np.abs(vertices).max()}"
    if triangles.dtype != np.int32 or triangles.ndim != 2 or triangles.shape[1] != 3 or len(triangles) < 1:
        return f"triangles {triangles.dtype} {triangles.shape}"
    if not ((triangles >= 0) & (triangles < len(vertices))).all():
        return f"triangles name {triangles.min()} to {triangles.max()} of {len(vertices)} vertices"
    if result.uv is not None:
        if result.uv.shape != (len(triangles), 3, 2):
            return f"texture coordinates {result.uv.shape}"
        textured = result.uv[~np.isnan(result.uv).all(axis=(1, 2))]
        if not np.isfinite(textured * 65536).all():
            return f"texture coordinates up to {np.abs(textured).max()}"
    if result.texture is not None and (result.uv is None or result.texture.ndim != 3 or not result.texture.size):
        return f"texture {result.texture.shape}"
    if result.landmarks_mm is not None and np.isinf(result.landmarks_mm).any():
        return "an infinite landmark"
    return ""


def _watch_opens(opened: list[str]) -> None:
    def hook(event: str, arguments: tuple) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes):
            opened.append(os.fsdecode(arguments[0]))
        elif event in ("socket.connect", "subprocess.Popen", "os.system"):
            opened.append(f"/{event}")

    sys.addaudithook(hook)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
