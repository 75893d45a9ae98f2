"""Facial action units as displacement fields of the face, and the expressions they make up.

Which units belong to which expression follows EMFACS (Friesen & Ekman 1983); what each unit does follows the FACS manual
(Ekman, Friesen & Hager 2002). Sizes in mm are our own, fitted by eye.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from preprocess.synth.sheet import (
    EYE_HALF_HEIGHT_MM,
    MOUTH_HALF_HEIGHT_MM,
    Sheet,
    fall,
    lens_weights,
    smoothstep,
)

# Unit → share of its full strength at the highest intensity.
PROTOTYPES: dict[str, dict[int, float]] = {
    "anger": {4: 1.0, 5: 0.6, 7: 0.8, 23: 0.9, 24: 0.7, 17: 0.3},
    "disgust": {9: 1.0, 10: 0.9, 4: 0.35, 7: 0.5, 16: 0.45, 25: 0.5, 17: 0.2},
    "fear": {1: 0.9, 2: 0.5, 4: 0.55, 5: 1.0, 20: 1.0, 25: 0.8, 26: 0.3},
    "happiness": {6: 0.9, 12: 1.0, 25: 0.7},
    "sadness": {1: 1.0, 4: 0.5, 15: 1.0, 17: 0.65, 43: 0.35},
    "surprise": {1: 1.0, 2: 1.0, 5: 0.9, 26: 0.7, 27: 0.7},
    "neutral": {},
}
UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 15, 16, 17, 20, 23, 24, 25, 26, 27, 43)
# Intensities 01 to 04 of BU-3DFE, "from subtle to full".
INTENSITY_STRENGTH = {1: 0.42, 2: 0.62, 3: 0.82, 4: 1.0}

# Activations from which a unit counts as intensity 1 to 5 (FACS letters A to E): our own scale.
STRENGTH_STEPS = (0.15, 0.3, 0.5, 0.7, 0.9)


def strength_level(amount: float) -> int:
    """Return an activation as FACS writes it: 0 (not shown), 1 (A) to 5 (E)."""
    return sum(amount >= step for step in STRENGTH_STEPS)


@dataclass(frozen=True)
class Activation:
    """How strongly each unit is active on either side of the face: unit → (the subject's left, right), about 0 to 1."""

    sides: dict[int, tuple[float, float]]

    def mean(self, unit: int) -> float:
        left, right = self.sides.get(unit, (0.0, 0.0))
        return (left + right) / 2

    def scaled(self, factor: float) -> Activation:
        return Activation({unit: (left * factor, right * factor) for unit, (left, right) in self.sides.items()})


def draw_activation(expression: str, strength: float, rng: np.random.Generator) -> Activation:
    """Draw how one person shows an expression once: strength, mixture and symmetry vary."""
    return draw_mixture(PROTOTYPES[expression], strength, rng)


def draw_mixture(prototype: dict[int, float], strength: float, rng: np.random.Generator) -> Activation:
    """Draw an activation of any mixture of units: unit → fraction of its full strength."""
    overall = strength * rng.uniform(0.88, 1.12)
    sides = {}
    # In a fixed order, so that every expression draws the same numbers; units beyond the expressions' own come last.
    for unit in (*UNITS, *sorted(prototype.keys() - set(UNITS))):
        share, tilt = rng.lognormal(0.0, 0.18), rng.normal(0.0, 0.09)
        stray = max(rng.normal(0.0, 0.035), 0.0)  # nobody's face is quite still
        amount = prototype.get(unit, 0.0) * overall * share + stray
        if amount > 0.0:
            sides[unit] = (amount * (1 + tilt), amount * (1 - tilt))
    return Activation(sides)


def displace(sheet: Sheet, activation: Activation) -> np.ndarray:
    """Return the displacement of every sheet point, f64 (N, 3) mm in the face frame."""
    move = _Move(sheet)
    for unit, (left, right) in activation.sides.items():
        move.amount = right + (left - right) * sheet.left
        _FIELDS[unit](move)
    return np.stack([move.dx, move.dy, move.dz], -1)


class _Move:
    """Collects displacements; `amount` is how active the present unit is at each point."""

    def __init__(self, sheet: Sheet) -> None:
        self.sheet = sheet
        self.dx, self.dy, self.dz = (np.zeros_like(sheet.x) for _ in range(3))
        self.amount = np.zeros_like(sheet.x)
        self.lid_up, self.lid_low = lens_weights(sheet.eye_t, EYE_HALF_HEIGHT_MM, 9.0)
        lid = np.maximum(1.0 - np.abs(sheet.eye_s) ** 2.2, 0.0) ** 0.7
        self.lid_up, self.lid_low = self.lid_up * lid, self.lid_low * lid
        self.lip_up, self.lip_low = lens_weights(sheet.mouth_t, MOUTH_HALF_HEIGHT_MM, 12.0)
        self.lip_arch = np.maximum(1.0 - sheet.mouth_s**2, 0.0) ** 0.6

    def add(self, weight: np.ndarray, out: float = 0.0, up: float = 0.0, forward: float = 0.0) -> None:
        """Add a displacement in mm at full strength. `out` points away from the midline."""
        weighted = self.amount * weight
        self.dx += weighted * out * self.sheet.side * smoothstep(self.sheet.ax / 6.0)
        self.dy += weighted * up
        self.dz += weighted * forward


def _au1(m: _Move) -> None:  # inner brow raiser
    m.add(m.sheet.gauss(11, 54, 11, 12, 7), up=6.5, forward=0.5)


def _au2(m: _Move) -> None:  # outer brow raiser
    m.add(m.sheet.gauss(39, 54, 13, 12, 7), up=6.5)


def _au4(m: _Move) -> None:  # brow lowerer
    m.add(m.sheet.gauss(13, 53, 13, 8, 8), out=-3.2, up=-5.2)
    m.add(m.sheet.gauss(7, 53, 5, 6), forward=1.8)
    m.add(m.sheet.gauss(0, 54, 2.2, 7), forward=-1.6)
    m.add(m.lid_up, up=-0.7)


def _au5(m: _Move) -> None:  # upper lid raiser
    m.add(m.lid_up, up=2.6)


def _au6(m: _Move) -> None:  # cheek raiser
    m.add(m.sheet.gauss(34, 10, 14, 12), up=4.2, forward=3.0)
    m.add(m.lid_low, up=1.6)
    m.add(m.sheet.gauss(47, 44, 9, 9), up=-1.2)


def _au7(m: _Move) -> None:  # lid tightener
    m.add(m.lid_low, up=1.7)
    m.add(m.lid_up, up=-1.0)


def _au9(m: _Move) -> None:  # nose wrinkler
    m.add(m.sheet.gauss(11, 2, 9, 12), up=4.2, forward=0.8)
    m.add(m.sheet.gauss(12, 50, 11, 9), out=-1.5, up=-3.0)
    ripple = np.cos((m.sheet.q - 28.0) * 2 * np.pi / 7.0)
    m.add(m.sheet.gauss(6, 27, 8, 9) * ripple, forward=0.9)
    m.add(m.sheet.gauss(24, 6, 9, 14), up=2.0, forward=1.6)
    m.add(m.lid_low, up=0.8)


def _au10(m: _Move) -> None:  # upper lip raiser
    m.add(m.lip_up * m.lip_arch, up=4.6, forward=0.8)
    m.add(m.sheet.gauss(14, -20, 10, 8), up=3.2, forward=0.8)
    m.add(m.sheet.gauss(24, -2, 8, 13), forward=2.0, up=1.5)


def _au11(m: _Move) -> None:  # nasolabial deepener
    m.add(m.sheet.gauss(22, -8, 7, 12), up=2.4, forward=1.8)
    m.add(m.lip_up * m.sheet.gauss(14, -24, 8, 8), up=1.0)


def _au12(m: _Move) -> None:  # lip corner puller
    m.add(m.sheet.gauss(25, -31.5, 11, 10), out=6.0, up=7.0, forward=-3.6)
    m.add(m.sheet.gauss(36, -6, 13, 13), out=1.0, up=3.2, forward=3.4)
    m.add(m.lip_arch * np.exp(-0.5 * ((m.sheet.q + 32) / 8) ** 2), forward=-1.8, up=-0.8)


def _au14(m: _Move) -> None:  # dimpler: the corners of the mouth are drawn in against the teeth
    m.add(m.sheet.gauss(28, -31.5, 6, 7), out=1.6, up=0.6, forward=-3.2)
    m.add(m.sheet.gauss(38, -32, 6, 9), out=-1.0, forward=1.6)


def _au15(m: _Move) -> None:  # lip corner depressor
    m.add(m.sheet.gauss(24.5, -33, 9, 9), out=1.2, up=-7.0, forward=-1.0)
    m.add(m.sheet.gauss(31, -46, 8, 9), forward=1.5)


def _au16(m: _Move) -> None:  # lower lip depressor
    m.add(m.lip_low * m.lip_arch, up=-4.2, forward=0.6)


def _au17(m: _Move) -> None:  # chin raiser
    m.add(m.sheet.gauss(0, -58, 16, 9, 12), up=4.2, forward=1.6)
    m.add((m.lip_low + m.lip_up) * m.lip_arch, up=1.7, forward=1.2)


def _au18(m: _Move) -> None:  # lip pucker: the corners come together, the lips forward
    m.add(m.sheet.gauss(24, -32, 12, 10), out=-6.0, forward=1.5)
    m.add(m.sheet.gauss(0, -32, 15, 9), forward=4.0)


def _au20(m: _Move) -> None:  # lip stretcher
    m.add(m.sheet.gauss(26, -33, 13, 12), out=7.5, up=-1.6, forward=-3.4)
    m.add(m.lip_arch * np.exp(-0.5 * ((m.sheet.q + 32) / 8) ** 2), forward=-1.5)


def _au22(m: _Move) -> None:  # lip funneler: both lips turn outwards
    m.add((m.lip_up + m.lip_low) * m.lip_arch, forward=3.6)
    m.add(m.lip_up * m.lip_arch, up=1.5)
    m.add(m.lip_low * m.lip_arch, up=-1.5)
    m.add(m.sheet.gauss(24, -32, 10, 9), out=-2.5)


def _au23(m: _Move) -> None:  # lip tightener: the red of the lips gets narrow
    near = np.exp(-0.5 * ((m.sheet.q + 32.0) / 7.0) ** 2) * fall(m.sheet.mouth_s - 0.9, 0.5)
    t = m.sheet.mouth_t
    beyond = np.where(t > 0, np.maximum(t - 1, 0), np.minimum(t + 1, 0)) * MOUTH_HALF_HEIGHT_MM
    m.add(near * np.clip(beyond / 6.0, -1.2, 1.2), up=-3.0)
    m.add(near, forward=-2.4)
    m.add(m.sheet.gauss(25, -32, 8, 8), out=-1.8)


def _au24(m: _Move) -> None:  # lip pressor
    m.add(m.sheet.gauss(14, -24, 12, 5), forward=1.6)
    m.add(m.sheet.gauss(14, -42, 12, 5), forward=1.6)
    m.add(m.sheet.gauss(0, -32, 18, 4), forward=-1.6)


def _au25(m: _Move) -> None:  # lips part
    m.add(m.lip_up * m.lip_arch, up=1.8)
    m.add(m.lip_low * m.lip_arch, up=-3.4)
    _deepen_mouth(m, 3.0)


def _drop_jaw(m: _Move, drop_mm: float) -> None:
    """Rotate the mandible about its joints: points below the mouth go down and back, the cheeks stretch."""
    s = m.sheet
    below_lips = np.clip((1.0 - s.mouth_t) / 2.0, 0.0, 1.0)
    below_cheek = smoothstep((-6.0 - s.q) / 42.0)
    beside = smoothstep((s.mouth_s - 0.55) / 0.6)
    weight = (below_lips * (1 - beside) + below_cheek * beside) * (1.0 - 0.75 * smoothstep((s.ax - 30.0) / 42.0))
    m.add(weight, up=-drop_mm, forward=-0.32 * drop_mm)
    m.add(s.gauss(25, -32, 11, 12), out=-0.14 * drop_mm)
    _deepen_mouth(m, 0.6 * drop_mm)


def _deepen_mouth(m: _Move, depth_mm: float) -> None:
    """Move the points between the lips inward."""
    inside = np.maximum(1.0 - m.sheet.mouth_t**2, 0.0) * (m.sheet.mouth_s < 1.0) * m.lip_arch
    m.add(inside, forward=-depth_mm)


def _au26(m: _Move) -> None:  # jaw drop
    _drop_jaw(m, 10.0)


def _au27(m: _Move) -> None:  # mouth stretch
    _drop_jaw(m, 13.0)


def _au28(m: _Move) -> None:  # lip suck: both lips are drawn in over the teeth
    m.add((m.lip_up + m.lip_low) * m.lip_arch, forward=-4.0)
    m.add(m.lip_up * m.lip_arch, up=-1.6)
    m.add(m.lip_low * m.lip_arch, up=1.6)
    m.add(m.sheet.gauss(0, -48, 18, 7), up=2.0, forward=-1.5)


def _au34(m: _Move) -> None:  # cheek puff
    m.add(m.sheet.gauss(40, -28, 15, 17), out=4.0, forward=6.0)
    m.add(m.sheet.gauss(0, -32, 18, 6), forward=-1.2)


def _au43(m: _Move) -> None:  # eyes droop shut
    m.add(m.lid_up, up=-3.4)


def _au44(m: _Move) -> None:  # squint: lids and brows close in on the eye
    m.add(m.lid_up, up=-1.7)
    m.add(m.lid_low, up=1.3)
    m.add(m.sheet.gauss(28, 51, 20, 8), up=-1.8)


_FIELDS = {
    1: _au1, 2: _au2, 4: _au4, 5: _au5, 6: _au6, 7: _au7, 9: _au9, 10: _au10, 11: _au11, 12: _au12, 14: _au14, 15: _au15,
    16: _au16, 17: _au17, 18: _au18, 20: _au20, 22: _au22, 23: _au23, 24: _au24, 25: _au25, 26: _au26, 27: _au27, 28: _au28,
    34: _au34, 43: _au43, 44: _au44,
}  # fmt: skip
