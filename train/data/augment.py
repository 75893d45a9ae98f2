"""Augmentation of training images, on the device: the same for all views, frames and modalities of a sample.

The parameters of a sample are a function of (seed, epoch, sample) alone: they depend neither on its batch, nor on the number of
devices, nor on interruptions. One that is drawn again within an epoch (`--sampler balanced`) is changed otherwise each
time: then how often it came before in the epoch's order counts, too.

All samples of a batch are augmented together, by a few operations on whole tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

MAX_SHIFT = 0.06  # of the image's side
MAX_SCALE = 0.08
MAX_BRIGHTNESS, MAX_TINT, MAX_GAMMA = 0.3, 0.1, 0.25  # of texture only: skin and light vary, geometry does not
MAX_NOISE = 0.03  # standard deviation, of 0…1
ERASE_PROBABILITY, ERASE_LEAST, ERASE_MOST = 0.25, 0.1, 0.3  # sides of the erased rectangle, of the image's side
NOISE_SEED = 0x5EED
_VIEWS_SEED = 0x71E35  # views are drawn apart from all other parameters


class AugmentParameters:
    """Augmentation parameters of B samples, views of one table on their device.

    flip: bool (B,), whether a sample is mirrored. scale: (B,), above 1 enlarges the image. shift: (B, 2), to the right and
    down, as a fraction of the image's side. gain: (B, 3), factors of red, green and blue. gamma: (B,), exponents of the
    colours. noise: (B,), standard deviation of the noise, for values in 0…1. noise_offset: (B,), of a sample's noise in the
    table of random numbers, 0 to below 1. erase: (B, 4), left, top, right, bottom, as fractions of the side; all 0: nothing
    is erased.
    """

    def __init__(self, table: Tensor) -> None:
        """table: f32 (B, 14), its columns in the order of the attributes."""
        self.table = table
        self.flip, self.scale, self.shift = table[:, 0] > 0.5, table[:, 1], table[:, 2:4]
        self.gain, self.gamma = table[:, 4:7], table[:, 7]
        self.noise, self.noise_offset, self.erase = table[:, 8], table[:, 9], table[:, 10:]

    def to(self, device: torch.device) -> AugmentParameters:
        """Copy to the device without waiting."""
        if device.type != "cuda":
            return self
        return AugmentParameters(self.table.pin_memory().to(device, non_blocking=True))


def draw_parameters(
    seed: int, epoch: int, samples: Sequence[int], repeats: Sequence[int] | None = None
) -> AugmentParameters:
    """Draw the parameters of some samples in one epoch, each independently of the others.

    Args:
        samples: item indices in the cache, 0 … 2³² − 1.
        repeats: how often each was already sampled in the epoch, 0 … 2³² − 1; None: never.
    """
    keys = np.asarray(samples, np.uint64)
    if repeats is not None:
        keys = keys | np.asarray(repeats, np.uint64) << np.uint64(32)
    uniform = _draw_uniform(seed, epoch, keys)

    def within(column: int, least: float, most: float) -> np.ndarray:
        return least + (most - least) * uniform[:, column]

    width, height = within(0, ERASE_LEAST, ERASE_MOST), within(1, ERASE_LEAST, ERASE_MOST)
    left, top = uniform[:, 2] * (1 - width), uniform[:, 3] * (1 - height)
    erases = uniform[:, 4] < ERASE_PROBABILITY
    brightness = 1 + within(5, -MAX_BRIGHTNESS, MAX_BRIGHTNESS)
    columns = [
        uniform[:, 6] < 0.5,
        1 + within(7, -MAX_SCALE, MAX_SCALE),
        *(within(k, -MAX_SHIFT, MAX_SHIFT) for k in (8, 9)),
        *(brightness * (1 + within(k, -MAX_TINT, MAX_TINT)) for k in (10, 11, 12)),
        np.exp(within(13, -MAX_GAMMA, MAX_GAMMA)),
        within(14, 0, MAX_NOISE),
        uniform[:, 15],
        *(edge * erases for edge in (left, top, left + width, top + height)),
    ]
    return AugmentParameters(torch.from_numpy(np.stack(columns, axis=1).astype(np.float32)))


def draw_views(
    seed: int, epoch: int, samples: Sequence[int], repeats: Sequence[int], num_views: int, num: int
) -> np.ndarray:
    """Draw which of its views each sample shows in an epoch: i64 (B, num). Once in every num_views / num epochs, each view.

    Args:
        samples, repeats: as in `draw_parameters`. num: at most num_views.
    """
    period = num_views // num
    keys = np.asarray(samples, np.uint64) | np.asarray(repeats, np.uint64) << np.uint64(32)
    uniform = np.concatenate(
        [
            _draw_uniform(seed ^ _VIEWS_SEED, epoch // period, keys + np.uint64(k << 56))
            for k in range(-(-num_views // 16))
        ],
        axis=1,
    )
    order = np.argsort(uniform[:, :num_views], axis=1)
    first = epoch % period * num
    return order[:, first : first + num]


def _draw_uniform(seed: int, epoch: int, keys: np.ndarray) -> np.ndarray:
    """Return f64 (B, 16) in 0 to below 1: a hash of (seed, epoch, key, column), for all keys u64 (B,) together.

    Mixed by the finaliser of SplitMix64 (Steele, Lea & Flood 2014), one number after the other, as its streams are.
    """
    gamma = np.uint64(0x9E3779B97F4A7C15)

    def mix(value: np.ndarray) -> np.ndarray:
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value ^ (value >> np.uint64(31))

    state = np.zeros((len(keys), 1), np.uint64)
    for number in (np.uint64(seed), np.uint64(epoch), keys[:, None]):
        state = mix(state + gamma + number)
    hashed = mix(state + gamma * np.arange(1, 17, dtype=np.uint64))
    return (hashed >> np.uint64(11)) * 2.0**-53


def augment(
    images: Tensor,
    parameters: AugmentParameters,
    colour: Sequence[int] = (),
    background: Sequence[float] = (0.0, 0.0, 0.0),
) -> Tensor:
    """Apply everything but the flip, which is exact on integers (`train.data.pixels.mirror`).

    Args:
        images: f32 (B, T, M, V, 3, S, S) in 0…1; overwritten.
        parameters: of the B samples, on the same device.
        colour: the indices of the M modalities whose colours are changed as well.
        background: RGB of these modalities where there is no surface. It is changed as all colours of the sample, and fills
            what comes in from outside and what is erased; the other modalities have 0.
    Returns:
        The same shape, in 0…1 but for the noise.
    """
    empty = images.new_zeros(len(images), 1, images.shape[2], 1, 3, 1, 1)
    for index in colour:
        for channel, value in enumerate(background):
            empty[:, :, index, :, channel] = value
        for part in (images, empty):
            jitter_colour(part[:, :, index], parameters)
    images = shift_and_scale(images.sub_(empty), parameters)
    return erase(add_noise(images, parameters), parameters).add_(empty)


def jitter_colour(images: Tensor, parameters: AugmentParameters) -> Tensor:
    """Apply gamma and a gain per channel to (B, …, 3, H, W) in 0…1, in place; 0, no surface, stays 0."""
    shape = (-1, *[1] * (images.ndim - 4), 3, 1, 1)
    gamma = parameters.gamma[:, None].expand(-1, 3).reshape(shape)
    return images.pow_(gamma).mul_(parameters.gain.reshape(shape)).clamp_(0, 1)


def shift_and_scale(images: Tensor, parameters: AugmentParameters) -> Tensor:
    """Scale (B, …, H, W) about the centre, then shift to the right and down; outside is 0."""
    # grid_sample asks where a pixel comes from, in −1…1 over the image: the inverse of scale, then shift.
    inverse = 1 / parameters.scale
    theta = torch.cat([torch.diag_embed(inverse[:, None].expand(-1, 2)), -2 * parameters.shift[..., None]], dim=2)
    theta[:, :, 2] *= inverse[:, None]
    flat = images.flatten(1, -3)
    grid = F.affine_grid(theta, list(flat.shape), align_corners=False)
    return F.grid_sample(flat, grid, mode="bilinear", padding_mode="zeros", align_corners=False).view(images.shape)


def add_noise(images: Tensor, parameters: AugmentParameters) -> Tensor:
    """Add noise to (B, T, …), in place: for each sample a slice of one table of random numbers, at its own offset.

    A slice costs a fifth of new random numbers (on a CPU). All frames get the same pattern, because changes over time may be
    far smaller than the noise.
    """
    num = math.prod(images.shape[2:])
    numbers = _noise_table(num, str(images.device))
    slices = numbers.unfold(0, num, 1)  # at every offset, without a copy
    noise = slices[(parameters.noise_offset * len(slices)).long()].view(-1, 1, *images.shape[2:])
    return images.addcmul_(noise, parameters.noise.view(-1, *[1] * (images.ndim - 1)))


@lru_cache(maxsize=4)
def _noise_table(num: int, device: str) -> Tensor:
    """Return at least 2 · num normal random numbers, the same on every device."""
    generator = torch.Generator().manual_seed(NOISE_SEED)
    return torch.randn(1 << max(num, 1 << 14).bit_length(), generator=generator).to(device)


def erase(images: Tensor, parameters: AugmentParameters) -> Tensor:
    """Set (B, …, S, S) to 0 within each sample's rectangle, in place."""
    size = images.shape[-1]
    left, top, right, bottom = (parameters.erase * size).round().unbind(1)
    position = torch.arange(size, device=images.device)
    rows = (position >= top[:, None]) & (position < bottom[:, None])
    columns = (position >= left[:, None]) & (position < right[:, None])
    within = rows[:, :, None] & columns[:, None, :]
    return images.masked_fill_(within.view(-1, *[1] * (images.ndim - 3), size, size), 0)
