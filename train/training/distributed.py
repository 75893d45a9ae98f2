"""Several processes, each with its own device, train one model: `torchrun --nproc-per-node N -m train fit …`.

Every process computes a slice of each batch and a summand of the loss, which is defined over the whole batch. Gradients are
summed by DistributedDataParallel. Results equal those of one process, except for the order of sums.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from shared.errors import FacetError, first_line
from train.data.order import rank_part
from train.tasks.batch_slice import WHOLE_BATCH, BatchSlice

# If another process fails, the connection to it breaks here. Torchrun reports the process that ended first, so wait.
LINGER_SECONDS = 10.0
PATIENCE = timedelta(hours=12)  # while the first process loads weights or computes embeddings


@dataclass(frozen=True)
class Ranks:
    """The processes of a training, and the rank of this one."""

    rank: int = 0
    num: int = 1
    local_rank: int = 0  # on this machine
    local_num: int = 1
    control: dist.ProcessGroup | None = None  # on CPUs, so that messages between processes do not wait for the GPU

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def part(self, batch: np.ndarray) -> np.ndarray:
        """Return this process's slice of a batch."""
        return rank_part(batch, self.rank, self.num)

    def slice(self, num_samples: int) -> BatchSlice:
        """Return this process's slice of a batch of num_samples."""
        if self.num == 1:
            return WHOLE_BATCH
        return BatchSlice(self.rank, tuple(len(rank_part(np.empty(num_samples), r, self.num)) for r in range(self.num)))

    def largest(self, value: int) -> int:
        """Return the largest value over all processes."""
        if self.num == 1:
            return value
        found = torch.tensor(value)
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self.control)
        return int(found)

    @contextmanager
    def first(self) -> Iterator[None]:
        """Let the first process run the block before the others, which then find the files that it wrote."""
        if not self.is_first:
            self.largest(0)
        yield
        if self.is_first:
            self.largest(0)

    def choose_device(self, name: str) -> str:
        """Return the device name of this process: its own GPU, if there are GPUs.

        Raises:
            FacetError: there are fewer GPUs than processes, or one GPU was requested for all.
        """
        if self.num == 1 or name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
            return name
        if name not in ("auto", "cuda"):
            raise FacetError(f"--device {name}: with torchrun each process uses its own GPU; leave --device out")
        if self.local_num > torch.cuda.device_count():
            raise FacetError(
                f"--nproc-per-node {self.local_num}: this machine has {torch.cuda.device_count()} GPUs; start at most one "
                "process per GPU"
            )
        return f"cuda:{self.local_rank}"

    def replicate(self, module: nn.Module) -> DistributedDataParallel | None:
        """Return the module with gradients averaged over all processes; None for a single process."""
        if self.num == 1:
            return None
        # towers may have weights that their output does not depend on
        return DistributedDataParallel(module, find_unused_parameters=True, gradient_as_bucket_view=True)

    def leave(self) -> None:
        """Leave the process group. All processes must call this."""
        if self.num > 1 and dist.is_initialized():
            self.largest(0)
            dist.destroy_process_group()


ALONE = Ranks()


def find_num_ranks() -> int:
    """Return the number of processes that torchrun started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def open_ranks(device: str) -> Iterator[Ranks]:
    """Join the other processes that torchrun started. Only the first one prints to standard output.

    Raises:
        FacetError: from the block, with the rank; or the connection to another process broke.
    """
    if find_num_ranks() == 1:
        yield ALONE
        return
    rank, num = int(os.environ["RANK"]), find_num_ranks()
    local_rank, local_num = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    with contextlib.ExitStack() as stack:
        if rank > 0:
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(Path(os.devnull).open("w"))))
        try:
            name = Ranks(rank, num, local_rank, local_num).choose_device(device)
            if name.startswith("cuda"):
                torch.cuda.set_device(name)
            dist.init_process_group("nccl" if name.startswith("cuda") else "gloo")
            control = dist.new_group(backend="gloo", timeout=PATIENCE)
            assert isinstance(control, dist.ProcessGroup)  # a number for those outside the group
            ranks = Ranks(rank, num, local_rank, local_num, control)
            yield ranks
            ranks.leave()
        except FacetError as error:
            if rank == 0:
                raise
            time.sleep(LINGER_SECONDS / 5)  # the first process reports what all of them find
            raise FacetError(f"rank {rank}: {error}") from error
        except RuntimeError as error:
            if not _is_lost_connection(error):
                raise
            time.sleep(LINGER_SECONDS)
            raise FacetError(
                f"rank {rank}: lost the connection to another process, which ended ({first_line(error)}); correct the error "
                "that it reports and run the same command again to continue from the last checkpoint"
            ) from error


def _is_lost_connection(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(word in text for word in ("gloo", "nccl", "connection closed"))


def synchronise_batch_norm(model: nn.Module, ranks: Ranks, device: torch.device) -> nn.Module:
    """Compute batch statistics over all processes, on GPUs; on CPUs print a note that each process has its own."""
    batch_norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    if ranks.num == 1 or not batch_norms:
        return model
    if device.type != "cuda":
        print(
            "note: on CPUs, batch normalisation uses the statistics of each process's batch slice, not of the whole batch"
        )
        return model
    from timm.layers.norm_act import convert_sync_batchnorm

    converted: nn.Module = convert_sync_batchnorm(model)
    return converted
