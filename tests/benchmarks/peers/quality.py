"""How good a renderer's images are: PSNR against an independent, 8 × 8-supersampled reference, and whether registered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from benchmarks.peers.worker import SIZE_PX
from ray_casting import cast_view
from scipy import ndimage

from preprocess.geometry.mesh import Mesh

REFERENCE_SAMPLES = 8


@dataclass(frozen=True)
class Reference:
    """texture f64 (V, H, W, 3), the mean of 64 rays a pixel; judged bool (V, H, W), the pixels all of whose rays meet the
    surface and that lie more than one pixel from its outline."""

    texture: np.ndarray
    judged: np.ndarray


@dataclass(frozen=True)
class Quality:
    """psnr_db over all judged pixels; shift_px (x, y) of the image against the reference; gain of its values (1 = none)."""

    psnr_db: float
    shift_px: tuple[float, float]
    gain: float

    @property
    def registered(self) -> bool:
        """No half pixel off, not mirrored, no second sRGB conversion: else the renderer was driven wrongly."""
        return max(map(abs, self.shift_px)) < 0.1 and abs(self.gain - 1) < 0.05 and self.psnr_db > 25


def cast_reference(mesh: Mesh, world_to_view: np.ndarray) -> Reference:
    """Open3D's Embree scene casts the rays; the texture is read at full resolution."""
    textures, judged = [], []
    for rotation in world_to_view:
        # One fine image, so that each ray's hit is known.
        fine = cast_view(mesh, rotation, SIZE_PX * REFERENCE_SAMPLES, 1)
        assert fine.texture is not None
        shape = (SIZE_PX, REFERENCE_SAMPLES, SIZE_PX, REFERENCE_SAMPLES)
        whole = np.all(fine.hit.reshape(shape), axis=(1, 3))
        textures.append(np.where(whole[..., None], fine.texture.reshape(*shape, 3).mean((1, 3)), 0.0))
        judged.append(ndimage.binary_erosion(whole, np.ones((3, 3))))
    return Reference(np.stack(textures), np.stack(judged))


def measure_quality(images: np.ndarray, reference: Reference) -> Quality:
    """Of images u8 (V, H, W, 3); the shift is the least-squares step along the reference's gradients (Lucas, Kanade 1981)."""
    inner = ndimage.binary_erosion(reference.judged, np.ones((1, 3, 3)))  # gradients must not cross the outline
    across = np.gradient(reference.texture, axis=2)[inner].ravel()
    down = np.gradient(reference.texture, axis=1)[inner].ravel()
    truth, found = reference.texture[inner].ravel(), images[inner].astype(np.float64).ravel()
    steps = np.stack([-across, -down, truth, np.ones_like(truth)], axis=1)
    x, y, gain, _ = np.linalg.lstsq(steps, found, rcond=None)[0]
    error = images[reference.judged] - reference.texture[reference.judged]
    psnr = 10 * np.log10(255**2 / np.mean(error**2))
    return Quality(float(psnr), (float(x), float(y)), float(gain))
