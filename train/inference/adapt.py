"""Adapt an untrained or foreign image tower to a cache's images, without labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from tqdm import tqdm

from shared.cache import Cache
from train.data.batch_transform import BatchTransform
from train.model.facet import Facet
from train.tasks.item import Item

FEWEST_ITEMS = 32  # statistics of fewer faces would be those of a few people


@torch.no_grad()
def adapt_batch_norm(
    model: Facet, cache: Cache, items: Sequence[Item], transform: BatchTransform, num_frames: int, batch_size: int
) -> bool:
    """Estimate the tower's batch statistics anew, from a cache's images alone (AdaBN, Li et al. 2018, "Adaptive batch
    normalization for practical domain adaptation").

    Scans of another kind shift the features of every face alike, which a tower takes for an expression.

    Args:
        items: whose images are used; labels are not.
    Returns:
        Whether anything was adapted: the tower has batch norms, and there are at least FEWEST_ITEMS items.
    """
    norms = [module for module in model.tower.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms or len(items) < FEWEST_ITEMS:
        return False
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
        norm.train()
    # Spread over the cache, so that a batch does not show one person alone.
    num_batches = max(len(items) // max(batch_size, FEWEST_ITEMS), 1)
    batches = [items[first::num_batches] for first in range(num_batches)]
    bar = tqdm(total=len(items), desc="adapt", unit="sample", dynamic_ncols=True, leave=False, disable=None)
    with bar:
        for raw in transform.stream(cache, batches, num_frames):
            model.encode(transform.prepare(raw))
            bar.update(len(raw.items))
    model.eval()
    return True
