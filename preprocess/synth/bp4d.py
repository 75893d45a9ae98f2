"""Synthetic data sets in the layouts of BP4D-Spontaneous (Zhang et al. 2014), eight tasks a subject, and BP4D+ (Zhang et al.
2016), ten, with FACS codes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preprocess.datasets import bp4d, bp4dplus
from preprocess.datasets.bp4d_edition import INTENSITY_UNITS, Edition
from preprocess.geometry.mesh import Mesh
from preprocess.synth.action_units import PROTOTYPES, STRENGTH_STEPS, Activation, draw_mixture
from preprocess.synth.bu4dfe import expression_course
from preprocess.synth.head import Person
from preprocess.synth.landmarks import BP4D_ORDER
from preprocess.synth.movement import draw_slow_path, turn_head
from preprocess.synth.obj import write_textured_obj
from preprocess.synth.population import SCANNER_NOISE_MM, Layout, SubjectTask, name_subjects, pose_randomly
from preprocess.synth.skin import grid_uv
from shared.labels import EMBARRASSMENT, PAIN

FEATURES, OCCURRENCE, INTENSITY = "3DFeatures", "AUCoding/AU_OCC", "AUCoding/AU_INT"

# Embarrassment: a smile that is held back (Keltner 1995, "Signs of appeasement"); pain: Prkachin & Solomon 2008; startle:
# Ekman, Friesen & Simons 1985, "Is the startle reaction an emotion?"; skepticism: ours.
EMOTIONS: dict[str, dict[int, float]] = {
    **PROTOTYPES,
    EMBARRASSMENT: {12: 0.6, 6: 0.3, 14: 0.8, 24: 0.9, 17: 0.5},
    PAIN: {4: 0.9, 6: 0.7, 7: 0.9, 9: 0.6, 10: 0.8, 25: 0.7, 43: 1.0},
    "startle": {43: 1.0, 7: 0.8, 20: 0.8, 4: 0.4, 25: 0.3},
    "skepticism": {2: 0.8, 4: 0.5, 14: 0.8, 24: 0.6, 7: 0.4},
}
# In BP4D+ the coded tasks are few: embarrassment shows all of Keltner's smile controls.
EMOTIONS_OF_PLUS = {**EMOTIONS, EMBARRASSMENT: {12: 0.6, 6: 0.3, 14: 0.6, 15: 0.7, 17: 0.5, 23: 0.8, 24: 0.6}}
# The units that the data set's coders scored; every other column of an occurrence table says 9.
OCCURRENCE_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 16, 17, 20, 23, 24, 27)
UNKNOWN = 9
CODED_SHARE = 0.9  # coders scored a part of each recording
LARGEST_TURN_DEG, LARGEST_SHIFT_MM = 8.0, 10.0
# Landmarks are stored left-handed: this axis is mirrored.
MIRROR = np.array([1.0, 1.0, -1.0])


@dataclass(frozen=True)
class _Tree:
    """What differs between the two data sets. sequences: the frames' folder. is_plus: BP4D+: landmarks in one folder, columns
    of codes that are named by their units, codes of some tasks alone."""

    edition: Edition
    sequences: str

    @property
    def is_plus(self) -> bool:
        return self.edition.is_plus

    def write_landmarks(self, root: Path, name: str, task: str, stem: str, rows: Sequence[str]) -> None:
        """Write the head's angles, which BP4D+ does not have, and the points."""
        if self.is_plus:
            path = root / FEATURES / "FacialLandmarks" / f"{name}_{task}_{stem}.bndplus"
            rows = [row.replace(" ", ",") for row in rows[1:]]
        else:
            path = root / FEATURES / name / task / f"{stem}.tbnd"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes("".join(f"{row}\n" for row in rows).encode())


@dataclass(frozen=True)
class _Recording:
    """One task of one subject. activations: a frame each; motion_deg, shift_mm f64 (T, 3): the head's, from the first frame."""

    activations: list[Activation]
    motion_deg: np.ndarray
    shift_mm: np.ndarray


def _write_subject(tree: _Tree, subject: SubjectTask, person: Person, rng: np.random.Generator) -> int:
    """Write `Sequences(2D+3D)/F001/T1/0000.obj`, `.mtl`, `.jpg`, `3DFeatures/F001/T1/0000.tbnd`, FACS codes in AUCoding.

    Every third subject's frames are numbered with three digits; subjects differ in the style of their faces' corners. One
    landmark file is missing, a few landmarks are (0, 0, 0), a few codes are unknown.
    """
    out, name, number, num_frames = subject.out, subject.name, subject.number, subject.num_frames
    digits = 3 if number % 3 == 2 else 4
    tasks, emotions = tree.edition.tasks, EMOTIONS_OF_PLUS if tree.is_plus else EMOTIONS
    without_landmarks = (str(rng.choice(list(tasks))), int(rng.integers(num_frames)))
    for task, emotion in tasks.items():
        folder = out / tree.sequences / name / task
        folder.mkdir(parents=True, exist_ok=True)
        recording = _draw_recording(emotions[emotion], num_frames, rng)
        pose_seed, untracked = int(rng.integers(2**31)), int(rng.integers(num_frames))
        for frame in range(num_frames):
            mesh = person.scan(recording.activations[frame], SCANNER_NOISE_MM, int(rng.integers(2**31)))
            mesh = turn_head(mesh, recording.motion_deg[frame], recording.shift_mm[frame])
            mesh = pose_randomly(mesh, np.random.default_rng(pose_seed), degrees=3.0, shift_mm=12.0)
            stem = f"{frame:0{digits}d}"
            write_textured_obj(folder, stem, mesh, grid_uv(), slashes=number % 2 == 0)
            if (task, frame) != without_landmarks:
                lost = rng.choice(np.arange(68, 83), 3, replace=False) if frame == untracked else np.array([], int)
                tree.write_landmarks(out, name, task, stem, _encode_points(recording.motion_deg[frame], mesh, lost))
        if not tree.edition.coded_tasks or task in tree.edition.coded_tasks:
            _write_codes(tree, out, f"{name}_{task}", recording, rng)
    return len(tasks) * num_frames


def _draw_recording(prototype: dict[int, float], num_frames: int, rng: np.random.Generator) -> _Recording:
    """Draw a spontaneous expression that comes and goes, weaker than a posed one, on a head that moves."""
    apex = draw_mixture(prototype, rng.uniform(0.7, 1.0), rng)
    course = expression_course(num_frames, rng)
    return _Recording(
        [apex.scaled(float(share)) for share in course],
        draw_slow_path(num_frames, LARGEST_TURN_DEG, rng),
        draw_slow_path(num_frames, LARGEST_SHIFT_MM, rng),
    )


def _encode_points(motion_deg: np.ndarray, mesh: Mesh, lost: np.ndarray) -> list[str]:
    """Encode pitch, yaw and roll, then 83 left-handed points, brows first. Points in `lost` were not tracked: 0 0 0."""
    assert mesh.landmarks_mm is not None
    points = mesh.landmarks_mm[BP4D_ORDER] * MIRROR
    points[lost] = 0.0  # of the contour, which has the same indices in both orders
    rows = np.concatenate([motion_deg[None], points]).tolist()
    return [f"{x:.4f} {y:.4f} {z:.4f}" for x, y, z in rows]


def _write_codes(tree: _Tree, out: Path, stem: str, recording: _Recording, rng: np.random.Generator) -> None:
    """Write one table of occurrences and five of intensities; frame N of the meshes is coded as frame N + 1."""
    num_coded = max(int(CODED_SHARE * len(recording.activations)), 1)
    strength = {
        unit: np.array([activation.mean(unit) for activation in recording.activations[:num_coded]])
        for unit in OCCURRENCE_UNITS
    }
    levels = {unit: np.searchsorted(STRENGTH_STEPS, values, side="right") for unit, values in strength.items()}
    table = np.full((num_coded, 100), UNKNOWN)
    table[:, 0] = np.arange(num_coded) + 1
    for unit, level in levels.items():
        table[:, unit] = level >= 1
    hidden = int(rng.integers(num_coded)), int(rng.choice(INTENSITY_UNITS))  # a frame where a unit could not be seen
    table[hidden] = UNKNOWN
    header = list(range(100))
    if tree.is_plus:
        table, header = table[:, [0, *tree.edition.units]], [1, *tree.edition.units]
    rows = [",".join(map(str, row)) for row in (header, *table.tolist())]
    _write_lines(out / OCCURRENCE / f"{stem}.csv", rows)
    for unit in INTENSITY_UNITS:
        values = levels[unit].copy()
        if hidden[1] == unit:
            values[hidden[0]] = UNKNOWN
        lines = [f"{frame + 1},{value}" for frame, value in enumerate(values.tolist())]
        folder = out / INTENSITY / f"AU{unit:02d}" if tree.is_plus else out / INTENSITY
        _write_lines(folder / f"{stem}_AU{unit:02d}.csv", lines)


def _write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def _make_layout(edition: Edition, sequences: str, num_women: int, num_men: int) -> Layout:
    write = functools.partial(_write_subject, _Tree(edition, sequences))
    return Layout(edition.name, name_subjects(num_women, num_men), f"{sequences}/{{}}", write, frames=(16, 3, 1000))


BP4D = _make_layout(bp4d.EDITION, "Sequences(2D+3D)", 23, 18)
BP4DPLUS = _make_layout(bp4dplus.EDITION, "2D+3D", 82, 58)
