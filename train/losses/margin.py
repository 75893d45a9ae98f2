"""Pairs of views: of the same face alike, of different faces no more alike than a margin."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from train.losses.terms import LossTerm, Seen
from train.training.distributed import WHOLE_BATCH, BatchSlice

START_MARGIN = 0.5


class MarginLoss(LossTerm):
    """The multiview contrastive loss of AffectVLM (arXiv 2504.19739) as it can be read: Σ_same (1 − cos(e_i, e_j)) +
    Σ_different max(0, cos(e_k, e_l) − α), α learned.

    Ours where the text is silent: the same face is the same scan, or frame; frames of one sequence are neither the same nor
    different; each sum is a mean over its pairs, so that batch size and number of views do not weigh. Note that the gradient
    of α can only raise it. Memory grows with the square of views in a batch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.margin = nn.Parameter(torch.tensor(START_MARGIN))

    def forward(self, seen: Seen) -> Tensor:
        """As `LossTerm.forward`."""
        return margin_loss(seen.output.views, seen.output.mask, self.margin, seen.frames_each, seen.share)


def margin_loss(
    views: Tensor, mask: Tensor, margin: Tensor, frames_each: int = 1, share: BatchSlice = WHOLE_BATCH
) -> Tensor:
    """
    Args:
        views: e (B·T, N, d), unit length; mask: bool (B·T, N), True = there; margin: α (); frames_each: T. share: as `Seen`.
    """
    others, other_mask = share.gather(views), share.gather(mask.to(views.dtype))
    first = sum(share.counts[: share.rank]) * frames_each
    rows = torch.arange(len(views), device=views.device) + first
    other_rows = torch.arange(len(others), device=views.device)
    cosine = torch.einsum("bnd,cmd->bcnm", views, others)
    there = torch.einsum("bn,cm->bcnm", mask.to(views.dtype), other_mask)
    itself = torch.eye(views.shape[1], device=views.device, dtype=views.dtype)
    same_row = (rows[:, None] == other_rows).to(views.dtype)[..., None, None]
    same_face = (rows[:, None] // frames_each == other_rows // frames_each).to(views.dtype)[..., None, None]
    same, different = there * same_row * (1 - itself), there * (1 - same_face)
    pull = ((1 - cosine) * same).sum() / share.total(same.sum()).clamp(min=1)
    push = ((cosine - margin).relu() * different).sum() / share.total(different.sum()).clamp(min=1)
    return pull + push
