"""From the cache's integers to what an image tower takes, on the device."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from shared.schema import DEPTH_STEP_MM, DEPTH_ZERO

# Depth that is kept, mm before (+) and behind (−) the nose tip: the crop sphere's ears to a nose turned toward the viewer.
DEPTH_FAR_MM, DEPTH_NEAR_MM = -110.0, 20.0
# In a dynamic image depth is a change; mm that are kept to either side: what faces do, short of an opening mouth.
DEPTH_CHANGE_MM = 5.0


def to_device(images: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """u8 stays u8; u16 travels as its own bytes and becomes i32 on the device (torch computes little with u16).

    Args:
        images: u8 or u16; a tensor, which may be on the device already, has i16 of the same bytes for u16.
    """
    if isinstance(images, np.ndarray):
        images = view_as_tensor(images)
    images = images.to(device, non_blocking=True)
    return images.int() & 0xFFFF if images.dtype == torch.int16 else images


def view_as_tensor(array: np.ndarray) -> Tensor:
    """The same memory; u16 as i16 of the same bytes."""
    return torch.from_numpy(array.view(np.int16) if array.dtype == np.uint16 else array)


def mirror(pixels: Tensor, modality: str) -> Tensor:
    """The image of the mirrored face, exactly, seen from the mirrored camera (yaw negated).

    Columns are reversed; for normals x is negated as well, which in the encoding round(127 n) + 128 is 256 − value, and 0,
    no surface, stays 0.

    Args:
        pixels: (…, H, W, 3) u8, or (…, H, W) for depth.
    """
    if modality == "depth":
        return pixels.flip(-1)
    pixels = pixels.flip(-2)
    if modality == "normal":
        x = pixels[..., 0].int()
        x = torch.where(x > 0, 256 - x, 0).to(torch.uint8)
        pixels = torch.cat([x[..., None], pixels[..., 1:]], dim=-1)
    return pixels


def to_unit(pixels: Tensor, modality: str, *, dynamic: bool = False) -> Tensor:
    """Integers → f32 (…, 3, H, W) in 0…1; 0 where there is no surface. Depth: far is 0, near is 1, the same in 3 channels.

    Args:
        dynamic: depth is a change, as in a cache of dynamic images: 0 is 5 mm backward and more, 0.5 no change, 1 forward.
    """
    if modality != "depth":
        return pixels.movedim(-1, -3).float() / 255
    z_mm = (pixels.float() - DEPTH_ZERO) * DEPTH_STEP_MM
    far_mm, near_mm = (-DEPTH_CHANGE_MM, DEPTH_CHANGE_MM) if dynamic else (DEPTH_FAR_MM, DEPTH_NEAR_MM)
    near = ((z_mm - far_mm) / (near_mm - far_mm)).clamp(0, 1) * (pixels > 0)
    return near.unsqueeze(-3).expand(*near.shape[:-2], 3, *near.shape[-2:])


def resize(images: Tensor, size_px: int) -> Tensor:
    """(…, 3, H, W) → (…, 3, size, size), with antialiasing; nothing happens where the size is right."""
    if images.shape[-2:] == (size_px, size_px):
        return images
    flat = images.flatten(0, -4)
    flat = F.interpolate(flat, (size_px, size_px), mode="bilinear", antialias=True, align_corners=False)
    return flat.view(*images.shape[:-2], size_px, size_px)


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(…, 3, H, W) in 0…1 → minus the mean, over the standard deviation the tower was trained with."""
    return (images - _rgb(tuple(mean), images.device)) / _rgb(tuple(std), images.device)


@lru_cache(maxsize=16)
def _rgb(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Copied once: a copy of a few numbers makes the host wait for all that the GPU has to do."""
    return torch.tensor(values, device=device).view(3, 1, 1)
