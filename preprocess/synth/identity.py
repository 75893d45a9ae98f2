"""Who a synthetic face belongs to: proportions, nose, jaw, eyes, skin. Every person is drawn from a seed of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from preprocess.synth.sheet import Sheet, smoothstep
from preprocess.synth.template import TEMPLATE_EYES_MM

# Shape parameters, each standard normal; what they do stands in `shape_offsets_mm`.
SHAPE = (
    "scale", "width", "lower_height", "upper_height", "jaw_width", "chin_forward", "chin_height", "nose_width", "nose_length",
    "nose_height", "nose_bridge", "nose_hump", "eye_distance", "brow_ridge", "brow_height", "cheekbones", "cheek_fullness",
    "lip_fullness", "mouth_width", "forehead_slope", "temples", "mouth_height",
)  # fmt: skip


@dataclass(frozen=True)
class Identity:
    """A person. shape: SHAPE → about −2 to 2; skin_rgb, lip_rgb, hair_rgb, iris_rgb in 0…1; light: a direction, unit."""

    female: bool
    shape: dict[str, float]
    bumps: np.ndarray  # (K, 5): x, q, sigma, height in mm and asymmetry: what no parameter names
    skin_rgb: np.ndarray
    lip_rgb: np.ndarray
    hair_rgb: np.ndarray
    iris_rgb: np.ndarray
    brow_thickness_mm: float
    stubble: float
    freckles: float
    light: np.ndarray
    noise_seed: int


def draw_identity(rng: np.random.Generator, *, female: bool) -> Identity:
    """Draw a random person; women have rounder, men more angular shapes on average."""
    shape = {name: float(np.clip(rng.normal(), -2.2, 2.2)) for name in SHAPE}
    lean = -1.0 if female else 1.0
    for name, by in {
        "scale": 0.7,
        "jaw_width": 0.7,
        "brow_ridge": 0.9,
        "chin_height": 0.4,
        "lip_fullness": -0.4,
    }.items():
        shape[name] += by * lean
    bumps = np.stack(
        [rng.uniform(8, 62, 14), rng.uniform(-72, 90, 14), rng.uniform(9, 22, 14), rng.normal(0, 0.8, 14),
         rng.normal(0, 0.35, 14)], -1,
    )  # fmt: skip
    # Skin from light to dark along measured sRGB tones; redness apart from darkness.
    tone = rng.beta(1.3, 1.6)
    light, dark = np.array([0.93, 0.76, 0.67]), np.array([0.42, 0.27, 0.19])
    skin = light + (dark - light) * tone + rng.normal(0, 0.015, 3)
    lips = skin * np.array([0.92, 0.62, 0.62]) + np.array([0.03, 0.0, 0.01])
    hair_tones = np.array(
        [[0.10, 0.07, 0.05], [0.22, 0.14, 0.09], [0.36, 0.24, 0.13], [0.48, 0.36, 0.22], [0.34, 0.15, 0.08]]
    )
    hair = hair_tones[0] if tone > 0.55 else hair_tones[rng.integers(0, 5)]
    iris_tones = np.array([[0.26, 0.15, 0.08], [0.35, 0.22, 0.10], [0.30, 0.42, 0.50], [0.33, 0.42, 0.30]])
    iris = iris_tones[rng.integers(0, 2)] if tone > 0.45 else iris_tones[rng.integers(0, 4)]
    direction = np.array([rng.normal(0, 0.35), rng.uniform(0.25, 0.7), 1.0])
    return Identity(
        female=female,
        shape=shape,
        bumps=bumps,
        skin_rgb=np.clip(skin, 0, 1),
        lip_rgb=np.clip(lips, 0, 1),
        hair_rgb=hair,
        iris_rgb=iris,
        brow_thickness_mm=float(rng.uniform(2.2, 3.2) if female else rng.uniform(2.9, 4.3)),
        stubble=0.0 if female else float(rng.choice([0.0, 0.15, 0.35, 0.6])),
        freckles=float(max(rng.normal(0.0, 0.6), 0.0) * (tone < 0.4)),
        light=direction / np.linalg.norm(direction),
        noise_seed=int(rng.integers(2**31)),
    )


def shape_vertices_mm(identity: Identity, sheet: Sheet, rest_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the person's face at rest.

    Args:
        rest_mm: the average face, f64 (N, 3), of the same sheet points.
    Returns:
        Vertices f64 (N, 3); eyeball centres f64 (2, 3), the subject's left first.
    """
    p, g, q, side = identity.shape, sheet.gauss, sheet.q, sheet.side
    x, y, z = rest_mm.T.copy()
    x = x * (1 + 0.028 * p["width"])
    x = x * (
        1 + 0.045 * p["jaw_width"] * smoothstep((-8.0 - q) / 40.0) + 0.03 * p["temples"] * smoothstep((q - 40.0) / 30.0)
    )
    x = x * (1 + 0.13 * p["nose_width"] * g(0, -3, 13, 12)) * (1 + 0.06 * p["mouth_width"] * g(0, -32, 26, 10))
    x = x + side * 1.5 * p["eye_distance"] * g(31, 40, 15, 14)
    y = y + 0.045 * p["lower_height"] * np.minimum(q + 8.0, 0.0) + 0.05 * p["upper_height"] * np.maximum(q - 44.0, 0.0)
    y = y + 1.6 * p["brow_height"] * g(28, 54, 24, 7) - 2.2 * p["nose_length"] * g(0, -4, 13, 14)
    y = y + 1.6 * p["mouth_height"] * g(0, -32, 30, 14) - 2.2 * p["chin_height"] * smoothstep((-44.0 - q) / 30.0)
    z = z + 3.2 * p["chin_forward"] * g(0, -66, 20, 16) + 2.2 * p["nose_height"] * g(0, 4, 10, 22)
    z = z + 1.6 * p["nose_bridge"] * g(0, 34, 8, 14) + 1.0 * p["nose_hump"] * g(0, 18, 5, 8)
    z = z + 1.5 * p["brow_ridge"] * g(22, 53, 22, 7) + 2.0 * p["cheekbones"] * g(45, 14, 17, 13)
    z = z + 3.0 * p["cheek_fullness"] * g(46, -22, 18, 18) + 1.0 * p["lip_fullness"] * g(0, -32, 20, 7)
    z = z - 0.05 * p["forehead_slope"] * np.maximum(q - 55.0, 0.0)
    for bump_x, bump_q, sigma, height, skew in identity.bumps:
        z = z + height * (1 + skew * (2 * sheet.left - 1)) * g(bump_x, bump_q, sigma, sigma)
    eyes = TEMPLATE_EYES_MM.copy()
    eyes[:, 0] = eyes[:, 0] * (1 + 0.028 * p["width"]) + np.sign(eyes[:, 0]) * 1.5 * p["eye_distance"]
    factor = 1 + 0.03 * p["scale"]
    return np.stack([x, y, z], -1) * factor, eyes * factor
