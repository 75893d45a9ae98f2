"""A synthetic data set in the layout of BU-3DFE (Yin et al. 2006): 25 scans per subject, WRL, BMP and `.bnd`."""

from __future__ import annotations

import numpy as np
from PIL import Image

from preprocess.synth.action_units import INTENSITY_STRENGTH, draw_activation
from preprocess.synth.head import Person
from preprocess.synth.landmarks import landmark_vertices
from preprocess.synth.population import SCANNER_NOISE_MM, Layout, SubjectTask, name_subjects, pose_randomly
from preprocess.synth.skin import grid_uv
from preprocess.synth.wrl import encode_bnd, encode_bu3dfe_wrl
from shared.labels import BU3DFE_CODES

MAX_WOMEN, MAX_MEN = 56, 44


def _write_subject(task: SubjectTask, person: Person, rng: np.random.Generator) -> int:
    """Write `F0001_AN01WH_F3D.wrl` and so on: neutral, and six expressions in four intensities."""
    folder = task.out / task.name
    shown = [
        (code, level) for code, word in BU3DFE_CODES.items() for level in ((0,) if word == "neutral" else range(1, 5))
    ]
    race = "WH" if rng.random() < 0.7 else "AM"
    for code, level in shown:
        activation = draw_activation(BU3DFE_CODES[code], INTENSITY_STRENGTH.get(level, 0.0), rng)
        scan_seed = int(rng.integers(2**31))
        mesh = pose_randomly(person.scan(activation, SCANNER_NOISE_MM, scan_seed), rng, degrees=4.0, shift_mm=12.0)
        stem = f"{task.name}_{code}{level:02d}{race}"
        assert mesh.texture is not None and mesh.landmarks_mm is not None
        Image.fromarray(mesh.texture).save(folder / f"{stem}_F3D.bmp")
        (folder / f"{stem}_F3D.bnd").write_bytes(encode_bnd(landmark_vertices(), mesh.landmarks_mm))
        (folder / f"{stem}_F3D.wrl").write_bytes(encode_bu3dfe_wrl(mesh, grid_uv(), f"{stem}_F3D.bmp"))
    return len(shown)


BU3DFE = Layout("bu3dfe", name_subjects(MAX_WOMEN, MAX_MEN, num_digits=4), "{}", _write_subject)
