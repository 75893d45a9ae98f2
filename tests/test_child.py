"""Functions in child processes: results in order, errors and crashes of a child."""

from __future__ import annotations

import os
import time

import pytest

from preprocess.build.child import map_in_children
from shared.errors import FacetError


def work(item: int, report: object) -> int:
    if item < -1:
        os._exit(-item)
    if item < 0:
        raise ValueError("negative")
    time.sleep(0.1 * (item == 0))  # the first one ends last
    return 10 * item


def test_results_come_in_the_order_of_the_items() -> None:
    assert list(map_in_children(work, range(6), 2)) == [0, 10, 20, 30, 40, 50]
    assert list(map_in_children(work, [], 2)) == []


def test_a_childs_error_and_crash_are_reported() -> None:
    with pytest.raises(ValueError, match="negative"):
        list(map_in_children(work, [0, -1], 2))
    with pytest.raises(FacetError, match="exit code 7"):
        list(map_in_children(work, [-7], 2))
