"""One training step: a batch's gradient, computed whole or in parts, and what it does to the weights. Never waits for a GPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from train.config import Recipe
from train.facet import Batch, Facet
from train.losses import MIN_WEIGHT, Goal, compute_losses

MAX_GRAD_NORM = 1.0


@dataclass(frozen=True)
class StepResult:
    """terms: name → 0-d f32, on the device: every term of the loss, `loss`, `grad_norm` before clipping; logits (B, C) and
    face (B, d) of the batch, as they were before the step."""

    terms: dict[str, Tensor]
    logits: Tensor
    face: Tensor


def train_step(
    model: Facet,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    target: Tensor,
    goal: Goal,
    recipe: Recipe,
    broken: Tensor,
) -> StepResult:
    """Moves the weights by one step, unless something is not finite.

    Args:
        target: labels, i64 (B,) or i8 (B, C).
        broken: f32 (), 0 as long as every loss and gradient was finite. Set to 1 here when one is not; from then on no step
            changes the weights, so that the host may look at the values later, without stopping the device.
    """
    optimizer.zero_grad(set_to_none=True)
    result = accumulate_gradients(model, batch, target, goal, recipe)
    finite = torch.stack(list(result.terms.values())).isfinite().all()
    broken.copy_(torch.maximum(broken, 1 - finite.float()))
    optimizer.found_inf = broken  # type: ignore[attr-defined]  # as torch.amp's GradScaler tells fused optimisers
    optimizer.step()
    model.clamp_scale()
    return result


def accumulate_gradients(model: Facet, batch: Batch, target: Tensor, goal: Goal, recipe: Recipe) -> StepResult:
    """Gradients of a batch, clipped to MAX_GRAD_NORM, computed in `recipe.accumulate` parts one after the other.

    The sum over the parts is the gradient of the whole batch, but for what samples of a batch do to each other: batch
    statistics, and the consistency loss, which compares faces within a part; with missing modalities the terms of single
    views are weighted by samples, not by views.
    """
    batches = batch.split(recipe.accumulate)
    targets = target.tensor_split(len(batches))
    whole_weight = _label_weight(goal, target)
    results = []
    for part, labels in zip(batches, targets, strict=True):
        output = model(part)
        terms = compute_losses(model, output, labels, goal, lambda_con=recipe.lambda_con, lambda_vt=recipe.lambda_vt)
        loss = terms.pop("loss")
        if len(batches) > 1:
            by_samples = len(labels) / len(target)
            by_labels = _label_weight(goal, labels) / whole_weight  # classes may count differently, or be unknown
            terms = {name: term * (by_samples if name == "con" else by_labels) for name, term in terms.items()}
            factors = {"con": recipe.lambda_con, "vt": recipe.lambda_vt}
            loss = torch.stack([term * factors.get(name, 1.0) for name, term in terms.items()]).sum()
        loss.backward()
        detached = {name: term.detach() for name, term in (*terms.items(), ("loss", loss))}
        results.append(StepResult(detached, output.logits.detach(), output.face.detach()))
    terms = {name: torch.stack([r.terms[name] for r in results]).sum(0) for name in results[0].terms}
    terms["grad_norm"] = nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
    return StepResult(terms, torch.cat([r.logits for r in results]), torch.cat([r.face for r in results]))


def _label_weight(goal: Goal, labels: Tensor) -> Tensor | float:
    """How much these labels count together in `Goal.mean_loss`."""
    if goal.multilabel:
        return (labels >= 0).float().sum().clamp(min=MIN_WEIGHT)
    if goal.class_weight is None:
        return float(len(labels))
    return goal.class_weight[labels].sum()


@torch.no_grad()
def part_right(logits: Tensor, target: Tensor, goal: Goal) -> Tensor:
    """The part of a batch that is classified rightly, f32 (); for several classes at once, of its known answers."""
    if not goal.multilabel:
        return (logits.argmax(1) == target).float().mean()
    known = target >= 0
    right = ((logits > 0) == (target == 1)) & known
    return right.sum() / known.sum().clamp(min=1)
