"""Stacked models against the same models one by one, in double precision: nothing is left but the order of sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import VIEWS, random_text
from torch import Tensor, nn

from train.config import Recipe
from train.data.embeddings import Embeddings
from train.data.items import Item
from train.data.prompts import mean_prompts
from train.losses.terms import mean_cosine_between_faces
from train.model.facet import Batch, Facet
from train.studies.crossval.at_once.batches import Batches, cosine_between_faces_each, part_right_each
from train.studies.crossval.at_once.model import Stack, StackedBatch
from train.training.loop import TrainingSet, build_criterion
from train.training.optimizer import build_optimizer, rate_at, set_rate
from train.training.step import part_right, train_step

CPU = torch.device("cpu")
CLASSES = ("anger", "happiness", "surprise")
RECIPE = Recipe(
    classes=CLASSES, modalities=("texture", "normal"), frames=1, epochs=3, batch_size=6, lr=3e-3, tune="frozen",
    augment="flip",
)  # fmt: skip
NUM = 40


def make_facet(recipe: Recipe) -> Facet:
    torch.manual_seed(recipe.seed)
    text = random_text(CLASSES, 16, "tiny")
    options = {
        "num_modalities": 2,
        "num_frames": recipe.frames,
        "freeze_tower": True,
        "class_bias": recipe.is_multilabel,
        "fusion": recipe.fusion,
        "head": recipe.head,
        "consistency": recipe.lambda_con > 0,
        "num_views": 3,
        "class_vectors": recipe.class_vectors,
        "losses": tuple(recipe.loss_weights),
    }
    return Facet(nn.Identity(), 24, mean_prompts(text), text.logit_scale, **options).double()  # type: ignore[arg-type]


def make_trainings(recipe: Recipe, sizes: Sequence[int]) -> tuple[list[TrainingSet], Embeddings]:
    """Trainings of different sizes on random features; items of two rows where there are frames; some images missing."""
    rng = np.random.default_rng(0)
    num_rows = 2 * NUM
    items = [
        Item(str(i), "s", "", (2 * i, 2 * i + 1), i, reference=2 * ((i + 1) % NUM) if i % 3 else None)
        for i in range(NUM)
    ]
    present = np.ones((num_rows, 2), bool)
    present[::7, 0] = False
    features = torch.from_numpy(rng.normal(size=(2, num_rows, 2, 3, 24))) * torch.from_numpy(
        present[None, :, :, None, None]
    )
    table = Embeddings(features, np.arange(num_rows), present)
    trainings = []
    for size in sizes:
        chosen = [items[i] for i in sorted(rng.choice(NUM, size, replace=False))]
        labels = rng.integers(-1, 2, (size, 3)).astype(np.int8) if recipe.is_multilabel else rng.integers(0, 3, size)
        trainings.append(TrainingSet(chosen, labels))
    return trainings, table


def unstack(batch: StackedBatch) -> Batch:
    """The only model's batch."""
    assert batch.even
    reference = None if batch.has_reference is None else batch.has_reference[0]
    return Batch(None, batch.present[0], batch.cameras[0].double(), batch.complete, reference, batch.features[0])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"frames": 2, "relative": "neutral"},
        {"fusion": "mean", "head": "cosine", "lambda_con": 0.0},
        {"fusion": "max", "head": "linear", "extra_losses": ("margin=0.3", "cross-correlation=0.3")},
        {"fusion": "concat", "head": "linear", "task": "targets"},
        {"fusion": "late", "class_vectors": "learned", "frames": 2},
        {"task": "targets", "class_weights": "balanced"},
        {"class_weights": "balanced", "draw": "balanced", "augment": "none", "ema": 0.9},
    ],
)
def test_equal_to_one_by_one(options: dict[str, object]) -> None:
    recipe = replace(RECIPE, **options)  # type: ignore[arg-type]
    trainings, table = make_trainings(recipe, (35, 35, 29, 17))
    num_steps = [recipe.epochs * t.steps_per_epoch(recipe.batch_size) for t in trainings]
    assert num_steps == [18, 18, 15, 9]
    goals = [build_criterion(recipe, t.labels, CPU) for t in trainings]
    balanced = recipe.class_weights == "balanced"
    weight = torch.stack([g.class_weight for g in goals if g.class_weight is not None]).double() if balanced else None
    start: dict[str, Tensor] = dict(make_facet(recipe).named_parameters())
    stack = Stack([start] * len(trainings), make_facet(recipe), recipe, num_steps)
    batches = Batches(trainings, table, VIEWS, recipe)
    noted: list[tuple[dict[str, Tensor], Tensor, Tensor]] = []
    sizes = set()
    for step in range(num_steps[0]):
        num = stack.num_active(step)
        batch = batches.at(step, num)
        batch = replace(batch, cameras=batch.cameras.double())
        sizes.add((num, batch.even))
        result = stack.step(step, batch, weight)
        noted.append(
            (
                result.terms,
                part_right_each(result.logits, batch.target, multilabel=recipe.is_multilabel),
                cosine_between_faces_each(result.face, batch.kept),
            )
        )
    assert {num for num, _ in sizes} == {2, 3, 4}
    assert (4, False) in sizes  # batches of different sizes

    for model, training in enumerate(trainings):
        facet = make_facet(recipe).train()
        optimizer = build_optimizer(facet, recipe)
        alone = Batches([training], table, VIEWS, recipe)
        criterion = goals[model] if weight is None else replace(goals[model], class_weight=weight[model])
        mean = {name: p.detach().clone() for name, p in facet.named_parameters()}
        for step in range(num_steps[model]):
            batch = alone.at(step, 1)
            set_rate(optimizer, rate_at(step, num_steps[model], recipe.warmup))
            single = train_step(facet, optimizer, unstack(batch), batch.target[0], criterion, recipe, torch.zeros(()))
            terms, right, cosine = noted[step]
            for name, term in single.terms.items():
                torch.testing.assert_close(terms[name][model], term.double(), rtol=1e-6, atol=1e-7)
            assert right[model] == pytest.approx(part_right(single.logits, batch.target[0], criterion).item())
            assert cosine[model].item() == pytest.approx(mean_cosine_between_faces(single.face).item(), abs=1e-6)
            for name, p in facet.named_parameters():
                mean[name].lerp_(p.detach(), 1 - min(recipe.ema, (1 + step) / (10 + step)))
        wanted = mean if recipe.ema else dict(facet.named_parameters())
        for name, found in stack.trained(model).items():
            torch.testing.assert_close(found, wanted[name].detach(), rtol=1e-5, atol=1e-7, msg=name)
            moved = (found - start[name]).abs().max()
            assert moved > 1e-4 or not start[name].requires_grad, name
