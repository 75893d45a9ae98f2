"""Batches for models that train at once: each model's own order, items and labels, padded to one size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from shared.schema import View
from train.config import Recipe
from train.data.augment import draw_parameters
from train.data.batch_transform import cameras_rad
from train.data.embeddings import Embeddings
from train.data.items import Item
from train.data.order import count_repeats, epoch_batches
from train.data.transfer import copy_small
from train.studies.crossval.at_once.model import StackedBatch
from train.training.loop import TrainingSet

EPOCHS_KEPT = 8  # models with fewer items are epochs ahead of the others


class Batches:
    """The batches that K models would have been given one by one, step after step."""

    def __init__(
        self, trainings: Sequence[TrainingSet], table: Embeddings, views: tuple[View, ...], recipe: Recipe
    ) -> None:
        self._trainings = list(trainings)
        self._table, self._views, self._recipe = table, views, recipe
        by_place = {item.place: item for training in trainings for item in training.items}
        self._items: list[Item] = list(by_place.values())
        index = {place: i for i, place in enumerate(by_place)}
        self._members = [np.array([index[item.place] for item in training.items]) for training in trainings]
        self._has_reference = np.array([item.reference is not None for item in self._items])
        # model → its epoch, the batches, and `count_repeats` of them
        self._orders: dict[int, tuple[int, list[np.ndarray], list[np.ndarray]]] = {}
        self._draw = lru_cache(maxsize=EPOCHS_KEPT)(self._draw_epoch)

    def epoch(self, model: int, step: int) -> int:
        return step // self._trainings[model].steps_per_epoch(self._recipe.batch_size)

    def at(self, step: int, num_models: int) -> StackedBatch:
        """The batch of step 0, 1, … of the first num_models models."""
        chosen = [self._choose(model, step) for model in range(num_models)]
        size = max(len(batch) for batch, *_ in chosen)
        kept = np.zeros((num_models, size), bool)
        rows, flips, target, members = [], [], [], []
        for model, (batch, repeats, epoch) in enumerate(chosen):
            kept[model, : len(batch)] = True
            padded = np.concatenate([batch, np.repeat(batch[:1], size - len(batch))])
            member = self._members[model][padded]
            model_rows, model_flips = (values[member] for values in self._draw(epoch))
            if again := np.flatnonzero(repeats).tolist():
                items = [self._items[member[i]].again(int(repeats[i])) for i in again]
                model_rows[again], model_flips[again] = self._draw_items(items, epoch)
            rows.append(model_rows)
            flips.append(model_flips)
            members.append(member)
            labels = self._trainings[model].labels[padded]
            labels[len(batch) :] = -1
            target.append(labels)
        return self._stack(np.stack(rows), np.stack(flips), np.stack(target), np.stack(members), kept)

    def _stack(
        self, rows: np.ndarray, flips: np.ndarray, target: np.ndarray, members: np.ndarray, kept: np.ndarray
    ) -> StackedBatch:
        device = self._table.features.device
        present = self._table.present[rows]
        flipped = copy_small(flips, device)
        cameras = cameras_rad(self._views, flips.size, device).view(*flips.shape, len(self._views), 2)
        cameras[..., 0] *= 1 - 2 * flipped[..., None].float()
        has_reference = None
        if self._recipe.relative != "none":
            has_reference = copy_small(self._has_reference[members], device)
        return StackedBatch(
            features=self._table.gather(rows, flipped if flips.any() else None),
            present=copy_small(present, device),
            cameras=cameras,
            target=copy_small(target, device),
            kept=copy_small(kept, device),
            complete=bool(present.all()),
            even=bool(kept.all()),
            has_reference=has_reference,
        )

    def _choose(self, model: int, step: int) -> tuple[np.ndarray, np.ndarray, int]:
        """A model's batch, as places among its items, how many times each came before in the epoch, and the epoch."""
        recipe, training = self._recipe, self._trainings[model]
        epoch = self.epoch(model, step)
        if model not in self._orders or self._orders[model][0] != epoch:
            batches = epoch_batches(training.labels, recipe.draw, recipe.batch_size, recipe.seed, epoch)
            self._orders[model] = epoch, batches, count_repeats(batches)
        _, batches, repeats = self._orders[model]
        return batches[step % len(batches)], repeats[step % len(batches)], epoch

    def _draw_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Every item's rows i64 (n, T) and whether it is mirrored, bool (n,): the same for all models, when first drawn."""
        return self._draw_items(self._items, epoch)

    def _draw_items(self, items: Sequence[Item], epoch: int) -> tuple[np.ndarray, np.ndarray]:
        recipe = self._recipe
        draws = (recipe.seed, epoch) if recipe.augment != "none" else None
        rows = self._table.choose(items, recipe.frames, draws, recipe.relative != "none").rows
        if draws is None:
            return rows, np.zeros(len(rows), bool)
        changes = draw_parameters(*draws, [item.place for item in items], [item.repeat for item in items])
        return rows, changes.flip.numpy()


@torch.no_grad()
def part_right_each(logits: Tensor, target: Tensor, *, multilabel: bool) -> Tensor:
    """f32 (K,): of each model's known answers, the part that is right. logits (K, B, C); target (K, B) or (K, B, C)."""
    known = target >= 0
    right = ((logits > 0) == (target == 1)) if multilabel else logits.argmax(-1) == target
    return (right & known).flatten(1).sum(1) / known.flatten(1).sum(1).clamp(min=1)


@torch.no_grad()
def cosine_between_faces_each(face: Tensor, kept: Tensor) -> Tensor:
    """f32 (K,): as `losses.mean_cosine_between_faces`, of each model's rows that are no padding."""
    num = kept.sum(1)
    total = (face * kept[..., None]).sum(1).square().sum(1)
    return torch.where(num > 1, (total - num) / (num * (num - 1)).clamp(min=1), 0.0)
