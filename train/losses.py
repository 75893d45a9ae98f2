"""What training minimises: the loss of the class scores + λ_con · consistency between views + λ_vt · each view's own loss.

The loss is cross entropy, or where several classes may hold at once, binary cross entropy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from train.distributed import WHOLE, Share
from train.facet import Facet, Output

ETA = 1.0  # weight of the structure term inside the consistency loss
MAX_POSITIVE_WEIGHT = 20.0
MIN_WEIGHT = 1e-6  # a batch in which nothing is known has no loss instead of 0 / 0


@dataclass(frozen=True)
class Goal:
    """What scores are compared with. class_weight f32 (C,): how much each class counts; for several classes at once, how much
    a yes counts against a no."""

    multilabel: bool = False
    class_weight: Tensor | None = None

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of each row of logits (n, C), f32 (n,) with the weight of each row f32 (n,), stacked (2, n).

        Args:
            labels: class indices i64 (n,), or i8 (n, C) with 1 and 0; -1 = unknown, which counts for nothing.
        """
        if not self.multilabel:
            index = labels.clamp(min=0)
            each = F.cross_entropy(logits, index, reduction="none")
            weight = torch.ones_like(each) if self.class_weight is None else self.class_weight[index]
            return torch.stack([each, weight * (labels >= 0)])
        known = (labels >= 0).float()
        each = F.binary_cross_entropy_with_logits(
            logits, labels.clamp(min=0).float(), pos_weight=self.class_weight, reduction="none"
        )
        num = known.sum(1)
        return torch.stack([(each * known).sum(1) / num.clamp(min=1), num])

    def mean_loss(self, logits: Tensor, labels: Tensor, share: Share = WHOLE) -> Tensor:
        """The mean over rows, each by its weight: over classes, PyTorch's own; over several at once, over what is known.
        Of a batch that several processes compute together, this one's share of that mean."""
        each, weight = self.loss(logits, labels)
        return (each * weight).sum() / share.total(weight.sum()).clamp(min=MIN_WEIGHT)


def balance_classes(labels: np.ndarray, num_classes: int, *, multilabel: bool) -> np.ndarray:
    """Weights f32 (C,) under which every class counts alike: n / (C n_c), as scikit-learn's "balanced"; for several classes at
    once, what a yes counts against a no: no's / yes's, MAX_POSITIVE_WEIGHT at most.

    Args:
        labels: training labels, i64 (n,), or i8 (n, C) with -1 = unknown.
    """
    if multilabel:
        yes, no = (labels == 1).sum(0), (labels == 0).sum(0)
        weight = np.where(yes > 0, no / np.maximum(yes, 1), 1.0).clip(1 / MAX_POSITIVE_WEIGHT, MAX_POSITIVE_WEIGHT)
    else:
        counts = np.bincount(labels, minlength=num_classes)
        weight = len(labels) / (num_classes * np.maximum(counts, 1))
    return weight.astype(np.float32)


def compute_losses(
    model: Facet,
    output: Output,
    labels: Tensor,
    goal: Goal,
    *,
    lambda_con: float,
    lambda_vt: float,
    share: Share = WHOLE,
) -> dict[str, Tensor]:
    """Every term and their weighted sum `loss`; terms with weight 0 are not computed.

    Args:
        labels: class indices i64 (B,), or i8 (B, C) for several classes at once.
        share: what these B samples are of a batch that several processes compute together. Each term is then this process's
            share of it: those of all add up to the term, and their gradients to its gradient.
    """
    name = "bce" if goal.multilabel else "ce"
    terms = {name: goal.mean_loss(output.logits, labels, share)}
    loss = terms[name]
    if lambda_con > 0:
        assert model.view_to_face is not None
        terms["con"] = consistency_loss(
            model.view_to_face(output.views), output.views, output.frames, output.mask, share
        )
        loss = loss + lambda_con * terms["con"]
    if lambda_vt > 0:
        frames_each = len(output.views) // len(labels)
        terms["vt"] = view_text_loss(
            output.changes,
            output.mask,
            labels.repeat_interleave(frames_each, dim=0),
            model.text_mean,
            model.scale,
            goal,
            model.class_bias,
            share,
        )
        loss = loss + lambda_vt * terms["vt"]
    return {**terms, "loss": loss}


def consistency_loss(projected: Tensor, views: Tensor, fused: Tensor, mask: Tensor, share: Share = WHOLE) -> Tensor:
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


def view_text_loss(
    views: Tensor,
    mask: Tensor,
    labels: Tensor,
    text_mean: Tensor,
    scale: Tensor,
    goal: Goal,
    bias: Tensor | None = None,
    share: Share = WHOLE,
) -> Tensor:
    """The mean over the views that are there of the loss of s · cos(e_v, t) + bias, each view on its own.

    Args:
        views: (B, N, d); mask: bool (B, N); labels: (B,) or (B, C); text_mean: (C, d); bias: (C,). share: as in
            `compute_losses`.
    """
    logits = scale * views @ text_mean.T
    if bias is not None:
        logits = logits + bias
    each, weight = goal.loss(logits.flatten(0, 1), labels.repeat_interleave(mask.shape[1], dim=0))
    weight = weight * mask.flatten()
    return (each * weight).sum() / share.total(weight.sum()).clamp(min=MIN_WEIGHT)


@torch.no_grad()
def mean_cosine_between_faces(faces: Tensor) -> Tensor:
    """Mean cosine over pairs of different rows of z (B, d), unit length: near 1 = all faces alike, a collapse."""
    num = len(faces)
    if num < 2:
        return faces.new_zeros(())
    return (faces.sum(0).square().sum() - num) / (num * (num - 1))
