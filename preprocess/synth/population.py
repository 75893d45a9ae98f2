"""The people of a synthetic data set, and the folder they are written to, the same bytes for any number of processes."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
from tqdm import tqdm

from preprocess.datasets.scan import SYNTHETIC_MARKER
from preprocess.geometry.mesh import Mesh
from preprocess.synth.identity import Identity, draw_identity
from shared.errors import FacetError
from shared.processors import num_cores
from shared.store.paths import is_litter
from shared.store.storage import write_file

COMPLETE = ".complete"  # in a subject's folder: how many files it holds, written after the last of them
# Bumped when equal parameters would give other files.
REVISION = 2
SCANNER_NOISE_MM = 0.05


def draw_person(seed: int, number: int, *, female: bool) -> tuple[Identity, np.random.Generator]:
    """Person `number` of a seed, and the random numbers of that person's scans; independent of how many people there are."""
    rng = np.random.default_rng([seed, number])
    return draw_identity(rng, female=female), rng


def name_subjects(num_women: int, num_men: int, *, num_digits: int = 3) -> list[str]:
    """F001, M001, F002, … as long as both have names left; there are no fewer women than men."""
    names = []
    for k in range(1, num_women + 1):
        names += [f"{sex}{k:0{num_digits}d}" for sex in ("FM" if k <= num_men else "F")]
    return names


def pose_randomly(mesh: Mesh, rng: np.random.Generator, *, degrees: float, shift_mm: float) -> Mesh:
    """A scan as scanners give it: the head turned a little, somewhere in the scanner's space. Rigid."""
    yaw, pitch, roll = np.deg2rad(rng.normal(0, degrees, 3))
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    turn = (
        np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        @ np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    )
    shift = rng.normal(0, shift_mm, 3)

    def move(points: np.ndarray) -> np.ndarray:
        moved: np.ndarray = (points @ turn.T + shift).astype(np.float32)
        return moved

    landmarks = None if mesh.landmarks_mm is None else move(mesh.landmarks_mm)
    return Mesh(move(mesh.vertices_mm), mesh.triangles, mesh.uv, mesh.texture, landmarks_mm=landmarks)


def is_complete(folder: Path) -> bool:
    """Whether a subject's folder holds as many files as were written; one that lost some is written again."""
    try:
        return int((folder / COMPLETE).read_text()) == _count_files(folder)
    except (OSError, ValueError):
        return False


def mark_complete(folder: Path) -> None:
    (folder / COMPLETE).write_text(f"{_count_files(folder)}\n")


def _count_files(folder: Path) -> int:
    return sum(path.is_file() and path.name != COMPLETE for path in folder.rglob("*"))


def write_population(
    out: Path,
    parameters: dict[str, object],
    write_subject: Callable[..., int],
    tasks: list[tuple[object, ...]],
    *,
    progress: bool,
    num_workers: int | None,
) -> int:
    """Writes subjects in processes; a subject whose marker of completion is there is not written again.

    Args:
        parameters: what decides the files' contents, kept in the marker.
        write_subject: (out, *task) → scans written. tasks: a subject each.
    Returns:
        The number of scans of the data set.
    Raises:
        FacetError: the folder holds something else, or a worker died.
    """
    _claim(out, parameters)
    workers = min(num_workers or num_cores(), len(tasks))
    num_scans = 0
    with tqdm(desc="synth", total=len(tasks), unit="subject", disable=not progress) as bar:
        if workers <= 1:
            for task in tasks:
                num_scans += write_subject(out, *task)
                bar.update()
            return num_scans
        pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
        try:
            for future in [pool.submit(write_subject, out, *task) for task in tasks]:
                num_scans += future.result()
                bar.update()
        except BrokenProcessPool as error:
            raise FacetError(
                "a worker process died, most often for want of memory; run the same command again"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return num_scans


def _claim(out: Path, parameters: dict[str, object]) -> None:
    """Marks the folder as this data set's; refuses one that holds anything else."""
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
