"""The mean of the views, together or each scored alone."""

from __future__ import annotations

from torch import Tensor

from train.model.attention import unit
from train.model.fusion import Fusion


class MeanFusion(Fusion):
    """The ablation of CVSA: the mean of the views. Has no parameters."""

    def forward(
        self, tokens: Tensor, mask: Tensor, cameras: Tensor, modalities: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Fusion.forward`."""
        alpha = mask / mask.sum(1, keepdim=True)
        return tokens, unit((alpha[..., None] * tokens).sum(1)), alpha


class LateFusion(MeanFusion):
    """Late fusion: every view is fused over time and scored as if it were the only one.

    The probabilities of a face are the mean of its views' probabilities (the sum rule of Kittler et al. 1998, "On combining
    classifiers"). With `--towers view` this is MiT's scoring (IEEE Signal Processing Letters 2021), which tests by the plain
    mean over views. z, which is not scored, is the mean of the views. Has no parameters.
    """

    scores_each_view = True
