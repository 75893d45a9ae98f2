"""Batch statistics of a tower, estimated anew on a cache's images."""

from __future__ import annotations

import numpy as np
import torch
from conftest import VIEWS, MakeCache
from torch import nn

from shared.cache import open_cache
from train.config import TowerConfig
from train.data.batch_transform import BatchTransform
from train.data.items import find_items
from train.inference.adapt import FEWEST_ITEMS, adapt_batch_norm
from train.model.facet import Facet, FacetConfig

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
TOWER = TowerConfig("x", "none", {}, 32, MEAN, STD, "", True)
TRANSFORM = BatchTransform(("normal",), VIEWS, TOWER, torch.device("cpu"))


def make_model(first: nn.Module) -> Facet:
    tower = nn.Sequential(first, nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return Facet(tower, np.eye(3, 12, dtype=np.float32), 10.0, FacetConfig(tower_dim=12, num_modalities=1))


def test_the_statistics_are_those_of_all_images(tiny_cache: MakeCache) -> None:
    cache = open_cache(tiny_cache(num_subjects=8, scans_per_class=2))
    items = find_items(cache, ["normal"])
    norm = nn.BatchNorm2d(3)
    assert len(items) >= FEWEST_ITEMS
    assert adapt_batch_norm(make_model(norm), cache, items, TRANSFORM, 1, len(items))
    stored = cache.arrays.read("normal", [item.rows[0] for item in items]).reshape(-1, 3)
    pixels = (stored / 255 - np.array(MEAN)) / np.array(STD)
    assert norm.running_mean is not None and norm.running_var is not None
    np.testing.assert_allclose(norm.running_mean.numpy(), pixels.mean(0), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(norm.running_var.numpy(), pixels.var(0), rtol=1e-2)
    assert not norm.training


def test_nothing_changes_without_batch_norm_or_with_few_faces(tiny_cache: MakeCache) -> None:
    cache = open_cache(tiny_cache(num_subjects=8, scans_per_class=2))
    items = find_items(cache, ["normal"])
    norm = nn.BatchNorm2d(3)
    assert not adapt_batch_norm(make_model(norm), cache, items[: FEWEST_ITEMS - 1], TRANSFORM, 1, 8)
    assert norm.running_mean is not None and (norm.running_mean == 0).all() and norm.momentum == 0.1
    assert not adapt_batch_norm(make_model(nn.Identity()), cache, items, TRANSFORM, 1, 8)
