"""The table of protocols is consistent with the data sets, fits only what it is for, and can be read by people."""

from __future__ import annotations

import pytest

from shared.errors import FacetError
from shared.labels import CLASS_NAMES
from train.parts import TASKS
from train.protocols.named import (
    CROSS,
    KFOLD,
    LOSO,
    PROTOCOLS,
    Protocol,
    check_datasets,
    describe_protocol,
    describe_protocols,
    describe_title,
    find_protocol,
)

WANTED = {
    "kfold", "loso", "bu3dfe-subset1", "bu3dfe-subset2", "bu3dfe-p1", "bu3dfe-p2", "bosphorus", "bosphorus-au", "bu4dfe",
    "bp4d", "bp4d-au", "bp4d-au-intensity", "bp4dplus", "bp4dplus-au", "4dme", "4dme-multilabel",
    "bu4dfe-bp4d", "bu4dfe-bp4d-all", "cross",
}  # fmt: skip


def test_every_protocol_of_the_field_is_there() -> None:
    assert set(PROTOCOLS) == WANTED
    assert all(name == protocol.name for name, protocol in PROTOCOLS.items())


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_a_protocol_speaks_of_what_exists(protocol: Protocol) -> None:
    assert protocol.task in TASKS
    assert protocol.scheme in (KFOLD, LOSO, CROSS)
    assert protocol.source
    for dataset in (*protocol.datasets, *protocol.test_datasets):
        if protocol.task == "classes":
            assert set(protocol.classes) <= set(CLASS_NAMES[dataset])
    assert (protocol.scheme == CROSS) >= bool(protocol.test_datasets or protocol.test_tasks)
    assert protocol.num_drawn is None or protocol.is_repeated
    assert not protocol.redraw or protocol.num_drawn


def test_the_numbers_that_papers_print() -> None:
    """From the data sets' own sizes: subjects × expressions × intensities."""
    assert PROTOCOLS["bu3dfe-subset1"].published_samples == 100 * 6 * 2
    assert PROTOCOLS["bu3dfe-subset2"].published_samples == 100 * 6 * 4
    assert PROTOCOLS["bosphorus"].published_samples == 65 * 6
    assert PROTOCOLS["bu4dfe"].published_samples == 101 * 6
    assert PROTOCOLS["bp4d"].published_samples == 41 * 8
    assert PROTOCOLS["bp4dplus"].published_samples == 140 * 4
    assert len(PROTOCOLS["bosphorus-au"].classes) == 25
    assert PROTOCOLS["bp4dplus"].tasks == PROTOCOLS["bp4dplus-au"].tasks == ("T1", "T6", "T7", "T8")
    p1, p2 = PROTOCOLS["bu3dfe-p1"], PROTOCOLS["bu3dfe-p2"]
    assert (p1.num_drawn, p1.num_folds, p1.num_rounds, p1.redraw) == (60, 10, 100, False)
    assert (p2.num_drawn, p2.num_folds, p2.num_rounds, p2.redraw) == (60, 10, 100, True)
    assert {name for name, one in PROTOCOLS.items() if one.intensities == ("03", "04")} == {
        "bu3dfe-subset1", "bu3dfe-p1", "bu3dfe-p2",
    }  # fmt: skip
    assert PROTOCOLS["bu3dfe-subset2"].intensities == ("01", "02", "03", "04")
    assert {name for name, one in PROTOCOLS.items() if one.all_classes_needed} == {
        "bu3dfe-p1",
        "bu3dfe-p2",
        "bosphorus",
    }
    units = PROTOCOLS["bp4d-au"]
    assert " ".join(units.classes) == "AU1 AU2 AU4 AU6 AU7 AU10 AU12 AU14 AU15 AU17 AU23 AU24"
    assert (units.num_folds, units.published_subjects) == (3, 41)
    intensity = PROTOCOLS["bp4d-au-intensity"]
    assert " ".join(intensity.classes) == "AU6 AU10 AU12 AU14 AU17" and intensity.num_folds == 3
    assert {one.num_folds for one in PROTOCOLS.values() if one.task not in ("aus", "au-intensity")} == {10}
    assert PROTOCOLS["bu4dfe-bp4d"].test_tasks == ("T1", "T8")  # happiness and disgust
    assert (PROTOCOLS["4dme"].published_subjects, PROTOCOLS["4dme-multilabel"].published_samples) == (24, 267)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    assert find_protocol("bosphorus") is PROTOCOLS["bosphorus"]
    with pytest.raises(FacetError, match="--protocol Bosporus: no such protocol; did you mean bosphorus"):
        find_protocol("Bosporus")
    with pytest.raises(FacetError, match="there are kfold, loso"):
        find_protocol("")


@pytest.mark.parametrize(
    ("name", "dataset", "test_dataset", "message"),
    [
        (
            "bosphorus",
            "bu3dfe",
            None,
            "needs one cache .* of bosphorus, not bu3dfe; choose one of kfold, loso, bu3dfe-subset1",
        ),
        ("bu4dfe-bp4d", "bu4dfe", None, "needs two caches .*; choose one of kfold, loso, bu4dfe$"),
        ("bu4dfe", "bu4dfe", "bp4d", "needs one cache .*; choose one of bu4dfe-bp4d, bu4dfe-bp4d-all, cross"),
        ("bu4dfe-bp4d", "bp4d", "bu4dfe", "of bu4dfe → bp4d, not bp4d → bu4dfe; choose one of cross"),
        ("4dme", "folder", None, "choose one of kfold, loso$"),
    ],
)
def test_other_data_sets_are_refused_and_the_fitting_protocols_named(
    name: str, dataset: str, test_dataset: str | None, message: str
) -> None:
    with pytest.raises(FacetError, match=message):
        check_datasets(PROTOCOLS[name], dataset, test_dataset)


@pytest.mark.parametrize("dataset", [*CLASS_NAMES, "folder"])
def test_every_data_set_has_protocols(dataset: str) -> None:
    for name in ("kfold", "loso"):
        check_datasets(PROTOCOLS[name], dataset)
    check_datasets(PROTOCOLS["cross"], dataset, "folder")
    if dataset != "folder":
        own = [
            protocol for protocol in PROTOCOLS.values() if protocol.datasets == (dataset,) and protocol.scheme != CROSS
        ]
        assert own
        for protocol in own:
            check_datasets(protocol, dataset)


def test_descriptions_name_everything_and_stay_narrow() -> None:
    text = describe_protocols()
    assert all(f"{name} " in text for name in PROTOCOLS)
    for protocol in PROTOCOLS.values():
        text += describe_protocol(protocol)
        one = " ".join(describe_protocol(protocol).split())
        assert " ".join(protocol.source.split()) in one
        assert all(name in one for name in (*protocol.classes, *protocol.datasets, *protocol.intensities))
    assert max(map(len, text.splitlines())) <= 110
    assert text.endswith("\n")
    assert "redraw: yes" in " ".join(describe_protocol(PROTOCOLS["bu3dfe-p2"]).split())


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=list(PROTOCOLS))
def test_a_title_names_the_data_sets_and_the_folds_there_are(protocol: Protocol) -> None:
    datasets = ["mine", "theirs"] if protocol.scheme == CROSS else ["mine"]
    title = describe_title(protocol, datasets, num_folds=2, num_rounds=3)
    assert all((name in title) == (not protocol.datasets) for name in datasets)
    assert ("2 folds" in title) == (protocol.scheme == KFOLD)
    assert ("3 rounds" in title) == protocol.is_repeated
    published = describe_title(protocol)
    assert (f", {protocol.num_folds} folds" in published) == (protocol.scheme == KFOLD)
    assert (", 100 rounds" in published) == protocol.is_repeated and "{" not in published
