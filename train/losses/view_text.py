"""Each view's own loss: a view alone is compared with the class vectors, as the face is."""

from __future__ import annotations

from torch import Tensor

from train.losses.terms import MIN_WEIGHT, Criterion, LossTerm, Seen
from train.training.distributed import WHOLE_BATCH, BatchSlice


class ViewTextLoss(LossTerm):
    """`view_text_loss` of the views, of what changed in them where there is a reference."""

    counts_labels = True

    def forward(self, seen: Seen) -> Tensor:
        """As `LossTerm.forward`."""
        model, output = seen.model, seen.output
        labels = seen.labels.repeat_interleave(seen.frames_each, dim=0)
        return view_text_loss(
            output.changes,
            output.mask,
            labels,
            model.class_vectors,
            model.scale,
            seen.criterion,
            model.class_bias,
            seen.share,
        )


def view_text_loss(
    views: Tensor,
    mask: Tensor,
    labels: Tensor,
    vectors: Tensor,
    scale: Tensor,
    criterion: Criterion,
    bias: Tensor | None = None,
    share: BatchSlice = WHOLE_BATCH,
) -> Tensor:
    """The mean over the views that are there of the loss of s · cos(e_v, t) + bias, each view on its own.

    Args:
        views: (B, N, d); mask: bool (B, N); labels: (B,) or (B, C); vectors: (C, d); bias: (C,). share: as in
            `compute_losses`.
    """
    logits = scale * views @ vectors.T
    if bias is not None:
        logits = logits + bias
    each, weight = criterion.loss(logits.flatten(0, 1), labels.repeat_interleave(mask.shape[1], dim=0))
    weight = weight * mask.flatten()
    return (each * weight).sum() / share.total(weight.sum()).clamp(min=MIN_WEIGHT)
