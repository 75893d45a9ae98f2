"""What a head is: face and class vectors become a score a class. `train/parts.py` names those that there are."""

from __future__ import annotations

from typing import ClassVar, Self

from torch import Tensor, nn

from train.model.fusion import Sizes


class Head(nn.Module):
    """The score of class c is s · f_c · t_c, with f_c the face as the class sees it and t_c the class's vector."""

    has_bias: ClassVar[bool] = False  # add a bias to each class's score
    looks_at_tokens: ClassVar[bool] = False  # of views, and of patches where there are any
    has_own_vectors: ClassVar[bool] = False  # its class vectors are its own: no text has a part in the score

    @classmethod
    def build(cls, sizes: Sizes) -> Self:
        return cls()

    def class_vectors(self, text_mean: Tensor) -> Tensor:
        """t_c (C, d), any length, which faces are compared with.

        Args:
            text_mean: (C, d), the mean over each class's prompt embeddings, or what is learned in their place.
        """
        return text_mean

    def forward(self, text: Tensor, face: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """
        Args:
            text: t_c (C, d), unit length; face: z (B, d), unit length; tokens: (B, N, d), of views and, as an option, of
            patches; mask: bool (B, N).
        Returns:
            f (B, C, d), unit length: the face as each class sees it.
        """
        raise NotImplementedError
