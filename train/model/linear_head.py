"""A linear classifier on the fused face."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from train.model.fusion import Sizes
from train.model.mtgf import CosineHead

START_STD = 0.01  # small: all classes have similar scores at first


class LinearHead(CosineHead):
    """logits = s W z + b, without text. W starts at small random values and b at zero. The learned s scales the unit-length z
    (cf. Wang et al. 2017, "NormFace")."""

    has_bias = True
    has_own_vectors = True
    class_parameters = ("weight",)

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(START_STD * torch.randn(num_classes, dim))

    @classmethod
    def build(cls, sizes: Sizes) -> Self:
        return cls(sizes.dim, sizes.num_classes)

    def class_vectors(self, text_mean: Tensor) -> Tensor:
        return self.weight
