"""Cross-View Semantic Aggregation (CVSA): tokens of several views of one face become one face vector."""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.model.fusion import Fusion, Sizes

HEAD_DIM = 32
# A face compared with itself is the zero vector: dividing by no less than this keeps its gradient finite.
MIN_LENGTH = 1e-3
SOFT_LENGTH = 0.1  # δ: differences between unit vectors that are shorter than this count less


def unit(x: Tensor) -> Tensor:
    """(…, d) divided by its length, or by MIN_LENGTH where it is shorter."""
    return F.normalize(x, dim=-1, eps=MIN_LENGTH)


def soften(x: Tensor) -> Tensor:
    """(…, d) as x / √(‖x‖² + δ²): a short difference between unit vectors stays so; with unit length noise would count as much
    as a smile."""
    return x * (x.square().sum(-1, keepdim=True) + SOFT_LENGTH**2).rsqrt()


class TokenAttention(nn.Module):
    """Pre-norm attention from queries to tokens, the output projection starting at zero.

    Tokens and features here have unit length, so an element is about 1/√d, whereas what attention gives after its layer
    norm is about 1: without the factor 1/√d the very first steps would drown the features the image tower gives.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.num_heads = max(h for h in range(1, max(dim // HEAD_DIM, 1) + 1) if dim % h == 0)
        self.norm_queries = nn.LayerNorm(dim)
        self.norm_tokens = nn.LayerNorm(dim)
        self.to_queries = nn.Linear(dim, dim)
        self.to_keys_values = nn.Linear(dim, 2 * dim)
        self.to_out = nn.Linear(dim, dim)
        nn.init.zeros_(self.to_out.weight)
        nn.init.zeros_(self.to_out.bias)

    def forward(self, queries: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """queries (B, Q, d), or (1, Q, d) for all; tokens (B, N, d), mask bool (B, N), True = there → (B, Q, d), to be
        added by the caller."""
        tokens = self.norm_tokens(tokens)
        q = self._split(self.to_queries(self.norm_queries(queries))).expand(tokens.shape[0], -1, -1, -1)
        k, v = map(self._split, self.to_keys_values(tokens).chunk(2, dim=-1))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        return self.to_out(out.transpose(1, 2).flatten(2)) * queries.shape[-1] ** -0.5

    def weights(self, queries: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """What `forward` weighs the tokens by, which the fused attention does not give: softmax(q kᵀ / √d_head), the mean over
        heads, (B, Q, N); sums to 1 over the tokens there."""
        q = self._split(self.to_queries(self.norm_queries(queries)))
        k = self._split(self.to_keys_values(self.norm_tokens(tokens)).chunk(2, dim=-1)[0])
        scores = (q @ k.mT) * q.shape[-1] ** -0.5
        return scores.masked_fill(~mask[:, None, None, :], -math.inf).softmax(-1).mean(1)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class FourierEmbedding(nn.Module):
    """A smooth embedding of a few numbers in −π…π: sines and cosines of their multiples, then a linear map from zero.

    Zero at the start, so that it changes nothing until it has learned something (Tancik et al. 2020, "Fourier features
    let networks learn high frequency functions in low dimensional domains").
    """

    NUM_OCTAVES = 3  # 1, 2, 4 periods a turn: finer than the views are apart would not be smooth between them

    def __init__(self, num_inputs: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * self.NUM_OCTAVES * num_inputs, dim)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, values: Tensor) -> Tensor:
        """(…, num_inputs) → (…, dim)."""
        octaves = 2.0 ** torch.arange(self.NUM_OCTAVES, device=values.device)
        angles = (values[..., None] * octaves).flatten(-2)
        embedding: Tensor = self.linear(torch.cat([angles.sin(), angles.cos()], dim=-1))
        return embedding


class AttentionPool(nn.Module):
    """α = softmax(q·x_n) over the tokens that are there; z = Σ α_n x_n, unit length. q starts at zero: the mean."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(dim))

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """tokens (B, N, d), mask bool (B, N) → z (B, d), α (B, N)."""
        scores = (tokens @ self.query).masked_fill(~mask, -math.inf)
        alpha = scores.softmax(dim=1)
        return unit((alpha[..., None] * tokens).sum(1)), alpha


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

    def forward(
        self, tokens: Tensor, mask: Tensor, cameras: Tensor, modalities: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `Fusion.forward`; the tokens are ẽ, those after attention."""
        tokens = tokens + self.camera(cameras) + self.modality[modalities]
        tokens = tokens + self.attention(tokens, tokens, mask)
        return tokens, *self.pool(tokens, mask)


class MeanFusion(Fusion):
    """The ablation of CVSA: the mean of the views. Has no parameters."""

    def forward(
        self, tokens: Tensor, mask: Tensor, cameras: Tensor, modalities: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `Fusion.forward`."""
        alpha = mask / mask.sum(1, keepdim=True)
        return tokens, unit((alpha[..., None] * tokens).sum(1)), alpha


class TemporalAttention(nn.Module):
    """Fuses the face vectors of T frames: attention over time with positions, then a learned weighting of the frames."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.position = FourierEmbedding(1, dim)
        self.attention = TokenAttention(dim)
        self.pool = AttentionPool(dim)

    def positions(self, num_frames: int, like: Tensor) -> Tensor:
        """(T, d): the embedding of each frame's place in its sequence, −π/2 at the first to π/2 at the last."""
        place = torch.linspace(-math.pi / 2, math.pi / 2, num_frames, device=like.device, dtype=like.dtype)
        embedding: Tensor = self.position(place[:, None])
        return embedding

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Face vectors (B, T, d) → z (B, d), unit length; the frames' weights in it (B, T), which sum to 1.

        mask: bool (B, T), the frames that are there, at least one a row; None: all."""
        if mask is None:
            mask = torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device)
        frames = frames + self.positions(frames.shape[1], frames)
        frames = frames + self.attention(frames, frames, mask)
        fused, weights = self.pool(frames, mask)
        return fused, weights
