"""Approximate rank pooling: weights and pixels are those of its definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import MakeCache
from hypothesis import given
from hypothesis import strategies as st

from preprocess.build.dynamic import pool_frames, rank_pooling_weights
from shared.cache import Cache, open_cache
from shared.modalities import MODALITIES
from shared.schema import ARRAYS, SHARD_ROWS
from shared.store.storage import STORES, encode_shard, write_file


def pool_by_definition(frames: np.ndarray) -> np.ndarray:
    """Σ over all pairs q > t of V_q − V_t, V_t the mean of frames 1…t (Bilen et al. 2016, sections 2 and 3)."""
    num = len(frames)
    means = [frames[: t + 1].mean(0) for t in range(num)]
    pairs = [means[q] - means[t] for t in range(num) for q in range(t + 1, num)]
    return np.sum(pairs, axis=0)


def weights_by_definition(num_frames: int) -> np.ndarray:
    return pool_by_definition(np.eye(num_frames))


def make_sequences(tiny_cache: MakeCache, **options: object) -> Path:
    return tiny_cache(**{"num_subjects": 2, "num_frames": 5, "size_px": 16, "modalities": MODALITIES, **options})


@pytest.mark.parametrize("num_frames", [2, 3, 4, 10, 61])
def test_weights_are_the_definitions(num_frames: int) -> None:
    weights = rank_pooling_weights(num_frames)
    wanted = weights_by_definition(num_frames)
    assert weights == pytest.approx(wanted / wanted[wanted > 0].sum(), abs=1e-12)


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=200))
def test_weights_cancel_what_is_still_and_grow_with_what_grows(steps: list[float]) -> None:
    weights = rank_pooling_weights(len(steps) + 1)
    assert abs(weights.sum()) < 1e-9
    assert weights[weights > 0].sum() == pytest.approx(1)
    signal = np.cumsum([0.0, *steps])
    assert weights @ signal > 0
    assert weights @ -signal < 0
    assert weights[0] < 0


def test_one_frame_cannot_be_ranked() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        rank_pooling_weights(1)


def fill_randomly(cache: Cache, seed: int) -> None:
    """Any values instead of a cache's images, with holes of their own in every frame."""
    rng = np.random.default_rng(seed)
    for shard in range(cache.info.num_shards):
        num_rows = min(SHARD_ROWS, cache.info.num_samples - shard * SHARD_ROWS)
        arrays: dict[str, np.ndarray] = {"scan_to_face": np.zeros((num_rows, 4, 4), np.float32)}
        for modality in MODALITIES:
            shape, dtype = (num_rows, *cache.info.arrays()[modality][1:]), np.dtype(ARRAYS[modality].dtype)
            images = rng.integers(0, np.iinfo(dtype).max, shape, endpoint=True).astype(dtype)
            images[rng.random(shape[:4]) < 0.02] = 0
            arrays[modality] = images
        for name, data in encode_shard(cache.info, shard, arrays, {}).items():
            write_file(cache.path / name, data)


@pytest.mark.parametrize("num_frames", [2, 5, 40])  # 40: several batches of frames
@pytest.mark.parametrize("store", STORES)
def test_pixels_are_the_definitions(store: str, num_frames: int, tiny_cache: MakeCache) -> None:
    path = make_sequences(tiny_cache, num_subjects=1, scans_per_class=1, num_frames=num_frames, store=store)
    cache = open_cache(path)
    fill_randomly(cache, num_frames)
    rows = list(range(num_frames, 2 * num_frames))
    scale = weights_by_definition(num_frames)
    scale = scale[scale > 0].sum()
    for modality in MODALITIES:
        frames = cache.arrays.read(modality, rows).astype(np.float64)
        shown = (frames > 0 if modality == "depth" else frames.any(-1)).all(0)
        assert 0.2 < shown.mean() < 0.97
        change = pool_by_definition(frames) / scale
        exact = np.clip(change + 32768, 1, 65535) if modality == "depth" else np.clip(128 + 2 * change, 1, 255)
        found = pool_frames(cache, modality, rows)
        assert found.dtype == ARRAYS[modality].dtype
        assert found.shape == exact.shape
        assert (found[~shown] == 0).all()
        assert np.abs(found[shown] - exact[shown]).max() <= 0.5 + 1e-6
        assert found[shown].min() >= 1


def test_frames_in_reverse_give_another_image(tiny_cache: MakeCache) -> None:
    """What gets brighter is above the middle, and below it when time runs backward."""
    cache = open_cache(make_sequences(tiny_cache, num_subjects=1, scans_per_class=1, modalities=("texture",)))
    brighter = np.full(cache.info.arrays()["texture"], 100, np.uint8)
    brighter[:5, :, :8] += np.uint8(10) * np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1, 1)
    arrays: dict[str, np.ndarray] = {"texture": brighter, "scan_to_face": np.zeros((len(brighter), 4, 4), np.float32)}
    for name, data in encode_shard(cache.info, 0, arrays, {}).items():
        write_file(cache.path / name, data)
    forward, backward = (pool_frames(cache, "texture", rows) for rows in (range(5), range(5)[::-1]))
    assert (forward[:, :8] > 128 + 20).all() and (backward[:, :8] < 128 - 20).all()
    assert (forward[:, 8:] == 128).all() and (backward[:, 8:] == 128).all()
