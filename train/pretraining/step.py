"""One step of a pretraining: its images, and a caption of each, as unit vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from train.config import TowerConfig
from train.data.stream import ImageSource, RawBatch
from train.model.clip import encode_text
from train.pretraining.known_prompts import KnownPrompts
from train.pretraining.loss import CaptionLoss
from train.pretraining.options import PretrainOptions
from train.pretraining.rows import CaptionedRows, CaptionTable, prepare_images
from train.pretraining.text_tower import freeze_text


@dataclass(frozen=True)
class Pretraining:
    """The data and the towers of a pretraining.

    images: where the images of each source come from. train_rows, held_rows: of each source, i64. known: None without prompts.
    """

    options: PretrainOptions
    sources: list[CaptionedRows]
    table: CaptionTable
    known: KnownPrompts | None
    train_rows: list[np.ndarray]
    held_rows: list[np.ndarray]
    images: list[ImageSource]
    clip: Any
    tower: TowerConfig
    device: torch.device
    text_is_frozen: bool

    @property
    def teaches_text(self) -> bool:
        """Whether the text tower is random: it learns alone, before the image tower, and then stays as it is."""
        return self.tower.random_weights and self.options.tune_text == "full" and self.known is not None

    @torch.no_grad()
    def with_frozen_text(self) -> Pretraining:
        """Return the same with the text tower frozen as it is now: all texts are embedded once."""

        def embed(texts: CaptionTable | KnownPrompts) -> Tensor:
            parts = tqdm(torch.arange(len(texts.tokens)).split(256), desc="embed texts", unit="batch", delay=2)
            return torch.cat([self.embed_texts(texts, part).cpu() for part in parts])

        freeze_text(self.clip)
        return dataclasses.replace(
            self,
            table=dataclasses.replace(self.table, embeddings=embed(self.table)),
            known=self.known and dataclasses.replace(self.known, embeddings=embed(self.known)),
            text_is_frozen=True,
        )

    def embed_texts(self, texts: CaptionTable | KnownPrompts, chosen: Tensor) -> Tensor:
        """Return the unit-length embeddings of some captions or prompts, f32 (n, d). chosen: i64 (n,)."""
        if self.text_is_frozen:
            return texts.embeddings[chosen].to(self.device)
        return encode_text(self.clip, texts.tokens[chosen].to(self.device))


@dataclass(frozen=True)
class EmbeddedStep:
    """The P images of a step, the sources' one after the other, and a caption of each.

    images, texts: f32 (P, d), unit length. captions: i64 (P,), of the texts, in the CaptionTable.
    described_by: i64 (P, K), all captions of each image's row; −1 = none.
    rows: each source, and its images' rows in the cache, i64. modalities: of each source, its images' places in `modalities`.
    """

    images: Tensor
    texts: Tensor
    captions: Tensor
    described_by: Tensor
    rows: list[tuple[CaptionedRows, np.ndarray]]
    modalities: list[np.ndarray]

    def caption_loss(self, scale: Tensor) -> Tensor:
        device = self.images.device
        return CaptionLoss()(self.images, self.texts, scale, self.captions.to(device), self.described_by.to(device))


def embed_step(
    run: Pretraining,
    step: Sequence[tuple[CaptionedRows, RawBatch]],
    chosen: Sequence[np.ndarray],
    drawn: Sequence[np.ndarray],
    *,
    augmentation: str = "none",
    epoch: int = 0,
) -> EmbeddedStep:
    """Embed the chosen images and captions of a step.

    Args:
        chosen: images of each source, as `draw_images`. drawn: captions of each source, as `draw_captions`.
    """
    prepared = [
        prepare_images(
            source, raw, chosen[source.number], run.tower, run.device,
            augmentation=augmentation, seed=run.options.seed, epoch=epoch,
        )
        for source, raw in step
    ]  # fmt: skip
    images = torch.cat([images for images, _, _ in prepared]).contiguous(memory_format=torch.channels_last)
    with torch.autocast(run.device.type, torch.bfloat16, enabled=run.device.type == "cuda"):
        features = run.clip.encode_image(images, normalize=True)
    rows = [(source, of_images) for (source, _), (_, of_images, _) in zip(step, prepared, strict=True)]
    captions = torch.from_numpy(np.concatenate([drawn[source.number][of_images] for source, of_images in rows]))
    described_by = torch.from_numpy(np.concatenate([source.captions[of_images] for source, of_images in rows]))
    unique, inverse = captions.unique(return_inverse=True)
    texts = run.embed_texts(run.table, unique)[inverse]
    return EmbeddedStep(
        features.float(), texts, captions, described_by, rows, [modality for _, _, modality in prepared]
    )
