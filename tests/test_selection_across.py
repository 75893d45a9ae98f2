"""Two data sets: one trains, the other is tested; whose people and whose classes."""

from __future__ import annotations

from itertools import product

import pytest
from random_population import make_items

from shared.errors import FacetError
from shared.labels import BASIC_EXPRESSIONS, BP4D_EMOTIONS, CLASS_NAMES
from train.protocols.folds import Fold
from train.protocols.named import PROTOCOLS
from train.protocols.selection import (
    build_cross_fold,
    build_label_map,
    describe_unshared,
    map_items,
    prefix_subjects,
    select_test_items,
)


def test_across_data_sets() -> None:
    protocol = PROTOCOLS["bu4dfe-bp4d"]
    classes, label_map = build_label_map(protocol, BASIC_EXPRESSIONS, BP4D_EMOTIONS)
    assert classes == BASIC_EXPRESSIONS
    assert label_map == {name: name for name in BASIC_EXPRESSIONS}
    train = map_items(make_items(3, 0, 1, "bu4dfe"), label_map)
    test = select_test_items(protocol, make_items(2, 0, 2, "bp4d"), classes)
    assert sorted((i.subject, i.class_name) for i in test) == sorted(
        product(["S000", "S001"], ["happiness", "disgust"])
    )
    shared = select_test_items(PROTOCOLS["bu4dfe-bp4d-all"], make_items(2, 0, 2, "bp4d"), classes)
    assert len(shared) == 2 * 6
    with pytest.raises(FacetError, match="bu4dfe-bp4d: subject S000 is in both"):
        build_cross_fold(protocol, train, test)
    fold = build_cross_fold(protocol, prefix_subjects(train, "bu4dfe"), prefix_subjects(test, "bp4d"))
    assert fold == Fold("bu4dfe-bp4d", ("bu4dfe:S000", "bu4dfe:S001", "bu4dfe:S002"), ("bp4d:S000", "bp4d:S001"))
    without_t8 = [item for item in make_items(2, 0, 2, "bp4d") if item.task != "T8"]
    with pytest.raises(FacetError, match=r"wants the tasks T1, T8; .* shows T8"):
        select_test_items(protocol, without_t8, classes)


def test_class_names_are_mapped_to_the_tested_words() -> None:
    cross = PROTOCOLS["cross"]
    classes, label_map = build_label_map(cross, CLASS_NAMES["bu3dfe"], CLASS_NAMES["4dme"])
    assert classes == ("negative", "positive", "surprise")
    assert label_map["fear"] == "negative"
    assert {i.class_name for i in map_items(make_items(2, 0, 1), label_map)} == set(classes)
    classes, label_map = build_label_map(cross, CLASS_NAMES["bu3dfe"], CLASS_NAMES["bosphorus"])
    assert classes == BASIC_EXPRESSIONS  # neutral only where it is asked for
    classes, label_map = build_label_map(cross, CLASS_NAMES["bu3dfe"], CLASS_NAMES["bosphorus"], ("fear", "neutral"))
    assert classes == ("fear", "neutral")
    assert label_map == {"fear": "fear", "neutral": "neutral"}
    with pytest.raises(FacetError, match=r"have 1 in common; .*the other way round"):
        build_label_map(cross, CLASS_NAMES["4dme"], CLASS_NAMES["bu3dfe"])
    with pytest.raises(FacetError, match="have no pain in common"):
        build_label_map(cross, CLASS_NAMES["bp4d"], CLASS_NAMES["bu3dfe"], ("pain", "fear"))


def test_samples_of_classes_that_one_data_set_lacks_are_named() -> None:
    items = make_items(2, 0, 1)
    assert describe_unshared(items, BASIC_EXPRESSIONS, whose="data/a") == []
    counts = {name: sum(item.class_name == name for item in items) for name in ("anger", "fear")}
    (note,) = describe_unshared(items, [name for name in BASIC_EXPRESSIONS if name not in counts], whose="data/a")
    assert (
        note
        == f"left out of data/a: {counts['anger']} labelled anger, {counts['fear']} labelled fear (no class of both)"
    )
