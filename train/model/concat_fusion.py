"""Concatenation of the views, followed by a linear layer."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from train.model.attention import unit
from train.model.fusion import Fusion, Sizes


class ConcatFusion(Fusion):
    """z = norm(W [e_1; …; e_N]): early fusion by concatenation. Number and order of the views are fixed; a missing view is a
    block of zeros. W starts as the mean of the views."""

    def __init__(self, dim: int, num_tokens: int) -> None:
        super().__init__()
        self.projection = nn.Linear(num_tokens * dim, dim, bias=False)
        with torch.no_grad():
            self.projection.weight.copy_(torch.eye(dim).repeat(1, num_tokens) / num_tokens)

    @classmethod
    def build(cls, sizes: Sizes) -> Self:
        return cls(sizes.dim, sizes.num_modalities * sizes.num_views)

    def forward(
        self, tokens: Tensor, mask: Tensor, cameras: Tensor, modalities: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Fusion.forward`; α is the length of each view's summand of W [e_1; …; e_N], relative to the sum of lengths."""
        present = tokens * mask[..., None]
        fused = self.projection(present.flatten(1))
        with torch.no_grad():
            blocks = self.projection.weight.unflatten(1, (tokens.shape[1], -1))  # (d, N, d)
            lengths = torch.einsum("onc,bnc->bno", blocks, present).norm(dim=-1)
            even = mask / mask.sum(1, keepdim=True)
            total = lengths.sum(1, keepdim=True)
            alpha = torch.where(total > 0, lengths / total.clamp(min=1e-12), even)
        return tokens, unit(fused), alpha
