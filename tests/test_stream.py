"""What comes out of a cache: the right rows with the right labels, once an epoch, alike from both stores."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import CLASSES, MakeCache
from hypothesis import given
from hypothesis import strategies as st

from shared.cache import open_cache
from shared.errors import CacheError, FacetError
from train.data.items import choose_classes, choose_frames, choose_modalities, find_items
from train.data.order import epoch_order, split_batches
from train.data.stream import READ_AHEAD, StoredImages, sample_rows, stream_batches


def test_items_are_the_valid_rows(tiny_cache: MakeCache) -> None:
    cache = open_cache(
        tiny_cache(num_subjects=2, scans_per_class=2, invalid=(1,), unlabelled=(4,), without_texture=(2,))
    )
    items = find_items(cache, ["texture"])
    assert [item.rows[0] for item in items] == [0, *range(3, 12)]  # 1 is invalid, 2 has no texture
    assert [item.rows[0] for item in find_items(cache, ["texture", "normal"])] == [0, *range(2, 12)]
    assert {item.rows[0] for item in items if not item.class_name} == {4}
    assert items[0].subject == "S0"
    assert items[0].class_name == CLASSES[0]


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
def test_batches_are_the_stored_rows(tiny_cache: MakeCache, store: str) -> None:
    cache = open_cache(
        tiny_cache(
            num_subjects=8,
            scans_per_class=3,
            modalities=("texture", "normal", "depth"),
            store=store,
            without_texture=(5, 70),
        )
    )
    items = find_items(cache, ["texture", "depth"])
    order = epoch_order(len(items), 0, 0)  # over two shards
    batches = [[items[i] for i in batch] for batch in split_batches(order, 7)]
    seen = []
    for batch, raw in zip(batches, stream_batches(cache, batches, ["texture", "depth"], 1), strict=True):
        assert raw.items == batch
        assert raw.images["texture"].shape == (len(batch), 1, 3, 32, 32, 3)
        assert raw.images["texture"].dtype == np.uint8
        assert raw.images["depth"].shape == (len(batch), 1, 3, 32, 32)
        assert raw.images["depth"].dtype == np.uint16
        for place, item in enumerate(batch):
            row = item.rows[0]
            seen.append(row)
            assert np.array_equal(raw.images["depth"][place, 0], cache.arrays.read("depth", [row])[0])
            assert raw.present[place, 0].tolist() == [row not in (5, 70), True]
            if row in (5, 70):
                assert not raw.images["texture"][place].any()
            else:
                assert np.array_equal(raw.images["texture"][place, 0], cache.arrays.read("texture", [row])[0])
    assert sorted(seen) == list(range(72))


def test_both_stores_give_the_same_batches(tiny_cache: MakeCache) -> None:
    caches = [open_cache(tiny_cache(name=store, store=store)) for store in ("zarr", "hdf5")]
    streams = []
    for cache in caches:
        items = find_items(cache, ["normal"])
        streams.append(stream_batches(cache, [items[:5], items[5:]], ["normal"], 1))
    for a, b in zip(*streams, strict=True):
        assert np.array_equal(a.images["normal"], b.images["normal"])


def test_a_sequence_is_one_item_with_frames_spread_over_it(tiny_cache: MakeCache) -> None:
    cache = open_cache(tiny_cache(num_subjects=2, scans_per_class=1, num_frames=9, invalid=(0, 1, 2)))
    items = find_items(cache, ["normal"])
    assert len(items) == 6
    assert items[0].rows == tuple(range(3, 9))
    assert items[1].rows == tuple(range(9, 18))
    raw = next(stream_batches(cache, [items[1:3]], ["normal"], 3))
    assert raw.images["normal"].shape == (2, 3, 3, 32, 32, 3)
    assert np.array_equal(raw.images["normal"][0], cache.arrays.read("normal", [10, 13, 16]))
    drawn = next(stream_batches(cache, [items[1:3]], ["normal"], 3, jitter=(0, 1)))
    again = next(stream_batches(cache, [items[1:3]], ["normal"], 3, jitter=(0, 1)))
    assert np.array_equal(drawn.images["normal"], again.images["normal"])
    assert choose_frames(items, 0) == 6
    assert choose_frames(items, 2) == 2


def test_memory_is_lent_and_used_again(tiny_cache: MakeCache) -> None:
    """A batch stays as it is until the next is asked for; all batches of all epochs share READ_AHEAD + 1 pieces of memory."""
    cache = open_cache(tiny_cache(num_subjects=6, without_texture=range(0, 36, 5)))
    items = find_items(cache, ["texture", "normal"])
    source, places = StoredImages(cache), set()
    for epoch in range(3):
        batches = [[items[i] for i in batch] for batch in split_batches(epoch_order(len(items), 0, epoch), 4)]
        for number, raw in enumerate(stream_batches(cache, batches, ["texture", "normal"], 1, source=source)):
            places.add(raw.images["texture"].__array_interface__["data"][0])
            for place, item in enumerate(raw.items):
                row = item.rows[0]
                assert np.array_equal(raw.images["normal"][place, 0], cache.arrays.read("normal", [row])[0])
                if cache.samples[row].has("texture"):
                    assert np.array_equal(raw.images["texture"][place, 0], cache.arrays.read("texture", [row])[0])
                else:
                    assert not raw.images["texture"][place].any()
            if epoch == 1 and number == 3:
                break  # what is being read is waited for before the memory serves the next epoch
    assert len(places) == READ_AHEAD + 1


@given(num=st.integers(1, 50), frames=st.integers(1, 20), data=st.data())
def test_sampled_frames_are_in_order_and_cover_the_sequence(num: int, frames: int, data: st.DataObject) -> None:
    rows = list(range(100, 100 + num))
    jitter = data.draw(st.none() | st.lists(st.floats(0, 1, exclude_max=True), min_size=frames, max_size=frames))
    found = sample_rows(rows, frames, jitter)
    assert len(found) == frames
    assert found == sorted(found)
    assert set(found) <= set(rows)
    for place, row in enumerate(found):  # each in its own segment
        assert place * num / frames - 1 < row - 100 <= (place + 1) * num / frames
    if jitter is None and frames == 1:
        assert found == [100 + num // 2]


def test_classes_and_modalities_that_are_chosen(tiny_cache: MakeCache) -> None:
    cache = open_cache(tiny_cache(class_names=("anger", "fear", "neutral"), without_texture=(0,)))
    assert choose_classes(cache, ()) == ("anger", "fear")
    assert choose_classes(cache, ("neutral", "fear")) == ("neutral", "fear")
    with pytest.raises(FacetError, match="joy not among the classes"):
        choose_classes(cache, ("joy", "fear"))
    with pytest.raises(FacetError, match="at least two classes"):
        choose_classes(cache, ("fear",))
    note = "texture is not used: 1 of 8 scans have none (S0/anger0); --modalities texture,normal uses it"
    assert choose_modalities(cache, (), range(8)) == (("normal",), (note,))
    assert choose_modalities(cache, (), range(1, 8)) == (("texture", "normal"), ())
    assert choose_modalities(cache, (), range(9)) == (("normal",), (note.replace("8 scans", "9 scans"),))
    note = "1 of 10 scans have no texture; their other modalities are used (S0/anger0)"
    assert choose_modalities(cache, (), range(10)) == (("texture", "normal"), (note,))
    note = "1 of 8 scans have no texture; their other modalities are used (S0/anger0)"
    assert choose_modalities(cache, ("normal", "texture"), range(8)) == (("texture", "normal"), (note,))
    note = "1 of 8 scans have no texture and are left out (S0/anger0)"
    assert choose_modalities(cache, ("texture",), range(8)) == (("texture",), (note,))
    with pytest.raises(FacetError, match="holds no depth"):
        choose_modalities(cache, ("depth",), range(8))


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
def test_a_lost_shard_is_an_error_never_zeros(tiny_cache: MakeCache, store: str) -> None:
    path = tiny_cache(store=store)
    cache = open_cache(path)
    items = find_items(cache, ["normal"])
    for file in [*path.glob("views.zarr/normal/c/0/*/*/*/*"), *path.glob("views/*.h5")]:
        file.unlink()
    with pytest.raises(CacheError, match="missing or damaged"):
        next(stream_batches(cache, [items], ["normal"], 1))
