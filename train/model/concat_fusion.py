"""Views side by side: one linear layer sees all of them, each at its place."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from train.model.attention import unit
from train.model.fusion import Fusion, Sizes


class ConcatFusion(Fusion):
    """z = norm(W [e_1; …; e_N]): early fusion by concatenation. Each view has its own weights, so that their number and order
    are fixed; one that is missing is a block of zeros. W starts as the mean of the views."""

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
        """As `Fusion.forward`; α is the length of each view's part of W [e_1; …; e_N], relative to the sum of lengths."""
        there = tokens * mask[..., None]
        fused = self.projection(there.flatten(1))
        with torch.no_grad():
            blocks = self.projection.weight.unflatten(1, (tokens.shape[1], -1))  # (d, N, d)
            lengths = torch.einsum("onc,bnc->bno", blocks, there).norm(dim=-1)
            even = mask / mask.sum(1, keepdim=True)
            total = lengths.sum(1, keepdim=True)
            alpha = torch.where(total > 0, lengths / total.clamp(min=1e-12), even)
        return tokens, unit(fused), alpha
