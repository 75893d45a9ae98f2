"""The people of a synthetic data set, and the folder they are written to, the same bytes for any number of processes."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from preprocess.datasets.scan import SYNTHETIC_MARKER
from preprocess.geometry.mesh import Mesh
from preprocess.synth.head import Person
from preprocess.synth.identity import Identity, draw_identity
from shared.errors import FacetError
from shared.processors import num_cores
from shared.store.paths import is_litter
from shared.store.storage import write_file

COMPLETE = ".complete"  # in a subject's folder: its numbers of files and of scans, written after the last file
# Bumped when equal parameters would give other files.
REVISION = 3
SCANNER_NOISE_MM = 0.05


def draw_person(seed: int, number: int, *, female: bool) -> tuple[Identity, np.random.Generator]:
    """Draw person `number` of a seed. Return also the generator for this person's scans; other people do not affect it."""
    rng = np.random.default_rng([seed, number])
    return draw_identity(rng, female=female), rng


def name_subjects(num_women: int, num_men: int, *, num_digits: int = 3) -> list[str]:
    """Return F001, M001, F002, … while both have names left; there are no fewer women than men."""
    names = []
    for k in range(1, num_women + 1):
        names += [f"{sex}{k:0{num_digits}d}" for sex in ("FM" if k <= num_men else "F")]
    return names


def pose_randomly(mesh: Mesh, rng: np.random.Generator, *, degrees: float, shift_mm: float) -> Mesh:
    """Turn and shift a scan a little at random, as scanners do. Rigid."""
    yaw, pitch, roll = np.deg2rad(rng.normal(0, degrees, 3))
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    turn = (
        np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        @ np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    )
    shift = rng.normal(0, shift_mm, 3)
    return mesh.move(lambda points: (points @ turn.T + shift).astype(np.float32))


@dataclass(frozen=True)
class SubjectTask:
    """One subject to write. out: the data set's root; number: 0 the first; num_frames: of a sequence, 0 for single scans."""

    out: Path
    name: str
    number: int
    female: bool
    seed: int
    num_frames: int


@dataclass(frozen=True)
class Layout:
    """How synthetic faces are written as one data set.

    subjects: all names there are, in order; a name that starts with F is a woman's, of others each second one is.
    folder: of a subject, below the root; its files are counted to know a subject that is complete.
    write_subject: (task, person, random numbers of the person's scans) → number of scans. Files are written plainly, without
        waiting for the disk: an interrupted subject is written again.
    frames: default, least and largest number of frames of a sequence; None for single scans.
    finish: (root, number of subjects, seed, number of frames), writes the files that all subjects share.
    """

    name: str
    subjects: Sequence[str]
    folder: str
    write_subject: Callable[[SubjectTask, Person, np.random.Generator], int]
    frames: tuple[int, int, int] | None = None
    finish: Callable[[Path, int, int, int], None] | None = None


def write_population(
    layout: Layout,
    out: Path,
    *,
    num_subjects: int,
    num_frames: int | None = None,
    seed: int = 0,
    progress: bool = True,
    num_workers: int | None = None,
) -> int:
    """Write a data set of synthetic faces, a process per core; subjects that are complete are not written again.

    Returns:
        The number of scans.
    Raises:
        FacetError: a number outside what the layout holds, the folder holds something else, or a worker died.
    """
    if not 1 <= num_subjects <= len(layout.subjects):
        first, last = layout.subjects[0], layout.subjects[-1]
        raise FacetError(
            f"--subjects {num_subjects}: {layout.name} holds 1 to {len(layout.subjects)} subjects ({first} to {last})"
        )
    parameters: dict[str, object] = {"layout": layout.name, "seed": seed}
    if layout.frames is None:
        if num_frames is not None:
            raise FacetError(f"--frames: {layout.name} holds single scans, not sequences; leave it out")
    else:
        default, least, largest = layout.frames
        num_frames = default if num_frames is None else num_frames
        if not least <= num_frames <= largest:
            raise FacetError(f"--frames {num_frames}: a sequence of {layout.name} has {least} to {largest} frames")
        parameters["frames"] = num_frames
    tasks = [
        SubjectTask(
            out, name, number, name[0] == "F" or (name[0] not in "FM" and number % 2 == 0), seed, num_frames or 0
        )
        for number, name in enumerate(layout.subjects[:num_subjects])
    ]
    _claim(out, parameters)
    num_scans = _write_subjects(layout, tasks, progress=progress, num_workers=num_workers)
    if layout.finish is not None:
        layout.finish(out, num_subjects, seed, num_frames or 0)
    return num_scans


def _write_subjects(layout: Layout, tasks: list[SubjectTask], *, progress: bool, num_workers: int | None) -> int:
    workers = min(num_workers or num_cores(), len(tasks))
    with tqdm(desc="synth", total=len(tasks), unit="subject", disable=not progress) as bar:
        num_scans = 0
        if workers <= 1:
            for task in tasks:
                num_scans += _write_subject(layout, task)
                bar.update()
            return num_scans
        pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
        try:
            for future in [pool.submit(_write_subject, layout, task) for task in tasks]:
                num_scans += future.result()
                bar.update()
            return num_scans
        except BrokenProcessPool as error:
            raise FacetError(
                "a worker process died, most often for want of memory; run the same command again"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _write_subject(layout: Layout, task: SubjectTask) -> int:
    """Write a subject unless it is complete; return its number of scans."""
    folder = task.out / layout.folder.format(task.name)
    marker = folder / COMPLETE
    try:
        num_files, num_scans = (int(word) for word in marker.read_text().split())
        if num_files == _count_files(folder):
            return num_scans
    except (OSError, ValueError):  # not begun, or interrupted
        pass
    folder.mkdir(parents=True, exist_ok=True)
    identity, rng = draw_person(task.seed, task.number, female=task.female)
    with threadpool_limits(1):  # several processes: threads that wait for a core in use take many times as long
        num_scans = layout.write_subject(task, Person(identity), rng)
    marker.write_text(f"{_count_files(folder)} {num_scans}\n")
    return num_scans


def _count_files(folder: Path) -> int:
    return sum(path.is_file() and path.name != COMPLETE for path in folder.rglob("*"))


def _claim(out: Path, parameters: dict[str, object]) -> None:
    """Mark the folder as this data set's; refuse one that holds anything else."""
    text = (
        "Synthetic faces made by `python -m preprocess synth`; nobody real is shown.\n"
        + json.dumps({**parameters, "revision": REVISION}, sort_keys=True)
        + "\n"
    )
    if out.is_dir() and any(not is_litter(path.name) for path in out.iterdir()):
        marker = out / SYNTHETIC_MARKER
        if not marker.is_file():
            raise FacetError(f"{out}: not empty; choose a new folder for --out")
        if marker.read_text() != text:
            raise FacetError(
                f"{out}: holds another synthetic data set (see {SYNTHETIC_MARKER}); choose a new folder for --out"
            )
        return
    write_file(out / SYNTHETIC_MARKER, text.encode())
