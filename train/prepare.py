"""From a batch as it lies in the cache to what the model takes, on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from shared.schema import View
from train.augment import Change, augment
from train.config import TowerConfig
from train.facet import Batch
from train.pixels import mirror, normalise, resize, to_device, to_unit
from train.stream import RawBatch


@dataclass(frozen=True)
class Preparer:
    """How images of one cache become input of one tower."""

    modalities: tuple[str, ...]
    views: tuple[View, ...]
    tower: TowerConfig
    device: torch.device
    dynamic: bool = False  # the cache holds dynamic images: its depth is a change

    @torch.no_grad()
    def prepare(self, raw: RawBatch, changes: list[Change] | None = None) -> Batch:
        """Integers → normalised images, with the cameras they were taken by.

        Args:
            changes: what augmentation does to each sample, the same in all its views; None: nothing.
        """
        cameras = _cameras_rad(self.views, len(raw.items), self.device)
        flipped = torch.tensor([c.flip for c in changes], device=self.device) if changes else None
        if flipped is not None:
            cameras[flipped, :, 0] *= -1
        stacked = []
        for modality in self.modalities:
            pixels = to_device(raw.images[modality], self.device)
            if flipped is not None:
                shape = (-1, *[1] * (pixels.ndim - 1))
                pixels = torch.where(flipped.view(shape), mirror(pixels, modality), pixels)
            stacked.append(resize(to_unit(pixels, modality, dynamic=self.dynamic), self.tower.image_size))
        images = torch.stack(stacked, dim=2)  # (B, T, M, V, 3, S, S)
        if changes is not None:
            texture = self.modalities.index("texture") if "texture" in self.modalities else None
            images = augment(images, changes, texture)
        return Batch(
            images=normalise(images, self.tower.mean, self.tower.std),
            present=torch.from_numpy(raw.present).to(self.device),
            cameras=cameras,
            complete=bool(raw.present.all()),
            has_reference=None if raw.has_reference is None else torch.from_numpy(raw.has_reference).to(self.device),
        )


def _cameras_rad(views: Sequence[View], num: int, device: torch.device) -> torch.Tensor:
    """(num, V, 2): yaw and pitch of every view, a copy for each sample."""
    angles = torch.tensor([[view.yaw_deg, view.pitch_deg] for view in views], device=device)
    return angles.deg2rad().repeat(num, 1, 1)
