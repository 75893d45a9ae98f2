"""View pooling by the maximum, as in MVCNN."""

from __future__ import annotations

import torch
from torch import Tensor

from train.model.attention import unit
from train.model.fusion import Fusion


class MaxFusion(Fusion):
    """The maximum of each feature over the views (Su et al. 2015, "Multi-view convolutional neural networks for 3D shape
    recognition"); MVCNN pools feature maps, this pools the views' vectors. Has no parameters."""

    def forward(
        self, tokens: Tensor, mask: Tensor, cameras: Tensor, modalities: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Fusion.forward`; α is the fraction of features in which a view is the maximum."""
        seen = tokens.masked_fill(~mask[..., None], -torch.inf)
        largest = seen.amax(1)
        wins = (seen == largest[:, None]).to(tokens.dtype)
        return tokens, unit(largest), (wins / wins.sum(1, keepdim=True)).mean(-1).detach()
