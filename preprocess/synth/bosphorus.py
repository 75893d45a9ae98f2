"""A synthetic data set in the layout of Bosphorus (Savran et al. 2008): static range scans, expressions, action units."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from preprocess.geometry.mesh import Mesh
from preprocess.synth.action_units import Activation, draw_activation, draw_mixture, strength_level
from preprocess.synth.bnt import LANDMARKS, encode_bnt, encode_lm2, encode_lm3, landmark_vertices
from preprocess.synth.head import Person
from preprocess.synth.movement import turn_head
from preprocess.synth.population import SCANNER_NOISE_MM, Layout, SubjectTask, draw_person, pose_randomly
from preprocess.synth.range_scan import scan_from_front
from shared.labels import BASIC_EXPRESSIONS, BOSPHORUS_CODES
from shared.store.storage import write_file

MAX_SUBJECTS = 105
FOLDER = "BosphorusDB"
EXPRESSION_CODES = {code: name for code, name in BOSPHORUS_CODES.items() if name in BASIC_EXPRESSIONS}
# Scans of action units: lower face, upper face, combinations.
ACTION_UNIT_SCANS: dict[str, dict[int, float]] = {
    "LFAU_12": {12: 1.0},
    "LFAU_27": {26: 0.5, 27: 1.0, 25: 0.5},
    "UFAU_4": {4: 1.0},
    "CAU_A12A15": {12: 0.9, 15: 0.9},
    "CAU_A14A44": {14: 0.9, 44: 0.9},
    "CAU_A18A34": {18: 0.8, 34: 0.9},
    "CAU_A22A25": {22: 0.9, 25: 0.7},
    "LFAU_28": {28: 1.0},
}
ONE_SIDED_SCAN, ONE_SIDED_UNIT = "LFAU_12L", 12
FACSCODES = "facscodes.lst"
TURN_DEG = -20.0  # YR_R20: to the subject's right


@dataclass(frozen=True)
class _Shot:
    """One scan to take. code: what its name says it shows, as in `E_HAPPY`."""

    code: str
    activation: Activation
    yaw_deg: float = 0.0
    covered: bool = False


def _write_facscodes(out: Path, num_subjects: int, seed: int, num_frames: int) -> None:
    lines = [line for number in range(num_subjects) for line in _code_subject(number, seed)]
    write_file(out / FACSCODES, "".join(f"{line}\r\n" for line in lines).encode("ascii"))


def _code_subject(number: int, seed: int) -> list[str]:
    """Return a line per coded scan: `bs000_E_HAPPY_0  ->  6C+12D+25E`, `0` if it shows no unit."""
    rng = draw_person(seed, number, female=number % 2 == 0)[1]
    return [
        f"{f'bs{number:03d}_{shot.code}_0':<21}->  {'+'.join(_code_units(shot.activation)) or '0'}"
        for shot in _draw_shots(number, rng)
        if not shot.covered and not shot.yaw_deg
    ]


def _code_units(activation: Activation) -> list[str]:
    """Return each visible unit as the list writes it: L or R before it if it shows on one side only, its strength behind."""
    codes = []
    for unit in sorted(activation.sides):
        left, right = map(strength_level, activation.sides[unit])
        if left or right:
            codes.append(f"{'' if left and right else 'L' if left else 'R'}{unit}{'ABCDE'[max(left, right) - 1]}")
    return codes


def _write_subject(task: SubjectTask, person: Person, rng: np.random.Generator) -> int:
    """Write `bs000_E_HAPPY_0.bnt`, `.png`, `.lm2`, `.lm3` and so on.

    A subject has a neutral scan, the six expressions (one subject in three lacks one or two), nine scans of action units, one
    of them of the left side alone, one turned to the right by 20 degrees, and one with an eye covered, whose hidden landmarks
    are not listed. `facscodes.lst` says which units the expressions and action units show.
    """
    folder, number = task.out / FOLDER / task.name, task.number
    shots = _draw_shots(number, rng)
    for index, shot in enumerate(shots):
        mesh = person.scan(shot.activation, SCANNER_NOISE_MM, int(rng.integers(2**31)))
        mesh = replace(mesh, landmarks_mm=mesh.vertices_mm[landmark_vertices()])
        hand = _hand_over_eye(mesh, person.identity.skin_rgb, rng) if shot.covered else None
        pose_seed = int(rng.integers(2**31))
        mesh, hand = _pose(mesh, shot, pose_seed), hand and _pose(hand, shot, pose_seed)
        # Line ends differ from file to file, and some files were renamed after they were written.
        image_number = 1 if number % 4 == 1 and shot.code == "UFAU_4" else 0
        _write_scan(folder, f"{task.name}_{shot.code}", image_number, mesh, hand, "\r\n" if index % 2 else "\n")
    return len(shots)


def _draw_shots(number: int, rng: np.random.Generator) -> list[_Shot]:
    shots = [_Shot("N_N", draw_activation("neutral", 0.0, rng))]
    num_lacking = int(rng.integers(1, 3)) if number % 3 == 2 else 0
    lacking = rng.choice(list(EXPRESSION_CODES), num_lacking, replace=False)
    for code, expression in EXPRESSION_CODES.items():
        activation = draw_activation(expression, rng.uniform(0.75, 1.0), rng)
        if code not in lacking:
            shots.append(_Shot(code, activation))
    shots += [_Shot(code, draw_mixture(units, 0.9, rng)) for code, units in ACTION_UNIT_SCANS.items()]
    shots.append(_Shot("YR_R20", draw_activation("neutral", 0.0, rng), yaw_deg=TURN_DEG))
    shots.append(_Shot("O_EYE", draw_activation("neutral", 0.0, rng), covered=True))
    shots.append(_Shot(ONE_SIDED_SCAN, Activation({ONE_SIDED_UNIT: (float(rng.uniform(0.6, 1.0)), 0.0)})))
    return shots


def _pose(mesh: Mesh, shot: _Shot, seed: int) -> Mesh:
    turned = turn_head(mesh, np.array([0.0, shot.yaw_deg, 0.0]), np.zeros(3))
    return pose_randomly(turned, np.random.default_rng(seed), degrees=3.0, shift_mm=12.0)


def _hand_over_eye(face: Mesh, skin_rgb: np.ndarray, rng: np.random.Generator) -> Mesh:
    """Return the heel of a hand, an ellipsoid, in front of one eye."""
    assert face.landmarks_mm is not None
    labels = list(LANDMARKS)
    side = "left" if rng.random() < 0.5 else "right"
    corners = [labels.index(f"{corner} {side} eye corner") for corner in ("Outer", "Inner")]
    centre = face.landmarks_mm[corners].mean(0) + np.array([0.0, 2.0, 14.0])
    turn, rise = np.meshgrid(np.linspace(-np.pi, np.pi, 49), np.linspace(-np.pi / 2, np.pi / 2, 25))
    ball = np.stack([np.cos(rise) * np.cos(turn), np.sin(rise), np.cos(rise) * np.sin(turn)], -1).reshape(-1, 3)
    index = np.arange(ball.shape[0], dtype=np.int32).reshape(turn.shape)
    a, b, c, d = index[:-1, :-1].ravel(), index[:-1, 1:].ravel(), index[1:, :-1].ravel(), index[1:, 1:].ravel()
    shade = 0.55 + 0.4 * np.maximum(ball[:, 2:], 0.0)
    return Mesh(
        (centre + ball * [27.0, 20.0, 8.0]).astype(np.float32),
        np.concatenate([np.stack([a, b, d], -1), np.stack([a, d, c], -1)]),
        colors=np.rint(255 * np.clip(skin_rgb * shade, 0, 1)).astype(np.uint8),
    )


def _write_scan(folder: Path, stem: str, image_number: int, mesh: Mesh, hand: Mesh | None, newline: str) -> None:
    assert mesh.landmarks_mm is not None
    scan = scan_from_front(mesh, hand)
    seen = {
        label: point
        for label, point, visible in zip(LANDMARKS, mesh.landmarks_mm.tolist(), scan.visible, strict=True)
        if visible
    }
    places_px = scan.place_px(np.array(list(seen.values())))
    Image.fromarray(scan.photo).save(folder / f"{stem}_0.png")
    (folder / f"{stem}_0.lm3").write_bytes(encode_lm3(seen, newline))
    (folder / f"{stem}_0.lm2").write_bytes(encode_lm2(dict(zip(seen, places_px, strict=True)), newline))
    (folder / f"{stem}_0.bnt").write_bytes(encode_bnt(scan, f"{stem}_{image_number}.png"))


BOSPHORUS = Layout(
    "bosphorus",
    [f"bs{number:03d}" for number in range(MAX_SUBJECTS)],
    f"{FOLDER}/{{}}",
    _write_subject,
    finish=_write_facscodes,
)
