"""One step: a batch computed in parts gives the gradient of the whole, and what is not finite never reaches the weights."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from recipes import make_recipe
from test_facet import make_batch, make_model

from train.model.facet import Facet
from train.tasks.criterion import BinaryCrossEntropy, CrossEntropy
from train.training.optimizer import build_optimizer
from train.training.step import MAX_GRAD_NORM, accumulate_gradients, train_step

RECIPE = make_recipe(lr=1e-2, tower_lr=1e-2)
NO_CONSISTENCY = {"vt": 0.5}
LABELS = torch.tensor([0, 2, 1, 2, 2, 0, 1])
TARGETS = torch.tensor(
    [[1, 0, -1], [0, 0, 1], [-1, -1, -1], [1, 1, 0], [0, -1, 1], [1, 0, 0], [0, 1, 0]], dtype=torch.int8
)
GOALS = {
    "plain": (CrossEntropy(), LABELS),
    "balanced": (CrossEntropy(torch.tensor([1.0, 0.2, 3.0])), LABELS),
    "several": (BinaryCrossEntropy(torch.tensor([1.0, 5.0, 0.5])), TARGETS),
}


def gradients(model: Facet) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("criterion", GOALS)
@pytest.mark.parametrize("num_parts", [2, 3, 7, 100])
def test_parts_of_a_batch_add_up_to_its_gradient(criterion: str, num_parts: int) -> None:
    batch, (how, labels) = make_batch(b=7), GOALS[criterion]
    found = []
    for accumulate in (1, num_parts):
        model = make_model(multilabel=criterion == "several", losses=NO_CONSISTENCY)
        result = accumulate_gradients(model, batch, labels, how, accumulate=accumulate)
        found.append((result, gradients(model)))
    (whole, wanted), (parts, got) = found
    assert set(got) == set(wanted)
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, atol=1e-6, rtol=1e-4, msg=name)
    assert set(parts.terms) == set(whole.terms)
    for name, term in whole.terms.items():
        torch.testing.assert_close(parts.terms[name], term, atol=1e-5, rtol=1e-4, msg=name)
    torch.testing.assert_close(parts.logits, whole.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(parts.face, whole.face)


def test_consistency_is_each_parts_own() -> None:
    """Faces are compared with those of their part: the mean over parts, by their size."""
    batch = make_batch(b=6)
    result = accumulate_gradients(make_model(), batch, LABELS[:6], CrossEntropy(), accumulate=2)
    halves = [
        accumulate_gradients(make_model(), part, labels, CrossEntropy()).terms
        for part, labels in zip(batch.split(2), LABELS[:6].split(3), strict=True)
    ]
    for name in ("ce", "con", "vt", "loss"):
        torch.testing.assert_close(result.terms[name], (halves[0][name] + halves[1][name]) / 2)


def test_gradients_are_clipped_to_their_norm() -> None:
    model = make_model(trained=True)
    result = accumulate_gradients(model, make_batch(b=7), LABELS, CrossEntropy())
    norm = torch.stack([g.square().sum() for g in gradients(model).values()]).sum().sqrt().item()
    assert norm == pytest.approx(min(MAX_GRAD_NORM, result.terms["grad_norm"].item()), rel=1e-4)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_what_is_not_finite_never_reaches_the_weights(accumulate: int) -> None:
    model = make_model(losses=NO_CONSISTENCY)
    optimizer = build_optimizer(model, RECIPE)
    broken = torch.zeros(())
    good, bad = make_batch(b=7), make_batch(b=7)
    bad.images[5, 0, 0, 0, 0, 3, 3] = math.nan  # type: ignore[index]

    def step(batch: object) -> bool:
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        train_step(model, optimizer, batch, LABELS, CrossEntropy(), broken, accumulate=accumulate)  # type: ignore[arg-type]
        return any(not torch.equal(p, before[name]) for name, p in model.named_parameters())

    assert step(good)
    assert broken == 0
    steps_done = [state["step"].item() for state in optimizer.state.values()]
    assert not step(bad)
    assert broken == 1
    assert not step(good)  # nor afterwards, until somebody has looked
    assert all(p.isfinite().all() for p in model.parameters())
    assert [state["step"].item() for state in optimizer.state.values()] == steps_done


def test_the_scale_never_leaves_a_step_above_100() -> None:
    model, recipe = make_model(), replace(RECIPE, lr=1.0)
    optimizer = build_optimizer(model, recipe)
    for _ in range(3):
        model.log_scale.data.fill_(8.0)
        train_step(model, optimizer, make_batch(b=7), LABELS, CrossEntropy(), torch.zeros(()))
        assert model.scale.item() == pytest.approx(100, rel=1e-5)


def test_part_of_a_batch_that_is_right() -> None:
    logits = torch.tensor([[2.0, 1, 0], [0, 1, 2], [1, 0, 0], [3, 0, 1]])
    assert CrossEntropy().accuracy(logits, torch.tensor([0, 2, 1, 2])) == 0.5
    several = torch.tensor([[1.0, -1, -1], [1, 1, -1]])
    assert BinaryCrossEntropy().accuracy(several, torch.tensor([[1, 0, -1], [0, 1, -1]])) == 0.75
