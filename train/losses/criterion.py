"""The loss of class scores: cross entropy, or binary cross entropy where several classes may hold at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from train.losses.batch_slice import WHOLE_BATCH, BatchSlice

MAX_POSITIVE_WEIGHT = 20.0
MIN_WEIGHT = 1e-6  # a batch without known labels has the loss 0 instead of 0 / 0


@dataclass(frozen=True)
class Criterion:
    """Cross entropy. multilabel: binary, for several classes at once.

    class_weight: f32 (C,), the weight of each class; multilabel: the weight of a positive label against a negative one.
    """

    multilabel: bool = False
    class_weight: Tensor | None = None

    @property
    def name(self) -> str:
        return "bce" if self.multilabel else "ce"

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each row and the weight of each row, stacked, f32 (2, n).

        Args:
            logits: (n, C).
            labels: class indices i64 (n,), or i8 (n, C) with 1 and 0. Unknown labels, -1, have no weight.
        """
        if not self.multilabel:
            index = labels.clamp(min=0)
            losses = F.cross_entropy(logits, index, reduction="none")
            weight = torch.ones_like(losses) if self.class_weight is None else self.class_weight[index]
            return torch.stack([losses, weight * (labels >= 0)])
        known = (labels >= 0).float()
        losses = F.binary_cross_entropy_with_logits(
            logits, labels.clamp(min=0).float(), pos_weight=self.class_weight, reduction="none"
        )
        num = known.sum(1)
        return torch.stack([(losses * known).sum(1) / num.clamp(min=1), num])

    def mean_loss(self, logits: Tensor, labels: Tensor, batch_slice: BatchSlice = WHOLE_BATCH) -> Tensor:
        """Return the weighted mean over rows, or this process's summand of it. Arguments as `loss`."""
        losses, weight = self.loss(logits, labels)
        return (losses * weight).sum() / batch_slice.total(weight.sum()).clamp(min=MIN_WEIGHT)

    def total_weight(self, labels: Tensor, batch_slice: BatchSlice = WHOLE_BATCH) -> Tensor | float:
        """Return the sum of the labels' weights in `mean_loss`, over all processes."""
        if self.multilabel:
            return batch_slice.total((labels >= 0).float().sum()).clamp(min=MIN_WEIGHT)
        if self.class_weight is None:
            return float(batch_slice.num_samples or len(labels))
        return batch_slice.total(self.class_weight[labels].sum())

    @torch.no_grad()
    def accuracy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the fraction of rows that are classified correctly, f32 (); multilabel: of known labels."""
        if not self.multilabel:
            return (logits.argmax(1) == labels).float().mean()
        known = labels >= 0
        right = ((logits > 0) == (labels == 1)) & known
        return right.sum() / known.sum().clamp(min=1)


def balance_classes(labels: np.ndarray, num_classes: int, *, multilabel: bool) -> np.ndarray:
    """Return class weights f32 (C,) that let every class count alike: n / (C n_c), scikit-learn's "balanced".

    Args:
        labels: training labels, i64 (n,), or i8 (n, C) with -1 = unknown.
        multilabel: return negatives / positives of each class instead, within a factor of MAX_POSITIVE_WEIGHT.
    """
    if multilabel:
        positives, negatives = (labels == 1).sum(0), (labels == 0).sum(0)
        ratio = np.where(positives > 0, negatives / np.maximum(positives, 1), 1.0)
        weight = ratio.clip(1 / MAX_POSITIVE_WEIGHT, MAX_POSITIVE_WEIGHT)
    else:
        counts = np.bincount(labels, minlength=num_classes)
        weight = len(labels) / (num_classes * np.maximum(counts, 1))
    return weight.astype(np.float32)


@torch.no_grad()
def mean_cosine_between_faces(faces: Tensor) -> Tensor:
    """Return the mean cosine over pairs of different rows of z (B, d), unit length. Near 1: all faces alike, a collapse."""
    num = len(faces)
    if num < 2:
        return faces.new_zeros(())
    return (faces.sum(0).square().sum() - num) / (num * (num - 1))
