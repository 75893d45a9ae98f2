"""Multiview text-guided fusion (MTGF): each class's words look at the face's tokens and decide what to take."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.model.cvsa import TokenAttention, unit
from train.model.fusion import Sizes
from train.model.head import Head

# σ(2) = 0.88: the gate starts on the side of the face vector z, yet open enough for m_c to receive gradients. With m_c = 0
# at the start the value does not change f_c at all (it has unit length), so step 0 stays CLIP zero-shot.
GATE_BIAS = 2.0


class TextGuidedFusion(Head):
    """m_c = CrossAttn(t_c, tokens); g_c = σ(W[t_c; z; m_c] + b); f_c = norm(g_c ⊙ z + (1 − g_c) ⊙ m_c)."""

    looks_at_tokens = True

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attention = TokenAttention(dim)
        self.gate = nn.Linear(3 * dim, dim)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, GATE_BIAS)

    @classmethod
    def build(cls, sizes: Sizes) -> Self:
        return cls(sizes.dim)

    def forward(self, text: Tensor, face: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """As `Head.forward`."""
        seen = self.attention(text[None], tokens, mask)
        # W[t; z; m] in its three parts: t is the same for all faces, z for all classes, so they need be multiplied once
        for_text, for_face, for_seen = self.gate.weight.chunk(3, dim=1)
        face = face[:, None, :]
        gate = torch.sigmoid(
            F.linear(text, for_text, self.gate.bias) + F.linear(face, for_face) + F.linear(seen, for_seen)
        )
        return unit(gate * face + (1 - gate) * seen)


class CosineHead(Head):
    """The ablation of MTGF: every class sees the face vector itself. Has no parameters."""

    def forward(self, text: Tensor, face: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """As `Head.forward`."""
        return face[:, None, :].expand(-1, len(text), -1)
