"""Multiview text-guided fusion (MTGF): the text of each class attends to the tokens of a face, and a gate mixes both."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.model.attention import TokenAttention, unit
from train.model.fusion import Sizes
from train.model.head import Head

# σ(2) = 0.88: the gate starts near the face vector z, yet open enough for m_c to receive gradients. m_c = 0 at the start and
# f_c has unit length, so step 0 is CLIP zero-shot for any value of the gate.
GATE_BIAS = 2.0


class TextGuidedFusion(Head):
    """m_c = CrossAttn(t_c, tokens); g_c = σ(W[t_c; z; m_c] + b); f_c = norm(g_c ⊙ z + (1 − g_c) ⊙ m_c)."""

    attends_to_tokens = True

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attention = TokenAttention(dim)
        self.gate = nn.Linear(3 * dim, dim)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, GATE_BIAS)

    @classmethod
    def build(cls, sizes: Sizes) -> Self:
        return cls(sizes.dim)

    @property
    def recorded_attention(self) -> TokenAttention:
        return self.attention

    def measure_attended_fraction(self, text: Tensor, face: Tensor, attended: Tensor) -> Tensor:
        """See `Head.measure_attended_fraction`: ‖(1 − g) ⊙ m‖ / (‖g ⊙ z‖ + ‖(1 − g) ⊙ m‖)."""
        num, classes = attended.shape[:2]
        parts = (text.expand(num, -1, -1), face[:, None].expand(-1, classes, -1), attended)
        gate = torch.sigmoid(self.gate(torch.cat(parts, dim=-1)))
        from_face, from_tokens = (gate * face[:, None]).norm(dim=-1), ((1 - gate) * attended).norm(dim=-1)
        return from_tokens / (from_face + from_tokens).clamp(min=1e-12)

    def forward(self, text: Tensor, face: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """See `Head.forward`."""
        attended = self.attention(text[None], tokens, mask)
        # W[t; z; m] in three parts: t is the same for all faces and z for all classes, so each is multiplied once
        for_text, for_face, for_attended = self.gate.weight.chunk(3, dim=1)
        face = face[:, None, :]
        gate = torch.sigmoid(
            F.linear(text, for_text, self.gate.bias) + F.linear(face, for_face) + F.linear(attended, for_attended)
        )
        return unit(gate * face + (1 - gate) * attended)


class CosineHead(Head):
    """The ablation of MTGF: f_c is the face vector itself. Has no parameters."""

    def forward(self, text: Tensor, face: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """See `Head.forward`."""
        return face[:, None, :].expand(-1, len(text), -1)
