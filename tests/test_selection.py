"""Every protocol on random populations: no subject on both sides, each usable one tested once a round, whatever the order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_population import make_items

from shared.errors import FacetError
from shared.labels import BASIC_EXPRESSIONS, CLASS_NAMES
from train.protocols.folds import Fold, FoldList, read_folds, write_folds
from train.protocols.named import CROSS, LOSO, PROTOCOLS, Protocol
from train.protocols.selection import (
    build_folds,
    describe_gaps,
    select_items,
)
from train.tasks.item import Item

WITHIN = [protocol for protocol in PROTOCOLS.values() if protocol.scheme != CROSS]
GOLDEN = (
    ("S014", "S032", "S038", "S061", "S066", "S070"),
    ("S005", "S024", "S025", "S061", "S072", "S095"),
    ("S006", "S020", "S022", "S057", "S072", "S096"),
)


def classes_of(protocol: Protocol, dataset: str) -> tuple[str, ...]:
    return protocol.classes or tuple(name for name in CLASS_NAMES[dataset] if name != "neutral")


def eligible_subjects(protocol: Protocol, items: list[Item], classes: tuple[str, ...]) -> set[str]:
    """By brute force, from the protocol's description alone: who takes part."""
    people = set()
    for subject in {item.subject for item in items}:
        own = {(i.class_name, i.intensity) for i in items if i.subject == subject}
        wanted = [(c, i) for c in classes for i in protocol.intensities or ("",)]
        if protocol.tasks and not any(i.subject == subject and i.task in protocol.tasks for i in items):
            continue
        if protocol.task != "classes":
            people.add(subject)
        elif protocol.all_classes_needed:
            if protocol.intensities and own.issuperset(wanted):
                people.add(subject)
            if not protocol.intensities and {c for c, _ in own}.issuperset(classes):
                people.add(subject)
        elif any(c in classes and (not protocol.intensities or i in protocol.intensities) for c, i in own):
            people.add(subject)
    return people


@pytest.mark.parametrize("protocol", WITHIN, ids=[protocol.name for protocol in WITHIN])
@settings(max_examples=60, deadline=None)
@given(
    people=st.sampled_from([120, 90, 61, 25, 11, 10, 9, 3, 2, 1]),
    absent=st.sampled_from([0.0, 0.02, 0.3]),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_protocol_on_random_populations(protocol: Protocol, people: int, absent: float, seed: int) -> None:
    dataset = protocol.datasets[0] if protocol.datasets else "bp4d"
    items, classes = make_items(people, absent, seed, dataset), classes_of(protocol, dataset)
    if not items:
        return
    eligible = eligible_subjects(protocol, items, classes)
    rounds = 3 if protocol.is_repeated else None

    def build(rows: list[Item], seed: int) -> FoldList:
        return build_folds(protocol, rows, dataset=dataset, classes=classes, seed=seed, num_rounds=rounds)

    needed = 2 if protocol.scheme == LOSO else max(protocol.num_folds, protocol.num_drawn or 0)
    shown = {(i.class_name, i.intensity) for i in items}
    missing = protocol.task == "classes" and not (
        {c for c, _ in shown}.issuperset(classes) and {i for _, i in shown}.issuperset(protocol.intensities)
    )
    missing |= not {i.task for i in items}.issuperset(protocol.tasks)
    if len(eligible) < needed or missing:
        with pytest.raises(FacetError):
            build(items, seed)
        return

    folds = build(items, seed)
    assert build(items[::-1], seed) == folds  # the order of rows is no matter, and equal seeds give equal folds
    assert build(select_items(protocol, items, classes), seed) == folds  # nor is selecting first
    by_round: dict[str, list[Fold]] = {}
    for fold in folds.folds:
        by_round.setdefault(fold.round, []).append(fold)
    assert len(by_round) == (rounds or 1)
    for members in by_round.values():
        tested = [subject for fold in members for subject in fold.test_subjects]
        assert len(tested) == len(set(tested)) == (protocol.num_drawn or len(eligible))  # each once a round
        assert set(tested) <= eligible
        assert len(members) == (len(eligible) if protocol.scheme == LOSO else protocol.num_folds)
        sizes = [len(fold.test_subjects) for fold in members]
        assert max(sizes) - min(sizes) <= 1
        for fold in members:
            assert not set(fold.train_subjects) & set(fold.test_subjects)
            assert set(fold.train_subjects) | set(fold.test_subjects) == set(tested)
    drawn = [{s for fold in members for s in fold.test_subjects} for members in by_round.values()]
    if protocol.num_drawn and not protocol.redraw:
        assert all(one == drawn[0] for one in drawn)
    if len(eligible) > 80 and protocol.redraw:  # 60 of 81 and more: equal by chance once in 10^19
        assert drawn[0] != drawn[1] != drawn[2] != drawn[0]
    if rounds:
        first, second = list(by_round.values())[:2]
        assert [f.test_subjects for f in first] != [f.test_subjects for f in second]  # a fresh deal


def test_folds_of_a_full_protocol_survive_the_disk(tmp_path: Path) -> None:
    items = make_items(100, 0, 5)
    classes = BASIC_EXPRESSIONS
    p1 = build_folds(PROTOCOLS["bu3dfe-p1"], items, dataset="bu3dfe", classes=classes, seed=1)
    p2 = build_folds(PROTOCOLS["bu3dfe-p2"], items, dataset="bu3dfe", classes=classes, seed=1)
    for folds in (p1, p2):
        assert len(folds.folds) == 1000
        assert {(len(f.train_subjects), len(f.test_subjects)) for f in folds.folds} == {(54, 6)}
        write_folds(tmp_path / "folds.json", folds)
        assert read_folds(tmp_path / "folds.json") == folds
    assert len(p1.subjects) == 60
    assert len(p2.subjects) == 100  # all are drawn at some time
    assert p1.folds[0].name == "round-000/fold-00"
    assert p1.folds[-1].name == "round-099/fold-09"


def test_more_rounds_leave_the_first_ones_alone_and_seeds_matter() -> None:
    items, p2 = make_items(100, 0, 5), PROTOCOLS["bu3dfe-p2"]

    def build(rounds: int, seed: int) -> tuple[Fold, ...]:
        return build_folds(p2, items, dataset="bu3dfe", classes=BASIC_EXPRESSIONS, seed=seed, num_rounds=rounds).folds

    assert build(4, 0)[:20] == build(2, 0)
    assert build(1, 0) != build(1, 1)


def test_folds_stay_what_they_are() -> None:
    """Published numbers rest on them: which subject is drawn and dealt where is part of the protocol."""
    items = make_items(100, 0, 0)
    p2 = build_folds(PROTOCOLS["bu3dfe-p2"], items, dataset="bu3dfe", classes=BASIC_EXPRESSIONS, seed=0, num_rounds=2)
    assert p2.folds[0].test_subjects == GOLDEN[0]
    assert p2.folds[19].test_subjects == GOLDEN[1]
    p1 = build_folds(PROTOCOLS["bu3dfe-p1"], items, dataset="bu3dfe", classes=BASIC_EXPRESSIONS, seed=0, num_rounds=2)
    assert p1.folds[0] == p2.folds[0]  # the first round of both rules is the same
    assert p1.folds[19].test_subjects == GOLDEN[2]


def test_selection_by_class_intensity_and_completeness() -> None:
    items = make_items(4, 0, 1)
    selected = select_items(PROTOCOLS["bu3dfe-subset1"], items, BASIC_EXPRESSIONS)
    assert len(selected) == 4 * 6 * 2
    assert {item.intensity for item in selected} == {"03", "04"}
    assert {item.class_name for item in selected} == set(BASIC_EXPRESSIONS)
    assert selected == sorted(selected, key=lambda item: item.index)  # in the cache's order
    assert len(select_items(PROTOCOLS["bu3dfe-subset2"], items, BASIC_EXPRESSIONS)) == 4 * 6 * 4
    # One scan less: the classic rule loses the subject, Subset I the scan.
    less = [item for item in items if item.name != "S002_fear_03"]
    assert len(select_items(PROTOCOLS["bu3dfe-subset1"], less, BASIC_EXPRESSIONS)) == 4 * 6 * 2 - 1
    complete = select_items(PROTOCOLS["bu3dfe-p1"], less, BASIC_EXPRESSIONS)
    assert {item.subject for item in complete} == {"S000", "S001", "S003"}
    faces = make_items(3, 0, 1, "bosphorus")
    less = [item for item in faces if item.name != "S001_fear_"]
    assert {i.subject for i in select_items(PROTOCOLS["bosphorus"], less, BASIC_EXPRESSIONS)} == {"S000", "S002"}
    everything = make_items(3, 0, 1, "4dme")
    assert select_items(PROTOCOLS["4dme-multilabel"], everything, ("positive",)) == everything


@pytest.mark.parametrize(
    ("name", "dataset", "drop", "message"),
    [
        ("bu3dfe-p1", "bu3dfe", "", "wants 60 subjects with all 6 classes at intensities 03 and 04; this cache has 20"),
        ("bu3dfe-subset1", "bu3dfe", "_04", r"shows 04 \(found: 01, 02, 03\)"),
        ("bosphorus", "bosphorus", "_fear_", "no usable sample of this cache shows fear"),
        ("bp4d", "bp4d", "_pain_", "bp4d wants the classes anger, .*shows pain"),
    ],
)
def test_what_a_cache_lacks_is_named(name: str, dataset: str, drop: str, message: str) -> None:
    protocol = PROTOCOLS[name]
    items = [item for item in make_items(20, 0, 2, dataset) if not drop or drop not in item.name]
    with pytest.raises(FacetError, match=message):
        build_folds(protocol, items, dataset=dataset, classes=protocol.classes, seed=0)


def test_no_complete_subject_is_named() -> None:
    items = [i for i in make_items(2, 0, 2, "bosphorus") if i.name not in ("S000_fear_", "S001_anger_")]
    with pytest.raises(FacetError, match=r"none of the 2 subjects of this cache has them all \(such as S000, S001\)"):
        select_items(PROTOCOLS["bosphorus"], items, BASIC_EXPRESSIONS)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("loso", {"num_folds": 5}, "makes a fold of each subject"),
        ("kfold", {"num_rounds": 5}, "does not repeat its folds"),
        ("bu3dfe-p1", {"num_rounds": 0}, "expected 1 to"),
        ("bu3dfe-p1", {"num_folds": 61}, "only 60 subjects"),
        ("kfold", {"num_folds": 1}, "at least 2"),
        ("cross", {}, "needs two caches"),
    ],
)
def test_numbers_that_cannot_be_meant(name: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(FacetError, match=message):
        build_folds(
            PROTOCOLS[name],
            make_items(70, 0, 3),
            dataset="bu3dfe",
            classes=BASIC_EXPRESSIONS,
            seed=0,
            num_folds=options.get("num_folds"),
            num_rounds=options.get("num_rounds"),
        )


@pytest.mark.parametrize("people", [1, 6])
def test_an_error_names_no_option_that_was_not_given(people: int) -> None:
    items = make_items(people, 0, 3)
    build: Any = {"dataset": "bu3dfe", "classes": BASIC_EXPRESSIONS, "seed": 0}
    with pytest.raises(
        FacetError, match="only 6 subjects can be used; give --folds 6" if people == 6 else "at least 2"
    ) as e:
        build_folds(PROTOCOLS["kfold"], items, **build)
    assert not str(e.value).startswith("--folds")
    with pytest.raises(FacetError, match="10 folds: there are only 6" if people == 6 else "wants at least 2"):
        build_folds(PROTOCOLS["kfold"], items, **build, num_folds=10)


def test_subjects_whose_names_are_no_folder_names_get_folds_of_their_own() -> None:
    items = [Item(str(k), subject, "anger", (k,), k) for k, subject in enumerate(["a b", "a/b", "A-B", "..", "é"])]
    folds = build_folds(PROTOCOLS["loso"], items, dataset="folder", classes=("anger",), seed=0)
    names = {fold.test_subjects[0]: fold.name for fold in folds.folds}
    assert names == {
        "..": "subject-..", "A-B": "subject-A-B", "a b": "subject-a-b-2", "a/b": "subject-a-b-3", "é": "subject-é",
    }  # fmt: skip


def test_gaps_are_told() -> None:
    p1 = PROTOCOLS["bu3dfe-p1"]
    assert describe_gaps(p1, make_items(100, 0, 3), BASIC_EXPRESSIONS) == []
    assert describe_gaps(PROTOCOLS["kfold"], make_items(7, 0, 3), BASIC_EXPRESSIONS, num_folds=3) == []
    notes = describe_gaps(PROTOCOLS["bu3dfe-subset1"], make_items(20, 0, 3), BASIC_EXPRESSIONS, num_folds=5)
    assert notes == [
        "bu3dfe-subset1 is published on 100 subjects; this cache gives 20",
        "bu3dfe-subset1 is published on 1,200 samples; this cache gives 240",
        "bu3dfe-subset1 has 10 folds; here 5 were asked for",
    ]
    notes = describe_gaps(PROTOCOLS["bosphorus"], make_items(65, 0, 3, "bosphorus"), ("anger", "fear"))
    assert notes[0] == "bosphorus has the classes anger, disgust, fear, happiness, sadness, surprise; here anger, fear"
    less = [item for item in make_items(61, 0, 3) if item.name != "S007_fear_04"]
    notes = describe_gaps(PROTOCOLS["bu3dfe-p2"], less, BASIC_EXPRESSIONS, num_rounds=2)
    assert notes[0] == "1 subjects without all 6 classes at intensities 03 and 04 are left out (S007)"
    assert notes[2] == "bu3dfe-p2 has 100 rounds; here 2 were asked for"
    assert notes[3] == "there are just 60 subjects, so every round draws the same"
