"""The log of a training: log.jsonl, and a progress bar or progress lines on stderr."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, TypeVar

import psutil
import torch
from tqdm import tqdm

from shared.errors import FacetError
from shared.runs import LOG_JSONL, read_log
from shared.store.storage import write_file
from train.trackers.tracker import Tracker

LOG_EVERY = 10  # steps
LEAST_SECONDS = 30.0  # between progress lines
MOST_SECONDS = 300.0  # between progress lines of one epoch
Waited = TypeVar("Waited")


class ProgressLines:
    """Progress lines on stderr without a terminal: one per epoch, LEAST_SECONDS to about MOST_SECONDS apart."""

    def __init__(
        self, name: str, first: int, total: int, unit: str, *, silent: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Args:
            first, total: number of units at the start and at the end.
            silent: print nothing, as on a terminal.
        """
        self._name, self._first, self._total, self._unit, self._clock = name, first, total, unit, clock
        self._silent = silent or sys.stderr.isatty()
        self._started = self._printed = clock()
        self._epoch = -1  # of the last line

    def report(self, done: int, epoch: int, describe: Callable[[], str]) -> None:
        """Print a line if one is due. describe: returns further text; called only if the line is due."""
        if self._silent:
            return
        now = self._clock()
        if now - self._printed < (LEAST_SECONDS if epoch != self._epoch else MOST_SECONDS):
            return
        self._printed, self._epoch = now, epoch
        left = (now - self._started) / max(done - self._first, 1) * (self._total - done)
        parts = [
            f"{self._name}: {self._unit} {done:,} of {self._total:,}",
            describe(),
            f"{tqdm.format_interval(left)} left",
        ]
        print(", ".join(part for part in parts if part), file=sys.stderr, flush=True)


@dataclass
class Progress:
    """Steps since the last log line. Values are read from the device only for a log line, because reading waits for it."""

    device: torch.device
    log: TextIO
    bar: tqdm
    lines: ProgressLines
    trackers: Sequence[Tracker] = ()
    flops_per_sample: float | None = None  # of a training step
    peak_flops: float | None = None  # of the devices, per second
    started: float = field(default_factory=time.perf_counter)
    waits: list[tuple[Any, Any]] = field(default_factory=list)  # pairs of `_mark`
    num_samples: int = 0
    unread: list[tuple[int, dict[str, torch.Tensor]]] = field(default_factory=list)

    def waiting_for(self, stream: Iterable[Waited]) -> Iterator[Waited]:
        """Yield the stream's batches, and measure how long the device is idle before each.

        On a GPU that is the time between the end of one step and the start of the next; the host, which is ahead, may wait
        much longer.
        """
        batches = iter(stream)
        while True:
            before = self._mark()
            batch = next(batches, None)
            if batch is None:
                return
            self.waits.append((before, self._mark()))
            yield batch

    def _mark(self) -> Any:
        """Return the current time in seconds; on a GPU, a CUDA event."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def waited_seconds(self) -> float:
        """Return the idle time since the last line. On a GPU the steps since then must be finished."""
        if self.device.type != "cuda":
            return sum(after - before for before, after in self.waits)
        return sum(before.elapsed_time(after) for before, after in self.waits) / 1e3

    def add(self, step: int, terms: dict[str, torch.Tensor], num_samples: int) -> None:
        """Record a finished step (the first is 0). terms: of its loss, f32 ()."""
        self.unread.append((step, terms))
        self.num_samples += num_samples
        self.bar.update()

    def read(self, run: Path, rates: str) -> dict[str, float]:
        """Return the terms of the last step; check those of every step since the last call.

        Args:
            rates: the options to lower after a failure, for the message.
        Raises:
            FacetError: a term was not finite; names the first such step, and the terms.
        """
        table = torch.stack([torch.stack(list(terms.values())) for _, terms in self.unread]).tolist()
        values: dict[str, float] = {}
        for (step, terms), row in zip(self.unread, table, strict=True):
            values = dict(zip(terms, row, strict=True))
            if broken := [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]:
                raise FacetError(
                    f"{run}: training failed at step {step} ({', '.join(broken)}); train again in a new folder with a lower "
                    f"{rates}"
                )
        self.unread = self.unread[-1:]
        return values

    def write(self, values: dict[str, Any]) -> None:
        """Write a line: the values, then the speed since the last line."""
        line = values | self._speed()
        self._write_line(line)
        self.bar.set_postfix(
            {
                "loss": f"{line['loss']:.3f}",
                "samples/s": f"{line['samples_per_second']:.0f}",
                "waiting": f"{line['wait_share']:.0%}",
            },
            refresh=False,
        )
        self.lines.report(line["step"], line.get("epoch", 0), lambda: _describe(line))

    def write_validation(self, step: int, epoch: int, values: dict[str, float]) -> None:
        """Write a line of the end of an epoch, from 0."""
        self._write_line({"step": step, "epoch": epoch, **values})

    def _write_line(self, line: dict[str, Any]) -> None:
        self.log.write(json.dumps(line) + "\n")
        self.log.flush()
        for tracker in self.trackers:
            tracker.log(line)

    def _speed(self) -> dict[str, float]:
        now = time.perf_counter()
        seconds = now - self.started
        speed = {
            "samples_per_second": self.num_samples / seconds,
            "wait_share": self.waited_seconds() / seconds,
            "memory_bytes": measure_memory(self.device),
        }
        if self.flops_per_sample is not None and self.peak_flops is not None:
            speed["mfu"] = self.flops_per_sample * self.num_samples / seconds / self.peak_flops
        self.started, self.waits, self.num_samples = now, [], 0
        return speed


def _describe(line: dict[str, Any]) -> str:
    return (
        f"epoch {line['epoch'] + 1}, loss {line['loss']:.3f}, accuracy {line['accuracy']:.3f}, "
        f"{line['samples_per_second']:.1f} samples/s"
    )


def measure_memory(device: torch.device) -> int:
    """Return the peak memory of the GPU's tensors, or the RAM of this process, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    resident: int = psutil.Process().memory_info().rss
    return resident


@contextmanager
def open_progress(
    run: Path,
    step: int,
    num_steps: int,
    device: torch.device,
    *,
    trackers: Sequence[Tracker] = (),
    silent: bool = False,
) -> Iterator[Progress]:
    """Continue a run's log after `step` steps; drop lines of later ones. silent: write and show nothing."""
    if not silent:
        for tracker in trackers:
            tracker.start(step, read_log(run))
        truncate_log(run, step)
    with (
        tqdm(
            total=num_steps,
            initial=step,
            desc="train",
            unit="step",
            dynamic_ncols=True,
            leave=None,
            disable=silent or None,
        ) as bar,
        (Path(os.devnull) if silent else run / LOG_JSONL).open("a", encoding="utf-8") as log,
    ):
        lines = ProgressLines(str(run), step, num_steps, "step", silent=silent)
        yield Progress(device, log, bar, lines, trackers)


def truncate_log(run: Path, step: int) -> None:
    """Drop log lines after the checkpoint's step: an interrupted run logs what an uninterrupted one does."""
    path = run / LOG_JSONL
    if not path.is_file():
        return
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                lines.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue  # an incomplete line of a killed process
    write_file(path, "".join(lines).encode())
