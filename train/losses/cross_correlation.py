"""Cross-correlation between views: equal dimensions agree, different dimensions are uncorrelated."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from train.losses.terms import LossInputs, LossTerm
from train.tasks.batch_slice import WHOLE_BATCH, BatchSlice

OFF_DIAGONAL = 0.005  # λ of Barlow Twins
MIN_VARIANCE = 1e-5


class CrossCorrelationLoss(LossTerm):
    """Redundancy reduction between views, as SMILE-VLM (arXiv 2506.01203) takes it from Barlow Twins (Zbontar et al. 2021):
    Σ_i (1 − C_ii)² + λ Σ_{i≠j} C_ij², C the cross-correlation matrix of two views' dimensions over the batch.

    Ours: the mean over all pairs of views that at least two faces of the batch have, divided by d. The tokens of the views
    are used without a further projection.
    """

    def forward(self, inputs: LossInputs) -> Tensor:
        """See `LossTerm.forward`."""
        return cross_correlation_loss(inputs.output.views, inputs.output.mask, inputs.batch_slice)


def cross_correlation_loss(views: Tensor, mask: Tensor, batch_slice: BatchSlice = WHOLE_BATCH) -> Tensor:
    """Return the loss f32 (). Each process computes all of it.

    Args:
        views: e (n, N, d).
        mask: bool (n, N), True = present.
        batch_slice: as in `LossInputs`.
    """
    views, weight = batch_slice.gather(views), batch_slice.gather(mask.to(views.dtype))
    dim = views.shape[2]
    diagonal = torch.eye(dim, device=views.device, dtype=views.dtype)
    importance = OFF_DIAGONAL + (1 - OFF_DIAGONAL) * diagonal
    total, num_pairs = views.new_zeros(()), views.new_zeros(())
    for one, other in combinations(range(views.shape[1]), 2):
        both = (weight[:, one] * weight[:, other])[:, None]
        count = both.sum().clamp(min=1)
        a, b = (_standardise(views[:, view], both, count) for view in (one, other))
        correlation = a.T @ b / count
        counts = (both.sum() > 1).to(views.dtype)
        total = total + counts * ((diagonal - correlation).square() * importance).sum() / dim
        num_pairs = num_pairs + counts
    return total / num_pairs.clamp(min=1) / max(len(batch_slice.counts), 1)


def _standardise(rows: Tensor, present: Tensor, count: Tensor) -> Tensor:
    """Return (n, d) with mean 0 and variance 1 in each dimension over the present rows; zero in the others."""
    centred = (rows - (rows * present).sum(0) / count) * present
    return centred * (centred.square().sum(0) / count + MIN_VARIANCE).rsqrt()
