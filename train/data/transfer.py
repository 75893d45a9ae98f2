"""Copy batches to a GPU from page-locked memory while the previous batch is computed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from train.data.pixels import view_as_tensor
from train.data.stream import Allocate, RawBatch


def allocator(device: torch.device) -> Allocate:
    """Return a function (shape, dtype) → uninitialised array for batches; in page-locked memory if the device is a GPU."""
    return _allocate_pinned if device.type == "cuda" else np.empty


def _allocate_pinned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    memory = torch.empty(math.prod(shape) * dtype.itemsize, dtype=torch.uint8, pin_memory=True)
    return memory.numpy().view(dtype).reshape(shape)  # keeps the tensor alive


def copy_small(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Copy an array to the device without waiting."""
    found = torch.from_numpy(array)
    return found.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else found


def copy_ahead(batches: Iterable[RawBatch], device: torch.device) -> Iterator[RawBatch]:
    """Yield the batches with their images on the GPU, copied in a CUDA stream of its own. Unchanged on a CPU."""
    if device.type != "cuda":
        yield from batches
        return
    copying = torch.cuda.Stream(device)
    before: tuple[RawBatch, torch.cuda.Event] | None = None
    for raw in batches:
        copied = _start_copy(raw, device, copying)
        if before is not None:
            yield _hand_over(*before, device)
        copied[1].synchronize()  # its source buffer is reused when the next batch is requested
        before = copied
    if before is not None:
        yield _hand_over(*before, device)


def _start_copy(raw: RawBatch, device: torch.device, copying: torch.cuda.Stream) -> tuple[RawBatch, torch.cuda.Event]:
    with torch.cuda.stream(copying):
        images = {
            modality: (view_as_tensor(found) if isinstance(found, np.ndarray) else found).to(device, non_blocking=True)
            for modality, found in raw.images.items()
        }
        event = torch.cuda.Event()
        event.record(copying)
    return dataclasses.replace(raw, images=images), event


def _hand_over(raw: RawBatch, event: torch.cuda.Event, device: torch.device) -> RawBatch:
    current = torch.cuda.current_stream(device)
    current.wait_event(event)
    for images in raw.images.values():
        images.record_stream(current)  # keep the memory until the computation has used it
    return raw
