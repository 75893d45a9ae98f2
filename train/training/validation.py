"""Validation on held-out training subjects: the loss after each epoch, the best weights so far, and early stopping."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shared.cache import Cache
from shared.errors import count
from train.config import RunConfig
from train.data.batch_transform import BatchTransform
from train.inference.score import score_items
from train.model.facet import Facet
from train.tasks.criterion import Criterion
from train.tasks.item import Item
from train.tasks.task import find_task
from train.training.ema import Ema


@dataclass
class Validation:
    """The validation of one training. Epochs are counted from 1.

    transform: of the validation images, from the cache or their embeddings.
    best_loss: the least so far, of best_epoch; best_weights: its state_dict, on the CPU.
    """

    cache: Cache
    items: Sequence[Item]
    transform: BatchTransform
    config: RunConfig
    best_loss: float = math.inf
    best_epoch: int = 0
    best_score: float | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    def measure(self, model: Facet, criterion: Criterion, ema: Ema | None, epoch: int) -> dict[str, float]:
        """Return the loss and the first score of the weights that would be tested now; keep the weights if they are the best.

        The model is in training mode afterwards, with its own weights.
        """
        recipe = self.config.recipe
        task = find_task(recipe.task)
        with nullcontext() if ema is None else ema.applied_to(model):
            scores = score_items(model, self.cache, self.items, self.transform, self.config)
            labels = torch.from_numpy(task.label_items(self.items, recipe.classes))
            weight = None if criterion.class_weight is None else criterion.class_weight.cpu()
            loss = float(type(criterion)(weight).mean_loss(torch.from_numpy(scores.logits), labels))
            thresholds = np.full(len(recipe.classes), 0.5, np.float32) if task.has_thresholds else None
            rows = [
                task.predict(item, probabilities, thresholds, recipe.classes)
                for item, probabilities in zip(self.items, scores.probabilities, strict=True)
            ]
            score = task.compute_metrics(len(rows), task.count(rows, recipe.classes))[task.primary.name]
            if loss < self.best_loss:
                self.best_loss, self.best_epoch, self.best_score = loss, epoch, score
                self.best_weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        model.train()
        known = {} if score is None else {f"validation_{task.primary.name}": score}
        return {"validation_loss": loss, **known}

    def is_over(self, num_epochs: int) -> bool:
        """Return whether the loss has not fallen for --patience epochs; num_epochs: that are finished."""
        patience = self.config.recipe.patience
        return patience is not None and num_epochs - self.best_epoch >= patience

    def describe(self) -> str:
        primary = find_task(self.config.recipe.task).primary
        score = "" if self.best_score is None else f", {primary.short_title} {self.best_score:.3f}"
        num_subjects = len({item.subject for item in self.items})
        subjects = count(num_subjects, "validation subject")
        return f"best epoch {self.best_epoch}: loss {self.best_loss:.3f}{score} on {subjects}; its weights are kept"

    def to_checkpoint(self) -> dict[str, Any]:
        names = ("best_loss", "best_epoch", "best_score", "best_weights")
        return {name: getattr(self, name) for name in names}

    def load_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Restore what `to_checkpoint` returned.

        Raises:
            KeyError: it is of a training without validation.
        """
        for name in self.to_checkpoint():
            setattr(self, name, state[name])
