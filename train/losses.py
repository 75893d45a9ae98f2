"""What training minimises: CE of the class scores + λ_con · consistency between views + λ_vt · each view's own CE."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from train.facet import Facet, Output

ETA = 1.0  # weight of the structure term inside the consistency loss


def compute_losses(
    model: Facet, output: Output, labels: Tensor, *, lambda_con: float, lambda_vt: float
) -> dict[str, Tensor]:
    """Every term and their weighted sum `loss`; terms with weight 0 are not computed.

    Args:
        labels: class indices i64 (B,).
    """
    terms = {"ce": F.cross_entropy(output.logits, labels)}
    loss = terms["ce"]
    if lambda_con > 0:
        assert model.view_to_face is not None
        terms["con"] = consistency_loss(model.view_to_face(output.views), output.views, output.frames, output.mask)
        loss = loss + lambda_con * terms["con"]
    if lambda_vt > 0:
        frames_each = len(output.views) // len(labels)
        terms["vt"] = view_text_loss(
            output.views, output.mask, labels.repeat_interleave(frames_each), model.text_mean, model.scale
        )
        loss = loss + lambda_vt * terms["vt"]
    return {**terms, "loss": loss}


def consistency_loss(projected: Tensor, views: Tensor, fused: Tensor, mask: Tensor) -> Tensor:
    """L_con = mean_v (1 − cos(h(e_v), sg(z))) + η · mean_v ‖S_v − sg(S̄)‖²_F / B².

    Each view alone must say what the fused face says, and which faces of the batch are alike. Both targets carry a
    stop-gradient (sg) and the views are taken before CVSA mixes them: otherwise the cheapest way to agree is to make all
    faces alike, and training collapses to one point (cf. Chen & He 2021, "Exploring simple Siamese representation learning").

    Args:
        projected: h(e_v) (B, N, d), any length; views: e_v (B, N, d), unit length; fused: z (B, d), unit length;
        mask: bool (B, N), True = the view is there.
    """
    weight = mask.float()
    cosine = F.cosine_similarity(projected, fused.detach()[:, None], dim=-1)
    alignment = ((1 - cosine) * weight).sum() / weight.sum()
    alike = torch.einsum("bnd,cnd->nbc", views, views)  # S_v: (N, B, B)
    pairs = torch.einsum("bn,cn->nbc", weight, weight)
    mean_alike = (alike * pairs).sum(0) / pairs.sum(0).clamp(min=1)  # S̄
    structure = ((alike - mean_alike.detach()).square() * pairs).sum() / pairs.sum()
    return alignment + ETA * structure


def view_text_loss(views: Tensor, mask: Tensor, labels: Tensor, text_mean: Tensor, scale: Tensor) -> Tensor:
    """mean_v CE(s · cos(e_v, t)) over the views that are there: views (B, N, d), mask (B, N), labels (B,), text (C, d)."""
    logits = scale * views @ text_mean.T
    each = F.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(mask.shape[1]), reduction="none")
    weight = mask.flatten().float()
    return (each * weight).sum() / weight.sum()


@torch.no_grad()
def mean_cosine_between_faces(faces: Tensor) -> Tensor:
    """Mean cosine over pairs of different rows of z (B, d), unit length: near 1 = all faces alike, a collapse."""
    num = len(faces)
    if num < 2:
        return faces.new_zeros(())
    return (faces.sum(0).square().sum() - num) / (num * (num - 1))
