"""What predictions are made for: scans, sequences, frames; their targets, their apex windows, the face at rest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import UNITS, MakeCache, show_units

from shared.cache import open_cache
from shared.errors import FacetError
from train.data.items import (
    add_references,
    choose_classes,
    choose_modalities,
    describe_short_sequences,
    describe_stabilising,
    describe_unlabelled,
    find_items,
    find_rows_in_use,
    gather_items,
    is_labelled,
    keep_apex_windows,
)
from train.options import Options


def test_action_units_make_an_item_of_every_frame(tiny_cache: MakeCache) -> None:
    cache = open_cache(tiny_cache(num_frames=5, num_subjects=2, units="aus"))
    classes = choose_classes(cache, (), "aus")
    assert classes == UNITS  # the intensity is no yes or no
    items = find_items(cache, ("normal",), "aus", classes)
    assert [item.rows for item in items] == [(row,) for row in range(len(cache.samples))]
    assert items[0].targets == (-1, -1, -1)
    assert not is_labelled(items[0], "aus", classes)
    for item in items[1:]:
        label = cache.info.class_names.index(item.class_name)
        assert item.targets == show_units(label)[:3]
        assert is_labelled(item, "aus", classes)
    assert find_items(cache, ("normal",), "aus", ("AU12",))[1].targets == (0,)


def test_several_emotions_are_a_sequences_own(tiny_cache: MakeCache) -> None:
    cache = open_cache(tiny_cache(num_frames=5, num_subjects=2, units="targets"))
    items = find_items(cache, ("normal",), "targets", UNITS)
    assert len(items) == 12
    assert items[1].targets == (1, 0, 0)
    assert len(items[1].rows) == 5


def test_frames_come_in_time_order_whatever_their_rows(tiny_cache: MakeCache) -> None:
    """Scans found later get later rows; a sequence without a usable frame is nothing to predict."""
    cache = open_cache(tiny_cache(num_frames=4, num_subjects=1, without_texture=(1, 4, 5, 6, 7)))
    numbers = (2, 0, 3, 1)
    samples = [replace(sample, frame=numbers[row % 4]) for row, sample in enumerate(cache.samples)]
    cache = replace(cache, samples=samples)
    items = find_items(cache, ("texture",))
    assert [item.rows for item in items] == [(3, 0, 2), *((r + 1, r + 3, r, r + 2) for r in (8, 12, 16, 20))]
    assert [item.name for item in items] == ["S0/anger0", *(s.sequence for s in cache.sequences[2:])]
    assert [item.index for item in items] == list(range(5))
    assert find_rows_in_use([replace(items[0], reference=1), *items]) == [0, 1, 2, 3, *range(8, 24)]


def test_modalities_are_those_asked_for_or_those_that_nearly_all_have(tiny_cache: MakeCache) -> None:
    cache = open_cache(tiny_cache(num_subjects=1, without_texture=(2, 3)))
    assert choose_modalities(cache, (), (0, 1)) == (("texture", "normal"), ())
    found, (note,) = choose_modalities(cache, ("normal", "texture"), range(6))
    assert found == ("texture", "normal")
    assert note == "2 of 6 scans have no texture; their other modalities are used (S0/happiness0, …)"
    found, (note,) = choose_modalities(cache, (), range(6))
    assert found == ("normal",)
    assert note == "texture is not used: 2 of 6 scans have none (S0/happiness0, …); --modalities texture,normal uses it"
    found, (note,) = choose_modalities(cache, ("texture",), range(3))
    assert found == ("texture",)
    assert note == "1 of 3 scans have no texture and are left out (S0/happiness0)"
    with pytest.raises(FacetError, match=r"holds no depth \(it holds texture, normal\)"):
        choose_modalities(cache, ("depth",), range(6))
    mixed = replace(
        cache, samples=[replace(s, modalities=("texture", "normal")[r % 2]) for r, s in enumerate(cache.samples)]
    )
    with pytest.raises(FacetError, match="no modality is in nine of ten rows"):
        choose_modalities(mixed, (), range(6))


def test_what_a_cache_lacks_is_said(tiny_cache: MakeCache) -> None:
    cache = open_cache(tiny_cache())
    with pytest.raises(FacetError, match="tiny has no action units"):
        choose_classes(cache, (), "aus")
    # a cache without them can still be looked at by a model that knows them
    assert find_items(cache, ("normal",), "aus", UNITS)[0].targets == ()
    with pytest.raises(FacetError, match="--classes: AU12_intensity not among the action units"):
        choose_classes(open_cache(tiny_cache(name="b", units="aus")), ("AU12_intensity",), "aus")


def test_neutral_is_told_apart_only_where_asked_for_or_needed(tiny_cache: MakeCache) -> None:
    cache = open_cache(tiny_cache(class_names=("anger", "fear", "neutral")))
    assert choose_classes(cache, ()) == ("anger", "fear")
    assert choose_classes(cache, ("neutral", "fear")) == ("neutral", "fear")
    assert choose_classes(open_cache(tiny_cache(name="two", class_names=("fear", "neutral"))), ()) == (
        "fear",
        "neutral",
    )
    with pytest.raises(FacetError, match="at least two classes are needed, found fear"):
        choose_classes(cache, ("fear",))


@pytest.mark.parametrize(
    ("apex", "window", "frames"),
    [(4, 3, [3, 4, 5]), (0, 3, [0, 1, 2]), (8, 4, [5, 6, 7, 8]), (4, 0, [2, 3, 4, 5, 6]), (4, 99, list(range(9)))],
)
def test_apex_windows_lie_inside_the_sequence(tiny_cache: MakeCache, apex: int, window: int, frames: list[int]) -> None:
    cache = open_cache(tiny_cache(num_frames=9, num_subjects=1, apex=apex))
    for item in keep_apex_windows(cache, find_items(cache, ("normal",)), window):
        assert [cache.samples[row].frame for row in item.rows] == frames


def test_no_apex_is_an_error(tiny_cache: MakeCache) -> None:
    cache = open_cache(tiny_cache(num_frames=4))
    with pytest.raises(FacetError, match="S0/anger0 has no apex, given or estimated"):
        gather_items(cache, Options(modalities=("normal",), frame_sampling="apex"))


def test_too_few_frames_for_an_apex_are_all_kept(tiny_cache: MakeCache) -> None:
    """Estimates take three frames: a sequence of which two are left must not end every training."""
    cache = open_cache(tiny_cache(num_frames=2))
    recipe = Options(modalities=("normal",), frame_sampling="apex")
    assert [len(item.rows) for item in gather_items(cache, recipe)] == [2] * len(cache.sequences)


@pytest.mark.parametrize(("task", "units"), [("aus", "aus"), ("targets", "targets"), ("classes", "")])
def test_what_nothing_is_known_of_is_told(tiny_cache: MakeCache, task: str, units: str) -> None:
    """The tiny cache knows no units of its first row, and no label of the rows asked for."""
    cache = open_cache(tiny_cache(num_frames=5, num_subjects=2, units=units, unlabelled=() if units else range(5, 15)))
    names = UNITS if units else cache.info.class_names
    items = gather_items(cache, Options(modalities=("normal",), task=task, classes=names))
    expected = {
        "aus": "left out: 1 of 60 frames of which none of the classes is known (S0/anger0/000)",
        "targets": "left out: 1 of 12 sequences of which none of the classes is known (S0/anger0)",
        "classes": "left out: 2 of 12 sequences without a single label (S0/anger1, …)",
    }
    assert describe_unlabelled(cache, items, task, names) == [expected[task]]
    assert describe_unlabelled(cache, [item for item in items if is_labelled(item, task, names)], task, names) == []


def test_neutral_references_are_the_subjects_own(tiny_cache: MakeCache) -> None:
    cache = open_cache(tiny_cache(class_names=("anger", "fear", "neutral"), invalid=(4, 5)))
    items = add_references(cache, find_items(cache, ("normal",)), ("normal",), "neutral")
    for item in items:
        if item.subject == "S0":  # both of its neutral scans are not valid
            assert item.reference is None
        else:
            assert item.reference is not None
            sample = cache.samples[item.reference]
            assert (sample.subject, sample.label, sample.valid) == (item.subject, "neutral", True)
    plain = open_cache(tiny_cache(name="plain"))
    with pytest.raises(FacetError, match="no subject has a neutral scan"):
        add_references(plain, find_items(plain, ("normal",)), ("normal",), "neutral")
    with pytest.raises(FacetError, match="there are no sequences"):
        add_references(cache, items, ("normal",), "onset")


@pytest.mark.parametrize("task", ["classes", "aus"])
def test_onset_references_are_the_first_or_the_given_frame(tiny_cache: MakeCache, task: str) -> None:
    cache = open_cache(tiny_cache(num_frames=5, num_subjects=1, units="aus", invalid=(0,), apex=3))
    cache = replace(cache, sequences=[replace(s, onset=2 if "1" in s.sequence else None) for s in cache.sequences])
    recipe = Options(
        modalities=("normal",), task=task, classes=UNITS, reference="onset", frame_sampling="apex", frame_window=2
    )
    for item in gather_items(cache, recipe):
        assert item.reference is not None
        at_rest, first = cache.samples[item.reference], cache.samples[item.rows[0]]
        assert at_rest.sequence == first.sequence
        wanted = 2 if "1" in first.sequence else int(at_rest.sequence == "S0/anger0")  # row 0 is not valid
        assert at_rest.frame == wanted
        if task == "classes":
            assert np.diff(item.rows).tolist() == [1]
            assert [cache.samples[row].frame for row in item.rows] == [2, 3]  # the window keeps the onset outside


def test_sequences_of_few_frames_and_of_moving_heads_are_named(tiny_cache: MakeCache) -> None:
    cache = open_cache(tiny_cache(num_frames=5, num_subjects=2, invalid=(0, 1, 2, 5)))
    items = find_items(cache, ("normal",))
    assert describe_short_sequences(cache, items, 2) == [
        "1 of 12 sequences lost more than half of their frames, which are not valid (S0/anger0: 2 of 5 valid)"
    ]
    (_, note) = describe_short_sequences(cache, items, 5)
    assert note.startswith("2 of 12 sequences have fewer than 5 frames, so some are used repeatedly (S0/anger0: 2 of 5")
    cut = [replace(item, rows=item.rows[:1], reference=item.rows[0]) for item in items[2:]]  # as by --frame-window 1
    (note,) = describe_short_sequences(cache, cut, 1)
    assert note.startswith("10 of 10 sequences have one frame, which is compared with itself (")
    assert describe_short_sequences(cache, items[2:], 5) == []

    still = replace(cache.info.settings, stabilised=True)
    assert describe_stabilising(cache, cache.info.settings, whose="runs/a") == []
    (note,) = describe_stabilising(cache, still, whose="runs/a")
    assert "was built without --stabilise, runs/a with: heads move differently" in note and "… --stabilise`" in note
    single = open_cache(tiny_cache(name="single", num_subjects=1))
    assert describe_stabilising(single, still, whose="runs/a") == []
