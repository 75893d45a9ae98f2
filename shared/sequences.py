"""Order the frames of 4D recordings in time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from shared.pairs import group_pairs


class Frame(Protocol):
    """A scan that may be a frame of a sequence: a Sample, or a ScanRecord of a reader."""

    @property
    def sequence(self) -> str:
        """Return the sequence's name; "" for a single scan."""
        ...

    @property
    def frame(self) -> int | None:
        """Return the frame's number in its sequence; None where it has none."""
        ...


def frame_number(frame: Frame) -> int:
    """Return the number that frames are ordered by; 0 where a frame has none."""
    return frame.frame or 0


def group_frames(frames: Iterable[Frame | None]) -> dict[str, list[int]]:
    """Return the positions of each sequence's frames, in time order; single scans and None are left out.

    Sequences come in the order of their first positions; frames of one number keep their order.
    """
    groups = group_pairs(
        (frame.sequence, (frame_number(frame), position))
        for position, frame in enumerate(frames)
        if frame is not None and frame.sequence
    )
    return {name: [position for _, position in sorted(members)] for name, members in groups.items()}
