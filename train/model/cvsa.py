"""Cross-View Semantic Aggregation (CVSA): tokens of several views of one face become one face vector."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from train.model.attention import AttentionPool, FourierEmbedding, TokenAttention
from train.model.fusion import Fusion, Sizes


class CrossViewAttention(Fusion):
    """Our definition of CVSA. The tokens are a set: any number, any order, missing ones masked."""

    def __init__(self, dim: int, num_modalities: int) -> None:
        super().__init__()
        self.camera = FourierEmbedding(2, dim)
        self.modality = nn.Parameter(torch.zeros(num_modalities, dim))
        self.attention = TokenAttention(dim)
        self.pool = AttentionPool(dim)

    @classmethod
    def build(cls, sizes: Sizes) -> Self:
        return cls(sizes.dim, sizes.num_modalities)

    @property
    def recorded_attention(self) -> TokenAttention:
        return self.attention

    def forward(
        self, tokens: Tensor, mask: Tensor, cameras: Tensor, modalities: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Fusion.forward`; the returned tokens are ẽ, after attention."""
        tokens = tokens + self.camera(cameras) + self.modality[modalities]
        tokens = tokens + self.attention(tokens, tokens, mask)
        return tokens, *self.pool(tokens, mask)
