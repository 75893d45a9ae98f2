"""A synthetic data set in the layout of BU-3DFE (Yin et al. 2006): 25 scans a subject, WRL, BMP and `.bnd`."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from preprocess.synth.action_units import INTENSITY_STRENGTH, draw_activation
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
from preprocess.synth.wrl import encode_bnd, encode_bu3dfe_wrl
from shared.errors import FacetError
from shared.labels import BU3DFE_CODES

MAX_WOMEN, MAX_MEN = 56, 44


def write_bu3dfe(
    out: Path, *, num_subjects: int, seed: int = 0, progress: bool = True, num_workers: int | None = None
) -> int:
    """Writes `F0001/F0001_AN01WH_F3D.wrl` and so on, women and men in turn.

    Returns:
        The number of scans, 25 a subject.
    Raises:
        FacetError: the folder holds something else, or more than 100 subjects are asked for.
    """
    if num_subjects > MAX_WOMEN + MAX_MEN:
        raise FacetError(f"--subjects {num_subjects}: BU-3DFE's names go to {MAX_WOMEN + MAX_MEN} (F0056 and M0044)")
    names = name_subjects(MAX_WOMEN, MAX_MEN, num_digits=4)[:num_subjects]
    tasks: list[tuple[object, ...]] = [(name, number, seed) for number, name in enumerate(names)]
    parameters: dict[str, object] = {"layout": "bu3dfe", "seed": seed}
    return write_population(out, parameters, _write_subject, tasks, progress=progress, num_workers=num_workers)


def _write_subject(out: Path, name: str, number: int, seed: int) -> int:
    folder = out / name
    shown = [
        (code, level) for code, word in BU3DFE_CODES.items() for level in ((0,) if word == "neutral" else range(1, 5))
    ]
    if is_complete(folder):
        return len(shown)
    identity, rng = draw_person(seed, number, female=name.startswith("F"))
    person = Person(identity)
    folder.mkdir(parents=True, exist_ok=True)
    race = "WH" if rng.random() < 0.7 else "AM"
    for code, level in shown:
        activation = draw_activation(BU3DFE_CODES[code], INTENSITY_STRENGTH.get(level, 0.0), rng)
        scan_seed = int(rng.integers(2**31))
        mesh = pose_randomly(person.scan(activation, SCANNER_NOISE_MM, scan_seed), rng, degrees=4.0, shift_mm=12.0)
        stem = f"{name}_{code}{level:02d}{race}"
        assert mesh.texture is not None and mesh.landmarks_mm is not None
        (folder / f"{stem}_F3D.bmp").write_bytes(_encode_bmp(mesh.texture))
        (folder / f"{stem}_F3D.bnd").write_bytes(encode_bnd(landmark_vertices(), mesh.landmarks_mm))
        (folder / f"{stem}_F3D.wrl").write_bytes(encode_bu3dfe_wrl(mesh, mesh.triangles, grid_uv(), f"{stem}_F3D.bmp"))
    # Files are written plainly, without waiting for the disk: an interrupted subject is written again.
    mark_complete(folder)
    return len(shown)


def _encode_bmp(texture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(texture).save(buffer, "BMP")
    return buffer.getvalue()
