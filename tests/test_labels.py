"""Vocabularies and the maps between them."""

from __future__ import annotations

from preprocess.datasets import DATASETS
from shared.labels import BASIC_EXPRESSIONS, BOSPHORUS_CODES, BP4D_TASKS, CLASS_NAMES, map_class_names


def test_readers_use_the_vocabularies() -> None:
    for name, reader in DATASETS.items():
        assert reader.class_names == CLASS_NAMES.get(name, ())
    assert set(BOSPHORUS_CODES.values()) == set(CLASS_NAMES["bosphorus"])
    assert set(BP4D_TASKS.values()) == set(CLASS_NAMES["bp4d"])


def test_shared_classes_keep_their_word() -> None:
    assert map_class_names(CLASS_NAMES["bu4dfe"], CLASS_NAMES["bp4d"]) == {name: name for name in BASIC_EXPRESSIONS}
    back = map_class_names(CLASS_NAMES["bp4d"], CLASS_NAMES["bu4dfe"])
    assert list(back) == list(BASIC_EXPRESSIONS)  # neither embarrassment nor pain
    for names in CLASS_NAMES.values():
        assert map_class_names(names, names) == {name: name for name in names}


def test_expressions_to_micro_expressions_classes() -> None:
    coarse = map_class_names(CLASS_NAMES["bu3dfe"], CLASS_NAMES["4dme"])
    assert coarse["happiness"] == "positive"
    assert {coarse[name] for name in ("anger", "disgust", "fear", "sadness")} == {"negative"}
    assert coarse["surprise"] == "surprise"
    assert "neutral" not in coarse
    assert map_class_names(CLASS_NAMES["4dme"], CLASS_NAMES["bu3dfe"]) == {"surprise": "surprise"}
