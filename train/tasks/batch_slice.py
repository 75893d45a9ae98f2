"""The part of a batch that one process computes, and sums over all processes: losses are defined over the whole batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class BatchSlice:
    """One process's slice of a batch. counts: samples of each process; empty: one process computes the whole batch."""

    rank: int = 0
    counts: tuple[int, ...] = ()

    @property
    def num_samples(self) -> int | None:
        """Return the number of samples of the whole batch; None if one process computes it."""
        return sum(self.counts) if self.counts else None

    def split(self, num_parts: int) -> list[BatchSlice]:
        """Split into parts as `Batch.split` does, but into no more than every process has samples for."""
        if not self.counts:
            return [self] * num_parts
        num_parts = min(num_parts, *self.counts)
        sizes = [[len(part) for part in np.array_split(np.empty(count), num_parts)] for count in self.counts]
        return [BatchSlice(self.rank, counts) for counts in zip(*sizes, strict=True)]

    def total(self, value: Tensor) -> Tensor:
        """Return the sum over all processes, without a gradient if there are several."""
        if not self.counts:
            return value
        total = value.detach().clone()
        dist.all_reduce(total)
        return total

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows of the whole batch, in order. The gradient is summed over all processes.

        Args:
            rows: (n · k, …), k for each of this process's n samples.
        """
        if not self.counts:
            return rows
        rows_per_sample = len(rows) // self.counts[self.rank]
        sizes = [count * rows_per_sample for count in self.counts]
        gathered: Tensor = _Gather.apply(rows, sizes, self.rank)  # type: ignore[no-untyped-call]
        return gathered


WHOLE_BATCH = BatchSlice()


class _Gather(torch.autograd.Function):
    """all_gather of unequal numbers of rows, with a gradient."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int], rank: int) -> Tensor:
        ctx.first, ctx.size = sum(sizes[:rank]), sizes[rank]
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        found = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(found, padded)
        return torch.cat([part[:size] for part, size in zip(found, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        whole = gradients[0].contiguous().clone()
        dist.all_reduce(whole)
        return whole[ctx.first : ctx.first + ctx.size], None, None
