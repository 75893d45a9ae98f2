"""The training loop. `train.training.setup` builds its state; `train.training.step` is one step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared.cache import Cache
from shared.errors import FacetError
from train.data.augment import draw_parameters, draw_views
from train.data.batch_transform import BatchTransform
from train.data.embeddings import RowBatch
from train.data.epoch import stream_epoch
from train.data.order import epoch_batches
from train.data.stream import RawBatch
from train.data.transfer import copy_small
from train.model.facet import Facet
from train.model.tuning import merge_low_rank
from train.options import Recipe
from train.tasks.criterion import mean_cosine_between_faces
from train.tasks.item import Item
from train.trackers.tracker import Tracker
from train.training.checkpoint import write_checkpoint
from train.training.distributed import ALONE, Ranks
from train.training.optimizer import rate_at, set_rate
from train.training.progress import LOG_EVERY as LOG_EVERY
from train.training.progress import open_progress
from train.training.setup import build_criterion, compile_tower, measure_flops, set_up
from train.training.signals import catch_signals
from train.training.step import PartLoss, train_step
from train.training.trace import trace_steps
from train.training.validation import Validation


class Stopped(Exception):
    """Training was stopped by a signal; a checkpoint of `step` steps is written."""

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
    """What is recorded of a training besides its log; it changes no result."""

    trackers: Sequence[Tracker] = ()
    profile_steps: int = 0  # to record with torch's profiler


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
    monitoring: Monitoring | None = None,
    validation: Validation | None = None,
) -> None:
    """Train from the run's checkpoint, or from step 0, to the last step. Write log.jsonl and checkpoints.

    The model ends with the weights to test and keep: the moving average with --ema, those of the best epoch with a
    validation, and LoRA merged.

    Args:
        ranks: processes that train the model together, each on a slice of every batch; the first one writes.
    Raises:
        FacetError: the loss is not finite (names the step and the term), or a batch has fewer samples than processes.
        Stopped: SIGINT or SIGTERM; a checkpoint was written first.
    """
    monitoring, device, silent = monitoring or Monitoring(), transform.device, not ranks.is_first
    criterion = build_criterion(recipe, training.labels, device)
    state = set_up(run, model, recipe, ranks, device, validation)
    steps_per_epoch = training.steps_per_epoch(recipe.batch_size)
    if (least := len(training.items) // steps_per_epoch) < ranks.num:
        raise FacetError(
            f"{ranks.num} processes: the smallest batch has {least} samples; start fewer processes, or raise --batch-size"
        )
    num_steps = recipe.epochs * steps_per_epoch
    rates = f"--lr (now {recipe.lr:g}) or --tower-lr ({recipe.tower_lr:g})"
    flops_per_sample, peak_flops = measure_flops(model, transform, recipe)
    compile_tower(model, cache, training.items, transform.modalities)
    replica = ranks.replicate(PartLoss(model))
    broken = state.model.log_scale.detach().new_zeros(())

    def save() -> None:
        if ranks.is_first:
            cache.check_unchanged()
            ema = None if state.ema is None else state.ema.weights
            best = None if validation is None else validation.to_checkpoint()
            write_checkpoint(run, state.step, model, state.optimizer, ema, best, num_kept=keep_checkpoints)

    with (
        catch_signals() as caught,
        open_progress(run, state.step, num_steps, device, trackers=monitoring.trackers, silent=silent) as progress,
        trace_steps(run, 0 if silent else monitoring.profile_steps, first=state.step) as trace,
    ):
        progress.flops_per_sample, progress.peak_flops = flops_per_sample, peak_flops and peak_flops * ranks.num
        is_over = validation is not None and validation.is_over(state.step // steps_per_epoch)
        stream = _stream_epochs(cache, training, transform, recipe, ranks, num_steps if is_over else state.step)
        for epoch, num_samples, labels, raw in progress.waiting_for(stream):
            parameters = views = None
            indices, repeats = [item.index for item in raw.items], [item.repeat for item in raw.items]
            if recipe.augment != "none":
                parameters = draw_parameters(recipe.seed, epoch, indices, repeats)
            if recipe.train_views < (num_views := len(transform.views)):
                views = draw_views(recipe.seed, epoch, indices, repeats, num_views, recipe.train_views)
            batch, target = transform.prepare(raw, parameters, views), copy_small(labels, device)
            rate, batch_slice = rate_at(state.step, num_steps, recipe.warmup), ranks.slice(num_samples)
            set_rate(state.optimizer, rate)
            try:
                result = train_step(
                    model, state.optimizer, batch, target, criterion, broken,
                    accumulate=recipe.gradient_accumulation, batch_slice=batch_slice, replica=replica,
                )  # fmt: skip
            except RuntimeError:
                # A signal to the whole process group also ends the processes that compile. The weights are unchanged.
                if not caught or broken:
                    raise
                save()
                raise Stopped(state.step, caught[0]) from None
            if state.ema is not None:
                state.ema.update(model, state.step)
            progress.add(state.step, result.terms, num_samples)
            state.step += 1
            trace()

            stop = ranks.largest(caught[0] if caught else 0)  # all processes stop after the same step
            is_epoch_over = validation is not None and state.step % steps_per_epoch == 0
            is_last = state.step == num_steps
            if is_epoch_over and validation is not None:
                progress.read(run, rates)
                if ranks.is_first:
                    measured = validation.measure(model, criterion, state.ema, epoch + 1)
                    progress.write_validation(state.step, epoch, measured)
                is_over = bool(ranks.largest(validation.is_over(epoch + 1) and ranks.is_first))
                is_last = is_last or is_over
            is_log_due = is_last or state.step % LOG_EVERY == 0
            is_checkpoint_due = is_last or bool(stop) or state.step % checkpoint_every == 0
            if is_log_due or is_checkpoint_due:
                values = progress.read(run, rates)
            if is_log_due:
                logits, target, face = (batch_slice.gather(x) for x in (result.logits, target, result.face))
                about = {"accuracy": criterion.accuracy(logits, target).item(),
                         "face_cosine": mean_cosine_between_faces(face).item(),
                         "scale": model.scale.item(), "lr": recipe.lr * rate}  # fmt: skip
                progress.write({"step": state.step, "epoch": epoch, **values, **about})
            if is_checkpoint_due:
                save()
            if stop:
                raise Stopped(state.step, stop)
            if is_over:
                break
    if validation is not None and validation.best_weights:
        model.load_state_dict(validation.best_weights)
    elif state.ema is not None:
        state.ema.copy_to(model)
    merge_low_rank(model)


def _stream_epochs(
    cache: Cache, training: TrainingSet, transform: BatchTransform, recipe: Recipe, ranks: Ranks, step: int
) -> Iterator[tuple[int, int, np.ndarray, RawBatch | RowBatch]]:
    """Yield the batches from a step on: epoch, samples of the whole batch, and this process's labels and samples."""
    jitters, compares = recipe.augment != "none", recipe.reference != "none"
    steps_per_epoch = training.steps_per_epoch(recipe.batch_size)
    for epoch in range(step // steps_per_epoch, recipe.epochs):
        order = epoch_batches(training.labels, recipe.sampler, recipe.batch_size, recipe.seed, epoch)
        left = slice(max(step - epoch * steps_per_epoch, 0), None)
        jitter = (recipe.seed, epoch) if jitters else None
        stream = stream_epoch(
            cache, training.items, order, transform, recipe.frames,
            jitter=jitter, references=compares, chosen=left, part=ranks.part,
        )  # fmt: skip
        for batch, (own, raw) in zip(order[left], stream, strict=True):
            yield epoch, len(batch), training.labels[own], raw
