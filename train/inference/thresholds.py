"""For tasks with several labels at once: class biases to start from, and decision thresholds after training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from shared.cache import Cache
from shared.errors import FacetError, first_line
from shared.runs import THRESHOLDS_JSON, check_file
from shared.schema import canonical_json
from shared.store.storage import write_file
from train.config import RunConfig
from train.data.batch_transform import BatchTransform
from train.inference.score import score_items
from train.model.facet import Facet
from train.options import Recipe
from train.tasks.item import Item
from train.tasks.task import find_task

NUM_START_ITEMS = 256  # to estimate the mean of the untrained scores
NUM_THRESHOLD_ITEMS = 4096


@torch.no_grad()
def start_class_bias(
    model: Facet, cache: Cache, items: Sequence[Item], labels: np.ndarray, transform: BatchTransform, recipe: Recipe
) -> None:
    """Set each class's bias so that the untrained model predicts the rates of the training labels.

    CLIP's cosines are about 0.2 for every class, times a scale of 100: without this bias, probabilities would mean nothing
    for thousands of steps (cf. Lin et al. 2017, "Focal loss for dense object detection", section 4.1).

    Args:
        labels: i8 (n, C) of the items; -1 = unknown.
    """
    assert model.class_bias is not None
    rate = find_task(recipe.task).start_rates(labels)
    chosen = spread(items, NUM_START_ITEMS)
    batches = [chosen[i : i + recipe.batch_size] for i in range(0, len(chosen), recipe.batch_size)]
    model.train()  # batch statistics as in the first steps; the running ones of a random tower mean nothing yet
    state = {key: value.clone() for key, value in model.state_dict().items()}
    references = recipe.reference != "none"
    logits = [
        model(transform.prepare(raw)).logits
        for raw in transform.stream(cache, batches, recipe.frames, references=references)
    ]
    model.load_state_dict(state)  # the forward passes moved running statistics
    wanted = torch.from_numpy(np.log(rate / (1 - rate)).astype(np.float32)).to(transform.device)
    model.class_bias.copy_(wanted - torch.cat(logits).mean(0))


def fit_thresholds(
    model: Facet, cache: Cache, train_items: Sequence[Item], transform: BatchTransform, config: RunConfig
) -> np.ndarray:
    """Return the task's thresholds f32 (C,) on training subjects."""
    items = spread(train_items, NUM_THRESHOLD_ITEMS)
    scores = score_items(model, cache, items, transform, config)
    task, classes = find_task(config.recipe.task), config.recipe.classes
    return task.choose_thresholds(task.label_items(items, classes), scores.probabilities)


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """Return at most `most` items, evenly spread."""
    indices = np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int))
    return [items[index] for index in indices]


def write_thresholds(run: Path, thresholds: np.ndarray) -> None:
    write_file(run / THRESHOLDS_JSON, canonical_json({"thresholds": [float(t) for t in thresholds]}).encode())


def read_thresholds(run: Path, recipe: Recipe) -> np.ndarray | None:
    """Read the thresholds f32 (C,) of a finished run; None for a task without.

    Raises:
        FacetError: missing or damaged.
    """
    if not find_task(recipe.task).has_thresholds:
        return None
    num_classes, path = len(recipe.classes), run / THRESHOLDS_JSON
    try:
        data = path.read_bytes()
        check_file(run, THRESHOLDS_JSON, data)
        values = np.array(json.loads(data)["thresholds"], np.float32)
        if values.shape != (num_classes,) or not np.isfinite(values).all():
            raise ValueError(f"expected {num_classes} numbers")
    except FileNotFoundError as error:
        raise FacetError(f"{path}: missing, the training is not finished; run fit again") from error
    except (ValueError, KeyError, TypeError) as error:
        raise FacetError(f"{path}: damaged ({first_line(error)}); fit again") from error
    return values
