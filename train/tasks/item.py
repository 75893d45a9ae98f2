"""An item: what one prediction is made for."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """What one prediction is made for: a single scan, a whole sequence, or, for action units, one frame."""

    name: str  # sample_id, or the sequence's name
    subject: str
    class_name: str  # empty: unlabelled
    rows: tuple[int, ...]  # valid rows of the cache, in time order; one for a scan
    index: int  # among the items of the cache; seeds the augmentation
    intensity: str = ""  # the data set's own words, empty if it has none: 01…04
    task: str = ""  # T1…T8
    targets: tuple[int, ...] = ()  # multi-label: 1, 0 or -1 = unknown, for each requested name
    reference: int | None = None  # the row whose features are subtracted: the subject's neutral scan, or the onset
    repeat: int = 0  # how often it was already sampled this epoch; each sample gets its own augmentation

    def again(self, repeat: int) -> Item:
        """Return a copy with `repeat` set."""
        return dataclasses.replace(self, repeat=repeat) if repeat else self
