"""Dataclasses out of JSON: what fits its annotation, and nothing else."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.typed_json import make


@dataclasses.dataclass(frozen=True)
class Inner:
    angle: float
    name: str = ""


@dataclasses.dataclass(frozen=True)
class Outer:
    count: int
    flag: bool
    inner: tuple[Inner, ...]
    words: dict[str, str]
    rate: float | None = None
    anything: Any = None


GOOD = {
    "count": 3,
    "flag": True,
    "inner": [{"angle": 1.5}, {"angle": 2, "name": "x"}],
    "words": {"a": "b"},
    "rate": None,
}


def test_what_fits_is_made() -> None:
    assert make(Outer, GOOD) == Outer(3, True, (Inner(1.5), Inner(2, "x")), {"a": "b"})


@pytest.mark.parametrize(
    "change",
    [
        {"count": True}, {"count": 3.0}, {"count": "3"}, {"count": None}, {"flag": 1}, {"inner": {}}, {"inner": [1]},
        {"inner": [{"angle": float("nan")}]}, {"inner": [{"angle": 10**400}]}, {"inner": [{}]}, {"words": {"a": 1}},
        {"words": []}, {"rate": "1"}, {"rate": float("inf")}, {"further": 1},
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        make(Outer, GOOD | change)


@pytest.mark.parametrize("value", [None, [], 1, "x", {}])
def test_no_object(value: object) -> None:
    with pytest.raises(ValueError):
        make(Outer, value)


@given(
    st.builds(
        Outer, st.integers(), st.booleans(), st.lists(st.builds(Inner, st.floats(-1e9, 1e9), st.text())).map(tuple),
        st.dictionaries(st.text(), st.text()), st.none() | st.floats(-1e9, 1e9),
    )
)  # fmt: skip
def test_json_there_and_back(value: Outer) -> None:
    assert make(Outer, json.loads(json.dumps(dataclasses.asdict(value)))) == value
