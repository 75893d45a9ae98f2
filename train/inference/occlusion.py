"""Hide parts of a sample's images and measure the effect on a probability.

A grey square slides over one view at a time, in all its modalities and frames (the reference, too); recorded is by how much the
probability of the predicted class falls (Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks", section
4.2). Grey is the mean colour of the tower's training images, 0 after normalisation. Unlike attention, which only says how
images were weighted, a drop is a measured effect on the prediction.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from train.model.batch import Batch

GRID = 7  # positions of the square along each side
SQUARES_PER_SIDE = 4  # the square's side is a quarter of the image's: squares overlap by half


def place_squares(size_px: int) -> tuple[int, list[int]]:
    """Return the side of the square, and the GRID places where it begins, from edge to edge of the image."""
    square = round(size_px / SQUARES_PER_SIDE)
    return square, np.linspace(0, size_px - square, GRID).round().astype(int).tolist()


@torch.inference_mode()
def occlude(
    probability: Callable[[Batch], Tensor], batch: Batch, batch_size: int, update: Callable[[int], object]
) -> np.ndarray:
    """Return by how much a probability falls while a square hides a part of one view, f32 (V, GRID, GRID).

    Args:
        probability: f32 (B,) of a batch. batch: images of one sample. batch_size: copies of it in one forward pass.
        update: is called with the number of squares done.
    """
    assert batch.images is not None and len(batch.images) == 1
    num_views = batch.dims[3]
    square, starts = place_squares(batch.images.shape[-1])
    places = [(view, top, left) for view in range(num_views) for top in starts for left in starts]
    hidden = []
    for first in range(0, len(places), batch_size):
        part = places[first : first + batch_size]
        tensors = {name: value for name, value in vars(batch).items() if isinstance(value, Tensor)}
        copies = {name: value.repeat(len(part), *[1] * (value.ndim - 1)) for name, value in tensors.items()}
        for image, (view, top, left) in zip(copies["images"], part, strict=True):
            image[:, :, view, :, top : top + square, left : left + square] = 0
        hidden.append(probability(dataclasses.replace(batch, **copies)).cpu())  # type: ignore[arg-type]
        update(len(part))
    drops = probability(batch).cpu() - torch.cat(hidden)
    return drops.view(num_views, GRID, GRID).numpy()


def spread_drops(drops: np.ndarray, size_px: int) -> np.ndarray:
    """Return a map (size, size) of one view: at each pixel the mean over the squares that hid it."""
    square, starts = place_squares(size_px)
    total, count = np.zeros((size_px, size_px)), np.zeros((size_px, size_px))
    for (row, column), drop in np.ndenumerate(drops):
        there = slice(starts[row], starts[row] + square), slice(starts[column], starts[column] + square)
        total[there] += drop
        count[there] += 1
    return total / count
