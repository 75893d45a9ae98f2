"""Terms of the loss beside that of the class scores, and their weighted sum. `train/parts.py` lists the terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

from torch import Tensor, nn

from train.model.batch import Output
from train.model.facet import Facet
from train.model.fusion import Sizes
from train.tasks.batch_slice import WHOLE_BATCH, BatchSlice
from train.tasks.criterion import Criterion


@dataclass(frozen=True)
class LossInputs:
    """What a term is computed from: the model, its output for B samples, and their labels i64 (B,) or i8 (B, C).

    batch_slice: the slice of the batch that this process computes. Each process returns its summand of the term: the
    summands of all processes add up to the term, and their gradients to its gradient.
    """

    model: Facet
    output: Output
    labels: Tensor
    criterion: Criterion
    batch_slice: BatchSlice

    @property
    def frames_per_sample(self) -> int:
        return self.output.views.shape[0] // self.labels.shape[0]


class LossTerm(nn.Module):
    """A term of the loss, with the parameters that it alone learns. It is not used when a trained model is tested.

    weight: factor of the term in the loss. normaliser: what its mean is over. With --gradient-accumulation, a part of a
    batch counts by its samples, or by the weight of its labels (which may be unknown or weighted by class).
    """

    normaliser: Literal["samples", "labels"] = "samples"
    weight: float = 1.0

    @classmethod
    def build(cls, sizes: Sizes) -> Self:
        return cls()

    def forward(self, inputs: LossInputs) -> Tensor:
        """Return the unweighted term, f32 ()."""
        raise NotImplementedError


def compute_losses(
    model: Facet, output: Output, labels: Tensor, criterion: Criterion, batch_slice: BatchSlice = WHOLE_BATCH
) -> dict[str, Tensor]:
    """Return every term by name, and their weighted sum `loss`.

    Args:
        labels: class indices i64 (B,), or i8 (B, C) for several classes at once.
        batch_slice: as in `LossInputs`.
    """
    inputs = LossInputs(model, output, labels, criterion, batch_slice)
    terms = {criterion.name: criterion.mean_loss(output.logits, labels, batch_slice)}
    terms |= {name: term(inputs) for name, term in model.loss_terms.items()}
    return {**terms, "loss": add_terms(model, terms)}


def add_terms(model: Facet, terms: Mapping[str, Tensor]) -> Tensor:
    """Return the weighted sum. The first term, the loss of class scores, has the weight 1.

    Raises:
        KeyError: the model was built without one of the terms.
    """
    (_, loss), *others = terms.items()
    for name, term in others:
        loss = loss + model.loss_terms[name].weight * term  # type: ignore[operator]
    return loss
