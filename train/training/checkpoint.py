"""Write and read checkpoints of a training: atomically, and without running code from the file."""

from __future__ import annotations

import pickle
import re
import shutil
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shared.errors import FacetError, first_line
from shared.store.storage import PARTIAL_SUFFIX
from train.model.weights import replace_file

CHECKPOINT = "checkpoint.pt"  # the last one; earlier ones are checkpoint-STEP.pt
_PARTIAL = re.compile(rf"\..+\.\d{{1,10}}{re.escape(PARTIAL_SUFFIX)}")  # file name and process id
_EARLIER = re.compile(r"checkpoint-(\d{1,12})\.pt")


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training between two steps."""

    step: int  # number of finished steps
    model: dict[str, Any]
    optimizer: dict[str, Any]
    random_state: torch.Tensor  # torch's generator on the CPU
    random_state_cuda: torch.Tensor | None = None  # of the GPU, which dropout draws from
    ema: dict[str, torch.Tensor] | None = None  # moving average of the weights
    validation: dict[str, Any] | None = None  # the best epoch so far, with its weights
    damaged: tuple[str, ...] = ()  # messages on later checkpoints that could not be read; not in the file


def write_checkpoint(
    run: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: dict[str, torch.Tensor] | None = None,
    validation: dict[str, Any] | None = None,
    *,
    num_kept: int = 1,
) -> None:
    """Write checkpoint.pt. The previous one is replaced after the new one is complete, or renamed to checkpoint-STEP.pt.

    Args:
        num_kept: maximum number of checkpoints, including the new one.
    """
    state = {
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random_state": torch.get_rng_state(),
        "random_state_cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        "ema": ema,
        "validation": validation,
    }

    def write(partial: Path) -> None:
        torch.save(state, partial)
        if num_kept > 1:
            _keep_last(run)

    replace_file(run / CHECKPOINT, write)
    earlier = find_checkpoints(run)[1:]
    again = [path for path in earlier if _step_of(path) >= step]  # of steps that were repeated
    for path in (*again, *[path for path in earlier if path not in again][num_kept - 1 :]):
        path.unlink(missing_ok=True)


def find_checkpoints(run: Path) -> list[Path]:
    """List the checkpoints of a run, the newest first."""
    last = [run / CHECKPOINT] if (run / CHECKPOINT).is_file() else []
    earlier = [path for path in run.glob("checkpoint-*.pt") if _EARLIER.fullmatch(path.name)]
    return last + sorted(earlier, key=_step_of, reverse=True)


def _step_of(path: Path) -> int:
    found = _EARLIER.fullmatch(path.name)
    assert found is not None
    return int(found[1])


def _keep_last(run: Path) -> None:
    """Keep checkpoint.pt under a second name before it is replaced."""
    last = run / CHECKPOINT
    try:
        step = int(torch.load(last, map_location="cpu", weights_only=True, mmap=True)["step"])  # reads little else
    except _DAMAGE:  # or there is none yet
        return
    earlier = run / f"checkpoint-{step}.pt"
    earlier.unlink(missing_ok=True)
    try:
        earlier.hardlink_to(last)
    except OSError:  # a file system without hard links

        def copy(partial: Path) -> None:
            shutil.copyfile(last, partial)

        replace_file(earlier, copy)


def read_checkpoint(run: Path) -> Checkpoint | None:
    """Read the last intact checkpoint of a run, on the CPU; None without a checkpoint.

    Raises:
        FacetError: all are damaged.
    """
    damaged: list[str] = []
    for path in find_checkpoints(run):
        try:
            return replace(_load(path), damaged=tuple(damaged))
        except _DAMAGE as error:
            damaged.append(f"{path}: damaged ({first_line(error)})")
    if damaged:
        raise FacetError(f"{damaged[0]}; delete it to train from the start")
    return None


_DAMAGE = (
    RuntimeError, pickle.UnpicklingError, EOFError, TypeError, ValueError, KeyError, OSError, zipfile.BadZipFile,
    NotImplementedError,
)  # fmt: skip


def _load(path: Path) -> Checkpoint:
    """Read a checkpoint; raise one of _DAMAGE."""
    with zipfile.ZipFile(path) as file:  # torch.load compares no checksums
        if (name := file.testzip()) is not None:
            raise ValueError(f"the checksum of {name} differs")
    found = Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    if type(found.step) is not int or found.step < 0:
        raise ValueError("step is not a number of steps")
    return found


def sweep_partials(folder: Path) -> None:
    """Remove partial files that killed processes left in a folder. The caller must hold the lock of the folder's writers."""
    for path in folder.glob(f".*{PARTIAL_SUFFIX}"):
        if _PARTIAL.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)
