"""The training loop: batches in, weights out, one step on one screen."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from shared.cache import Cache
from shared.errors import FacetError
from shared.storage import write_file
from train.augment import draw_change
from train.checkpoint import read_checkpoint, write_checkpoint
from train.config import Recipe
from train.facet import Facet
from train.items import Item
from train.losses import Goal, balance_classes, compute_losses, mean_cosine_between_faces
from train.prepare import Preparer
from train.stream import epoch_order, split_batches

LOG_JSONL = "log.jsonl"
LOG_EVERY = 10  # steps
MAX_GRAD_NORM = 1.0
ADAM_BETAS = (0.9, 0.98)  # as CLIP's own training (Radford et al. 2021, table 19)


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


def build_optimizer(model: Facet, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW in groups: the tower has its own rate; biases, norms, scales and embeddings do not decay."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = recipe.tower_lr if name.startswith("tower.") else recipe.lr
        decays = parameter.ndim >= 2 and not name.endswith(("embedding", "modality", "query"))
        groups.setdefault((rate, recipe.weight_decay if decays else 0.0), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": p, "lr": lr, "weight_decay": decay, "peak_lr": lr} for (lr, decay), p in groups.items()],
        betas=ADAM_BETAS,
        fused=True,
    )


def build_goal(recipe: Recipe, labels: np.ndarray, device: torch.device) -> Goal:
    """What scores are compared with, balanced by the training labels alone where that was asked for."""
    multilabel = recipe.is_multilabel
    weight = None
    if recipe.class_weights == "balanced":
        balanced = balance_classes(labels, len(recipe.classes), multilabel=multilabel)
        weight = torch.from_numpy(balanced).to(device)
    return Goal(multilabel, weight)


def rate_at(step: int, num_steps: int, warmup: float) -> float:
    """Part of the peak learning rate in step 0, 1, …: linear warm-up, then half a cosine down to 0 (SGDR, Loshchilov 2017)."""
    num_warmup = warmup * num_steps
    if step < num_warmup:
        return (step + 1) / (num_warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - num_warmup) / max(num_steps - num_warmup, 1)))


def train(
    run: Path,
    model: Facet,
    cache: Cache,
    training: TrainingSet,
    preparer: Preparer,
    recipe: Recipe,
    *,
    checkpoint_every: int,
) -> None:
    """Trains from the run's checkpoint, or from step 0, to the last step; writes log.jsonl and checkpoints.

    Raises:
        FacetError: the loss is no longer finite; names the step and the term.
        Stopped: SIGINT or SIGTERM came; a checkpoint was written first.
    """
    goal = build_goal(recipe, training.labels, preparer.device)
    optimizer = build_optimizer(model, recipe)
    step = 0
    if checkpoint := read_checkpoint(run):
        try:
            model.load_state_dict(checkpoint.model)
            optimizer.load_state_dict(checkpoint.optimizer)
        except (RuntimeError, ValueError, KeyError) as error:
            raise FacetError(f"{run}: its checkpoint is of another model; choose another --out") from error
        torch.set_rng_state(checkpoint.random_state)
        step = checkpoint.step
    _truncate_log(run, step)
    steps_per_epoch = training.steps_per_epoch(recipe.batch_size)
    num_steps = recipe.epochs * steps_per_epoch
    if preparer.device.type == "cuda":  # on a CPU compiling takes longer than a short training
        model.tower.compile()
    model.train()
    labels = torch.from_numpy(training.labels).to(preparer.device)
    place = {item.place: index for index, item in enumerate(training.items)}

    with (
        catch_signals() as caught,
        tqdm(
            total=num_steps, initial=step, desc="train", unit="step", dynamic_ncols=True, leave=None, disable=None
        ) as bar,
        (run / LOG_JSONL).open("a", encoding="utf-8") as log,
    ):
        for epoch in range(step // steps_per_epoch, recipe.epochs):
            order = split_batches(epoch_order(len(training.items), recipe.seed, epoch), recipe.batch_size)
            batches = [[training.items[i] for i in batch] for batch in order][step % steps_per_epoch :]
            draws = (recipe.seed, epoch) if recipe.augment != "none" else None
            started, num_seen = time.perf_counter(), 0
            stream = preparer.stream(cache, batches, recipe.frames, jitter=draws, references=recipe.relative != "none")
            for raw in stream:
                changes = [draw_change(*draws, item.place) for item in raw.items] if draws else None
                batch = preparer.prepare(raw, changes)
                target = labels[[place[item.place] for item in raw.items]]
                rate = rate_at(step, num_steps, recipe.warmup)
                for group in optimizer.param_groups:
                    group["lr"] = group["peak_lr"] * rate

                output = model(batch)
                terms = compute_losses(
                    model, output, target, goal, lambda_con=recipe.lambda_con, lambda_vt=recipe.lambda_vt
                )
                optimizer.zero_grad(set_to_none=True)
                terms["loss"].backward()
                terms["grad_norm"] = nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
                values = dict(zip(terms, torch.stack([t.detach() for t in terms.values()]).tolist(), strict=True))
                _check_finite(values, step, run, recipe)
                optimizer.step()
                model.clamp_scale()

                step += 1
                num_seen += len(raw.items)
                if step % LOG_EVERY == 0 or step == num_steps:
                    line = {
                        "step": step,
                        "epoch": epoch,
                        **values,
                        "accuracy": _part_right(output.logits, target, goal),
                        "face_cosine": mean_cosine_between_faces(output.face).item(),
                        "scale": model.scale.item(),
                        "lr": recipe.lr * rate,
                        "samples_per_second": num_seen / (time.perf_counter() - started),
                    }
                    log.write(json.dumps(line) + "\n")
                    log.flush()
                    bar.set_postfix(loss=f"{values['loss']:.3f}", accuracy=f"{line['accuracy']:.2f}", refresh=False)
                bar.update()
                if caught or step % checkpoint_every == 0 or step == num_steps:
                    write_checkpoint(run, step, model, optimizer)
                if caught:
                    raise Stopped(step, caught[0])


def _part_right(logits: torch.Tensor, target: torch.Tensor, goal: Goal) -> float:
    """The part of a batch that is classified rightly; for several classes at once, of its known answers."""
    if not goal.multilabel:
        return (logits.argmax(1) == target).float().mean().item()
    known = target >= 0
    right = ((logits > 0) == (target == 1)) & known
    return (right.sum() / known.sum().clamp(min=1)).item()


def _check_finite(values: dict[str, float], step: int, run: Path, recipe: Recipe) -> None:
    """Stops before a broken gradient reaches the weights."""
    if broken := [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]:
        raise FacetError(
            f"{run}: training broke at step {step} ({', '.join(broken)}); the weights before it are kept where a "
            f"checkpoint was written; train anew with a lower --lr (now {recipe.lr:g}) or --tower-lr ({recipe.tower_lr:g})"
        )


def _truncate_log(run: Path, step: int) -> None:
    """Drops log lines that are not before the checkpoint, so that an interrupted run logs what an uninterrupted one does."""
    path = run / LOG_JSONL
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue  # half a line of a killed process
    write_file(path, "".join(kept).encode())


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """While inside, the first SIGINT or SIGTERM is only noted in the list; a second SIGINT stops at once."""
    caught: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
