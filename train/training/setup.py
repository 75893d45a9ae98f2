"""Build the state of a training: model, optimiser and moving average, restored from the run's checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from shared.cache import Cache
from shared.errors import FacetError
from train.data.batch_transform import BatchTransform
from train.data.items import find_rows_in_use
from train.model.batch import Batch
from train.model.facet import Facet
from train.model.tuning import checkpoint_activations, tune_tower
from train.options import Recipe
from train.tasks.criterion import Criterion
from train.tasks.item import Item
from train.tasks.task import find_task
from train.training.checkpoint import read_checkpoint
from train.training.distributed import Ranks, synchronise_batch_norm
from train.training.ema import Ema
from train.training.flops import count_flops_per_sample, find_peak_flops
from train.training.optimizer import build_optimizer
from train.training.validation import Validation


@dataclass
class TrainingState:
    """The state that a step changes. step: number of finished steps."""

    model: Facet
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    step: int = 0


def set_up(
    run: Path, model: Facet, recipe: Recipe, ranks: Ranks, device: torch.device, validation: Validation | None = None
) -> TrainingState:
    """Prepare the model for training, and restore the run's last checkpoint if there is one, also into `validation`.

    Raises:
        FacetError: the checkpoint is damaged or of another model, or the processes find different ones.
    """
    tune_tower(model, recipe.tune)
    if recipe.gradient_checkpointing:
        checkpoint_activations(model.tower)
    model.tower.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.tower = synchronise_batch_norm(model.tower, ranks, device)
    state = TrainingState(model, build_optimizer(model, recipe), Ema(model, recipe.ema) if recipe.ema else None)
    _restore(run, state, validation)
    if ranks.largest(state.step) != -ranks.largest(-state.step):
        raise FacetError(
            f"{run}: the processes find different checkpoints; --out must be a folder that all of them can read"
        )
    model.train()
    return state


def _restore(run: Path, state: TrainingState, validation: Validation | None) -> None:
    checkpoint = read_checkpoint(run)
    if checkpoint is None:
        return
    for text in checkpoint.damaged:
        print(f"{text}; continuing from the earlier checkpoint of step {checkpoint.step}", file=sys.stderr)
    try:
        state.model.load_state_dict(checkpoint.model)
        state.optimizer.load_state_dict(checkpoint.optimizer)
        if state.ema is not None:
            state.ema.load(checkpoint.ema or {})
        if validation is not None:
            validation.load_checkpoint(checkpoint.validation or {})
    except (RuntimeError, ValueError, KeyError) as error:
        raise FacetError(f"{run}: its checkpoint belongs to another model; choose another --out") from error
    torch.set_rng_state(checkpoint.random_state)
    if checkpoint.random_state_cuda is not None and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(checkpoint.random_state_cuda)
    state.step = checkpoint.step


def build_criterion(recipe: Recipe, labels: np.ndarray, device: torch.device) -> Criterion:
    """Return the task's criterion, with class weights of the training labels if the recipe asks for them."""
    task, weight = find_task(recipe.task), None
    if recipe.class_weights == "balanced":
        weight = torch.from_numpy(task.balance_classes(labels, len(recipe.classes))).to(device)
    return task.build_criterion(weight)


def compile_tower(model: Facet, cache: Cache, items: Sequence[Item], modalities: Sequence[str]) -> None:
    """Compile the image tower on a GPU; on a CPU compiling takes longer than a short training.

    Batch sizes differ by at most one. If images are missing, the number of images differs in every step.
    """
    if model.text_mean.device.type == "cuda":
        rows = find_rows_in_use(items)
        is_complete = all(cache.samples[row].has(modality) for row in rows for modality in modalities)
        model.compile_tower(dynamic=False if is_complete else None)


def measure_flops(model: Facet, transform: BatchTransform, recipe: Recipe) -> tuple[float | None, float | None]:
    """Return the operations of a training step per sample, and the device's peak per second; None if not known."""
    device, peak = transform.device, find_peak_flops(transform.device)
    if peak is None or transform.embeddings is not None:
        return None, peak
    compares = recipe.reference != "none"
    shape = (1, recipe.frames + compares, len(transform.modalities))
    side, num_views = transform.tower.image_size, recipe.train_views
    example = Batch(
        images=torch.empty(*shape, num_views, 3, side, side, device=device),
        present=torch.empty(*shape, dtype=torch.bool, device=device),
        cameras=torch.empty(1, num_views, 2, device=device),
        complete=True,
        has_reference=torch.empty(1, dtype=torch.bool, device=device) if compares else None,
    )
    return count_flops_per_sample(model, example), peak
