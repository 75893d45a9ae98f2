"""What a run leaves on disk to go on from, or to be used: written whole or not at all, read without running any code."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from shared.errors import FacetError, first_line
from shared.storage import PARTIAL_SUFFIX

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """Everything a training step depends on besides the configuration."""

    step: int  # steps done
    model: dict[str, Any]
    optimizer: dict[str, Any]
    random_state: torch.Tensor  # torch's generator on the CPU
    random_state_cuda: torch.Tensor | None = None  # and on the GPU: towers with dropout draw from the device's
    ema: dict[str, torch.Tensor] | None = None  # the moving average of the weights


def write_checkpoint(
    run: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: dict[str, torch.Tensor] | None = None,
) -> None:
    """Writes checkpoint.pt; the one before stays until the new one is whole on the disk."""
    state = {
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random_state": torch.get_rng_state(),
        "random_state_cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        "ema": ema,
    }
    replace_file(run / CHECKPOINT, lambda path: torch.save(state, path))


def read_checkpoint(run: Path) -> Checkpoint | None:
    """The last checkpoint of a run, on the CPU; None where there is none.

    Raises:
        FacetError: the file is damaged.
    """
    path = run / CHECKPOINT
    if not path.is_file():
        return None
    try:
        return Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    except (RuntimeError, pickle.UnpicklingError, EOFError, TypeError, ValueError, KeyError, OSError) as error:
        raise FacetError(f"{path}: damaged ({first_line(error)}); remove it to train again from the start") from error


def write_weights(run: Path, model: nn.Module) -> None:
    """Writes model.safetensors: every weight and buffer of the model, tower and prompt embeddings included."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    replace_file(run / WEIGHTS, lambda path: save_file(tensors, path))


def load_weights(run: Path, model: nn.Module) -> None:
    """Reads model.safetensors into a model built from the run's configuration.

    Raises:
        FacetError: training has not finished, or the file is damaged or of another model.
    """
    path = run / WEIGHTS
    if not path.is_file():
        raise FacetError(
            f"{path}: missing, so the training is not finished; run `python -m train fit --out {run}` again"
        )
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise FacetError(f"{path}: damaged or of another model ({first_line(error)}); fit again") from error


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """As shared.storage.write_file, for libraries that write a file themselves instead of giving bytes."""
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    try:
        write(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)
            raise
        # torch and safetensors report a full disk as errors of their own, without the system's error number
        raise FacetError(f"{path}: cannot be written ({first_line(error)}); is the disk full?") from error
