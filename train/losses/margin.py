"""Pairs of views: of the same face alike, of different faces no more alike than a margin."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from train.losses.terms import LossInputs, LossTerm
from train.tasks.batch_slice import WHOLE_BATCH, BatchSlice

START_MARGIN = 0.5


class MarginLoss(LossTerm):
    """The multiview contrastive loss of AffectVLM (arXiv 2504.19739): Σ_same (1 − cos(e_i, e_j)) +
    Σ_different max(0, cos(e_k, e_l) − α), α learned.

    Ours where the paper gives no detail: two views are the same face if they show the same scan or frame. Frames of one
    sequence are neither the same nor different. Each sum is a mean over its pairs. The gradient of α can only raise it.
    Memory grows with the square of the number of views in a batch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.margin = nn.Parameter(torch.tensor(START_MARGIN))

    def forward(self, inputs: LossInputs) -> Tensor:
        """See `LossTerm.forward`."""
        views, mask = inputs.output.views, inputs.output.mask
        return margin_loss(views, mask, self.margin, inputs.frames_per_sample, inputs.batch_slice)


def margin_loss(
    views: Tensor, mask: Tensor, margin: Tensor, frames_per_sample: int = 1, batch_slice: BatchSlice = WHOLE_BATCH
) -> Tensor:
    """Return the loss f32 ().

    Args:
        views: e (B·T, N, d), unit length.
        mask: bool (B·T, N), True = present.
        margin: α ().
        frames_per_sample: T.
        batch_slice: as in `LossInputs`.
    """
    others, other_mask = batch_slice.gather(views), batch_slice.gather(mask.to(views.dtype))
    first = sum(batch_slice.counts[: batch_slice.rank]) * frames_per_sample
    rows = torch.arange(len(views), device=views.device) + first
    other_rows = torch.arange(len(others), device=views.device)
    cosine = torch.einsum("bnd,cmd->bcnm", views, others)
    there = torch.einsum("bn,cm->bcnm", mask.to(views.dtype), other_mask)
    itself = torch.eye(views.shape[1], device=views.device, dtype=views.dtype)
    same_row = (rows[:, None] == other_rows).to(views.dtype)[..., None, None]
    same_face = (rows[:, None] // frames_per_sample == other_rows // frames_per_sample).to(views.dtype)[..., None, None]
    same, different = there * same_row * (1 - itself), there * (1 - same_face)
    pull = ((1 - cosine) * same).sum() / batch_slice.total(same.sum()).clamp(min=1)
    push = ((cosine - margin).relu() * different).sum() / batch_slice.total(different.sum()).clamp(min=1)
    return pull + push
