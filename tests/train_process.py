"""The trainer's command line in a process of its own, without importing torch again each time: forked from one that has."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import train.training.loop
from shared.errors import run_command_line
from train.__main__ import main

PRELOADED = [
    "train_process",
    "open_clip",
    "train.training.fit",
    "train.experiment",
    "train.training.build_embeddings",
    "train.training.distributed",
]


def forking() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def start(arguments: list[object], output: Path) -> BaseProcess:
    """Starts `python -m train ARGUMENTS`; what it prints is appended to a file."""
    process = forking().Process(target=run, args=([str(a) for a in arguments], output), daemon=True)
    process.start()
    return process


def run(arguments: list[str], output: Path, log_every: int = 0) -> None:
    """log_every: steps, if not the program's own."""
    if log_every:
        train.training.loop.LOG_EVERY = log_every
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.exit(run_command_line(lambda: main(arguments)))


def launch(arguments: list[object], num_ranks: int, folder: Path) -> None:
    """What `torchrun --nproc-per-node N -m train ARGUMENTS` does, by its own agent. Each step is logged.

    Leaves output-RANK and pid-RANK in the folder. Raises ChildFailedError, with torchrun's report, where a process failed.
    """
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    forking()
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=num_ranks, run_id=folder.name, rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0", local_addr="127.0.0.1", max_restarts=0, start_method="forkserver",
    )  # fmt: skip
    elastic_launch(config, _run_rank)([str(a) for a in arguments], folder)


def _run_rank(arguments: list[str], folder: Path) -> None:
    rank = os.environ["RANK"]
    (folder / f"pid-{rank}").write_text(str(os.getpid()))
    output = folder / f"output-{rank}"
    earlier = len(output.read_text()) if output.exists() else 0
    try:
        run(arguments, output, log_every=1)
    finally:
        if "stopped by SIGTERM" in output.read_text()[earlier:]:
            os._exit(0)  # as under torchrun; here it would wait half a minute for its agent
