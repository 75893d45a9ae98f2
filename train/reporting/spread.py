"""Mean and standard deviation over folds, rounds or seeds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1) of `num` values; None where there are too few."""

    mean: float | None
    std: float | None
    num: int


def measure_spread(values: Iterable[float | None]) -> Spread:
    """Compute the spread of all values that are not None."""
    known = np.array([value for value in values if value is not None], np.float64)
    return Spread(
        mean=float(known.mean()) if len(known) else None,
        std=float(known.std(ddof=1)) if len(known) > 1 else None,
        num=len(known),
    )
