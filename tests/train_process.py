"""The trainer's command line in a process of its own, without importing torch again each time: forked from one that has."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import train.loop
from shared.errors import run_command_line
from train.__main__ import main

PRELOADED = ["train_process", "open_clip", "train.fit", "train.experiment", "train.embed"]


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
        train.loop.LOG_EVERY = log_every
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.exit(run_command_line(lambda: main(arguments)))
