"""Turn a batch of the cache into the model's input, on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from shared.cache import Cache
from shared.modalities import MODALITIES
from shared.schema import View
from train.config import TowerConfig
from train.data.augment import AugmentParameters, augment
from train.data.embeddings import Embeddings, RowBatch
from train.data.pixels import mirror, normalise, resize, to_device, to_unit
from train.data.stream import ImageSource, RawBatch, StoredImages, stream_batches
from train.data.transfer import allocator, copy_ahead, copy_small
from train.model.batch import Batch
from train.tasks.item import Item


@dataclass(frozen=True)
class BatchTransform:
    """Turn images of one cache into input of one tower."""

    modalities: tuple[str, ...]
    views: tuple[View, ...]
    tower: TowerConfig
    device: torch.device
    dynamic: bool = False  # the cache holds dynamic images, whose depth is a change
    only_flip: bool = False  # mirroring is the only augmentation
    embeddings: Embeddings | None = None  # of a frozen tower; then no images are read
    source: ImageSource | None = None  # of images, for all streams; None: the cache's files

    def stream(
        self,
        cache: Cache,
        batches: Sequence[Sequence[Item]],
        num_frames: int,
        *,
        jitter: tuple[int, int] | None = None,
        references: bool = False,
    ) -> Iterator[RawBatch | RowBatch]:
        """Yield one input of `prepare` for each batch: images, or with `embeddings` only rows.

        The images of a batch are valid until the next one is requested.

        Args:
            num_frames: frames of each item; 1 for single scans.
            jitter, references: as in `stream_batches`.
        Raises:
            CacheError: stored images are missing or damaged.
        """
        if self.embeddings is None:
            source = self.source or StoredImages(cache, allocate=allocator(self.device))
            read = stream_batches(cache, batches, self.modalities, num_frames, jitter, references, source=source)
            yield from copy_ahead(read, self.device)
        else:
            for items in batches:
                yield self.embeddings.choose(items, num_frames, jitter, references)

    @torch.no_grad()
    def prepare(
        self, raw: RawBatch | RowBatch, parameters: AugmentParameters | None = None, chosen: np.ndarray | None = None
    ) -> Batch:
        """Return normalised images, or the features of rows, with their cameras.

        Args:
            parameters: augmentation of each sample, the same in all its views; None: no augmentation.
            chosen: i64 (B, v), the views of each sample to take; None: all.
        """
        cameras = cameras_rad(self.views, len(raw.items), self.device)
        flipped = None
        if parameters is not None:
            parameters = parameters.to(self.device)
            flipped = parameters.flip
            cameras[..., 0] *= 1 - 2 * flipped[:, None].float()
        views = None if chosen is None else copy_small(chosen, self.device)
        if views is not None:
            cameras = cameras.gather(1, views[..., None].expand(-1, -1, 2))
        images = features = None
        if isinstance(raw, RowBatch):
            assert self.embeddings is not None
            features = self.embeddings.gather(raw.rows, flipped)
            if views is not None:
                features = features.take_along_dim(views[:, None, None, :, None], 3)
        else:
            images = self._to_unit(raw, flipped, views)
            if parameters is not None and not self.only_flip:
                colour = [i for i, name in enumerate(self.modalities) if MODALITIES[name].is_colour]
                images = augment(images, parameters, colour, self.tower.background)
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
        """Return normalised images f32 (B, T, M, V, 3, S, S), mirrored where flipped bool (B,) is True."""
        return normalise(self._to_unit(raw, flipped), self.tower.mean, self.tower.std)

    def _to_unit(self, raw: RawBatch, flipped: torch.Tensor | None, views: torch.Tensor | None = None) -> torch.Tensor:
        stacked = []
        for modality in self.modalities:
            pixels = to_device(raw.images[modality], self.device)
            if views is not None:
                batch = torch.arange(len(pixels), device=self.device)[:, None]
                pixels = pixels[batch, :, views].transpose(1, 2)  # (B, T, v, H, W …)
            if flipped is not None:
                shape = (-1, *[1] * (pixels.ndim - 1))
                pixels = torch.where(flipped.view(shape), mirror(pixels, modality), pixels)
            images = to_unit(pixels, modality, dynamic=self.dynamic, background=self.tower.background)
            stacked.append(resize(images, self.tower.image_size))
        return torch.stack(stacked, dim=2)


def cameras_rad(views: Sequence[View], num: int, device: torch.device) -> torch.Tensor:
    """Return yaw and pitch of every view for num samples, f32 (num, V, 2)."""
    return _angles_rad(tuple(views), device).repeat(num, 1, 1)


@lru_cache(maxsize=16)
def _angles_rad(views: tuple[View, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor([[view.yaw_deg, view.pitch_deg] for view in views], device=device).deg2rad()
