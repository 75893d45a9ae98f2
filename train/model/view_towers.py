"""A separate image tower for each view."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class ViewTowers(nn.Module):
    """One image tower per view without shared weights, as in MiT (IEEE Signal Processing Letters 2021, the author's public
    code). All start with the same weights."""

    def __init__(self, tower: nn.Module, num_views: int) -> None:
        super().__init__()
        self.towers = nn.ModuleList([tower, *(copy.deepcopy(tower) for _ in range(num_views - 1))])

    def forward(self, images: Tensor, views: Tensor | None = None) -> Tensor:
        """Return features (n, d) of images (n, 3, S, S).

        Args:
            views: i64 (n,), the view of each image; None: 0, 1, …, repeated.
        """
        if views is None:
            by_view = images.unflatten(0, (-1, len(self.towers)))
            return torch.stack([_run(t, by_view[:, i]) for i, t in enumerate(self.towers)], dim=1).flatten(0, 1)
        indices = [torch.nonzero(views == view).flatten() for view in range(len(self.towers))]
        found = [_run(t, images[index]) for t, index in zip(self.towers, indices, strict=True) if len(index)]
        return torch.cat(found)[torch.cat(indices).argsort()]


def _run(tower: nn.Module, images: Tensor) -> Tensor:
    images = images.contiguous(memory_format=torch.channels_last)
    features = tower(images)
    found: Tensor = features[0] if isinstance(features, (tuple, list)) else features
    return found
