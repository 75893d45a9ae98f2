"""The training loop: batches in, weights out, on one screen. One step is `train.training.step`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from shared.cache import Cache
from shared.errors import FacetError
from train.config import Recipe
from train.data.augment import draw_parameters
from train.data.batch_transform import BatchTransform
from train.data.items import Item, find_rows_in_use
from train.data.order import count_repeats, epoch_batches
from train.data.transfer import copy_small
from train.losses.criterion import Criterion, balance_classes, mean_cosine_between_faces
from train.model.facet import Batch, Facet
from train.model.tuning import checkpoint_activations, merge_low_rank, tune_tower
from train.training.checkpoint import read_checkpoint, write_checkpoint
from train.training.distributed import ALONE, Ranks, synchronise_batch_norm
from train.training.ema import Ema
from train.training.flops import count_flops_per_sample, find_peak_flops
from train.training.optimizer import build_optimizer, rate_at, set_rate
from train.training.progress import LOG_EVERY as LOG_EVERY
from train.training.progress import open_progress
from train.training.signals import catch_signals
from train.training.step import PartLoss, train_step
from train.training.trace import trace_steps


class Stopped(Exception):
    """A signal asked to stop; a checkpoint of `step` steps is written."""

    def __init__(self, step: int, number: int) -> None:
        super().__init__(step, number)
        self.step, self.number = step, number


@dataclass(frozen=True)
class TrainingSet:
    items: Sequence[Item]
    labels: np.ndarray  # i64 (n,) class indices; several classes at once: i8 (n, C), 1, 0 or -1 = unknown

    def steps_per_epoch(self, batch_size: int) -> int:
        return -(-len(self.items) // batch_size)


@dataclass(frozen=True)
class Monitoring:
    """What a user wants to see of a training besides its log; changes nothing of what it computes."""

    tensorboard: bool = False
    profile_steps: int = 0  # to be recorded by torch's profiler


def build_criterion(recipe: Recipe, labels: np.ndarray, device: torch.device) -> Criterion:
    """What scores are compared with, balanced by the training labels alone where that was asked for."""
    multilabel = recipe.is_multilabel
    weight = None
    if recipe.class_weights == "balanced":
        balanced = balance_classes(labels, len(recipe.classes), multilabel=multilabel)
        weight = torch.from_numpy(balanced).to(device)
    return Criterion(multilabel, weight)


def train(
    run: Path,
    model: Facet,
    cache: Cache,
    training: TrainingSet,
    transform: BatchTransform,
    recipe: Recipe,
    *,
    checkpoint_every: int,
    keep_checkpoints: int = 1,
    ranks: Ranks = ALONE,
    watch: Monitoring | None = None,
) -> None:
    """Trains from the run's checkpoint, or from step 0, to the last step; writes log.jsonl and checkpoints. The model ends with
    the weights that are to be tested and kept: the moving average where there is one, and LoRA merged.

    Args:
        ranks: processes that train the same model, each on a slice of every batch; the first of them writes.
    Raises:
        FacetError: the loss is no longer finite; names the step and the term. A batch has fewer samples than processes.
        Stopped: SIGINT or SIGTERM came; a checkpoint was written first.
    """
    watch, device = watch or Monitoring(), transform.device
    criterion = build_criterion(recipe, training.labels, device)
    tune_tower(model, recipe.tune)
    if recipe.checkpoint_activations:
        checkpoint_activations(model.tower)
    model.tower.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.tower = synchronise_batch_norm(model.tower, ranks, device)
    optimizer = build_optimizer(model, recipe)
    ema = Ema(model, recipe.ema) if recipe.ema else None
    step = _restore(run, model, optimizer, ema)
    if ranks.largest(step) != -ranks.largest(-step):
        raise FacetError(
            f"{run}: not all processes find the same checkpoint there; --out must be a folder that all share"
        )
    steps_per_epoch = training.steps_per_epoch(recipe.batch_size)
    if (least := len(training.items) // steps_per_epoch) < ranks.num:
        raise FacetError(
            f"{ranks.num} processes: a batch of this training has {least} samples; start fewer, or raise --batch-size"
        )
    num_steps = recipe.epochs * steps_per_epoch
    place = {item.place: index for index, item in enumerate(training.items)}
    broken = torch.zeros((), device=device)
    model.train()
    peak_flops, flops_per_sample = find_peak_flops(device), None
    if peak_flops is not None and transform.embeddings is None:
        flops_per_sample = count_flops_per_sample(model, _example(transform, recipe))
    if device.type == "cuda":  # on a CPU compiling takes longer than a short training
        # sizes of batches differ by one, at most; where images are missing they differ in every step
        model.compile_tower(dynamic=False if _is_complete(cache, training.items, transform.modalities) else None)

    replica = ranks.replicate(PartLoss(model))
    silent = not ranks.is_first

    def save() -> None:
        if ranks.is_first:
            cache.check_unchanged()
            write_checkpoint(run, step, model, optimizer, ema.weights if ema else None, num_kept=keep_checkpoints)

    with (
        catch_signals() as caught,
        open_progress(run, step, num_steps, device, tensorboard=watch.tensorboard, silent=silent) as progress,
        trace_steps(run, 0 if silent else watch.profile_steps, first=step) as trace,
    ):
        progress.flops_per_sample = flops_per_sample
        progress.peak_flops = peak_flops and peak_flops * ranks.num
        for epoch in range(step // steps_per_epoch, recipe.epochs):
            order = epoch_batches(training.labels, recipe.sampler, recipe.batch_size, recipe.seed, epoch)
            repeats = count_repeats(order)[step % steps_per_epoch :]
            order = order[step % steps_per_epoch :]
            batches = [
                [training.items[i].again(n) for i, n in zip(*map(ranks.part, drawn), strict=True)]
                for drawn in zip(order, repeats, strict=True)
            ]
            draws = (recipe.seed, epoch) if recipe.augment != "none" else None
            stream = transform.stream(
                cache, batches, recipe.frames, jitter=draws, references=recipe.reference != "none"
            )
            for num_samples, raw in zip(map(len, order), progress.waiting_for(stream), strict=True):
                changes = None
                if draws:
                    places, repeated = [item.place for item in raw.items], [item.repeat for item in raw.items]
                    changes = draw_parameters(*draws, places, repeated)
                batch = transform.prepare(raw, changes)
                target = copy_small(training.labels[[place[item.place] for item in raw.items]], device)
                rate = rate_at(step, num_steps, recipe.warmup)
                set_rate(optimizer, rate)
                share = ranks.share(num_samples)
                try:
                    result = train_step(
                        model, optimizer, batch, target, criterion, broken,
                        accumulate=recipe.accumulate, batch_slice=share, replica=replica,
                    )  # fmt: skip
                except RuntimeError:
                    # A signal to all processes of a job ends those that compile for this one as well. The weights are
                    # still those before the step.
                    if not caught or broken:
                        raise
                    save()
                    raise Stopped(step, caught[0]) from None
                if ema is not None:
                    ema.update(model, step)
                progress.add(step, result, num_samples)
                step += 1
                trace()

                stop = ranks.largest(caught[0] if caught else 0)  # all after the same step
                is_due = bool(stop) or step % checkpoint_every == 0 or step == num_steps
                if step % LOG_EVERY == 0 or is_due:
                    values = progress.read(run, f"--lr (now {recipe.lr:g}) or --tower-lr ({recipe.tower_lr:g})")
                if step % LOG_EVERY == 0 or step == num_steps:
                    logits, target, face = (share.gather(x) for x in (result.logits, target, result.face))
                    progress.write(
                        {
                            "step": step,
                            "epoch": epoch,
                            **values,
                            "accuracy": criterion.accuracy(logits, target).item(),
                            "face_cosine": mean_cosine_between_faces(face).item(),
                            "scale": model.scale.item(),
                            "lr": recipe.lr * rate,
                        }
                    )
                if is_due:
                    save()
                if stop:
                    raise Stopped(step, stop)
    if ema is not None:
        ema.copy_to(model)
    merge_low_rank(model)


def _restore(run: Path, model: Facet, optimizer: torch.optim.Optimizer, ema: Ema | None) -> int:
    """Everything as it was at the run's checkpoint; the number of steps done, 0 where there is none."""
    checkpoint = read_checkpoint(run)
    if checkpoint is None:
        return 0
    for text in checkpoint.damaged:
        print(f"{text}; going on from an earlier one, of step {checkpoint.step}", file=sys.stderr)
    try:
        model.load_state_dict(checkpoint.model)
        optimizer.load_state_dict(checkpoint.optimizer)
        if ema is not None:
            ema.load(checkpoint.ema or {})
    except (RuntimeError, ValueError, KeyError) as error:
        raise FacetError(f"{run}: its checkpoint is of another model; choose another --out") from error
    torch.set_rng_state(checkpoint.random_state)
    if checkpoint.random_state_cuda is not None and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(checkpoint.random_state_cuda)
    return checkpoint.step


def _example(transform: BatchTransform, recipe: Recipe) -> Batch:
    """One sample's shapes."""
    device = transform.device
    num_frames = recipe.frames + (recipe.reference != "none")
    num_modalities, num_views, size_px = len(transform.modalities), len(transform.views), transform.tower.image_size
    return Batch(
        images=torch.empty(1, num_frames, num_modalities, num_views, 3, size_px, size_px, device=device),
        present=torch.empty(1, num_frames, num_modalities, dtype=torch.bool, device=device),
        cameras=torch.empty(1, num_views, 2, device=device),
        complete=True,
        has_reference=torch.empty(1, dtype=torch.bool, device=device) if recipe.reference != "none" else None,
    )


def _is_complete(cache: Cache, items: Sequence[Item], modalities: Sequence[str]) -> bool:
    """Whether no image that training looks at is missing."""
    return all(cache.samples[row].has(modality) for row in find_rows_in_use(items) for modality in modalities)
