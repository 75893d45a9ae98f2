"""How far a training is, as lines on stderr where no terminal shows a bar: in a cluster's log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from tqdm import tqdm

LEAST_SECONDS = 30.0  # between lines
MOST_SECONDS = 300.0  # between lines, where epochs are longer


class ProgressLines:
    """A line an epoch, but none within LEAST_SECONDS of the one before, nor much later than MOST_SECONDS after it."""

    def __init__(
        self, name: str, first: int, total: int, unit: str, *, silent: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """first, total: of unit, done when this begins and in the end. silent: say nothing, as on a terminal."""
        self._name, self._first, self._total, self._unit, self._clock = name, first, total, unit, clock
        self._silent = silent or sys.stderr.isatty()
        self._started = self._told = clock()
        self._epoch = -1  # of the last line

    def tell(self, done: int, epoch: int, say: Callable[[], str]) -> None:
        """Prints a line if one is due.

        Args:
            epoch: whether it is another than in the last line decides. say: what else is known, asked for where it is due.
        """
        if self._silent:
            return
        now = self._clock()
        if now - self._told < (LEAST_SECONDS if epoch != self._epoch else MOST_SECONDS):
            return
        self._told, self._epoch = now, epoch
        left = (now - self._started) / max(done - self._first, 1) * (self._total - done)
        parts = [f"{self._name}: {self._unit} {done:,} of {self._total:,}", say(), f"{tqdm.format_interval(left)} left"]
        print(", ".join(part for part in parts if part), file=sys.stderr, flush=True)
