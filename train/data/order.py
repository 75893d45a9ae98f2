"""In which order items train: a function of (seed, epoch) alone, whatever reads them, on however many devices."""

from __future__ import annotations

import numpy as np

from shared.errors import FacetError


def epoch_order(num_items: int, seed: int, epoch: int, weights: np.ndarray | None = None) -> np.ndarray:
    """i64 (num_items,): the items of an epoch, in order. Every item once; with weights, drawn with replacement.

    Args:
        weights: (num_items,), not negative: how often an item is drawn, in proportion to the others.
    Raises:
        FacetError: no weight is above 0, or one is below.
    """
    random = np.random.default_rng([seed, epoch])
    if weights is None:
        return random.permutation(num_items)
    weights = np.asarray(weights, np.float64)
    total = weights.sum()
    if weights.shape != (num_items,) or not np.isfinite(total) or total <= 0 or (weights < 0).any():
        raise FacetError(f"weights of items: expected {num_items} numbers, none below 0, not all 0")
    # The trailing 1 keeps these draws apart from the permutations.
    drawn = np.random.default_rng([seed, epoch, 1]).random(num_items)
    edges = np.cumsum(weights)
    order = np.searchsorted(edges, drawn * edges[-1], side="right")  # an item of weight 0 has no room between its edges
    return np.minimum(order, int(np.flatnonzero(weights)[-1]))  # a product that was rounded up to the last edge


def balance_draws(labels: np.ndarray) -> np.ndarray:
    """f64 (n,): weights for `epoch_order` that make every class that occurs equally likely. labels: i64 (n,)."""
    _, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    weights: np.ndarray = 1.0 / counts[index]
    return weights


def epoch_batches(labels: np.ndarray, draw: str, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The batches of an epoch, each the places of its items. Any epoch's come at once: nothing before it is drawn.

    Args:
        labels: of the items, i64 (n,), looked at if draw is "balanced": classes equally likely, with replacement; else each
            item comes once.
    """
    weights = balance_draws(labels) if draw == "balanced" else None
    return split_batches(epoch_order(len(labels), seed, epoch, weights), batch_size)


def count_repeats(batches: list[np.ndarray]) -> list[np.ndarray]:
    """Of each draw of an epoch's batches, how many times its item was drawn before in the epoch: 0 where each comes once."""
    order = np.concatenate(batches)
    together = np.argsort(order, kind="stable")  # an item's draws side by side, the first one first
    place = np.arange(len(order))
    begins = np.append(True, np.diff(order[together]) != 0)
    repeats = np.empty(len(order), np.int64)
    repeats[together] = place - np.maximum.accumulate(np.where(begins, place, 0))
    return np.split(repeats, np.cumsum([len(batch) for batch in batches[:-1]]))


def split_batches(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Consecutive batches of nearly equal size, none above batch_size: no tiny last batch to spoil batch statistics."""
    return np.array_split(order, -(-len(order) // batch_size))


def rank_part(batch: np.ndarray, rank: int, num_ranks: int) -> np.ndarray:
    """What one of several devices takes of a batch: the parts of all, one after another, are the batch.

    Sizes differ by one at most; a batch of fewer items than devices leaves some without any.
    """
    return np.array_split(batch, num_ranks)[rank]
