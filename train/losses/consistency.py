"""Consistency between views: each view alone says what the fused face says, and which faces are alike."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from train.losses.terms import LossTerm, Seen
from train.training.distributed import WHOLE_BATCH, BatchSlice

ETA = 1.0  # weight of the structure term


class ConsistencyLoss(LossTerm):
    """Our multiview consistency loss, `consistency_loss`; h is the model's `view_to_face`."""

    def forward(self, seen: Seen) -> Tensor:
        """As `LossTerm.forward`."""
        project, output = seen.model.view_to_face, seen.output
        assert project is not None
        return consistency_loss(project(output.views), output.views, output.frames, output.mask, seen.share)


def consistency_loss(
    projected: Tensor, views: Tensor, fused: Tensor, mask: Tensor, share: BatchSlice = WHOLE_BATCH
) -> Tensor:
    """L_con = mean_v (1 − cos(h(e_v), sg(z))) + η · mean_v ‖S_v − sg(S̄)‖²_F / B².

    Each view alone must say what the fused face says, and which faces of the batch are alike. Both targets carry a
    stop-gradient (sg) and the views are taken before CVSA mixes them: otherwise the cheapest way to agree is to make all
    faces alike, and training collapses to one point (cf. Chen & He 2021, "Exploring simple Siamese representation learning").

    Args:
        projected: h(e_v) (B, N, d), any length; views: e_v (B, N, d), unit length; fused: z (B, d), unit length;
        mask: bool (B, N), True = the view is there. share: as in `compute_losses`.
    """
    weight = mask.float()
    cosine = F.cosine_similarity(projected, fused.detach()[:, None], dim=-1)
    alignment = ((1 - cosine) * weight).sum() / share.total(weight.sum())
    # S_v: (N, B, B); of several processes each has some rows of it
    alike = torch.einsum("bnd,cnd->nbc", views, share.gather(views))
    pairs = torch.einsum("bn,cn->nbc", weight, share.gather(weight))
    mean_alike = (alike * pairs).sum(0) / pairs.sum(0).clamp(min=1)  # S̄
    structure = ((alike - mean_alike.detach()).square() * pairs).sum() / share.total(pairs.sum())
    return alignment + ETA * structure
