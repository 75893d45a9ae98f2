"""Synthetic faces as a folder of OBJ files with a manifest: people, expressions and scanners vary widely, to pretrain on."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from preprocess.geometry.mesh import Mesh
from preprocess.synth.action_units import Activation, draw_mixture, strength_level
from preprocess.synth.head import Person
from preprocess.synth.identity import Identity
from preprocess.synth.landmarks import landmark_vertices
from preprocess.synth.obj import write_textured_obj
from preprocess.synth.population import Layout, SubjectTask, name_subjects, pose_randomly
from preprocess.synth.sheet import grid_shape, grid_sheet
from preprocess.synth.skin import grid_uv
from preprocess.synth.wrl import encode_bnd
from shared.store.storage import write_file

MAX_WOMEN = MAX_MEN = 5000
SCANS_PER_SUBJECT = 20
MANIFEST, ROWS = "manifest.csv", "rows.csv"  # a subject's rows lie in its folder, the manifest joins them
# Ways to show an expression: the prototypes and major variants of the table of emotion predictions in the FACS
# Investigator's Guide (Ekman, Friesen & Hager 2002, table 10-2); a variant without a unit is drawn by leaving it out.
VARIANTS: dict[str, tuple[tuple[int, ...], ...]] = {
    "anger": (
        (4, 5, 7, 10, 22, 23, 25, 26), (4, 5, 7, 10, 23, 25, 26), (4, 5, 7, 23, 25, 26), (4, 5, 7, 17, 23), (4, 5, 7, 17, 24),
        (4, 5, 7, 23), (4, 5, 7, 24), (4, 7, 17), (4, 7, 10, 25),
    ),
    "disgust": ((9,), (9, 15, 16, 26), (9, 17), (10,), (10, 16, 25, 26), (10, 17), (4, 7, 9, 10), (4, 7, 9, 25)),
    "fear": (
        (1, 2, 4), (1, 2, 4, 5, 20, 25), (1, 2, 4, 5, 20, 26), (1, 2, 4, 5, 25), (1, 2, 4, 5, 26), (1, 2, 4, 5), (1, 2, 5, 25),
        (1, 4, 5, 20, 25), (5, 20, 25),
    ),
    "happiness": ((6, 12), (12,), (6, 12, 25), (7, 12, 25), (6, 12, 25, 26), (12, 25), (7, 12)),
    "sadness": (
        (1, 4, 11, 15), (1, 4, 15), (6, 15), (1, 4, 11), (1, 4, 15, 17), (11, 15), (11, 17), (1, 4, 15, 43), (1, 15, 17),
    ),
    "surprise": ((1, 2, 5, 26), (1, 2, 5, 27), (1, 2, 5), (1, 2, 26), (1, 2, 27), (5, 26), (5, 27), (1, 2, 5, 18, 25)),
}  # fmt: skip
SHOWN_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 16, 17, 18, 20, 22, 23, 24, 25, 26, 27, 43)
_RESTING = (1, 2, 4, 5, 7, 10, 12, 15, 17, 23, 26)
# Fractions of the scans: an expression, some units without a name; the rest: neutral.
_EXPRESSION, _MIXTURE = 0.72, 0.22


class _Manner:
    """How strongly one person moves each unit, and which variant of each expression this person prefers."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.gain = {unit: float(np.exp(rng.normal(0, 0.25))) for unit in SHOWN_UNITS}
        self.favourite = {name: int(rng.integers(len(ways))) for name, ways in VARIANTS.items()}

    def draw(self, rng: np.random.Generator) -> tuple[str, Activation]:
        """Draw the label of a scan, empty for units without a name, and the units that it shows."""
        kind, label = rng.random(), ""
        mixture: dict[int, float] = {}
        if kind < _EXPRESSION:
            label = str(rng.choice(list(VARIANTS)))
            ways = VARIANTS[label]
            way = list(ways[self.favourite[label] if rng.random() < 0.5 else int(rng.integers(len(ways)))])
            if len(way) > 3 and rng.random() < 0.25:
                way.remove(int(rng.choice(way)))
            mixture = dict.fromkeys(way, float(rng.uniform(0.4, 1.3)))
        elif kind < _EXPRESSION + _MIXTURE:
            number = int(rng.integers(1, 5))
            mixture = {
                int(unit): float(rng.uniform(0.3, 1.1)) for unit in rng.choice(SHOWN_UNITS, number, replace=False)
            }
        else:
            label = "neutral"
        for unit in rng.choice(SHOWN_UNITS, 3, replace=False):  # what means nothing
            mixture.setdefault(int(unit), float(rng.uniform(0, 0.12)))
        gained = {unit: share * self.gain[unit] * float(rng.uniform(0.75, 1.25)) for unit, share in mixture.items()}
        return label, draw_mixture(gained, 1.0, rng)


def _write_subject(task: SubjectTask, person: Person, rng: np.random.Generator) -> int:
    """Write `F0001/00.obj`, `.mtl`, `.jpg`, `.bnd` and so on, and the subject's rows of the manifest."""
    folder = task.out / task.name
    varied = Person(_vary(person.identity, rng))
    varied.set_at_rest(_draw_rest(rng))
    stretch, warp = rng.normal(1, [0.05, 0.05, 0.07]), _draw_warp(rng)
    manner, light = _Manner(rng), varied.identity.light
    table = io.StringIO()
    rows = csv.writer(table)
    for index in range(SCANS_PER_SUBJECT):
        label, activation = manner.draw(rng)
        direction = light + rng.normal(0, [0.35, 0.25, 0.0])
        varied.identity = replace(varied.identity, light=direction / np.linalg.norm(direction))
        mesh = _scan(varied.scan(activation), stretch, warp, rng)
        mesh = pose_randomly(mesh, rng, degrees=4.0, shift_mm=10.0)
        stem = f"{index:02d}"
        assert mesh.landmarks_mm is not None
        write_textured_obj(folder, stem, mesh, grid_uv(), slashes=True)
        (folder / f"{stem}.bnd").write_bytes(encode_bnd(landmark_vertices(), mesh.landmarks_mm))
        levels = [strength_level(max(activation.sides.get(unit, (0.0, 0.0)))) for unit in SHOWN_UNITS]
        path = f"{task.name}/{stem}"
        rows.writerow([f"{path}.obj", task.name, label, f"{path}.bnd", *(int(level > 0) for level in levels), *levels])
    (folder / ROWS).write_text(table.getvalue())
    return SCANS_PER_SUBJECT


def _draw_rest(rng: np.random.Generator) -> Activation:
    """Draw what a face looks like at rest: brows, lids and mouth differ as if some units were always a little active."""
    amounts = np.clip(rng.normal(0, 0.25, len(_RESTING)), -0.5, 0.5)
    return Activation({unit: (float(amount), float(amount)) for unit, amount in zip(_RESTING, amounts, strict=True)})


def _vary(identity: Identity, rng: np.random.Generator) -> Identity:
    """Return a person whose shape is farther from the average than other layouts' people are."""
    bumps = identity.bumps.copy()
    bumps[:, 3] *= rng.uniform(0.5, 3.5)
    return replace(identity, shape={name: 1.25 * value for name, value in identity.shape.items()}, bumps=bumps)


def _draw_warp(rng: np.random.Generator) -> np.ndarray:
    """Draw how a person's shape departs from all parameters: mm, f64 (rows, columns, 3), smooth, nearly symmetric."""
    warp = np.zeros((*grid_shape(), 3))
    for sigma, size_mm in ((7, (0.8, 0.8, 1.0)), (16, (2.2, 2.8, 3.2))):  # sigma in cells of the grid, of about 1.5 mm
        field = gaussian_filter(rng.normal(size=warp.shape), (sigma, sigma, 0), mode="nearest")
        field += 0.75 * field[:, ::-1] * (-1, 1, 1)
        warp += field / field.std((0, 1)) * size_mm
    return warp * rng.uniform(0.3, 1.2)


def _scan(mesh: Mesh, stretch: np.ndarray, warp: np.ndarray, rng: np.random.Generator) -> Mesh:
    """Return a mesh as one of many scanners sees it: proportions, sharpness, noise, holes; colour and contrast of the light."""
    grid = mesh.vertices_mm.reshape(*grid_shape(), 3) * stretch + warp
    blur = float(rng.uniform(0, 1.3))  # in cells of the grid
    grid = np.stack([gaussian_filter(grid[..., axis], blur, mode="nearest") for axis in range(3)], -1)
    sheet = grid_sheet()
    eyes = np.clip(1.3 - np.maximum(np.abs(sheet.eye_t), np.abs(sheet.eye_s)), 0, 0.3) / 0.3
    mouth = np.clip(1.1 - np.maximum(np.abs(sheet.mouth_t), sheet.mouth_s), 0, 0.4) / 0.4
    # Eyeballs lie deeper than lids in some scans, and bulge in others; so does what is between the lips.
    depth = rng.uniform(-1.0, 3.5) * eyes + rng.uniform(-1.0, 6.0) * mouth
    grid[..., 2] -= depth.reshape(grid.shape[:2])
    noise = rng.normal(size=grid.shape[:2])
    grain = gaussian_filter(noise, float(rng.uniform(0.4, 1.5)))
    grid[..., 2] += rng.uniform(0, 0.2) * grain / grain.std()
    vertices = grid.reshape(-1, 3).astype(np.float32)
    triangles = mesh.triangles
    gone = np.zeros(len(vertices), bool)
    if rng.random() < 0.5:
        gone |= (np.abs(sheet.mouth_t) < 0.7) & (sheet.mouth_s < 0.9)
    if rng.random() < 0.25:
        gone |= (np.abs(sheet.eye_t) < 0.7) & (np.abs(sheet.eye_s) < 0.8)
    triangles = triangles[~gone[triangles].any(1)]
    assert mesh.texture is not None
    colour = (mesh.texture / 255.0) ** rng.uniform(0.75, 1.3) * rng.uniform(0.75, 1.15) * rng.normal(1, 0.07, 3)
    texture = np.rint(np.clip(colour + rng.normal(0, 0.01, colour.shape), 0, 1) * 255).astype(np.uint8)
    return replace(
        mesh,
        vertices_mm=vertices,
        triangles=triangles,
        uv=grid_uv()[triangles],
        texture=texture,
        landmarks_mm=vertices[landmark_vertices()],
    )


def _join_rows(out: Path, num_subjects: int, seed: int, num_frames: int) -> None:
    units = [f"AU{unit}{kind}" for kind in ("", "_intensity") for unit in SHOWN_UNITS]
    header = ",".join(["path", "subject", "label", "landmarks", *units])
    rows = [(out / name / ROWS).read_text() for name in FOLDER.subjects[:num_subjects]]
    write_file(out / MANIFEST, "".join([header + "\n", *rows]).encode())


FOLDER = Layout("folder", name_subjects(MAX_WOMEN, MAX_MEN, num_digits=4), "{}", _write_subject, finish=_join_rows)
