"""Random changes to training images, on the device: the same for all views, frames and modalities of a sample.

Each sample's change is a function of (seed, epoch, sample) alone, so that neither the batch it falls into, nor the number of
devices, nor an interruption alters it. One that is drawn again within an epoch (`--sampler balanced`) is changed otherwise each
time: then how often it came before in the epoch's order counts, too.

All samples of a batch are changed together, by a few operations on whole tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

MAX_SHIFT = 0.06  # of the image's side
MAX_SCALE = 0.08
MAX_BRIGHTNESS, MAX_TINT, MAX_GAMMA = 0.3, 0.1, 0.25  # texture alone: skin and light vary, geometry does not
MAX_NOISE = 0.03  # standard deviation, of 0…1
ERASE_PROBABILITY, ERASE_LEAST, ERASE_MOST = 0.25, 0.1, 0.3  # sides of the erased rectangle, of the image's side
NOISE_SEED = 0x5EED
_COLUMNS = {"flip": 1, "scale": 1, "shift": 2, "gain": 3, "gamma": 1, "noise": 1, "noise_place": 1, "erase": 4}


@dataclass(frozen=True)
class AugmentParameters:
    """What happens to each of B samples: table f32 (B, 14), one column after the other as the properties name them."""

    table: Tensor

    def _columns(self, name: str) -> Tensor:
        first = sum(list(_COLUMNS.values())[: list(_COLUMNS).index(name)])
        return self.table[:, first : first + _COLUMNS[name]]

    @property
    def flip(self) -> Tensor:
        """bool (B,): mirrored or not."""
        return self._columns("flip")[:, 0] > 0.5

    @property
    def scale(self) -> Tensor:
        """(B,), above 1: larger."""
        return self._columns("scale")[:, 0]

    @property
    def shift(self) -> Tensor:
        """(B, 2): to the right and down, of the image's side."""
        return self._columns("shift")

    @property
    def gain(self) -> Tensor:
        """(B, 3): of red, green and blue."""
        return self._columns("gain")

    @property
    def gamma(self) -> Tensor:
        """(B,)"""
        return self._columns("gamma")[:, 0]

    @property
    def noise(self) -> Tensor:
        """(B,): its standard deviation, of 0…1."""
        return self._columns("noise")[:, 0]

    @property
    def noise_place(self) -> Tensor:
        """(B,): 0 to below 1, where in the table of random numbers a sample's noise begins."""
        return self._columns("noise_place")[:, 0]

    @property
    def erase(self) -> Tensor:
        """(B, 4): left, top, right, bottom, of the image's side; all 0: nothing."""
        return self._columns("erase")

    def to(self, device: torch.device) -> AugmentParameters:
        """One copy, which the host does not wait for."""
        if device.type != "cuda":
            return self
        return AugmentParameters(self.table.pin_memory().to(device, non_blocking=True))


def draw_parameters(
    seed: int, epoch: int, samples: Sequence[int], repeats: Sequence[int] | None = None
) -> AugmentParameters:
    """The changes of some samples in one epoch; each is what it would be in any other company.

    Args:
        samples: their places in the cache, 0 … 2³² − 1.
        repeats: how many times each was drawn before in the epoch, 0 … 2³² − 1; None: not once.
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


def _draw_uniform(seed: int, epoch: int, keys: np.ndarray) -> np.ndarray:
    """f64 (B, 16) in 0 to below 1: a hash of (seed, epoch, key, column), for all keys u64 (B,) at once.

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


def augment(images: Tensor, changes: AugmentParameters, colour: Sequence[int] = ()) -> Tensor:
    """Applies everything but the flip (which is exact on integers: `train.data.pixels.mirror`).

    Args:
        images: f32 (B, T, M, V, 3, S, S) in 0…1; overwritten.
        changes: of the B samples, on the same device.
        colour: the indices of the M modalities whose colours are changed as well.
    Returns:
        The same shape, in 0…1 but for the noise.
    """
    for index in colour:
        jitter_colour(images[:, :, index], changes)
    images = shift_and_scale(images, changes)
    return erase(add_noise(images, changes), changes)


def jitter_colour(images: Tensor, changes: AugmentParameters) -> Tensor:
    """(B, …, 3, H, W) in 0…1, in place: a gamma and a gain a channel; 0, no surface, stays 0."""
    shape = (-1, *[1] * (images.ndim - 4), 3, 1, 1)
    gamma = changes.gamma[:, None].expand(-1, 3).reshape(shape)
    return images.pow_(gamma).mul_(changes.gain.reshape(shape)).clamp_(0, 1)


def shift_and_scale(images: Tensor, changes: AugmentParameters) -> Tensor:
    """(B, …, H, W): scaled about the centre, then shifted to the right and down; what comes in from outside is 0."""
    # grid_sample asks where a pixel comes from, in −1…1 over the image: the inverse of scale, then shift.
    inverse = 1 / changes.scale
    theta = torch.cat([torch.diag_embed(inverse[:, None].expand(-1, 2)), -2 * changes.shift[..., None]], dim=2)
    theta[:, :, 2] *= inverse[:, None]
    flat = images.flatten(1, -3)
    grid = F.affine_grid(theta, list(flat.shape), align_corners=False)
    return F.grid_sample(flat, grid, mode="bilinear", padding_mode="zeros", align_corners=False).view(images.shape)


def add_noise(images: Tensor, changes: AugmentParameters) -> Tensor:
    """(B, T, …), in place: a sample's noise is a stretch of one table of random numbers, begun at its own place.

    A copy costs a fifth of drawing anew (on a CPU), and needs no generator a sample. All frames get the same pattern: what
    changes over time may be far smaller than the noise.
    """
    num = math.prod(images.shape[2:])
    numbers = _noise_table(num, str(images.device))
    stretches = numbers.unfold(0, num, 1)  # every one there is, without a copy
    noise = stretches[(changes.noise_place * len(stretches)).long()].view(-1, 1, *images.shape[2:])
    return images.addcmul_(noise, changes.noise.view(-1, *[1] * (images.ndim - 1)))


@lru_cache(maxsize=4)
def _noise_table(num: int, device: str) -> Tensor:
    """Normal random numbers, at least twice as many as `num`; the same on every device."""
    generator = torch.Generator().manual_seed(NOISE_SEED)
    return torch.randn(1 << max(num, 1 << 14).bit_length(), generator=generator).to(device)


def erase(images: Tensor, changes: AugmentParameters) -> Tensor:
    """(B, …, S, S), in place: 0 within each sample's rectangle."""
    size = images.shape[-1]
    left, top, right, bottom = (changes.erase * size).round().unbind(1)
    place = torch.arange(size, device=images.device)
    rows = (place >= top[:, None]) & (place < bottom[:, None])
    columns = (place >= left[:, None]) & (place < right[:, None])
    within = rows[:, :, None] & columns[:, None, :]
    return images.masked_fill_(within.view(-1, *[1] * (images.ndim - 3), size, size), 0)
