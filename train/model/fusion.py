"""What a fusion of views is. `train/parts.py` names those that there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Sizes:
    """What a part of the model may have to know to be built: d, the classes, the modalities, the views of each."""

    dim: int
    num_classes: int
    num_modalities: int
    num_views: int


class Fusion(nn.Module):
    """Several views of one face become one face vector."""

    # The views are not scored together: each is scored as if it were the only one, then probabilities are averaged.
    scores_each_view: ClassVar[bool] = False

    @classmethod
    def build(cls, sizes: Sizes) -> Self:
        return cls()

    def forward(
        self, tokens: Tensor, mask: Tensor, cameras: Tensor, modalities: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """
        Args:
            tokens: (B, N, d), zero where missing; mask: bool (B, N), True = there, at least one a row; cameras: (B, N, 2)
            yaw, pitch, radians; modalities: i64 (N,), which modality each token shows.
        Returns:
            tokens (B, N, d) as the head is to see them; z (B, d), unit length; α (B, N), the part of each view in z, sums
            to 1 over the tokens there.
        """
        raise NotImplementedError


def average_scores(logits: Tensor, mask: Tensor, *, multilabel: bool) -> Tensor:
    """Logits of single views (B, N, C) → logits (B, C) whose probabilities are the mean of the views' probabilities.

    mask: bool (B, N), the views that count, at least one a row. multilabel: probabilities are sigmoids, else a softmax."""
    weight = torch.where(mask, -mask.sum(1, keepdim=True).clamp(min=1).to(logits.dtype).log(), -torch.inf)[..., None]
    if not multilabel:
        return torch.logsumexp(logits.log_softmax(-1) + weight, dim=1)
    yes, no = (torch.logsumexp(nn.functional.logsigmoid(x) + weight, dim=1) for x in (logits, -logits))
    return yes - no
