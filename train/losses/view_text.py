"""Loss of single views: each view alone is compared with the class vectors, as the face is."""

from __future__ import annotations

from torch import Tensor

from train.losses.terms import LossInputs, LossTerm
from train.tasks.batch_slice import WHOLE_BATCH, BatchSlice
from train.tasks.criterion import MIN_WEIGHT, Criterion


class ViewTextLoss(LossTerm):
    """`view_text_loss` of the views, or of their changes where a reference is subtracted."""

    normaliser = "labels"

    def forward(self, inputs: LossInputs) -> Tensor:
        """See `LossTerm.forward`."""
        model, output, criterion = inputs.model, inputs.output, inputs.criterion
        labels = inputs.labels.repeat_interleave(inputs.frames_per_sample, dim=0)
        views, mask, vectors = output.changes, output.mask, model.class_vectors
        return view_text_loss(
            views, mask, labels, vectors, model.scale, criterion, model.class_bias, inputs.batch_slice, output.own_text
        )


def view_text_loss(
    views: Tensor,
    mask: Tensor,
    labels: Tensor,
    vectors: Tensor,
    scale: Tensor,
    criterion: Criterion,
    bias: Tensor | None = None,
    batch_slice: BatchSlice = WHOLE_BATCH,
    own_text: Tensor | None = None,
) -> Tensor:
    """Return the mean over present views of the loss of s · cos(e_v, t) + bias, each view on its own.

    Args:
        views: (B, N, d).
        mask: bool (B, N), True = present.
        labels: (B,) or (B, C), as in `Criterion.loss`.
        vectors: (C, d).
        bias: (C,).
        batch_slice: as in `LossInputs`. own_text: as in `Output`, added to the cosines.
    """
    logits = scale * views @ vectors.T
    if own_text is not None:
        logits = logits + scale * own_text
    if bias is not None:
        logits = logits + bias
    losses, weight = criterion.loss(logits.flatten(0, 1), labels.repeat_interleave(mask.shape[1], dim=0))
    weight = weight * mask.flatten()
    return (losses * weight).sum() / batch_slice.total(weight.sum()).clamp(min=MIN_WEIGHT)
