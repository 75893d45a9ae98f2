"""One training step: a batch's gradient, computed whole or in parts, and what it does to the weights. Never waits for a GPU."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from train.config import Recipe
from train.losses.terms import MIN_WEIGHT, Criterion, add_terms, compute_losses
from train.model.facet import Batch, Facet
from train.training.distributed import WHOLE_BATCH, BatchSlice

MAX_GRAD_NORM = 1.0


@dataclass(frozen=True)
class StepResult:
    """terms: name → 0-d f32, on the device: every term of the loss, `loss`, `grad_norm` before clipping; logits (B, C) and
    face (B, d) of the batch, as they were before the step. Of several processes, the terms are those of the whole batch."""

    terms: dict[str, Tensor]
    logits: Tensor
    face: Tensor


class PartLoss(nn.Module):
    """The model and its loss in one forward pass: DistributedDataParallel has to see all that uses the weights."""

    def __init__(self, model: Facet) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, batch: Batch, labels: Tensor, criterion: Criterion, recipe: Recipe, share: BatchSlice
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """The terms of the loss; logits and faces without gradients."""
        output = self.model(batch)
        terms = compute_losses(self.model, output, labels, criterion, recipe.loss_weights, share)
        return terms, output.logits.detach(), output.face.detach()


def train_step(
    model: Facet,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    target: Tensor,
    criterion: Criterion,
    recipe: Recipe,
    broken: Tensor,
    share: BatchSlice = WHOLE_BATCH,
    replica: DistributedDataParallel | None = None,
) -> StepResult:
    """Moves the weights by one step, unless something is not finite.

    Args:
        target: labels, i64 (B,) or i8 (B, C).
        broken: f32 (), 0 as long as every loss and gradient was finite. Set to 1 here when one is not; from then on no step
            changes the weights, so that the host may look at the values later, without stopping the device.
        share, replica: as in `accumulate_gradients`.
    """
    optimizer.zero_grad(set_to_none=True)
    result = accumulate_gradients(model, batch, target, criterion, recipe, share, replica)
    finite = torch.stack(list(result.terms.values())).isfinite().all()
    broken.copy_(torch.maximum(broken, 1 - finite.float()))
    optimizer.found_inf = broken  # type: ignore[attr-defined]  # as torch.amp's GradScaler tells fused optimisers
    optimizer.step()
    model.clamp_scale()
    return result


def accumulate_gradients(
    model: Facet,
    batch: Batch,
    target: Tensor,
    criterion: Criterion,
    recipe: Recipe,
    share: BatchSlice = WHOLE_BATCH,
    replica: DistributedDataParallel | None = None,
) -> StepResult:
    """Gradients of a batch, clipped to MAX_GRAD_NORM, computed in `recipe.accumulate` parts one after the other.

    The sum over the parts is the gradient of the whole batch, but for what samples of a batch do to each other: batch
    statistics, and terms of the loss that compare faces, which do so within a part; with missing modalities the terms of single
    views are weighted by samples, not by views.

    Args:
        share: what this process has of a batch that several compute together; replica: a PartLoss of the model, which adds
            their gradients up. A part of the batch is then a part of each process's.
    """
    parts = share.split(min(recipe.accumulate, len(target)))
    batches, targets = batch.split(len(parts)), target.tensor_split(len(parts))
    compute = replica or PartLoss(model)
    whole_weight = _label_weight(criterion, target, share)
    results = []
    for index, (part, labels, its_share) in enumerate(zip(batches, targets, parts, strict=True)):
        is_last = index == len(parts) - 1
        with nullcontext() if replica is None or is_last else replica.no_sync():
            terms, logits, face = compute(part, labels, criterion, recipe, its_share)
            loss = terms.pop("loss")
            if len(parts) > 1:
                by_samples = (its_share.num_samples or len(labels)) / (share.num_samples or len(target))
                # classes may count differently, or be unknown
                by_labels = _label_weight(criterion, labels, its_share) / whole_weight
                by_name = {
                    name: by_labels if term.counts_labels else by_samples for name, term in model.loss_terms.items()
                }
                terms = {name: term * by_name.get(name, by_labels) for name, term in terms.items()}
                loss = add_terms(terms, recipe.loss_weights)
            # replicas take the mean over processes of what are shares of a sum
            (loss if replica is None else loss * len(share.counts)).backward()
        detached = {name: term.detach() for name, term in (*terms.items(), ("loss", loss))}
        results.append(StepResult(detached, logits, face))
    terms = {name: torch.stack([r.terms[name] for r in results]).sum(0) for name in results[0].terms}
    if share.counts:
        terms = dict(zip(terms, share.total(torch.stack(list(terms.values()))), strict=True))
    terms["grad_norm"] = nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
    return StepResult(terms, torch.cat([r.logits for r in results]), torch.cat([r.face for r in results]))


def _label_weight(criterion: Criterion, labels: Tensor, share: BatchSlice) -> Tensor | float:
    """How much these labels, with those of the other processes, count together in `Criterion.mean_loss`."""
    if criterion.multilabel:
        return share.total((labels >= 0).float().sum()).clamp(min=MIN_WEIGHT)
    if criterion.class_weight is None:
        return float(share.num_samples or len(labels))
    return share.total(criterion.class_weight[labels].sum())


@torch.no_grad()
def part_right(logits: Tensor, target: Tensor, criterion: Criterion) -> Tensor:
    """The part of a batch that is classified rightly, f32 (); for several classes at once, of its known answers."""
    if not criterion.multilabel:
        return (logits.argmax(1) == target).float().mean()
    known = target >= 0
    right = ((logits > 0) == (target == 1)) & known
    return right.sum() / known.sum().clamp(min=1)
