"""The interface of a fusion of views. `train/parts.py` lists the fusions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from train.model.attention import TokenAttention


@dataclass(frozen=True)
class Sizes:
    """Sizes that a part of the model is built from. num_views: per modality."""

    dim: int  # d
    num_classes: int
    num_modalities: int
    num_views: int


class Fusion(nn.Module):
    """Several views of one face become one face vector."""

    scores_each_view: ClassVar[bool] = False  # score each view as if it were the only one, then average probabilities

    @classmethod
    def build(cls, sizes: Sizes) -> Self:
        return cls()

    @property
    def recorded_attention(self) -> TokenAttention | None:
        """Return the attention between views that tests record; None if the fusion has none."""
        return None

    def forward(
        self, tokens: Tensor, mask: Tensor, cameras: Tensor, modalities: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Fuse the views of B faces.

        Args:
            tokens: (B, N, d), zero where missing.
            mask: bool (B, N), True = present, at least one per row.
            cameras: (B, N, 2), yaw and pitch in radians.
            modalities: i64 (N,), the modality index of each token.
        Returns:
            tokens (B, N, d) for the head; z (B, d), unit length; α (B, N), the weight of each view in z, sums to 1.
        """
        raise NotImplementedError


def average_scores(logits: Tensor, mask: Tensor, *, multilabel: bool) -> Tensor:
    """Return logits (B, C) whose probabilities are the mean of the views' probabilities.

    Args:
        logits: of single views (B, N, C).
        mask: bool (B, N), True = present, at least one per row.
        multilabel: probabilities are sigmoids instead of a softmax.
    """
    weight = torch.where(mask, -mask.sum(1, keepdim=True).clamp(min=1).to(logits.dtype).log(), -torch.inf)[..., None]
    if not multilabel:
        return torch.logsumexp(logits.log_softmax(-1) + weight, dim=1)
    yes, no = (torch.logsumexp(nn.functional.logsigmoid(x) + weight, dim=1) for x in (logits, -logits))
    return yes - no
