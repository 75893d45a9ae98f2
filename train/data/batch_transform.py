"""From a batch as it lies in the cache to what the model takes, on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from shared.cache import Cache
from shared.modalities import MODALITIES
from shared.schema import View
from train.config import TowerConfig
from train.data.augment import AugmentParameters, augment
from train.data.embeddings import Embeddings, RowBatch
from train.data.items import Item
from train.data.pixels import mirror, normalise, resize, to_device, to_unit
from train.data.stream import ImageSource, RawBatch, StoredImages, stream_batches
from train.data.transfer import allocator, copy_ahead, copy_small
from train.model.facet import Batch


@dataclass(frozen=True)
class BatchTransform:
    """How images of one cache become input of one tower."""

    modalities: tuple[str, ...]
    views: tuple[View, ...]
    tower: TowerConfig
    device: torch.device
    dynamic: bool = False  # the cache holds dynamic images: its depth is a change
    only_flip: bool = False  # of augmentation, mirroring alone is applied
    embeddings: Embeddings | None = None  # what a frozen tower made of the images: they are not read then
    source: ImageSource | None = None  # of the images, for all streams; None: the cache's files, memory for each stream

    def stream(
        self,
        cache: Cache,
        batches: Sequence[Sequence[Item]],
        num_frames: int,
        *,
        jitter: tuple[int, int] | None = None,
        references: bool = False,
    ) -> Iterator[RawBatch | RowBatch]:
        """What `prepare` takes, batch after batch: images of the cache, or the rows whose embeddings are in memory.

        Args:
            jitter, references: as `stream_batches`.
        """
        if self.embeddings is None:
            source = self.source or StoredImages(cache, allocate=allocator(self.device))
            read = stream_batches(cache, batches, self.modalities, num_frames, jitter, references, source=source)
            yield from copy_ahead(read, self.device)
        else:
            for items in batches:
                yield self.embeddings.choose(items, num_frames, jitter, references)

    @torch.no_grad()
    def prepare(self, raw: RawBatch | RowBatch, changes: AugmentParameters | None = None) -> Batch:
        """Integers → normalised images, or rows → their features, with the cameras they were taken by.

        Args:
            changes: what augmentation does to each sample, the same in all its views; None: nothing.
        """
        cameras = cameras_rad(self.views, len(raw.items), self.device)
        flipped = None
        if changes is not None:
            changes = changes.to(self.device)
            flipped = changes.flip
            cameras[..., 0] *= 1 - 2 * flipped[:, None].float()
        images = features = None
        if isinstance(raw, RowBatch):
            assert self.embeddings is not None
            features = self.embeddings.gather(raw.rows, flipped)
        else:
            images = self._to_unit(raw, flipped)
            if changes is not None and not self.only_flip:
                colour = [i for i, name in enumerate(self.modalities) if MODALITIES[name].is_colour]
                images = augment(images, changes, colour)
            images = normalise(images, self.tower.mean, self.tower.std)
        return Batch(
            images=images,
            present=copy_small(raw.present, self.device),
            cameras=cameras,
            complete=bool(raw.present.all()),
            has_reference=None if raw.has_reference is None else copy_small(raw.has_reference, self.device),
            features=features,
        )

    def prepare_images(self, raw: RawBatch, flipped: torch.Tensor) -> torch.Tensor:
        """f32 (B, T, M, V, 3, S, S), normalised, mirrored where flipped bool (B,) says so: what the image tower takes."""
        return normalise(self._to_unit(raw, flipped), self.tower.mean, self.tower.std)

    def _to_unit(self, raw: RawBatch, flipped: torch.Tensor | None) -> torch.Tensor:
        stacked = []
        for modality in self.modalities:
            pixels = to_device(raw.images[modality], self.device)
            if flipped is not None:
                shape = (-1, *[1] * (pixels.ndim - 1))
                pixels = torch.where(flipped.view(shape), mirror(pixels, modality), pixels)
            stacked.append(resize(to_unit(pixels, modality, dynamic=self.dynamic), self.tower.image_size))
        return torch.stack(stacked, dim=2)


def cameras_rad(views: Sequence[View], num: int, device: torch.device) -> torch.Tensor:
    """(num, V, 2): yaw and pitch of every view, a copy for each sample."""
    return _angles_rad(tuple(views), device).repeat(num, 1, 1)


@lru_cache(maxsize=16)
def _angles_rad(views: tuple[View, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor([[view.yaw_deg, view.pitch_deg] for view in views], device=device).deg2rad()
