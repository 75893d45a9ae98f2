"""The contrastive loss of images and captions, where one caption may describe several images of a batch."""

from __future__ import annotations

from open_clip.loss import ClipLoss
from torch import Tensor
from torch.nn import functional as F


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
