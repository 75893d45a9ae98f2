"""From the cache's integers to what an image tower takes, on the device."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from shared.modalities import get_modality


def to_device(images: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Copy images to the device: u8 as u8; u16 as its bytes, converted to i32 there, because torch has few operations on u16.

    Args:
        images: u8 or u16; a tensor, which may be on the device already, has i16 of the same bytes for u16.
    """
    if isinstance(images, np.ndarray):
        images = view_as_tensor(images)
    images = images.to(device, non_blocking=True)
    return images.int() & 0xFFFF if images.dtype == torch.int16 else images


def view_as_tensor(array: np.ndarray) -> Tensor:
    """Return a tensor on the same memory; u16 as i16 with the same bytes."""
    return torch.from_numpy(array.view(np.int16) if array.dtype == np.uint16 else array)


def mirror(pixels: Tensor, modality: str) -> Tensor:
    """Return the image of the mirrored face, exactly, from the mirrored camera (yaw negated): columns and x axis reversed.

    Args:
        pixels: stored values (…, H, W, channels), or (…, H, W) where a modality has one.
    Raises:
        FacetError: unknown modality.
    """
    kind = get_modality(modality)
    mirrored: Tensor = kind.negate_x(pixels.flip(kind.column_axis))  # flip copies
    return mirrored


def to_unit(
    pixels: Tensor, modality: str, *, dynamic: bool = False, background: Sequence[float] = (0.0, 0.0, 0.0)
) -> Tensor:
    """Return stored values as f32 (…, 3, H, W) in 0…1; one channel becomes three equal ones.

    Args:
        dynamic: as `Modality.to_unit`.
        background: RGB in 0…1 of a modality of colours where there is no surface; the others are 0 there.
    Raises:
        FacetError: unknown modality.
    """
    kind = get_modality(modality)
    values: Tensor = kind.to_unit(pixels.float(), dynamic=dynamic)
    if kind.is_colour and any(background):
        is_empty = ~kind.find_surface(pixels)
        for channel, value in enumerate(background):  # no tensor of the colour: a program could not be traced with it
            values[..., channel].masked_fill_(is_empty, value)
    if kind.channels:
        return values.movedim(-1, -3)
    return values.unsqueeze(-3).expand(*values.shape[:-2], 3, *values.shape[-2:])


def resize(images: Tensor, size_px: int) -> Tensor:
    """Resize (…, 3, H, W) to (…, 3, size, size) with antialiasing; return the input if it has this size."""
    if images.shape[-2:] == (size_px, size_px):
        return images
    flat = images.flatten(0, -4)
    flat = F.interpolate(flat, (size_px, size_px), mode="bilinear", antialias=True, align_corners=False)
    return flat.view(*images.shape[:-2], size_px, size_px)


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Subtract the tower's mean from (…, 3, H, W) in 0…1 and divide by its standard deviation."""
    return (images - _rgb(tuple(mean), images.device)) / _rgb(tuple(std), images.device)


@lru_cache(maxsize=16)
def _rgb(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return (3, 1, 1) on the device, copied once: each copy makes the host wait for all work of the GPU."""
    return torch.tensor(values, device=device).view(3, 1, 1)
