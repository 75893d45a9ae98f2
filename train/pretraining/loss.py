"""The contrastive loss of images and captions, where several images of a batch may share a caption."""

from __future__ import annotations

import torch
from open_clip.loss import ClipLoss
from torch import Tensor
from torch.nn import functional as F


class SharedCaptionLoss(ClipLoss):
    """open_clip's ClipLoss with every pair of equal captions as a positive.

    Few labels give few captions, so an image's caption often stands beside other images of the batch, too. As CLIP's
    negatives they would be false; here the target of an image is spread evenly over all places of its caption, and the
    same for texts (Yang et al. 2022, "Unified contrastive learning in image-text-label space"). Unlike SigLIP, the
    softmax needs no bias to be learned for the share of positives, which differs from cache to cache.
    """

    _captions: Tensor

    def loss(self, images: Tensor, texts: Tensor, scale: Tensor, captions: Tensor) -> Tensor:
        """Return the mean cross entropy of both directions, f32 ().

        Args:
            images, texts: f32 (P, d), unit length, a pair a row. scale: f32 (). captions: i64 (P,), equal for equal texts.
        """
        self._captions = captions
        loss: Tensor = self(images, texts, scale)
        return loss

    def get_ground_truth(self, device: torch.device, num_logits: int) -> Tensor:
        """Return the target distribution of each row, f32 (P, P); the matrix is symmetric, so it serves both directions."""
        same = (self._captions[:, None] == self._captions[None, :]).float()
        return F.normalize(same, p=1, dim=1)
