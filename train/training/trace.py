"""`--profile N`: a trace of training steps by torch's profiler."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

PROFILE = "profile"
WARM_UP_STEPS = 3  # the first steps compile and allocate


@contextmanager
def trace_steps(run: Path, num_steps: int, *, first: int = 0) -> Iterator[Callable[[], None]]:
    """Record num_steps steps after a warm-up of WARM_UP_STEPS; 0 records nothing.

    Args:
        first: number of steps before, for a resumed training.
    Yields:
        A function to call after every step. When the steps are recorded, or training ends, RUN/profile/steps-A-B.json is
        written and its path printed.
    """
    if num_steps == 0:
        yield lambda: None
        return
    num_done = 0

    def write(profiler: profile) -> None:
        last = min(num_done, WARM_UP_STEPS + num_steps)
        path = run / PROFILE / f"steps-{first + WARM_UP_STEPS + 1}-{first + last}.json"
        path.parent.mkdir(exist_ok=True)
        profiler.export_chrome_trace(str(path))
        num = last - WARM_UP_STEPS
        print(f"profile of {num} steps: {path}; open it at https://ui.perfetto.dev or chrome://tracing")

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(
        activities=activities,
        schedule=schedule(wait=WARM_UP_STEPS - 1, warmup=1, active=num_steps, repeat=1),
        on_trace_ready=write,
    ) as profiler:

        def note() -> None:
            nonlocal num_done
            num_done += 1
            profiler.step()

        yield note
    if num_done <= WARM_UP_STEPS:
        print(f"no profile: training ended within the {WARM_UP_STEPS} warm-up steps")
