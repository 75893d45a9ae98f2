"""One face under two names: what counts as alike, and that every copy of a scan is found before a training."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from conftest import MakeCache

from shared import likeness
from shared.cache import Cache, open_cache
from shared.errors import FacetError
from shared.likeness import (
    ALIKE_BITS,
    ALIKE_BITS_OF_ONE_SUBJECT,
    HASH_SIDE,
    choose_compared,
    count_different,
    find_alike,
    hash_faces,
    hash_image,
)
from shared.modalities import DEPTH_ZERO
from shared.schema import Sample
from train.options import Options
from train.protocols.folds import Fold, FoldList
from train.protocols.leakage import check_folds_are_disjoint, describe_uncompared, find_shared_scans
from train.split import split_folds

HALF = np.tile([True, False], HASH_SIDE**2 // 2)


def make_samples(subjects: Sequence[str], *, frames: Sequence[int | None] | None = None) -> list[Sample]:
    frames = [None] * len(subjects) if frames is None else frames
    return [
        Sample(f"s{n}", subject, "", frame, "anger", "", "", f"s{n}.obj", valid=True, modalities="texture+normal+depth")
        for n, (subject, frame) in enumerate(zip(subjects, frames, strict=True))
    ]


def changed(bits: np.ndarray, num: int) -> np.ndarray:
    return np.concatenate([~bits[:num], bits[num:]])


@pytest.mark.parametrize("size", [16, 32, 33, 50, 224])
def test_a_hash_tells_which_patch_is_brighter_and_where_a_surface_bends(size: int) -> None:
    rising = np.tile(np.arange(1, size + 1, dtype=np.uint8)[:, None], (size, 1, 3))
    side = min(HASH_SIDE, size)
    assert hash_image("texture", rising).shape == (side * (min(HASH_SIDE + 1, size) - 1),)
    assert hash_image("texture", rising).all() and not hash_image("normal", rising[:, ::-1]).any()
    x = (np.arange(size) + 0.5) / size * 2 - 1
    valley = np.tile((DEPTH_ZERO + 9000 * x**2).astype(np.uint16), (size, 1))
    assert hash_image("depth", valley).shape == (side * (min(HASH_SIDE + 2, size) - 2),)
    assert hash_image("depth", valley).mean() > 0.9
    assert not hash_image("depth", (2 * DEPTH_ZERO - valley.astype(int)).astype(np.uint16)).any()  # a ridge


def test_bits_are_counted_as_they_are() -> None:
    a, b = (np.random.default_rng(n).random((5 + n, 300)) < 0.5 for n in range(2))
    assert (count_different(a, b) == (a[:, None] != b).sum(-1)).all()


def test_a_darker_copy_is_alike_and_another_face_is_not(tiny_cache: MakeCache) -> None:
    cache = open_cache(tiny_cache(num_subjects=2))
    first, other = (cache.arrays.read("texture", [row])[0, 0].astype(np.float32) for row in (0, 4))
    hashes = [{"texture": hash_image("texture", image.astype(np.uint8))} for image in (first, first * 0.5, other)]
    assert [pair[:2] for pair in find_alike(make_samples("abc"), range(3), hashes)] == [(0, 1)]
    assert find_alike(make_samples("aaa", frames=[0, 1, 2]), range(3), hashes) == []  # frames of one subject


def test_how_alike_depends_on_the_subject() -> None:
    near = ALIKE_BITS_OF_ONE_SUBJECT + 1
    hashes = [{"normal": bits} for bits in (HALF, changed(HALF, ALIKE_BITS), changed(HALF, near))]
    samples = make_samples("aba")
    assert find_alike(samples, range(3), hashes) == [(1, 2, ALIKE_BITS - near), (0, 1, ALIKE_BITS)]
    assert find_alike(samples, range(3), hashes, since=2) == [(1, 2, ALIKE_BITS - near)]
    hashes[1] = {"normal": changed(HALF, ALIKE_BITS + 1)}
    assert find_alike(samples, range(2), hashes[:2]) == []


def test_every_modality_that_both_have_must_agree() -> None:
    other = changed(HALF, 200)
    hashes = [
        {"texture": HALF, "normal": HALF},
        {"texture": other, "normal": HALF},  # one template, two people's textures
        {"normal": changed(HALF, 3)},  # saved anew without its texture
        {"depth": HALF},  # nothing in common with the others
    ]
    assert find_alike(make_samples("abcd"), range(4), hashes) == [(0, 2, 3), (1, 2, 3)]


def test_pictures_of_nothing_are_not_alike() -> None:
    black = {"texture": hash_image("texture", np.zeros((64, 64, 3), np.uint8))}
    assert find_alike(make_samples("ab"), range(2), [black, black]) == []


def test_small_images_are_held_to_the_same_share() -> None:
    bits = HALF[:240]  # of 16 pixels
    for num, alike in ((ALIKE_BITS * 240 // 1024, True), (ALIKE_BITS * 240 // 1024 + 1, False)):
        hashes = [{"normal": bits}, {"normal": changed(bits, num)}]
        assert bool(find_alike(make_samples("ab"), range(2), hashes)) == alike


def test_alike_are_exactly_the_pairs_of_the_rule() -> None:
    rng = np.random.default_rng(5)
    common = rng.random(1024) < 0.5
    hashes = [{"texture": common ^ (rng.random(1024) < rng.choice([0, 0.001, 0.006, 0.012]))} for _ in range(700)]
    samples = make_samples([f"S{n % 40}" for n in range(700)], frames=[n if n % 40 < 9 else None for n in range(700)])
    rows = rng.permutation(700).tolist()
    truth = []
    for b in range(650, 700):
        for a in range(b):
            bits = int((hashes[a]["texture"] != hashes[b]["texture"]).sum())
            one, other = samples[rows[a]], samples[rows[b]]
            of_one = ALIKE_BITS_OF_ONE_SUBJECT if one.frame is None else -1
            if bits <= (of_one if one.subject == other.subject else ALIKE_BITS):
                truth.append((min(rows[a], rows[b]), max(rows[a], rows[b]), bits))
    truth.sort(key=lambda pair: (pair[2], pair))
    assert len(truth) > 1000 and find_alike(samples, rows, hashes, since=650) == truth
    assert find_alike(samples, rows, hashes, since=650, most=99) == truth[:99]


# --- before a training ---


def rename(cache: Cache, subjects: dict[int, str]) -> Cache:
    """The cache with rows of other subjects; as if they had been built so."""
    samples = [dataclasses.replace(s, subject=subjects.get(row, s.subject)) for row, s in enumerate(cache.samples)]
    return dataclasses.replace(cache, samples=samples)


def leak(*caches: Cache) -> list[set[str]]:
    return [set(scan.subjects) for scan in find_shared_scans(*caches)]


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
def test_a_copy_under_another_subject_is_found_in_either_store(tiny_cache: MakeCache, store: str) -> None:
    """The same faces, drawn once more: every picture is the same, every file's hash another."""
    cache = open_cache(tiny_cache(store=store, num_subjects=2, scans_per_class=1))
    assert leak(cache) == []
    other = dataclasses.replace(
        cache,
        samples=[dataclasses.replace(s, subject=s.subject + "x", source_hash="x" + s.sample_id) for s in cache.samples],
    )
    assert sorted(map(sorted, leak(cache, other))) == [["S0", "S0x"], ["S1", "S1x"]]
    (scan, _) = find_shared_scans(cache, other)
    assert not scan.same_bytes and scan.sample_ids[0] == scan.sample_ids[1]
    folds = FoldList("kfold", "tiny", 0, ("anger",), (Fold("fold-0", ("S0", "S1x"), ("S0x", "S1")),))
    with pytest.raises(FacetError, match=r"fold-0: one scan is in both train and test.*S0/anger0 of S0x"):
        check_folds_are_disjoint(folds, find_shared_scans(cache, other))


def test_a_training_is_stopped_by_a_scan_under_two_subjects(tiny_cache: MakeCache) -> None:
    cache = open_cache(tiny_cache(num_subjects=4))
    split_folds(cache, Options(folds=4))
    doubled = tiny_cache(name="doubled", num_subjects=4)
    whole = open_cache(doubled)
    shard = next((doubled / "views.zarr" / "texture").rglob("c/0/0/0/0/0"))
    assert shard.is_file()
    # Row 6 is read from where row 0's pictures are, as if the scan had been rendered again.
    again = Doubled(whole, {6: 0})
    with pytest.raises(FacetError, match=r"S0/anger0 of S0, S1/anger0 of S1; other files, the same pictures"):
        split_folds(again, Options(folds=4))


class Doubled(Cache):
    """A cache some of whose rows hold the pictures of others."""

    def __init__(self, cache: Cache, rows: dict[int, int]) -> None:
        fields = {field.name: getattr(cache, field.name) for field in dataclasses.fields(cache)}
        super().__init__(**fields | {"info": dataclasses.replace(cache.info, content_hash="doubled")})
        object.__setattr__(self, "rows", rows)

    def with_views(self, views: object) -> Cache:
        return self

    def open_arrays(self) -> object:  # type: ignore[override]
        arrays, rows = super().open_arrays(), self.rows  # type: ignore[attr-defined]

        class Arrays:
            def read(self, name: str, wanted: Sequence[int]) -> np.ndarray:
                return arrays.read(name, [rows.get(row, row) for row in wanted])

        return Arrays()


def test_of_sequences_three_frames_are_compared(tiny_cache: MakeCache) -> None:
    cache = open_cache(tiny_cache(num_subjects=2, scans_per_class=1, num_frames=7, invalid=(0, 10)))
    assert choose_compared(cache) == [1, 4, 6, 7, 11, 13, 14, 17, 20, 21, 24, 27, 28, 31, 34, 35, 38, 41]
    loose = [dataclasses.replace(s, sequence="") for s in cache.samples[:21]]  # 4DME's frames outside its clips
    assert choose_compared(dataclasses.replace(cache, samples=[*loose, *cache.samples[21:]]))[:4] == [1, 11, 20, 21]
    other = rename(cache, {row: cache.samples[row].subject + "x" for row in range(42)})
    assert sorted(map(sorted, leak(cache, other))) == [["S0", "S0x"], ["S1", "S1x"]]


def test_a_damaged_row_is_left_to_the_training(tiny_cache: MakeCache) -> None:
    path = tiny_cache(num_subjects=1)
    shard = next((path / "views.zarr" / "normal").rglob("c/0/0/0/0/0"))
    data = bytearray(shard.read_bytes())
    data[100:110] = bytes(10)  # within the first image stored
    shard.write_bytes(data)
    assert hash_faces(open_cache(path), "normal").rows == (1, 2, 3, 4, 5)


def test_large_caches_are_compared_in_part_and_say_so(tiny_cache: MakeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = open_cache(tiny_cache(num_subjects=2))
    assert describe_uncompared(cache) == []
    monkeypatch.setattr(likeness, "MOST_COMPARED", 4)
    assert "in 4 pictures" in describe_uncompared(cache)[0] and "8 more" in describe_uncompared(cache)[0]
    cache = dataclasses.replace(cache, info=dataclasses.replace(cache.info, content_hash="another"))
    assert hash_faces(cache, "normal").rows == (0, 3, 6, 9)
