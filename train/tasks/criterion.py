"""The loss of class scores, one class per kind of labels; see train/tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from train.tasks.batch_slice import WHOLE_BATCH, BatchSlice
from train.tasks.intensity import LARGEST

MIN_WEIGHT = 1e-6  # a batch without known labels has the loss 0 instead of 0 / 0


@dataclass(frozen=True)
class Criterion(ABC):
    """One kind of loss. class_weight: f32 (C,), the weight of each class, or of a positive label against a negative one."""

    name: ClassVar[str]  # in log.jsonl
    class_weight: Tensor | None = None

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each row and the weight of each row, stacked, f32 (2, n).

        Args:
            logits: (n, C).
            labels: class indices i64 (n,), or targets i8 (n, C). Unknown labels, -1, have no weight.
        """

    def mean_loss(self, logits: Tensor, labels: Tensor, batch_slice: BatchSlice = WHOLE_BATCH) -> Tensor:
        """Return the weighted mean over rows, or this process's summand of it. Arguments as `loss`."""
        losses, weight = self.loss(logits, labels)
        return (losses * weight).sum() / batch_slice.total(weight.sum()).clamp(min=MIN_WEIGHT)

    @abstractmethod
    def total_weight(self, labels: Tensor, batch_slice: BatchSlice = WHOLE_BATCH) -> Tensor | float:
        """Return the sum of the labels' weights in `mean_loss`, over all processes."""

    @abstractmethod
    def accuracy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the fraction of known labels that are predicted correctly, f32 ()."""


class CrossEntropy(Criterion):
    """One class of several; labels: class indices i64 (n,)."""

    name = "ce"

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        index = labels.clamp(min=0)
        losses = F.cross_entropy(logits, index, reduction="none")
        weight = torch.ones_like(losses) if self.class_weight is None else self.class_weight[index]
        return torch.stack([losses, weight * (labels >= 0)])

    def total_weight(self, labels: Tensor, batch_slice: BatchSlice = WHOLE_BATCH) -> Tensor | float:
        if self.class_weight is None:
            return float(batch_slice.num_samples or len(labels))
        return batch_slice.total(self.class_weight[labels].sum())

    @torch.no_grad()
    def accuracy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return (logits.argmax(1) == labels).float().mean()


class BinaryCrossEntropy(Criterion):
    """Several classes at once; labels: targets i8 (n, C), 1, 0 or -1 = unknown."""

    name = "bce"

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        known = (labels >= 0).float()
        losses = F.binary_cross_entropy_with_logits(
            logits, labels.clamp(min=0).float(), pos_weight=self.class_weight, reduction="none"
        )
        num = known.sum(1)
        return torch.stack([(losses * known).sum(1) / num.clamp(min=1), num])

    def total_weight(self, labels: Tensor, batch_slice: BatchSlice = WHOLE_BATCH) -> Tensor | float:
        return batch_slice.total((labels >= 0).float().sum()).clamp(min=MIN_WEIGHT)

    @torch.no_grad()
    def accuracy(self, logits: Tensor, labels: Tensor) -> Tensor:
        known = labels >= 0
        right = ((logits > 0) == (labels == 1)) & known
        return right.sum() / known.sum().clamp(min=1)


class IntensityCrossEntropy(BinaryCrossEntropy):
    """Cross entropy with intensity / LARGEST as the target; labels: i8 (n, C), 0 to LARGEST, -1 = unknown.

    It is least where the prediction is the mean intensity, as the squared error is, but its gradient does not vanish where
    the sigmoid saturates.
    """

    name = "intensity"

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return super().loss(logits, labels.float() / LARGEST)

    @torch.no_grad()
    def accuracy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the fraction of known labels that are the predicted intensity, rounded, f32 ()."""
        known = labels >= 0
        right = ((LARGEST * logits.sigmoid()).round() == labels) & known
        return right.sum() / known.sum().clamp(min=1)


@torch.no_grad()
def mean_cosine_between_faces(faces: Tensor) -> Tensor:
    """Return the mean cosine over pairs of different rows of z (B, d), unit length. Near 1: all faces alike, a collapse."""
    num = len(faces)
    if num < 2:
        return faces.new_zeros(())
    return (faces.sum(0).square().sum() - num) / (num * (num - 1))
