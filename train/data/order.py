"""The order of items in training: a function of (seed, epoch) alone, for any number of devices."""

from __future__ import annotations

import numpy as np

from shared.errors import FacetError


def epoch_order(num_items: int, seed: int, epoch: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the item indices of an epoch in order, i64 (num_items,): each once; with weights, sampled with replacement.

    Args:
        weights: (num_items,), not negative: relative frequency of each item.
    Raises:
        FacetError: no weight is above 0, or one is negative.
    """
    random = np.random.default_rng([seed, epoch])
    if weights is None:
        return random.permutation(num_items)
    weights = np.asarray(weights, np.float64)
    total = weights.sum()
    if weights.shape != (num_items,) or not np.isfinite(total) or total <= 0 or (weights < 0).any():
        raise FacetError(f"weights of items: expected {num_items} numbers, none below 0, not all 0")
    # The trailing 1 makes these numbers independent of the permutations.
    drawn = np.random.default_rng([seed, epoch, 1]).random(num_items)
    edges = np.cumsum(weights)
    order = np.searchsorted(edges, drawn * edges[-1], side="right")  # an item of weight 0 has an empty interval
    return np.minimum(order, int(np.flatnonzero(weights)[-1]))  # in case a product was rounded up to the last edge


def balance_draws(labels: np.ndarray) -> np.ndarray:
    """Return weights f64 (n,) for `epoch_order` that make every class in labels i64 (n,) equally likely."""
    _, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    weights: np.ndarray = 1.0 / counts[index]
    return weights


def epoch_batches(labels: np.ndarray, draw: str, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the batches of an epoch as arrays of item indices. No earlier epoch has to be computed.

    Args:
        labels: of the items, i64 (n,), used by the sampler "balanced": classes equally likely, with replacement. Any
            other sampler takes each item once.
    """
    weights = balance_draws(labels) if draw == "balanced" else None
    return split_batches(epoch_order(len(labels), seed, epoch, weights), batch_size)


def count_repeats(batches: list[np.ndarray]) -> list[np.ndarray]:
    """Return for each sample of an epoch's batches how often its item was already sampled in the epoch."""
    order = np.concatenate(batches)
    together = np.argsort(order, kind="stable")  # samples of one item are adjacent, in order
    position = np.arange(len(order))
    begins = np.append(True, np.diff(order[together]) != 0)
    repeats = np.empty(len(order), np.int64)
    repeats[together] = position - np.maximum.accumulate(np.where(begins, position, 0))
    return np.split(repeats, np.cumsum([len(batch) for batch in batches[:-1]]))


def split_batches(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Split into consecutive batches of nearly equal size, at most batch_size, without a tiny last batch."""
    return np.array_split(order, -(-len(order) // batch_size))


def rank_part(batch: np.ndarray, rank: int, num_ranks: int) -> np.ndarray:
    """Return the slice of a batch for one of num_ranks processes. Sizes differ by at most one."""
    return np.array_split(batch, num_ranks)[rank]
