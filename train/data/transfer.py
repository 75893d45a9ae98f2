"""Batches on their way to a GPU: page-locked memory, copied while the batch before is being computed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from train.data.pixels import view_as_tensor
from train.data.stream import Allocate, RawBatch


def allocator(device: torch.device) -> Allocate:
    """Memory that batches for a device are read into: page-locked for a GPU, which copies from it without the processor."""
    return _allocate_pinned if device.type == "cuda" else np.empty


def _allocate_pinned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    memory = torch.empty(math.prod(shape) * dtype.itemsize, dtype=torch.uint8, pin_memory=True)
    return memory.numpy().view(dtype).reshape(shape)  # keeps the tensor alive


def copy_small(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """An array on the device; the host does not wait for the copy."""
    found = torch.from_numpy(array)
    return found.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else found


def copy_ahead(batches: Iterable[RawBatch], device: torch.device) -> Iterator[RawBatch]:
    """The same batches with their images on the GPU, each copied by a stream of its own while the one before is computed.

    On a CPU nothing happens: batches are passed on as they are.
    """
    if device.type != "cuda":
        yield from batches
        return
    copying = torch.cuda.Stream(device)
    before: tuple[RawBatch, torch.cuda.Event] | None = None
    for raw in batches:
        copied = _start_copy(raw, device, copying)
        if before is not None:
            yield _hand_over(*before, device)
        copied[1].synchronize()  # the memory it was copied from is written again once the next batch is asked for
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
        images.record_stream(current)  # its memory is not given away before the computation has used it
    return raw
