"""Splits keep subjects apart, depend on nothing but subjects and seed, and say what is wrong with a request."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import FacetError
from train.protocols import (
    Split,
    read_split,
    read_subject_list,
    split_by_fold,
    split_by_subjects,
    subject_folds,
    write_split,
)

POPULATIONS = st.lists(st.text(min_size=1, max_size=4), min_size=2, max_size=40)


@given(rows=POPULATIONS, seed=st.integers(0, 2**32 - 1), data=st.data())
def test_folds_are_disjoint_complete_and_even(rows: list[str], seed: int, data: st.DataObject) -> None:
    people = sorted(set(rows))
    if len(people) < 2:
        return
    num_folds = data.draw(st.integers(2, len(people)))
    folds = subject_folds(rows, num_folds, seed)
    assert sorted(name for fold in folds for name in fold) == people  # each exactly once
    sizes = [len(fold) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1
    assert subject_folds(data.draw(st.permutations(rows)), num_folds, seed) == folds  # the order of rows is no matter
    split = split_by_fold(rows, num_folds, data.draw(st.integers(0, num_folds - 1)), seed)
    assert not set(split.train_subjects) & set(split.test_subjects)
    assert set(split.train_subjects) | set(split.test_subjects) == set(people)


def test_seed_changes_the_folds() -> None:
    people = [f"F{n:03d}" for n in range(40)]
    assert subject_folds(people, 10, 0) != subject_folds(people, 10, 1)


def test_folds_stay_what_they_are() -> None:
    """Published numbers rest on them: NumPy's PCG64 stream is part of the protocol."""
    assert subject_folds([f"F{n}" for n in range(6)], 3, 7) == [("F4", "F5"), ("F1", "F2"), ("F0", "F3")]


@pytest.mark.parametrize(
    ("folds", "fold", "message"),
    [(1, 0, "at least 2"), (5, 0, "only 4 subjects"), (3, 3, "no such fold"), (3, -1, "no such fold")],
)
def test_impossible_folds(folds: int, fold: int, message: str) -> None:
    with pytest.raises(FacetError, match=message):
        split_by_fold(["a", "b", "c", "d"], folds, fold, 0)


def test_subject_lists(tmp_path: Path) -> None:
    people = ["a", "b", "c"]
    assert split_by_subjects(people, ["b"]) == Split(("a", "c"), ("b",))
    with pytest.raises(FacetError, match="x not among the 3 subjects"):
        split_by_subjects(people, ["a", "x"])
    with pytest.raises(FacetError, match="no subject is left to train on"):
        split_by_subjects(people, people)
    with pytest.raises(FacetError, match="both train and test"):
        Split(("a", "b"), ("b",))
    path = tmp_path / "subjects.txt"
    path.write_text("# the second half\nF01\n F02 # left-handed\n\n")
    assert read_subject_list(str(path)) == ("F01", "F02")
    assert read_subject_list("a, b,a") == ("a", "b")
    with pytest.raises(FacetError, match="names no subject"):
        read_subject_list(" ,")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FacetError, match="not a text file"):
        read_subject_list(str(path))


def test_split_survives_the_disk(tmp_path: Path) -> None:
    split = Split(("a", "ü,b"), ("c",))
    write_split(tmp_path, split)
    assert read_split(tmp_path) == split
    (tmp_path / "split.json").write_text('{"train_subjects": ["a"]}')
    with pytest.raises(FacetError, match="damaged"):
        read_split(tmp_path)
