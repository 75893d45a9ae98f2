"""The order of training items: every one once, the same everywhere, or as often as its weight says."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import FacetError
from train.data.order import balance_draws, count_repeats, epoch_batches, epoch_order, rank_part, split_batches
from train.options import Options
from train.resolve import check_options


@given(num=st.integers(1, 300), batch_size=st.integers(1, 64), seed=st.integers(0, 99), epoch=st.integers(0, 9))
def test_every_sample_once_an_epoch_in_even_batches(num: int, batch_size: int, seed: int, epoch: int) -> None:
    batches = split_batches(epoch_order(num, seed, epoch), batch_size)
    assert sorted(np.concatenate(batches).tolist()) == list(range(num))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert np.array_equal(epoch_order(num, seed, epoch), epoch_order(num, seed, epoch))


def test_order_changes_with_epoch_and_seed() -> None:
    for weights in (None, np.arange(1.0, 51)):
        orders = {tuple(epoch_order(50, seed, epoch, weights)) for seed in range(3) for epoch in range(3)}
        assert len(orders) == 9


@given(num=st.integers(0, 70), num_ranks=st.integers(1, 9))
def test_the_parts_of_all_ranks_are_the_batch(num: int, num_ranks: int) -> None:
    batch = epoch_order(num, 0, 0)
    parts = [rank_part(batch, rank, num_ranks) for rank in range(num_ranks)]
    assert np.array_equal(np.concatenate(parts), batch)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(weights=st.lists(st.sampled_from([0.0, 1e-9, 0.5, 1.0, 7.0]), min_size=1, max_size=40), epoch=st.integers(0, 9))
def test_what_weighs_nothing_is_never_drawn(weights: list[float], epoch: int) -> None:
    if not any(weights):
        with pytest.raises(FacetError, match="not all 0"):
            epoch_order(len(weights), 0, epoch, np.array(weights))
        return
    order = epoch_order(len(weights), 0, epoch, np.array(weights))
    assert len(order) == len(weights)
    assert all(weights[place] > 0 for place in order)


@given(num=st.integers(1, 30), batch_size=st.integers(1, 20), epoch=st.integers(0, 9))
def test_repeats_are_the_times_an_item_came_before(num: int, batch_size: int, epoch: int) -> None:
    batches = split_batches(epoch_order(num, 0, epoch, np.arange(1.0, num + 1) ** 2), batch_size)
    came: Counter[int] = Counter()
    for batch, repeats in zip(batches, count_repeats(batches), strict=True):
        for place, repeat in zip(batch.tolist(), repeats.tolist(), strict=True):
            assert repeat == came[place]
            came[place] += 1


def test_items_are_drawn_in_proportion_to_their_weights() -> None:
    weights = np.array([1.0, 2.0, 5.0, 0.0] * 25)
    counts = np.zeros(100)
    for epoch in range(200):
        counts += np.bincount(epoch_order(100, 3, epoch, weights), minlength=100)
    expected = 200 * 100 * weights / weights.sum()
    spread = np.sqrt(expected * (1 - weights / weights.sum()))  # of a binomial count
    assert (abs(counts - expected) <= 5 * spread).all()


def test_balanced_draws_show_every_class_equally_often() -> None:
    labels = np.repeat([0, 1, 3], [900, 90, 10])
    drawn = np.concatenate([labels[np.concatenate(epoch_batches(labels, "balanced", 32, 0, e))] for e in range(10)])
    assert len(drawn) == 10_000
    shares = np.bincount(drawn, minlength=4) / len(drawn)
    assert shares == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3], abs=5 * np.sqrt(2 / 9 / len(drawn)))
    assert balance_draws(labels)[[0, 900, 990]] == pytest.approx([1 / 900, 1 / 90, 1 / 10])
    each = np.concatenate(epoch_batches(labels, "each", 32, 0, 0))
    assert sorted(each.tolist()) == list(range(1000))


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [1.0, float("nan")], [0.0, 0.0]])
def test_weights_that_cannot_be_meant_are_refused(weights: list[float]) -> None:
    with pytest.raises(FacetError, match="weights of items"):
        epoch_order(2, 0, 0, np.array(weights))


def test_several_classes_at_once_cannot_be_balanced_by_drawing() -> None:
    with pytest.raises(FacetError, match="--sampler balanced"):
        check_options(Options(task="aus", sampler="balanced"))
