"""The interface of a head: from face and class vectors to a score per class. `train/parts.py` lists the heads."""

from __future__ import annotations

from typing import ClassVar, Self

from torch import Tensor, nn

from train.model.attention import TokenAttention
from train.model.fusion import Sizes


class Head(nn.Module):
    """The score of class c is s · f_c · t_c, with the class's face vector f_c and the class vector t_c."""

    has_bias: ClassVar[bool] = False  # each class's score has a bias
    attends_to_tokens: ClassVar[bool] = False  # of views, and of patches with --mtgf-tokens patches
    has_own_vectors: ClassVar[bool] = False  # scores use its own class vectors and no text
    class_parameters: ClassVar[tuple[str, ...]] = ()  # its parameters that have a row for each class

    @classmethod
    def build(cls, sizes: Sizes) -> Self:
        return cls()

    def class_vectors(self, text_mean: Tensor) -> Tensor:
        """Return the class vectors t_c (C, d), not normalised, which faces are compared with.

        Args:
            text_mean: (C, d), the mean over each class's prompt embeddings (plus its residual), or learned vectors.
        """
        return text_mean

    @property
    def recorded_attention(self) -> TokenAttention | None:
        """Return the attention from classes to tokens that tests record; None if the head has none."""
        return None

    def measure_attended_fraction(self, text: Tensor, face: Tensor, attended: Tensor) -> Tensor:
        """Return the fraction (B, C), 0…1, of f_c that comes from `recorded_attention`.

        Args:
            text: t_c (C, d), unit length; face: z (B, d); attended: output of the attention (B, C, d).
        """
        raise NotImplementedError

    def forward(self, text: Tensor, face: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return f (B, C, d), unit length: one face vector per class.

        Args:
            text: t_c (C, d), unit length.
            face: z (B, d), unit length.
            tokens: (B, N, d), of views and possibly of patches.
            mask: bool (B, N), True = present.
        """
        raise NotImplementedError
