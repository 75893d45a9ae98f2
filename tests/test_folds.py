"""Folds keep subjects apart, depend on subjects and seed alone, survive the disk, and say what is wrong with a request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import FacetError
from train.protocols.folds import (
    Fold,
    FoldList,
    check_folds_fit,
    fold_names,
    leave_out_each,
    name_for_folder,
    read_folds,
    read_split,
    read_subject_list,
    split_by_subjects,
    subject_folds,
    write_folds,
    write_split,
)

SUBJECTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)
POPULATIONS = st.lists(SUBJECTS, min_size=2, max_size=40)
SMALL = FoldList(
    "kfold", "bu3dfe", 3, ("anger", "fear"), (Fold("fold-00", ("b", "c"), ("a",)), Fold("fold-01", ("a",), ("b", "c")))
)


@given(rows=POPULATIONS, seed=st.integers(0, 2**32 - 1), data=st.data())
def test_folds_are_disjoint_complete_and_even(rows: list[str], seed: int, data: st.DataObject) -> None:
    people = sorted(set(rows))
    if len(people) < 2:
        return
    num_folds = data.draw(st.integers(2, len(people)))
    groups = subject_folds(rows, num_folds, seed)
    assert sorted(name for group in groups for name in group) == people  # each exactly once
    sizes = [len(group) for group in groups]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1
    assert subject_folds(data.draw(st.permutations(rows)), num_folds, seed) == groups  # the order of rows is no matter
    for group, fold in zip(groups, leave_out_each(groups, fold_names(num_folds)), strict=True):
        assert fold.test_subjects == group
        assert sorted(fold.train_subjects + fold.test_subjects) == people


def test_seed_changes_the_folds() -> None:
    people = [f"F{n:03d}" for n in range(40)]
    assert subject_folds(people, 10, 0) != subject_folds(people, 10, 1)
    assert subject_folds(people, 10, [1, 1]) != subject_folds(people, 10, [1, 2])


def test_folds_stay_what_they_are() -> None:
    """Published numbers rest on them: NumPy's PCG64 stream is part of the protocol."""
    assert subject_folds([f"F{n}" for n in range(6)], 3, 7) == [("F4", "F5"), ("F1", "F2"), ("F0", "F3")]


@pytest.mark.parametrize(
    ("people", "folds", "message"),
    [
        ("abcd", 1, "at least 2"),
        ("abcd", 5, "only 4 subjects; choose --folds 4"),
        ("aa", 2, "only 1 subjects; at least 2"),
    ],
)
def test_impossible_folds(people: str, folds: int, message: str) -> None:
    with pytest.raises(FacetError, match=message):
        subject_folds(people, folds, 0)


def test_folds_sort_as_they_are_numbered() -> None:
    assert fold_names(3) == ["fold-00", "fold-01", "fold-02"]
    assert fold_names(101) == sorted(fold_names(101))


def test_a_fold_sorts_its_subjects_and_refuses_what_leaks() -> None:
    fold = Fold("round-017/fold-03", ("c", "a", "c"), ("b",))
    assert (fold.train_subjects, fold.test_subjects, fold.round) == (("a", "c"), ("b",), "round-017")
    assert Fold("fold-00", ("a",), ("b",)).round == ""
    with pytest.raises(FacetError, match="fold-00: subject b is in both train and test"):
        Fold("fold-00", ("a", "b"), ("c", "b"))
    with pytest.raises(FacetError, match="no subject to train on"):
        Fold("fold-00", (), ("a",))
    with pytest.raises(FacetError, match="no subject to test on"):
        Fold("fold-00", ("a",), ())


@pytest.mark.parametrize(
    "name", ["", "..", "../x", "a/..", "/etc", "a/b/c", "a//b", ".hidden", "a b", "a\n", "a\\b", "C:x", "x" * 121]
)
def test_a_folds_name_cannot_leave_its_folder(name: str) -> None:
    with pytest.raises(FacetError, match="expected a name of letters"):
        Fold(name, ("a",), ("b",))


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_any_subject_can_name_a_fold(subject: str) -> None:
    Fold(f"subject-{name_for_folder(subject)}", ("a",), ("b",))


def test_a_list_of_folds_refuses_what_makes_scores_wrong() -> None:
    def make(*folds: Fold) -> FoldList:
        return FoldList("kfold", "bu3dfe", 0, (), folds)

    a, b = Fold("fold-00", ("b", "c"), ("a",)), Fold("fold-01", ("c",), ("a", "b"))
    with pytest.raises(FacetError, match="without a fold"):
        make()
    with pytest.raises(FacetError, match="subject a is tested in fold-00 and in fold-01"):
        make(a, b)
    with pytest.raises(FacetError, match="two folds have the name Fold-00"):
        make(a, Fold("Fold-00", ("c",), ("b",)))
    with pytest.raises(FacetError, match="round-0 is the name of a fold and of a round"):
        make(Fold("round-0", ("b",), ("a",)), Fold("round-0/fold-0", ("b",), ("a",)))
    again = make(Fold("round-0/fold-0", ("b",), ("a",)), Fold("round-1/fold-0", ("b",), ("a",)))  # once in each round
    assert again.subjects == ("a", "b")


def test_subject_lists(tmp_path: Path) -> None:
    people = ["a", "b", "c"]
    assert split_by_subjects(people, ["b"]) == Fold("test-subjects", ("a", "c"), ("b",))
    with pytest.raises(FacetError, match="x not among the 3 subjects"):
        split_by_subjects(people, ["a", "x"])
    with pytest.raises(FacetError, match="no subject to train on"):
        split_by_subjects(people, people)
    path = tmp_path / "subjects.txt"
    path.write_text("# the second half\nF01\n F02 # left-handed\n\n")
    assert read_subject_list(str(path)) == ("F01", "F02")
    assert read_subject_list("a, b,a") == ("a", "b")
    with pytest.raises(FacetError, match="names no subject"):
        read_subject_list(" ,")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FacetError, match="not a text file"):
        read_subject_list(str(path))


def test_imported_folds_must_fit_the_cache() -> None:
    assert check_folds_fit(SMALL, ["a", "b", "c"], dataset="bu3dfe") == []
    assert check_folds_fit(SMALL, list("abcde")) == ["2 subjects of the cache are in no fold (d, e)"]
    with pytest.raises(FacetError, match=r"name 2 subjects that have no usable sample in the cache \(b, c\)"):
        check_folds_fit(SMALL, ["a", "d"])
    with pytest.raises(FacetError, match="are of bu3dfe, the cache holds bosphorus"):
        check_folds_fit(SMALL, ["a", "b", "c"], dataset="bosphorus")


def test_split_survives_the_disk(tmp_path: Path) -> None:
    split = Fold("fold-07", ("a", "ü,b"), ("c",))
    write_split(tmp_path, split)
    assert read_split(tmp_path) == split
    (tmp_path / "split.json").write_text('{"train_subjects": ["a"]}')
    with pytest.raises(FacetError, match="damaged"):
        read_split(tmp_path)
    with pytest.raises(FacetError, match="missing"):
        read_split(tmp_path / "nowhere")


@settings(max_examples=50)
@given(rows=POPULATIONS, seed=st.integers(0, 2**32 - 1), classes=st.lists(SUBJECTS, unique=True))
def test_lists_of_folds_survive_the_disk(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str], seed: int, classes: list[str]
) -> None:
    if len(set(rows)) < 2:
        return
    groups = subject_folds(rows, 2, seed)
    folds = FoldList("kfold", "mine", seed, tuple(classes), tuple(leave_out_each(groups, fold_names(2))))
    path = tmp_path_factory.getbasetemp() / "folds.json"
    write_folds(path, folds)
    assert read_folds(path) == folds
    first = path.read_bytes()
    write_folds(path, read_folds(path))
    assert path.read_bytes() == first


def test_the_documented_layout_is_read_in_any_order(tmp_path: Path) -> None:
    """Written by hand from the format's description, not by write_folds."""
    path = tmp_path / "folds.json"
    path.write_text(
        '{"folds": [{"test_subjects": ["a"], "train_subjects": ["c", "b"], "name": "fold-00"},'
        ' {"name": "fold-01", "train_subjects": ["a"], "test_subjects": ["b", "c"], "comment": "ours"}],'
        ' "classes": ["anger", "fear"], "seed": 3, "dataset": "bu3dfe", "protocol": "kfold", "format": "facet folds 1"}'
    )
    assert read_folds(path) == SMALL


def _damage(**changes: Any) -> Any:
    fold = {"name": "fold-00", "train_subjects": ["a"], "test_subjects": ["b"]}
    value: dict[str, Any] = {
        "format": "facet folds 1", "protocol": "kfold", "dataset": "x", "seed": 0, "classes": [], "folds": [fold],
    }  # fmt: skip
    for key, change in changes.items():
        if key in fold:
            fold[key] = change
        elif change is None:
            del value[key]
        else:
            value[key] = change
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1], "format 'None', expected 'facet folds 1'"),
        (_damage(format="facet folds 9"), "format 'facet folds 9'"),
        (_damage(seed=None), "lacks 'seed'"),
        (_damage(seed="0"), "seed: expected int, found '0'"),
        (_damage(seed=True), "seed: expected int"),
        (_damage(classes="anger"), "classes: expected tuple"),
        (_damage(classes=["a", "a"]), "twice"),
        (_damage(folds=[]), "without a fold"),
        (_damage(folds=["fold-00"]), "expected an object for Fold, found 'fold-00'"),
        (_damage(folds={"name": 1}), "folds: expected tuple"),
        (_damage(name="../../home"), "expected a name of letters"),
        (_damage(name=7), "name: expected str"),
        (_damage(train_subjects="ab"), "train_subjects: expected tuple"),  # would be read as subjects a and b
        (_damage(train_subjects=["a", 1]), "train_subjects: expected str, found 1"),
        (_damage(train_subjects=["a", ""]), "a subject of the train side has no name"),
        (_damage(train_subjects=["a", "b"]), "subject b is in both train and test"),
        (_damage(test_subjects=[]), "no subject to test on"),
    ],
)
def test_damaged_lists_of_folds_are_refused_in_one_line(tmp_path: Path, value: Any, message: str) -> None:
    path = tmp_path / "folds.json"
    path.write_text(json.dumps(value))
    with pytest.raises(FacetError, match=message) as caught:
        read_folds(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null", b"NaN"])
def test_what_is_no_json_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "folds.json"
    path.write_bytes(data)
    with pytest.raises(FacetError, match="no usable list of folds"):
        read_folds(path)
    path.unlink()
    with pytest.raises(FacetError, match="no such file"):
        read_folds(path)
