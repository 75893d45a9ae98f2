"""Leaks, unknown labels and absent classes are found and named before training starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.cache import Cache
from shared.errors import FacetError
from shared.schema import CacheInfo, RenderSettings, Sample
from shared.schema import Sequence as SequenceRow
from train.protocols.folds import Fold, FoldList
from train.protocols.leakage import (
    SharedScan,
    check_classes,
    check_experiment,
    check_folds_are_disjoint,
    check_labels,
    check_subject_names,
    describe_doubles,
    find_shared_scans,
)
from train.tasks.item import Item

CLASSES = ("anger", "fear")


def make_cache(
    rows: list[tuple[str, str, str]], dataset: str = "bu3dfe", *, label: str = "anger", valid: bool = True
) -> Cache:
    """An opened cache of (sample, subject, source hash); its images are not looked at."""
    samples = [
        Sample(name, subject, "", None, label, "", "", f"{name}.wrl", source_hash=digest, valid=valid)
        for name, subject, digest in rows
    ]
    return Cache(Path("cache"), CacheInfo(dataset, "", CLASSES, RenderSettings()), samples, [])


def make_folds(*sides: tuple[str, str]) -> FoldList:
    """Subjects are single letters: ("ab", "c") trains on a and b and tests on c."""
    folds = [Fold(f"fold-{k}", tuple(train), tuple(test)) for k, (train, test) in enumerate(sides)]
    return FoldList("kfold", "bu3dfe", 0, CLASSES, tuple(folds))


def make_items(words: str) -> list[Item]:
    """`a:anger b:fear` …"""
    pairs = [word.split(":") for word in words.split()]
    return [Item(f"{s}{k}", s, name, (k,), k) for k, (s, name) in enumerate(pairs)]


def test_labels_outside_the_vocabulary_are_named() -> None:
    check_labels(make_cache([("s1", "a", "")]))
    check_labels(make_cache([("s1", "a", "")], label=""))
    with pytest.raises(FacetError, match=r"samples\.csv: s1 is labelled 'anger ', .*\(anger, fear\)"):
        check_labels(make_cache([("s1", "a", "")], label="anger "))
    cache = make_cache([("s1", "a", "")])
    cache.sequences.append(SequenceRow("F001/Angry", "a", 0, 1, 25.0, "Anger"))
    with pytest.raises(FacetError, match=r"sequences\.csv: F001/Angry is labelled 'Anger'"):
        check_labels(cache)


def test_a_scan_under_two_subjects_is_found() -> None:
    rows = [("s1", "b", "x"), ("s2", "b", "x"), ("s3", "a", "x"), ("s4", "c", "y"), ("s5", "d", ""), ("s6", "e", "")]
    assert find_shared_scans(make_cache(rows)) == [SharedScan(("a", "b"), ("s3", "s1"))]
    assert find_shared_scans(make_cache(rows, valid=False)) == []
    assert find_shared_scans(make_cache(rows[:2])) == []  # one subject may have a scan twice


def test_a_scan_in_two_data_sets_is_found() -> None:
    one, two = make_cache([("s1", "F001", "x"), ("s2", "F002", "y")]), make_cache([("t1", "F001", "x")], "bp4d")
    assert find_shared_scans(one, two) == [SharedScan(("bp4d:F001", "bu3dfe:F001"), ("t1", "s1"))]
    same = make_cache([("t1", "F001", "x"), ("t2", "F009", "y")])  # a second cache of the same data set
    assert find_shared_scans(one, same) == [SharedScan(("F002", "F009"), ("s2", "t2"))]


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["", "x", "y", "z"])), max_size=30),
    st.permutations("abcdef"),
    st.integers(1, 5),
)
def test_leaks_are_what_brute_force_finds(rows: list[tuple[str, str]], order: list[str], cut: int) -> None:
    cache = make_cache([(f"s{k}", subject, digest) for k, (subject, digest) in enumerate(rows)])
    train, test = order[:cut], order[cut:]
    leak = any(d and d == e and s in train and t in test for s, d in rows for t, e in rows)
    folds, shared = make_folds(("".join(train), "".join(test))), find_shared_scans(cache)
    if leak:
        with pytest.raises(FacetError, match="one scan is in both train and test"):
            check_folds_are_disjoint(folds, shared)
    else:
        assert len(check_folds_are_disjoint(folds, shared)) == len(shared)


def test_a_leak_is_named_with_fold_and_samples() -> None:
    shared = find_shared_scans(make_cache([("s1", "a", "x"), ("s2", "b", "x"), ("s3", "c", "x")]))
    with pytest.raises(FacetError, match=r"fold-1: .*\(s1 of a, s2 of b, s3 of c\)"):
        check_folds_are_disjoint(make_folds(("de", "f"), ("bd", "c")), shared)  # b and c, without a, in the second
    two = [*shared, SharedScan(("b", "d"), ("s4", "s5"), same_bytes=False)]
    with pytest.raises(FacetError, match=r"other files, the same pictures\), and 1 more"):
        check_folds_are_disjoint(make_folds(("b", "cd")), two[::-1])
    many = [SharedScan((f"a{n}", f"b{n}"), ("s1", "s2")) for n in range(9)]
    assert len(notes := check_folds_are_disjoint(make_folds(("a", "b")), many)) == 6 and "4 more" in notes[-1]
    assert check_folds_are_disjoint(make_folds(("abc", "d")), shared) == [
        "one scan is under 3 subjects (s1 of a, s2 of b, s3 of c)"
    ]


def test_classes_without_training_samples_stop_and_name_the_fold() -> None:
    items = make_items("a:anger a:fear b:anger b:fear c:anger")
    folds = make_folds(("bc", "a"), ("ac", "b"), ("ab", "c"))
    assert check_classes(folds, items, CLASSES) == [
        "no test sample shows fear in 1 of 3 folds (fold-2); their balanced scores leave it out"
    ]
    with pytest.raises(FacetError, match=r"fold-0: no training sample shows fear \(only a shows fear\); .*--classes"):
        check_classes(folds, make_items("a:anger a:fear b:anger c:anger"), CLASSES)
    notes = check_classes(make_folds(("ab", "c")), make_items("a:anger a:fear b:anger c:anger c:fear"), CLASSES)
    assert notes == []
    alone = check_classes(make_folds(("ab", "c")), make_items("a:anger a:fear b:anger c:anger"), CLASSES)
    assert alone[-1] == "only a shows fear"


def test_classes_across_data_sets() -> None:
    train, test = make_items("a:anger a:fear b:anger b:fear"), make_items("x:fear")
    folds = make_folds(("ab", "x"))
    assert check_classes(folds, train, CLASSES, test) == [
        "no test sample shows anger in 1 of 1 folds (fold-0); their balanced scores leave it out"
    ]
    with pytest.raises(FacetError, match="no training sample shows anger"):
        check_classes(folds, make_items("a:fear b:fear"), CLASSES, make_items("x:anger x:fear"))


def test_several_labels_count_where_they_are_shown() -> None:
    targets = {"a": (1, 1), "b": (1, 0), "c": (-1, 1)}
    items = [Item(s, s, "", (k,), k, targets=value) for k, (s, value) in enumerate(targets.items())]
    folds = make_folds(("bc", "a"), ("ab", "c"))
    assert check_classes(folds, items, CLASSES, task="aus") == [
        "no test sample shows anger in 1 of 2 folds (fold-1); their balanced scores leave it out"
    ]
    with pytest.raises(FacetError, match="fold-0: no training sample shows fear"):
        check_classes(make_folds(("b", "a")), items, CLASSES, task="aus")


def test_names_that_may_be_one_person_are_noted() -> None:
    assert check_subject_names(["F001", "F010", "F100", "F0", "F11", "M001", "S1a", "S1b"]) == []
    notes = check_subject_names(["F1", "F001", "f001 ", "F002", "F001"])
    assert len(notes) == 1
    assert "'F001', 'F1', 'f001 ' may be one person" in notes[0]
    assert len(check_subject_names(["S01-P02", "s1-p2", "A00", "A0"])) == 2


def test_all_checks_in_one_call() -> None:
    items = make_items("a:anger a:fear A:anger A:fear b:anger b:fear")
    folds = make_folds(("aA", "b"))
    shared = [SharedScan(("A", "a"), ("s1", "s2"))]
    notes = check_experiment(folds, items, items, CLASSES, "classes", shared)
    assert len(notes) == 2
    assert "one scan is under 2 subjects" in notes[0]
    assert "may be one person" in notes[1]
    with pytest.raises(FacetError, match="is in both train and test"):
        check_experiment(make_folds(("a", "Ab")), items, items, CLASSES, "classes", shared)


def test_copies_and_scans_of_two_labels_are_named() -> None:
    rows = [("s0", "a", "x"), ("s1", "a", "y"), ("s2", "b", "x"), ("s3", "b", "y"), ("s4", "c", ""), ("s5", "c", "")]
    cache, items = make_cache(rows), make_items("a:anger a:fear b:anger b:anger c:anger c:fear")
    assert describe_doubles(cache, items[:2]) == describe_doubles(cache, items[4:]) == []
    assert describe_doubles(cache, items) == [
        "1 samples have two labels, by their files (a1 is fear and b3 is anger); one of the labels is wrong",
        "1 samples are copies of others by their files, and count twice (a0, b2)",
    ]
