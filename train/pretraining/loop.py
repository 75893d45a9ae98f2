"""The loop of a pretraining: its steps, and after each epoch a validation, a line of pretrain.json and a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from train.model.facet import MAX_LOG_SCALE
from train.pretraining.loss import PromptLoss
from train.pretraining.options import PretrainOptions
from train.pretraining.record import write_record
from train.pretraining.rows import draw_captions, draw_images, order_rows, stream_steps
from train.pretraining.step import EmbeddedStep, Pretraining, embed_step
from train.pretraining.text_tower import TEXT_RATE, is_text, teach_text
from train.pretraining.validation import validate
from train.trackers.tracker import Tracker
from train.training.checkpoint import read_checkpoint, write_checkpoint
from train.training.optimizer import build_adamw, rate_at, set_rate
from train.training.progress import LOG_EVERY, Progress, open_progress
from train.training.step import MAX_GRAD_NORM

CAPTIONS_WEIGHT = 0.1  # of the loss of captions beside that of prompts: at 1, a small tower learns much more slowly


@dataclass
class State:
    """The state that a step changes. trained: `clip`, and the loss of `prompts`, if any. step: number of finished steps."""

    trained: nn.ModuleDict
    optimizer: torch.optim.Optimizer
    step: int = 0


def train(out: Path, run: Pretraining, record: dict[str, Any], trackers: Sequence[Tracker]) -> None:
    """Train from the last checkpoint, or from the start, to the last epoch. Write log.jsonl, and a checkpoint an epoch.

    Args:
        record: of pretrain.json; a line for each epoch is added.
    """
    options = run.options
    run, state = _set_up(out, run)
    steps_per_epoch = -(-sum(map(len, run.train_rows)) // options.batch_size)
    first = state.step // steps_per_epoch
    record["epochs"] = record["epochs"][:first]
    with open_progress(out, state.step, options.epochs * steps_per_epoch, run.device, trackers=trackers) as progress:
        for epoch in range(first, options.epochs):
            started = time.monotonic()
            loss = _train_epoch(out, run, state, progress, epoch, steps_per_epoch)
            measured = validate(run)
            seconds = round(time.monotonic() - started, 1)
            for source in run.sources:
                source.cache.check_unchanged()
            record["epochs"].append({"epoch": epoch + 1, "loss": loss, **measured, "seconds": seconds})
            if measured:
                each = {f"zero_shot/{name}": value for name, value in measured.pop("zero_shot", {}).items()}
                progress.write_validation(state.step, epoch, measured | each)
            write_record(out, record)
            write_checkpoint(out, state.step, state.trained, state.optimizer)
            tqdm.write(_describe_epoch(record["epochs"][-1], options.epochs))


def _set_up(out: Path, run: Pretraining) -> tuple[Pretraining, State]:
    """Return the state of the last checkpoint, or that of the start; a random text tower is taught and frozen first."""
    prompts = {} if run.known is None else {"prompts": PromptLoss(run.known.is_unit).to(run.device)}
    trained = nn.ModuleDict({"clip": run.clip} | prompts)
    state = State(trained, build_optimizer(trained, run.options))
    if (checkpoint := read_checkpoint(out)) is not None:
        trained.load_state_dict(checkpoint.model)
        state.optimizer.load_state_dict(checkpoint.optimizer)
        state.step = checkpoint.step
    elif run.teaches_text and run.known is not None:
        teach_text(run.clip, run.known, run.options.seed)
    return run.with_frozen_text() if run.teaches_text else run, state


def build_optimizer(trained: nn.Module, options: PretrainOptions) -> torch.optim.Optimizer:
    """Build AdamW. Biases, norms, scales and embeddings have no weight decay; the text tower has a lower learning rate.

    At the image tower's rate, a small text tower soon gives one vector for all texts, and training stops.
    """
    chosen = []
    for name, parameter in trained.named_parameters():
        decays = parameter.ndim >= 2 and "embedding" not in name
        of_text = name.startswith("clip.") and is_text(name.removeprefix("clip."))
        chosen.append((parameter, TEXT_RATE if of_text else options.lr, options.weight_decay if decays else 0.0))
    return build_adamw(chosen)


def _train_epoch(
    out: Path, run: Pretraining, state: State, progress: Progress, epoch: int, steps_per_epoch: int
) -> float:
    """Train for an epoch; return its mean loss."""
    options, losses = run.options, []
    run.clip.train()
    chosen = [draw_images(source, options.images_per_row, options.seed, epoch) for source in run.sources]
    captions = [draw_captions(source, options.seed, epoch) for source in run.sources]
    steps = order_rows(run.train_rows, steps_per_epoch, options.seed, epoch)
    for raw in progress.waiting_for(stream_steps(run.sources, run.images, steps, chosen)):
        rate = rate_at(state.step, options.epochs * steps_per_epoch, options.warmup)
        set_rate(state.optimizer, rate)
        step = embed_step(run, raw, chosen, captions, augmentation=options.augmentation_of(epoch), epoch=epoch)
        loss = _measure_loss(run, state, step)
        losses.append(loss.detach())
        norm = _update(run, state, loss)
        progress.add(state.step, {"loss": losses[-1], "grad_norm": norm}, sum(len(batch.items) for _, batch in raw))
        state.step += 1
        if state.step % LOG_EVERY == 0 or state.step % steps_per_epoch == 0:
            values = progress.read(out, f"--lr (now {options.lr:g})")
            best = step.captions[(step.images.detach() @ step.texts.detach().T).argmax(1).cpu()]
            accuracy = (best == step.captions).float().mean().item()
            about = {"accuracy": accuracy, "scale": run.clip.logit_scale.exp().item(), "lr": options.lr * rate}
            progress.write({"step": state.step, "epoch": epoch, **values, **about})
    return torch.stack(losses).mean().item()


def _measure_loss(run: Pretraining, state: State, step: EmbeddedStep) -> Tensor:
    """Return the loss of captions, f32 (); with prompts, a share of it and the loss of prompts."""
    loss = step.caption_loss(run.clip.logit_scale.exp())
    if run.known is None:
        return loss
    truth = torch.cat([run.known.truth[source.number][rows] for source, rows in step.rows])
    vectors = run.embed_texts(run.known, run.known.draw(run.options.seed, state.step))
    return CAPTIONS_WEIGHT * loss + state.trained["prompts"](step.images, vectors, truth.to(run.device))


def _update(run: Pretraining, state: State, loss: Tensor) -> Tensor:
    """Change the weights by the gradient; return its norm before clipping, f32 ()."""
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(state.trained.parameters(), MAX_GRAD_NORM)
    state.optimizer.step()
    with torch.no_grad():
        run.clip.logit_scale.clamp_(0, MAX_LOG_SCALE)
    return norm.detach()


def _describe_epoch(line: dict[str, Any], num_epochs: int) -> str:
    parts = [f"loss {line['loss']:.3f}"]
    if "validation_loss" in line:
        parts.append(
            f"of captions of held-out subjects {line['validation_loss']:.3f} (guessing: {line['validation_guess']:.3f})"
        )
    if "zero_shot" in line:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in line["zero_shot"].items())
        parts.append(f"zero-shot accuracy of single images there: {shares}")
    return f"epoch {line['epoch']} of {num_epochs}: {', '.join(parts)}"
