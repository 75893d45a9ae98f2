"""The contrastive loss of images and captions, where one caption may describe several images of a batch."""

from __future__ import annotations

import math

import torch
from open_clip.loss import ClipLoss
from torch import Tensor, nn
from torch.nn import functional as F

UNITS_WEIGHT = 2.0  # of action units beside classes
START_SCALE, SMOOTHING = 10.0, 0.05  # of the cosines of known prompts; of their class labels


class CaptionLoss(ClipLoss):
    """open_clip's ClipLoss where all captions of an image that are in the batch are its positives.

    Few labels give few captions, so an image's captions also stand beside other images of the batch. As CLIP's negatives
    they would be false; here the target of an image is spread evenly over the places of its captions, and that of a text
    over the images that it describes (Yang et al. 2022, "Unified contrastive learning in image-text-label space"). Unlike
    SigLIP, the softmax has no bias to learn for the share of positives, which differs from cache to cache.
    """

    def forward(self, images: Tensor, texts: Tensor, scale: Tensor, captions: Tensor, described_by: Tensor) -> Tensor:
        """Return the mean cross entropy of both directions, f32 ().

        Args:
            images, texts: f32 (P, d), unit length, a pair a row. scale: f32 ().
            captions: i64 (P,), of the texts, equal for equal ones.
            described_by: i64 (P, K), all captions of each image, that of its pair among them; −1 = none.
        """
        per_image, per_text = self.get_logits(images, texts, scale)
        positive = (described_by[:, None, :] == captions[None, :, None]).any(2).float()
        of_images, of_texts = (F.normalize(matrix, p=1, dim=1) for matrix in (positive, positive.T))
        return (F.cross_entropy(per_image, of_images) + F.cross_entropy(per_text, of_texts)) / 2


class PromptLoss(nn.Module):
    """Loss of prompts that are known to be true or false of an image: softmax over classes, a sigmoid per action unit.

    In a batch of captions most pairs of different captions are no clear negatives, because the same muscles act in many
    expressions, and a small tower then learns nothing. Here every pair is known. The sigmoid is SigLIP's (Zhai et al. 2023),
    with a bias per unit, because some units are rare.
    """

    is_unit: Tensor

    def __init__(self, is_unit: Tensor) -> None:
        """is_unit: bool (G,), True for an action unit, False for a class."""
        super().__init__()
        self.register_buffer("is_unit", is_unit)
        self.bias = nn.Parameter(torch.zeros(len(is_unit)))
        self.log_scale = nn.Parameter(torch.full((2,), math.log(START_SCALE)))  # of classes, of units

    def forward(self, images: Tensor, vectors: Tensor, truth: Tensor) -> Tensor:
        """Return the sum of the means over labelled images and over coded units, f32 ().

        Args:
            images: f32 (P, d), unit length. vectors: f32 (G, d), unit length.
            truth: i8 (P, G), 1 = true of the image, 0 = not, −1 = not known.
        """
        cosines, (of_classes, of_units) = images @ vectors.T, self.log_scale.exp()
        is_class = ~self.is_unit
        loss = cosines.sum() * 0
        labelled = (truth[:, is_class] == 1).any(1)
        if labelled.any():
            scores, label = of_classes * cosines[labelled][:, is_class], truth[labelled][:, is_class].argmax(1)
            loss = loss + F.cross_entropy(scores, label, label_smoothing=SMOOTHING)
        coded = (truth >= 0) & self.is_unit
        if coded.any():
            scores, shown = (of_units * cosines + self.bias)[coded], truth[coded].to(cosines.dtype)
            loss = loss + UNITS_WEIGHT * F.binary_cross_entropy_with_logits(scores, shown)
        return loss
