"""Labels in users' own words: what is one class, what is kept apart, and what is said of it."""

from __future__ import annotations

import itertools
import unicodedata
from pathlib import Path

import pytest

from preprocess.datasets import DATASETS
from preprocess.datasets.label_spelling import read_label_map, unify_labels
from shared.errors import FacetError
from shared.labels import BU3DFE_CODES, BU4DFE_FOLDERS, CLASS_NAMES, find_class, find_expression


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["happiness", "Happiness", "HAPPY", "happy ", "joy", "Joyful", "enjoyment", "HA"], "happiness"),
        (["Anger", "anger", "Angry"], "anger"),
        (["Surprise", "surprised", "SURPRISED"], "surprise"),
        (["fearful", "Afraid", "scared"], "fear"),
        (["Sad", "sadness", "sad\u200b", "\u00a0Sad"], "sadness"),
        (["neutral", "Neutral_Face", "neutral-expression"], "neutral"),
        (["Überraschung", unicodedata.normalize("NFD", "Überraschung"), "überraschung", "Überraschung\u00a0"], None),
        (["very happy", "Very_Happy", "very  happy"], None),
        (["Straße", "strasse"], None),
    ],
)
def test_spellings_of_one_class_are_one_and_it_is_said(words: list[str], name: str | None) -> None:
    found = unify_labels([word.strip() for word in words])
    (only,) = set(found.classes.values())
    assert name is None or only == name
    (line,) = found.notes
    assert only in line and "--label-map" in line


@pytest.mark.parametrize(
    "words", [["happiness", "anger", "", "happiness"], ["smirk", "wink"], ["AU1", "AU2", "AU12"], []]
)
def test_nothing_is_said_of_plain_labels(words: list[str]) -> None:
    found = unify_labels(words)
    assert found.classes == {word: word for word in words if word} and not found.notes


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("Agry", "anger"),
        ("hapiness", "happiness"),
        ("suprise", "surprise"),
        ("Neutal", "neutral"),
        ("disguts", "disgust"),
    ],
)
def test_a_slip_is_kept_apart_and_asked_about(word: str, meant: str) -> None:
    found = unify_labels([word, meant, meant])
    assert found.classes[word] == word
    assert any(word in line and meant in line and f"{word},{meant}" in line for line in found.notes)


@pytest.mark.parametrize("word", ["n/a", "NaN", "unknown", "?", "3"])
def test_what_is_no_class_is_asked_about(word: str) -> None:
    found = unify_labels([word, "anger"])
    assert found.classes[word] == word and any(word in line for line in found.notes)


def test_own_classes_that_are_alike_are_asked_about() -> None:
    found = unify_labels(["Überraschung", "Uberraschung", "mouth open", "mouth opens", "level 1", "level 2"])
    assert len(set(found.classes.values())) == 6
    pairs = [line for line in found.notes if "kept apart" in line]
    assert len(pairs) == 2 and "level" not in "".join(pairs)


def test_words_of_the_data_sets_mean_their_classes() -> None:
    for word, name in itertools.chain(BU3DFE_CODES.items(), BU4DFE_FOLDERS.items()):
        assert find_expression(word) == find_expression(word.lower()) == name
    for name in itertools.chain(*CLASS_NAMES.values()):
        assert find_expression(name) == find_class(name.upper()) == name
    assert find_class("joy") is None and find_expression("contempt") is None


def test_a_map_decides_before_anything_else(tmp_path: Path) -> None:
    path = tmp_path / "map.csv"
    path.write_text(
        "Word;Class\nAgry;Anger\njoy;joy\nFreude;happiness\nn/a;\nSMIRK;Smirk\nsmirk;smirk\nnever;x\n", "utf-8-sig"
    )
    label_map = read_label_map(path)
    found = unify_labels(["Agry", "joy", "Joy", "FREUDE", "happy", "n/a", "SMIRK", "smirk"], label_map)
    assert found.classes == {
        "Agry": "anger", "joy": "joy", "Joy": "joy", "FREUDE": "happiness", "happy": "happiness", "n/a": "",
        "SMIRK": "Smirk", "smirk": "smirk",
    }  # fmt: skip
    assert any("never" in line for line in found.notes)
    (tmp_path / "manifest.csv").write_text("path,subject,label\na.obj,1,Agry\nb.obj,2,n/a\n")
    reader = DATASETS["folder"].with_option("--label-map", str(path))
    records = reader.find(tmp_path).records
    assert [record.label for record in records] == ["anger", ""]
    assert any("Agry" in line for line in reader.find(tmp_path).notes)
    assert DATASETS["folder"].find(tmp_path).records[0].label == "Agry"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("joy\n", "line 1"),
        ("a,b,c\n", "line 1"),
        ("joy,x\njoy,y\n", "line 2.*keep one"),
        ("word,class\n", "maps no word"),
        (",x\n", "line 1"),
    ],
)
def test_what_is_wrong_with_a_map_is_said(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "map.csv"
    path.write_text(text)
    with pytest.raises(FacetError, match=message):
        read_label_map(path)
    with pytest.raises(FacetError, match="no such file"):
        read_label_map(tmp_path / "none.csv")
