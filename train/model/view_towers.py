"""An image tower for each view."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class ViewTowers(nn.Module):
    """One image tower for each view, which share no weights, as MiT has them (IEEE Signal Processing Letters 2021, the author's
    public code). All start with the same weights."""

    def __init__(self, tower: nn.Module, num_views: int) -> None:
        super().__init__()
        self.towers = nn.ModuleList([tower, *(copy.deepcopy(tower) for _ in range(num_views - 1))])

    def forward(self, images: Tensor, views: Tensor | None = None) -> Tensor:
        """Images (n, 3, S, S) → features (n, d).

        Args:
            views: i64 (n,), which view each image shows; None: 0, 1, … in turn, over and over.
        """
        if views is None:
            by_view = images.unflatten(0, (-1, len(self.towers)))
            return torch.stack([_run(t, by_view[:, i]) for i, t in enumerate(self.towers)], dim=1).flatten(0, 1)
        places = [torch.nonzero(views == view).flatten() for view in range(len(self.towers))]
        found = [_run(t, images[place]) for t, place in zip(self.towers, places, strict=True) if len(place)]
        return torch.cat(found)[torch.cat(places).argsort()]


def _run(tower: nn.Module, images: Tensor) -> Tensor:
    images = images.contiguous(memory_format=torch.channels_last)
    features = tower(images)
    found: Tensor = features[0] if isinstance(features, (tuple, list)) else features
    return found
