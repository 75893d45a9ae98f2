"""SIGINT and SIGTERM: a training ends with a checkpoint, everything else immediately."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM outside of a training. Like Ctrl-C, it is no Exception, so error handlers do not catch it."""


@contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """Raise Terminated at SIGTERM within the block, except within `catch_signals`."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Append the number of the first SIGINT or SIGTERM to the list, within the block. A SIGINT after it interrupts
    immediately.

    A SIGTERM after it is ignored: when a process group is ended, a worker gets it twice, the second time from its parent.
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
