"""SIGINT and SIGTERM: a training under way ends with a checkpoint, everything else at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM came where there is nothing to be saved. Like Ctrl-C it passes by what catches errors."""


@contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """While inside, SIGTERM raises Terminated wherever the program is, but for `catch_signals`."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """While inside, the first SIGINT or SIGTERM is only noted in the list; a SIGINT after it stops at once.

    A SIGTERM after it changes nothing: whoever ends a whole group of processes reaches a worker twice, the second time by way
    of its parent.
    """
    caught: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if not caught:
            caught.append(number)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
