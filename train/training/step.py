"""One training step: the gradient of a batch, computed whole or in parts, and the update. Never waits for a GPU."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from train.losses.terms import add_terms, compute_losses
from train.model.batch import Batch
from train.model.facet import Facet
from train.tasks.batch_slice import WHOLE_BATCH, BatchSlice
from train.tasks.criterion import Criterion

MAX_GRAD_NORM = 1.0


@dataclass(frozen=True)
class StepResult:
    """A batch's results before the update, on the device.

    terms: name → f32 (): the terms of the loss, `loss`, and `grad_norm` before clipping, over all processes.
    logits: (B, C) and face: z (B, d), of this process's slice of the batch.
    """

    terms: dict[str, Tensor]
    logits: Tensor
    face: Tensor


class PartLoss(nn.Module):
    """Model and loss in one forward pass: DistributedDataParallel must see everything that uses the weights."""

    def __init__(self, model: Facet) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, batch: Batch, labels: Tensor, criterion: Criterion, batch_slice: BatchSlice
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Return the terms of the loss; logits and faces without gradients."""
        output = self.model(batch)
        terms = compute_losses(self.model, output, labels, criterion, batch_slice)
        return terms, output.logits.detach(), output.face.detach()


def train_step(
    model: Facet,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    labels: Tensor,
    criterion: Criterion,
    broken: Tensor,
    *,
    accumulate: int = 1,
    batch_slice: BatchSlice = WHOLE_BATCH,
    replica: DistributedDataParallel | None = None,
) -> StepResult:
    """Update the weights, unless something is not finite.

    Args:
        broken: f32 (), 0 while every loss and gradient was finite. The first one that is not sets it to 1; then no step
            changes the weights, so the host can check the values later without waiting for the device in each step.
        labels, accumulate, batch_slice, replica: as in `accumulate_gradients`.
    """
    optimizer.zero_grad(set_to_none=True)
    result = accumulate_gradients(
        model, batch, labels, criterion, accumulate=accumulate, batch_slice=batch_slice, replica=replica
    )
    finite = torch.stack(list(result.terms.values())).isfinite().all()
    broken.copy_(torch.maximum(broken, 1 - finite.float()))
    optimizer.found_inf = broken  # type: ignore[attr-defined]  # read by fused optimisers, as set by torch.amp's GradScaler
    optimizer.step()
    model.clamp_scale()
    return result


def accumulate_gradients(
    model: Facet,
    batch: Batch,
    labels: Tensor,
    criterion: Criterion,
    *,
    accumulate: int = 1,
    batch_slice: BatchSlice = WHOLE_BATCH,
    replica: DistributedDataParallel | None = None,
) -> StepResult:
    """Compute the gradients of a batch in `accumulate` parts, one after the other, clipped to MAX_GRAD_NORM.

    The sum over parts is the gradient of the whole batch, except where samples of a batch interact: batch statistics, and
    loss terms that compare faces, see one part. With missing modalities a part counts by its samples, not by its views.

    Args:
        labels: i64 (B,) or i8 (B, C).
        batch_slice: this process's slice of a batch that several processes compute.
        replica: a PartLoss of the model that sums gradients over processes. A part of the batch is then a part of each
            process's slice.
    """
    slices = batch_slice.split(min(accumulate, len(labels)))
    batches, label_parts = batch.split(len(slices)), labels.tensor_split(len(slices))
    compute = replica or PartLoss(model)
    whole_weight = criterion.total_weight(labels, batch_slice)
    results = []
    for index, (part, part_labels, part_slice) in enumerate(zip(batches, label_parts, slices, strict=True)):
        is_last = index == len(slices) - 1
        with nullcontext() if replica is None or is_last else replica.no_sync():
            terms, logits, face = compute(part, part_labels, criterion, part_slice)
            loss = terms.pop("loss")
            if len(slices) > 1:
                by_samples = (part_slice.num_samples or len(part_labels)) / (batch_slice.num_samples or len(labels))
                by_labels = criterion.total_weight(part_labels, part_slice) / whole_weight
                factors = {"samples": by_samples, "labels": by_labels}
                normalisers = {criterion.name: "labels"} | {n: term.normaliser for n, term in model.loss_terms.items()}
                terms = {name: term * factors[normalisers[name]] for name, term in terms.items()}  # type: ignore[index]
                loss = add_terms(model, terms)
            # replicas average gradients over processes, whose losses are summands
            (loss if replica is None else loss * len(batch_slice.counts)).backward()
        detached = {name: term.detach() for name, term in (*terms.items(), ("loss", loss))}
        results.append(StepResult(detached, logits, face))
    terms = {name: torch.stack([r.terms[name] for r in results]).sum(0) for name in results[0].terms}
    if batch_slice.counts:
        terms = dict(zip(terms, batch_slice.total(torch.stack(list(terms.values()))), strict=True))
    terms["grad_norm"] = nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
    return StepResult(terms, torch.cat([r.logits for r in results]), torch.cat([r.face for r in results]))
