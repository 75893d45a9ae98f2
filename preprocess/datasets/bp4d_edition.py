"""What distinguishes BP4D-Spontaneous from BP4D+: two data sets of one laboratory with nearly the same folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

INTENSITY_UNITS = (6, 10, 12, 14, 17)  # of both
# BP4D-Spontaneous' last woman, last man and last task: what lies beyond is BP4D+.
LAST_SUBJECTS, LAST_TASK = {"F": 23, "M": 18}, 8
PLUS_LANDMARKS = ".bndplus"


@dataclass(frozen=True)
class Edition:
    """One of the two data sets.

    expected: path of a frame, for messages. tasks: task → the emotion it was made to evoke. num_frames: 0 = not known.
    units: the action units that its occurrence files code. coded_tasks: those with action units; () = all.
    landmark_suffix: of its landmark files. is_order_known: whether the order of their points is documented.
    """

    name: str
    title: str
    expected: str
    tasks: Mapping[str, str]
    num_subjects: int
    units: tuple[int, ...]
    landmark_suffix: str
    num_frames: int = 0
    coded_tasks: tuple[str, ...] = ()
    is_order_known: bool = True

    @property
    def is_plus(self) -> bool:
        return self.landmark_suffix == PLUS_LANDMARKS

    @property
    def au_names(self) -> tuple[str, ...]:
        return (*(f"AU{unit}" for unit in self.units), *(f"AU{unit}_intensity" for unit in INTENSITY_UNITS))
