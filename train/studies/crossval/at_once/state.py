"""What training folds at once leaves on disk on its way: each fold's log, and one checkpoint of all."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from shared.errors import FacetError, first_line
from train.config import RunConfig
from train.protocols.folds import Fold
from train.studies.crossval.at_once.batches import cosine_between_faces_each, part_right_each
from train.studies.crossval.at_once.model import Stack, StackedResult
from train.training.checkpoint import replace_file
from train.training.loop import TrainingSet
from train.training.progress import LOG_JSONL

CHECKPOINT_AT_ONCE = "at-once.pt"  # of the folds in training
CHECKPOINT_SHARE = 0.05  # of the time, at most, goes into checkpoints


@dataclass
class FoldRun:
    """One fold in training."""

    number: int
    fold: Fold
    run: Path
    config: RunConfig
    training: TrainingSet
    num_steps: int
    lines: list[str] = field(default_factory=list)  # of its log, since the last checkpoint


# --- logs ---


@dataclass(frozen=True)
class Facts:
    step: int  # steps done
    epochs: list[int]  # each model's
    samples_per_second: float  # of each fold


def note_step(
    folds: Sequence[FoldRun],
    which: Sequence[int],
    stack: Stack,
    result: StackedResult,
    batch: tuple[torch.Tensor, torch.Tensor],
    facts: Facts,
) -> str:
    """Keeps a line of each fold's log, the same that training one by one writes.

    Returns:
        What they come to, in words.
    """
    target, kept = batch
    recipe = stack.recipe
    values = {name: term.tolist() for name, term in result.terms.items()}
    values["accuracy"] = part_right_each(result.logits, target, multilabel=recipe.is_multilabel).tolist()
    values["face_cosine"] = cosine_between_faces_each(result.face, kept).tolist()
    values["scale"] = stack.weights["log_scale"].exp().tolist()
    for i in which:
        line = {"step": facts.step, "epoch": facts.epochs[i], **{name: column[i] for name, column in values.items()}}
        line["lr"] = recipe.lr * stack.rate(i, facts.step - 1)
        line["samples_per_second"] = facts.samples_per_second
        folds[i].lines.append(json.dumps(line) + "\n")
    loss, accuracy = (sum(values[name][i] for i in which) / len(which) for name in ("loss", "accuracy"))
    return f"mean loss {loss:.3f}, mean accuracy {accuracy:.3f}, {facts.samples_per_second:.1f} samples/s of each"


def write_logs(folds: Sequence[FoldRun]) -> None:
    """Before the checkpoint that follows them: what a log says of later steps is dropped when training goes on."""
    for one in folds:
        with (one.run / LOG_JSONL).open("a", encoding="utf-8") as log:
            log.writelines(one.lines)
        one.lines.clear()


# --- checkpoints ---


class CheckpointClock:
    """Says when a checkpoint is due: every so many steps, but less often where writing would take much of the time."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.seconds = 0.0  # that the last one took
        self.written = time.monotonic()

    def is_due(self, step: int) -> bool:
        return step % self.every == 0 and time.monotonic() - self.written > self.seconds / CHECKPOINT_SHARE

    @contextmanager
    def writing(self) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.written = time.monotonic()
        self.seconds = self.written - started


def write_checkpoint(out: Path, folds: Sequence[FoldRun], stack: Stack, broken: torch.Tensor, step: int) -> None:
    state = {"step": step, "folds": [one.fold.name for one in folds], "broken": broken.cpu(), "stack": stack.state()}
    replace_file(out / CHECKPOINT_AT_ONCE, lambda path: torch.save(state, path))


def read_checkpoint(out: Path) -> dict[str, Any] | None:
    """The folds that were in training when the program ended, on the CPU; None where there were none.

    Raises:
        FacetError: the file is damaged.
    """
    path = out / CHECKPOINT_AT_ONCE
    if not path.is_file():
        return None
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if not all(isinstance(name, str) for name in saved["folds"]):
            raise ValueError("folds are no names")
        return saved
    except (RuntimeError, pickle.UnpicklingError, EOFError, TypeError, ValueError, KeyError) as error:
        raise FacetError(f"{path}: damaged ({first_line(error)}); remove it to train these folds again") from error
