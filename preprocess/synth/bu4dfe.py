"""A synthetic data set in the layout of BU-4DFE (Yin et al. 2008): six sequences per subject, neutral → apex → neutral."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from preprocess.synth.action_units import Activation, draw_activation
from preprocess.synth.head import Person
from preprocess.synth.landmarks import landmark_vertices
from preprocess.synth.obj import encode_jpeg
from preprocess.synth.population import SCANNER_NOISE_MM, Layout, SubjectTask, name_subjects, pose_randomly
from preprocess.synth.skin import grid_uv
from preprocess.synth.wrl import encode_bnd, encode_bu4dfe_wrl
from shared.labels import BU4DFE_FOLDERS
from shared.store.storage import write_file

MAX_WOMEN, MAX_MEN = 58, 43
LANDMARK_PACKAGE = "BU4DFE_BND_V1.1"
VIEWER = "BU_WrlViewer_V2"  # the data set's folder that is no subject


def expression_course(num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Return the intensity of an expression in each frame, f64 (T,): 0 at both ends, 1 at the apex, held for a while."""
    onset, offset = rng.uniform(0.22, 0.38), rng.uniform(0.62, 0.78)
    time = np.linspace(0, 1, num_frames)
    rise, decline = np.clip(time / onset, 0, 1), np.clip((1 - time) / (1 - offset), 0, 1)
    course: np.ndarray = (rise * rise * (3 - 2 * rise)) * (decline * decline * (3 - 2 * decline))
    return course / course.max()


def _write_subject(task: SubjectTask, person: Person, rng: np.random.Generator) -> int:
    """Write `F001/Angry/000.wrl`, `000.jpg` and so on, and the landmarks in their package."""
    out, name, num_frames = task.out, task.name, task.num_frames
    for folder, expression in BU4DFE_FOLDERS.items():
        apex = draw_activation(expression, 0.9, rng)
        course = expression_course(num_frames, rng)
        landmarks = out / LANDMARK_PACKAGE / name / folder
        for made in (out / name / folder, landmarks):
            made.mkdir(parents=True, exist_ok=True)
        pose_seed = int(rng.integers(2**31))
        drift = np.cumsum(rng.normal(0, 0.15, (num_frames, 3)), axis=0).astype(np.float32)  # people do not sit still
        for frame in range(num_frames):
            shown: Activation = apex.scaled(float(course[frame]))
            mesh = person.scan(shown, SCANNER_NOISE_MM, int(rng.integers(2**31)))
            # The same pose in every frame but for the drift.
            mesh = pose_randomly(mesh, np.random.default_rng(pose_seed), degrees=4.0, shift_mm=12.0)
            mesh = mesh.move(partial(np.add, drift[frame]))
            assert mesh.texture is not None and mesh.landmarks_mm is not None
            stem = out / name / folder / f"{frame:03d}"
            stem.with_suffix(".jpg").write_bytes(encode_jpeg(mesh.texture))
            wrl = encode_bu4dfe_wrl(mesh, grid_uv(), f"{frame:03d}.jpg")
            stem.with_suffix(".wrl").write_bytes(wrl)
            bnd = encode_bnd(landmark_vertices(), mesh.landmarks_mm, separator=" ")
            (landmarks / f"{frame:03d}.bnd").write_bytes(bnd)
    return len(BU4DFE_FOLDERS) * num_frames


def _write_viewer(out: Path, num_subjects: int, seed: int, num_frames: int) -> None:
    text = b"In the real data set, its viewer stands here. This folder is no subject.\n"
    write_file(out / VIEWER / "README.txt", text)


BU4DFE = Layout(
    "bu4dfe", name_subjects(MAX_WOMEN, MAX_MEN), "{}", _write_subject, frames=(24, 3, 1000), finish=_write_viewer
)
