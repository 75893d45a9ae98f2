"""Attention between tokens, embeddings of continuous positions, and attention over time."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEAD_DIM = 32
# A face minus itself is the zero vector: dividing by at least this keeps its gradient finite.
MIN_LENGTH = 1e-3
SOFT_LENGTH = 0.1  # δ: differences shorter than this count less


def unit(x: Tensor) -> Tensor:
    """Divide x (…, d) by its length, or by MIN_LENGTH if that is larger."""
    return F.normalize(x, dim=-1, eps=MIN_LENGTH)


def soften(x: Tensor) -> Tensor:
    """Return x / √(‖x‖² + δ²), (…, d). Short differences stay short: at unit length, noise would count as much as a smile."""
    return x * (x.square().sum(-1, keepdim=True) + SOFT_LENGTH**2).rsqrt()


class TokenAttention(nn.Module):
    """Pre-norm attention from queries to tokens, with an output projection that starts at zero.

    Tokens have unit length, so an element is about 1/√d, but attention after a layer norm gives elements of about 1. Without
    the factor 1/√d the first steps would drown the features of the image tower.
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
        """Return (B, Q, d), to be added to the queries by the caller.

        Args:
            queries: (B, Q, d), or (1, Q, d) for all samples.
            tokens: (B, N, d).
            mask: bool (B, N), True = present.
        """
        tokens = self.norm_tokens(tokens)
        q = self._split(self.to_queries(self.norm_queries(queries))).expand(tokens.shape[0], -1, -1, -1)
        k, v = map(self._split, self.to_keys_values(tokens).chunk(2, dim=-1))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        return self.to_out(out.transpose(1, 2).flatten(2)) * queries.shape[-1] ** -0.5

    def weights(self, queries: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return the attention weights of `forward`, the mean over heads, (B, Q, N). They sum to 1 over present tokens.

        Computed again as softmax(q kᵀ / √d_head), because the fused attention does not return them.
        """
        q = self._split(self.to_queries(self.norm_queries(queries)))
        k = self._split(self.to_keys_values(self.norm_tokens(tokens)).chunk(2, dim=-1)[0])
        scores = (q @ k.mT) * q.shape[-1] ** -0.5
        return scores.masked_fill(~mask[:, None, None, :], -math.inf).softmax(-1).mean(1)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class FourierEmbedding(nn.Module):
    """A smooth embedding of a few numbers in −π…π: sines and cosines of their multiples, then a linear map.

    The map starts at zero (Tancik et al. 2020, "Fourier features let networks learn high frequency functions in low
    dimensional domains").
    """

    NUM_OCTAVES = 3  # 1, 2, 4 periods a turn; higher ones would not be smooth between neighbouring views

    def __init__(self, num_inputs: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * self.NUM_OCTAVES * num_inputs, dim)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, values: Tensor) -> Tensor:
        """Return (…, dim) for values (…, num_inputs)."""
        octaves = 2.0 ** torch.arange(self.NUM_OCTAVES, device=values.device)
        angles = (values[..., None] * octaves).flatten(-2)
        embedding: Tensor = self.linear(torch.cat([angles.sin(), angles.cos()], dim=-1))
        return embedding


class AttentionPool(nn.Module):
    """α = softmax(q·x_n) over present tokens; z = Σ α_n x_n, unit length. q starts at zero: the mean."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(dim))

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return z (B, d) and α (B, N) of tokens (B, N, d) with mask bool (B, N)."""
        scores = (tokens @ self.query).masked_fill(~mask, -math.inf)
        alpha = scores.softmax(dim=1)
        return unit((alpha[..., None] * tokens).sum(1)), alpha


class TemporalAttention(nn.Module):
    """Fuse the face vectors of T frames: attention over time with positions, then a learned weighting of the frames."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.position = FourierEmbedding(1, dim)
        self.attention = TokenAttention(dim)
        self.pool = AttentionPool(dim)

    def positions(self, num_frames: int, like: Tensor) -> Tensor:
        """Return (T, d): the embedding of each frame's position, from −π/2 at the first to π/2 at the last."""
        position = torch.linspace(-math.pi / 2, math.pi / 2, num_frames, device=like.device, dtype=like.dtype)
        embedding: Tensor = self.position(position[:, None])
        return embedding

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return z (B, d), unit length, and the weights of the frames in it (B, T), which sum to 1.

        Args:
            frames: face vectors (B, T, d).
            mask: bool (B, T), True = present, at least one per row; None: all.
        """
        if mask is None:
            mask = torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device)
        frames = frames + self.positions(frames.shape[1], frames)
        frames = frames + self.attention(frames, frames, mask)
        fused, weights = self.pool(frames, mask)
        return fused, weights
