"""Facial action units as displacement fields of the face, and the expressions they make up.

Which units belong to which expression follows EMFACS (Friesen & Ekman 1983); what each unit does follows the FACS manual
(Ekman, Friesen & Hager 2002). Sizes in mm are our own, fitted by eye.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from preprocess.synth.sheet import EYE_HALF_HEIGHT_MM, MOUTH_HALF_HEIGHT_MM, Sheet, fall, lens_weights, smoothstep

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
    face = _Face(sheet)
    dx, dy, dz = (np.zeros_like(sheet.x) for _ in range(3))
    for unit, (left, right) in activation.sides.items():
        amount = right + (left - right) * sheet.left
        for push in _PUSHES[unit](face):
            weighted = amount * push.weight
            dx += weighted * push.out * sheet.side * smoothstep(sheet.ax / 6.0)
            dy += weighted * push.up
            dz += weighted * push.forward
    return np.stack([dx, dy, dz], -1)


class _Push(NamedTuple):
    """A displacement in mm at full strength. weight: of each point of the sheet. `out` points away from the midline."""

    weight: np.ndarray
    out: float = 0.0
    up: float = 0.0
    forward: float = 0.0


class _Face:
    """Weights of the points of a sheet near lids and lips; `gauss`: as that of the sheet."""

    def __init__(self, sheet: Sheet) -> None:
        self.sheet, self.gauss = sheet, sheet.gauss
        self.lid_up, self.lid_low = lens_weights(sheet.eye_t, EYE_HALF_HEIGHT_MM, 9.0)
        lid = np.maximum(1.0 - np.abs(sheet.eye_s) ** 2.2, 0.0) ** 0.7
        self.lid_up, self.lid_low = self.lid_up * lid, self.lid_low * lid
        self.lip_up, self.lip_low = lens_weights(sheet.mouth_t, MOUTH_HALF_HEIGHT_MM, 12.0)
        self.lip_arch = np.maximum(1.0 - sheet.mouth_s**2, 0.0) ** 0.6


def _tighten_lips(f: _Face) -> list[_Push]:
    """Narrow the red of the lips."""
    near = np.exp(-0.5 * ((f.sheet.q + 32.0) / 7.0) ** 2) * fall(f.sheet.mouth_s - 0.9, 0.5)
    t = f.sheet.mouth_t
    beyond = np.where(t > 0, np.maximum(t - 1, 0), np.minimum(t + 1, 0)) * MOUTH_HALF_HEIGHT_MM
    return [
        _Push(near * np.clip(beyond / 6.0, -1.2, 1.2), up=-3.0),
        _Push(near, forward=-2.4),
        _Push(f.gauss(25, -32, 8, 8), out=-1.8),
    ]


def _drop_jaw(f: _Face, drop_mm: float) -> list[_Push]:
    """Rotate the mandible about its joints: points below the mouth go down and back, the cheeks stretch."""
    s = f.sheet
    below_lips = np.clip((1.0 - s.mouth_t) / 2.0, 0.0, 1.0)
    below_cheek = smoothstep((-6.0 - s.q) / 42.0)
    beside = smoothstep((s.mouth_s - 0.55) / 0.6)
    weight = (below_lips * (1 - beside) + below_cheek * beside) * (1.0 - 0.75 * smoothstep((s.ax - 30.0) / 42.0))
    stretch = _Push(f.gauss(25, -32, 11, 12), out=-0.14 * drop_mm)
    return [_Push(weight, up=-drop_mm, forward=-0.32 * drop_mm), stretch, _deepen_mouth(f, 0.6 * drop_mm)]


def _deepen_mouth(f: _Face, depth_mm: float) -> _Push:
    """Move the points between the lips inward."""
    inside = np.maximum(1.0 - f.sheet.mouth_t**2, 0.0) * (f.sheet.mouth_s < 1.0) * f.lip_arch
    return _Push(inside, forward=-depth_mm)


# Unit → its pushes.
_PUSHES: dict[int, Callable[[_Face], list[_Push]]] = {
    1: lambda f: [_Push(f.gauss(11, 54, 11, 12, 7), up=6.5, forward=0.5)],  # inner brow raiser
    2: lambda f: [_Push(f.gauss(39, 54, 13, 12, 7), up=6.5)],  # outer brow raiser
    4: lambda f: [  # brow lowerer
        _Push(f.gauss(13, 53, 13, 8, 8), out=-3.2, up=-5.2),
        _Push(f.gauss(7, 53, 5, 6), forward=1.8),
        _Push(f.gauss(0, 54, 2.2, 7), forward=-1.6),
        _Push(f.lid_up, up=-0.7),
    ],
    5: lambda f: [_Push(f.lid_up, up=2.6)],  # upper lid raiser
    6: lambda f: [  # cheek raiser
        _Push(f.gauss(34, 10, 14, 12), up=4.2, forward=3.0),
        _Push(f.lid_low, up=1.6),
        _Push(f.gauss(47, 44, 9, 9), up=-1.2),
    ],
    7: lambda f: [_Push(f.lid_low, up=1.7), _Push(f.lid_up, up=-1.0)],  # lid tightener
    9: lambda f: [  # nose wrinkler
        _Push(f.gauss(11, 2, 9, 12), up=4.2, forward=0.8),
        _Push(f.gauss(12, 50, 11, 9), out=-1.5, up=-3.0),
        _Push(f.gauss(6, 27, 8, 9) * np.cos((f.sheet.q - 28.0) * 2 * np.pi / 7.0), forward=0.9),
        _Push(f.gauss(24, 6, 9, 14), up=2.0, forward=1.6),
        _Push(f.lid_low, up=0.8),
    ],
    10: lambda f: [  # upper lip raiser
        _Push(f.lip_up * f.lip_arch, up=4.6, forward=0.8),
        _Push(f.gauss(14, -20, 10, 8), up=3.2, forward=0.8),
        _Push(f.gauss(24, -2, 8, 13), forward=2.0, up=1.5),
    ],
    11: lambda f: [  # nasolabial deepener
        _Push(f.gauss(22, -8, 7, 12), up=2.4, forward=1.8),
        _Push(f.lip_up * f.gauss(14, -24, 8, 8), up=1.0),
    ],
    12: lambda f: [  # lip corner puller
        _Push(f.gauss(25, -31.5, 11, 10), out=6.0, up=7.0, forward=-3.6),
        _Push(f.gauss(36, -6, 13, 13), out=1.0, up=3.2, forward=3.4),
        _Push(f.lip_arch * np.exp(-0.5 * ((f.sheet.q + 32) / 8) ** 2), forward=-1.8, up=-0.8),
    ],
    14: lambda f: [  # dimpler: the corners of the mouth are drawn in against the teeth
        _Push(f.gauss(28, -31.5, 6, 7), out=1.6, up=0.6, forward=-3.2),
        _Push(f.gauss(38, -32, 6, 9), out=-1.0, forward=1.6),
    ],
    15: lambda f: [  # lip corner depressor
        _Push(f.gauss(24.5, -33, 9, 9), out=1.2, up=-7.0, forward=-1.0),
        _Push(f.gauss(31, -46, 8, 9), forward=1.5),
    ],
    16: lambda f: [_Push(f.lip_low * f.lip_arch, up=-4.2, forward=0.6)],  # lower lip depressor
    17: lambda f: [  # chin raiser
        _Push(f.gauss(0, -58, 16, 9, 12), up=4.2, forward=1.6),
        _Push((f.lip_low + f.lip_up) * f.lip_arch, up=1.7, forward=1.2),
    ],
    18: lambda f: [  # lip pucker: the corners come together, the lips forward
        _Push(f.gauss(24, -32, 12, 10), out=-6.0, forward=1.5),
        _Push(f.gauss(0, -32, 15, 9), forward=4.0),
    ],
    20: lambda f: [  # lip stretcher
        _Push(f.gauss(26, -33, 13, 12), out=7.5, up=-1.6, forward=-3.4),
        _Push(f.lip_arch * np.exp(-0.5 * ((f.sheet.q + 32) / 8) ** 2), forward=-1.5),
    ],
    22: lambda f: [  # lip funneler: both lips turn outwards
        _Push((f.lip_up + f.lip_low) * f.lip_arch, forward=3.6),
        _Push(f.lip_up * f.lip_arch, up=1.5),
        _Push(f.lip_low * f.lip_arch, up=-1.5),
        _Push(f.gauss(24, -32, 10, 9), out=-2.5),
    ],
    23: _tighten_lips,  # lip tightener: the red of the lips gets narrow
    24: lambda f: [  # lip pressor
        _Push(f.gauss(14, -24, 12, 5), forward=1.6),
        _Push(f.gauss(14, -42, 12, 5), forward=1.6),
        _Push(f.gauss(0, -32, 18, 4), forward=-1.6),
    ],
    25: lambda f: [  # lips part
        _Push(f.lip_up * f.lip_arch, up=1.8),
        _Push(f.lip_low * f.lip_arch, up=-3.4),
        _deepen_mouth(f, 3.0),
    ],
    26: lambda f: _drop_jaw(f, 10.0),  # jaw drop
    27: lambda f: _drop_jaw(f, 13.0),  # mouth stretch
    28: lambda f: [  # lip suck: both lips are drawn in over the teeth
        _Push((f.lip_up + f.lip_low) * f.lip_arch, forward=-4.0),
        _Push(f.lip_up * f.lip_arch, up=-1.6),
        _Push(f.lip_low * f.lip_arch, up=1.6),
        _Push(f.gauss(0, -48, 18, 7), up=2.0, forward=-1.5),
    ],
    34: lambda f: [  # cheek puff
        _Push(f.gauss(40, -28, 15, 17), out=4.0, forward=6.0),
        _Push(f.gauss(0, -32, 18, 6), forward=-1.2),
    ],
    43: lambda f: [_Push(f.lid_up, up=-3.4)],  # eyes droop shut
    44: lambda f: [  # squint: lids and brows close in on the eye
        _Push(f.lid_up, up=-1.7),
        _Push(f.lid_low, up=1.3),
        _Push(f.gauss(28, 51, 20, 8), up=-1.8),
    ],
}
