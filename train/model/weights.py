"""Write and read model.safetensors of a run: atomically, and without running code from the file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import nn

from shared.errors import FacetError, first_line
from shared.runs import CONFIG_JSON, SPLIT_JSON, WEIGHTS, check_file, record_hashes
from shared.store.storage import PARTIAL_SUFFIX

_MAX_HEADER_BYTES = 1 << 24


def write_weights(run: Path, model: nn.Module) -> None:
    """Write model.safetensors: every weight and buffer, including tower and prompt embeddings. Record its hash.

    Raises:
        FacetError: a weight is not finite; nothing is written.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    _refuse_not_finite(run / WEIGHTS, tensors, "fit again with a lower --lr")
    replace_file(run / WEIGHTS, lambda path: save_file(tensors, path))
    record_hashes(run, (CONFIG_JSON, SPLIT_JSON, WEIGHTS))


def weights_size(run: Path) -> int:
    """Return the size of a run's model.safetensors in bytes.

    Raises:
        FacetError: the file is missing.
    """
    path = run / WEIGHTS
    if not path.is_file():
        raise FacetError(
            f"{path}: missing, so the training is not finished, or --discard-weights left no model; train again"
        )
    return path.stat().st_size


def load_weights(run: Path, model: nn.Module) -> None:
    """Read model.safetensors into a model that was built from the run's configuration.

    Raises:
        FacetError: the training is not finished; the file is damaged, of another run or model; a weight is not finite.
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
    """Write a file atomically with a library that writes the file itself; see shared.store.storage.write_file."""
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
