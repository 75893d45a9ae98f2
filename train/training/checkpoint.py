"""What a run leaves on disk to go on from, or to be used: written whole or not at all, read without running any code."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import nn

from shared.errors import FacetError, first_line
from shared.runs import CONFIG_JSON, SPLIT_JSON, WEIGHTS, check_file, record_hashes
from shared.store.storage import PARTIAL_SUFFIX

CHECKPOINT = "checkpoint.pt"  # the last one; those before it, where they are kept, are checkpoint-STEP.pt
_PARTIAL = re.compile(rf"\..+\.\d{{1,10}}{re.escape(PARTIAL_SUFFIX)}")  # the name, and the process that wrote it
_EARLIER = re.compile(r"checkpoint-(\d{1,12})\.pt")
_MAX_HEADER_BYTES = 1 << 24


@dataclass(frozen=True)
class Checkpoint:
    """Everything a training step depends on besides the configuration."""

    step: int  # steps done
    model: dict[str, Any]
    optimizer: dict[str, Any]
    random_state: torch.Tensor  # torch's generator on the CPU
    random_state_cuda: torch.Tensor | None = None  # and on the GPU: towers with dropout draw from the device's
    ema: dict[str, torch.Tensor] | None = None  # the moving average of the weights
    damaged: tuple[str, ...] = ()  # later checkpoints that could not be read, and why: for the user, not in the file


def write_checkpoint(
    run: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: dict[str, torch.Tensor] | None = None,
    *,
    num_kept: int = 1,
) -> None:
    """Writes checkpoint.pt; the one before stays until the new one is whole on the disk, and then as checkpoint-STEP.pt.

    Args:
        num_kept: how many there are afterwards at most, the new one included.
    """
    state = {
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random_state": torch.get_rng_state(),
        "random_state_cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        "ema": ema,
    }

    def write(partial: Path) -> None:
        torch.save(state, partial)
        if num_kept > 1:
            _keep_last(run)

    replace_file(run / CHECKPOINT, write)
    earlier = find_checkpoints(run)[1:]
    again = [path for path in earlier if _step_of(path) >= step]  # of steps that were taken again since
    for path in (*again, *[path for path in earlier if path not in again][num_kept - 1 :]):
        path.unlink(missing_ok=True)


def find_checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, the newest first."""
    last = [run / CHECKPOINT] if (run / CHECKPOINT).is_file() else []
    earlier = [path for path in run.glob("checkpoint-*.pt") if _EARLIER.fullmatch(path.name)]
    return last + sorted(earlier, key=_step_of, reverse=True)


def _step_of(path: Path) -> int:
    found = _EARLIER.fullmatch(path.name)
    assert found is not None
    return int(found[1])


def _keep_last(run: Path) -> None:
    """A second name for checkpoint.pt, which the next one replaces."""
    last = run / CHECKPOINT
    try:
        step = int(torch.load(last, map_location="cpu", weights_only=True, mmap=True)["step"])  # reads little else
    except _DAMAGE:  # or there is none yet
        return
    kept = run / f"checkpoint-{step}.pt"
    kept.unlink(missing_ok=True)
    try:
        kept.hardlink_to(last)
    except OSError:  # a file system without hard links

        def copy(partial: Path) -> None:
            shutil.copyfile(last, partial)

        replace_file(kept, copy)


def read_checkpoint(run: Path) -> Checkpoint | None:
    """The last checkpoint of a run that is whole, on the CPU; None where there is none.

    Raises:
        FacetError: there is no other than damaged ones.
    """
    damaged: list[str] = []
    for path in find_checkpoints(run):
        try:
            return replace(_load(path), damaged=tuple(damaged))
        except _DAMAGE as error:
            damaged.append(f"{path}: damaged ({first_line(error)})")
    if damaged:
        raise FacetError(f"{damaged[0]}; remove it to train again from the start")
    return None


_DAMAGE = (
    RuntimeError, pickle.UnpicklingError, EOFError, TypeError, ValueError, KeyError, OSError, zipfile.BadZipFile,
    NotImplementedError,
)  # fmt: skip


def _load(path: Path) -> Checkpoint:
    """Raises one of _DAMAGE."""
    with zipfile.ZipFile(path) as file:  # torch.load compares no checksums
        if (name := file.testzip()) is not None:
            raise ValueError(f"{name} has another checksum than it was written with")
    found = Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    if type(found.step) is not int or found.step < 0:
        raise ValueError("its step is no count")
    return found


def write_weights(run: Path, model: nn.Module) -> None:
    """Writes model.safetensors (every weight and buffer of the model, tower and prompt embeddings included) and its hash.

    Raises:
        FacetError: a weight is not finite; nothing is written.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    _refuse_not_finite(run / WEIGHTS, tensors, "fit again with a lower --lr")
    replace_file(run / WEIGHTS, lambda path: save_file(tensors, path))
    record_hashes(run, (CONFIG_JSON, SPLIT_JSON, WEIGHTS))


def weights_size(run: Path) -> int:
    """Bytes of a run's model.safetensors.

    Raises:
        FacetError: there is none.
    """
    path = run / WEIGHTS
    if not path.is_file():
        raise FacetError(
            f"{path}: missing, so the training is not finished, or --discard-weights left no model; train again"
        )
    return path.stat().st_size


def load_weights(run: Path, model: nn.Module) -> None:
    """Reads model.safetensors into a model built from the run's configuration.

    Raises:
        FacetError: training has not finished; the file is damaged, another run's, or of another model; a weight is not finite.
    """
    path, size = run / WEIGHTS, weights_size(run)
    expected = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    if size > expected + _MAX_HEADER_BYTES:
        raise FacetError(f"{path}: {size} bytes, this model's weights are {expected}; copy it again")
    data = path.read_bytes()
    check_file(run, WEIGHTS, data, required=True)
    try:
        tensors = load(data)
        _refuse_not_finite(path, tensors, "fit again")
        model.load_state_dict(tensors)
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise FacetError(f"{path}: damaged or of another model ({first_line(error)}); fit again") from error


def _refuse_not_finite(path: Path, tensors: dict[str, torch.Tensor], advice: str) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise FacetError(f"{path}: the weight {name} is not finite (NaN or infinite); {advice}")


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """As shared.store.storage.write_file, for libraries that write a file themselves instead of giving bytes."""
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    try:
        partial.touch()
        mode = partial.stat().st_mode  # as of every other file of the run: safetensors gives 0600
        write(partial)
        if partial.stat().st_mode != mode:
            partial.chmod(mode)
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


def sweep_partials(folder: Path, name: str = "*") -> None:
    """Removes what processes that were killed while they wrote files of a folder left there.

    To be called by whoever holds the lock that the folder's writers hold: then no one is writing.
    """
    for path in folder.glob(f".{name}{PARTIAL_SUFFIX}"):
        if _PARTIAL.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)
