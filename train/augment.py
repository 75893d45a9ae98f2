"""Random changes to training images, on the device: the same for all views, frames and modalities of a sample.

Each sample's change is a function of (seed, epoch, sample) alone, so that neither the batch it falls into nor an
interruption alters it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

MAX_SHIFT = 0.06  # of the image's side
MAX_SCALE = 0.08
MAX_BRIGHTNESS, MAX_TINT, MAX_GAMMA = 0.3, 0.1, 0.25  # texture alone: skin and light vary, geometry does not
MAX_NOISE = 0.03  # standard deviation, of 0…1
ERASE_PROBABILITY, ERASE_LEAST, ERASE_MOST = 0.25, 0.1, 0.3  # sides of the erased rectangle, of the image's side


@dataclass(frozen=True)
class Change:
    """What happens to one sample."""

    flip: bool
    scale: float
    shift: tuple[float, float]  # x, y, of the image's side
    gain: tuple[float, float, float]  # of red, green, blue
    gamma: float
    noise: float
    noise_seed: int
    erase: tuple[float, float, float, float]  # left, top, right, bottom, of the image's side; empty = nothing


def draw_change(seed: int, epoch: int, sample: int) -> Change:
    """The change of one sample in one epoch."""
    rng = np.random.default_rng([seed, epoch, sample])
    width, height = rng.uniform(ERASE_LEAST, ERASE_MOST, 2)
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    brightness = 1 + rng.uniform(-MAX_BRIGHTNESS, MAX_BRIGHTNESS)
    red, green, blue = brightness * (1 + rng.uniform(-MAX_TINT, MAX_TINT, 3))
    x, y = rng.uniform(-MAX_SHIFT, MAX_SHIFT, 2)
    return Change(
        flip=bool(rng.random() < 0.5),
        scale=float(1 + rng.uniform(-MAX_SCALE, MAX_SCALE)),
        shift=(float(x), float(y)),
        gain=(float(red), float(green), float(blue)),
        gamma=float(np.exp(rng.uniform(-MAX_GAMMA, MAX_GAMMA))),
        noise=float(rng.uniform(0, MAX_NOISE)),
        noise_seed=int(rng.integers(2**62)),
        erase=(left, top, left + width, top + height) if rng.random() < ERASE_PROBABILITY else (0.0, 0.0, 0.0, 0.0),
    )


def augment(images: Tensor, changes: list[Change], texture: int | None) -> Tensor:
    """Applies everything but the flip (which is exact on integers: `train.pixels.mirror`).

    Args:
        images: f32 (B, T, M, V, 3, S, S) in 0…1.
        changes: one a sample.
        texture: which of the M modalities is texture.
    Returns:
        The same shape, in 0…1 but for the noise.
    """
    if texture is not None:
        images = images.clone()
        images[:, :, texture] = jitter_colour(images[:, :, texture], changes)
    images = shift_and_scale(images, changes)
    size = images.shape[-1]
    for image, change in zip(images, changes, strict=True):  # `images` is a new tensor: changed in place
        generator = torch.Generator(images.device).manual_seed(change.noise_seed)
        # one pattern for all frames: what changes over time may be far smaller than the noise
        image += change.noise * torch.randn(image.shape[1:], generator=generator, device=images.device)
        left, top, right, bottom = (round(size * edge) for edge in change.erase)
        image[..., top:bottom, left:right] = 0
    return images


def jitter_colour(images: Tensor, changes: list[Change]) -> Tensor:
    """(B, …, 3, H, W) in 0…1: a gamma and a gain a channel; 0, no surface, stays 0."""
    shape = (-1, *[1] * (images.ndim - 4), 3, 1, 1)
    gain = torch.tensor([c.gain for c in changes], device=images.device).view(shape)
    gamma = torch.tensor([[c.gamma] * 3 for c in changes], device=images.device).view(shape)
    return (images.pow(gamma) * gain).clamp(0, 1)


def shift_and_scale(images: Tensor, changes: list[Change]) -> Tensor:
    """(B, …, H, W): scaled about the centre, then shifted to the right and down; what comes in from outside is 0."""
    theta = torch.tensor(
        [
            # grid_sample asks where a pixel comes from, in −1…1 over the image: the inverse of scale, then shift.
            [[1 / c.scale, 0, -2 * c.shift[0] / c.scale], [0, 1 / c.scale, -2 * c.shift[1] / c.scale]]
            for c in changes
        ],
        device=images.device,
    )
    flat = images.flatten(1, -3)
    grid = F.affine_grid(theta, list(flat.shape), align_corners=False)
    return F.grid_sample(flat, grid, mode="bilinear", padding_mode="zeros", align_corners=False).view(images.shape)
