"""What training minimises: the loss of the class scores + λ_con · consistency between views + λ_vt · each view's own loss.

`--extra-losses` adds more; `train/parts.py` names the terms.

The loss is cross entropy, or where several classes may hold at once, binary cross entropy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.model.facet import Facet, Output
from train.model.fusion import Sizes
from train.training.distributed import WHOLE_BATCH, BatchSlice

MAX_POSITIVE_WEIGHT = 20.0
MIN_WEIGHT = 1e-6  # a batch in which nothing is known has no loss instead of 0 / 0


@dataclass(frozen=True)
class Criterion:
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

    def mean_loss(self, logits: Tensor, labels: Tensor, share: BatchSlice = WHOLE_BATCH) -> Tensor:
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


@dataclass(frozen=True)
class Seen:
    """What a term may look at: a model, what it made of B samples, and their labels, i64 (B,) or i8 (B, C).

    share: what these samples are of a batch that several processes compute together. A term is then this process's share of
    it: those of all add up to the term, and their gradients to its gradient.
    """

    model: Facet
    output: Output
    labels: Tensor
    criterion: Criterion
    share: BatchSlice

    @property
    def frames_each(self) -> int:
        """Rows of `output.views` a sample."""
        return self.output.views.shape[0] // self.labels.shape[0]


class LossTerm(nn.Module):
    """A term with what it alone learns. It reaches the weights through the model's output; nothing of it is there in tests."""

    # Of a batch that is computed in parts: whether a part counts by what its labels weigh, or by its samples.
    counts_labels: ClassVar[bool] = False

    @classmethod
    def build(cls, sizes: Sizes) -> Self:
        return cls()

    def forward(self, seen: Seen) -> Tensor:
        """The term, f32 ()."""
        raise NotImplementedError


def compute_losses(
    model: Facet,
    output: Output,
    labels: Tensor,
    criterion: Criterion,
    weights: Mapping[str, float],
    share: BatchSlice = WHOLE_BATCH,
) -> dict[str, Tensor]:
    """Every term and their weighted sum `loss`; terms with weight 0 are not computed.

    Args:
        labels: class indices i64 (B,), or i8 (B, C) for several classes at once.
        weights: of the terms beside the loss of the class scores, by name; each is built in the model.
        share: what these B samples are of a batch that several processes compute together. Each term is then this process's
            share of it: those of all add up to the term, and their gradients to its gradient.
    """
    seen = Seen(model, output, labels, criterion, share)
    terms = {"bce" if criterion.multilabel else "ce": criterion.mean_loss(output.logits, labels, share)}
    for name, weight in weights.items():
        if weight > 0:
            terms[name] = model.loss_terms[name](seen)
    return {**terms, "loss": add_terms(terms, weights)}


def add_terms(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The weighted sum: the loss of the class scores counts 1, all others as `weights` says.

    Raises:
        KeyError: a term without a weight.
    """
    (_, loss), *others = terms.items()
    for name, term in others:
        loss = loss + weights[name] * term
    return loss


@torch.no_grad()
def mean_cosine_between_faces(faces: Tensor) -> Tensor:
    """Mean cosine over pairs of different rows of z (B, d), unit length: near 1 = all faces alike, a collapse."""
    num = len(faces)
    if num < 2:
        return faces.new_zeros(())
    return (faces.sum(0).square().sum() - num) / (num * (num - 1))
