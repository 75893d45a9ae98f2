"""A synthetic data set in the layout of BU-4DFE (Yin et al. 2008): six sequences a subject, neutral → apex → neutral."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from preprocess.geometry.mesh import Mesh
from preprocess.synth.action_units import Activation, draw_activation
from preprocess.synth.head import Person
from preprocess.synth.landmarks import landmark_vertices
from preprocess.synth.population import (
    SCANNER_NOISE_MM,
    draw_person,
    is_complete,
    mark_complete,
    name_subjects,
    pose_randomly,
    write_population,
)
from preprocess.synth.skin import grid_uv
from preprocess.synth.wrl import encode_bnd, encode_bu4dfe_wrl
from shared.errors import FacetError
from shared.labels import BU4DFE_FOLDERS
from shared.store.storage import write_file

MAX_WOMEN, MAX_MEN = 58, 43
LANDMARK_PACKAGE = "BU4DFE_BND_V1.1"
VIEWER = "BU_WrlViewer_V2"  # the data set's folder that is no subject


def write_bu4dfe(
    out: Path,
    *,
    num_subjects: int,
    num_frames: int = 24,
    seed: int = 0,
    progress: bool = True,
    num_workers: int | None = None,
) -> int:
    """Writes `F001/Angry/000.wrl`, `000.jpg` and so on, landmarks in BU4DFE_BND_V1.1, women and men in turn.

    Returns:
        The number of frames, 6 × num_frames a subject.
    Raises:
        FacetError: the folder holds something else, too many subjects, or fewer than 3 frames.
    """
    if num_subjects > MAX_WOMEN + MAX_MEN:
        raise FacetError(f"--subjects {num_subjects}: BU-4DFE's names go to {MAX_WOMEN + MAX_MEN} (F058 and M043)")
    if num_frames < 3:
        raise FacetError(f"--frames {num_frames}: a sequence needs at least 3, from neutral to apex and back")
    names = name_subjects(MAX_WOMEN, MAX_MEN)[:num_subjects]
    tasks: list[tuple[object, ...]] = [(name, n, seed, num_frames) for n, name in enumerate(names)]
    parameters: dict[str, object] = {"layout": "bu4dfe", "seed": seed, "frames": num_frames}
    num_scans = write_population(out, parameters, _write_subject, tasks, progress=progress, num_workers=num_workers)
    write_file(
        out / VIEWER / "README.txt", b"In the real data set, its viewer stands here. This folder is no subject.\n"
    )
    return num_scans


def expression_course(num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """How much of an expression shows in each frame, f64 (T,): 0 at both ends, 1 at the apex, held for a while."""
    onset, offset = rng.uniform(0.22, 0.38), rng.uniform(0.62, 0.78)
    time = np.linspace(0, 1, num_frames)
    rise, decline = np.clip(time / onset, 0, 1), np.clip((1 - time) / (1 - offset), 0, 1)
    course: np.ndarray = (rise * rise * (3 - 2 * rise)) * (decline * decline * (3 - 2 * decline))
    return course / course.max()


def _write_subject(out: Path, name: str, number: int, seed: int, num_frames: int) -> int:
    if is_complete(out / name):
        return len(BU4DFE_FOLDERS) * num_frames
    identity, rng = draw_person(seed, number, female=name.startswith("F"))
    person = Person(identity)
    for folder, expression in BU4DFE_FOLDERS.items():
        apex = draw_activation(expression, 0.9, rng)
        course = expression_course(num_frames, rng)
        landmarks = out / LANDMARK_PACKAGE / name / folder
        for place in (out / name / folder, landmarks):
            place.mkdir(parents=True, exist_ok=True)
        pose_seed = int(rng.integers(2**31))
        drift = np.cumsum(rng.normal(0, 0.15, (num_frames, 3)), axis=0)  # people do not sit still
        for frame in range(num_frames):
            shown: Activation = apex.scaled(float(course[frame]))
            mesh = person.scan(shown, SCANNER_NOISE_MM, int(rng.integers(2**31)))
            # The same pose in every frame but for the drift.
            mesh = pose_randomly(mesh, np.random.default_rng(pose_seed), degrees=4.0, shift_mm=12.0)
            mesh = _shift(mesh, drift[frame])
            assert mesh.texture is not None and mesh.landmarks_mm is not None
            stem = out / name / folder / f"{frame:03d}"
            stem.with_suffix(".jpg").write_bytes(_encode_jpeg(mesh.texture))
            wrl = encode_bu4dfe_wrl(mesh, mesh.triangles, grid_uv(), f"{frame:03d}.jpg")
            stem.with_suffix(".wrl").write_bytes(wrl)
            bnd = encode_bnd(landmark_vertices(), mesh.landmarks_mm, separator=" ")
            (landmarks / f"{frame:03d}.bnd").write_bytes(bnd)
    # Files are written plainly, without waiting for the disk: an interrupted subject is written again.
    mark_complete(out / name)
    return len(BU4DFE_FOLDERS) * num_frames


def _shift(mesh: Mesh, by_mm: np.ndarray) -> Mesh:
    moved = by_mm.astype(np.float32)
    landmarks = None if mesh.landmarks_mm is None else mesh.landmarks_mm + moved
    return replace(mesh, vertices_mm=mesh.vertices_mm + moved, landmarks_mm=landmarks)


def _encode_jpeg(texture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(texture).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()
