"""Consistency between views: each view alone predicts the fused face, and which faces are alike."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from train.losses.terms import LossInputs, LossTerm
from train.tasks.batch_slice import WHOLE_BATCH, BatchSlice

ETA = 1.0  # weight of the structure term


class ConsistencyLoss(LossTerm):
    """The multiview consistency loss, see `consistency_loss`; h is the model's `view_to_face`."""

    def forward(self, inputs: LossInputs) -> Tensor:
        """See `LossTerm.forward`."""
        project, output = inputs.model.view_to_face, inputs.output
        assert project is not None
        return consistency_loss(project(output.views), output.views, output.frames, output.mask, inputs.batch_slice)


def consistency_loss(
    projected: Tensor, views: Tensor, fused: Tensor, mask: Tensor, batch_slice: BatchSlice = WHOLE_BATCH
) -> Tensor:
    """Return L_con = mean_v (1 − cos(h(e_v), sg(z))) + η · mean_v ‖S_v − sg(S̄)‖²_F / B².

    Both targets carry a stop-gradient (sg), and the views are taken before CVSA mixes them. Otherwise training collapses:
    the easiest way to agree is to make all faces alike (cf. Chen & He 2021, "Exploring simple Siamese representation
    learning").

    Args:
        projected: h(e_v) (B, N, d), any length.
        views: e_v (B, N, d), unit length.
        fused: z (B, d), unit length.
        mask: bool (B, N), True = present.
        batch_slice: as in `LossInputs`.
    """
    weight = mask.float()
    cosine = F.cosine_similarity(projected, fused.detach()[:, None], dim=-1)
    alignment = ((1 - cosine) * weight).sum() / batch_slice.total(weight.sum())
    # S_v: (N, B, B), the rows of this process
    alike = torch.einsum("bnd,cnd->nbc", views, batch_slice.gather(views))
    pairs = torch.einsum("bn,cn->nbc", weight, batch_slice.gather(weight))
    mean_alike = (alike * pairs).sum(0) / pairs.sum(0).clamp(min=1)  # S̄
    structure = ((alike - mean_alike.detach()).square() * pairs).sum() / batch_slice.total(pairs.sum())
    return alignment + ETA * structure
