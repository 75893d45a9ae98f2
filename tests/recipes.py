"""Resolved settings for tests that need no cache to resolve them from."""

from __future__ import annotations

from typing import Any

from train.options import Recipe

RESOLVED: dict[str, Any] = {
    "protocol": "kfold", "folds": 2, "rounds": 1, "fold": 0, "fold_seed": 0, "task": "classes", "classes": ("anger", "fear"),
    "modalities": ("normal",), "views": ("0",), "train_views": 9, "frames": 1, "model": "tiny", "pretrained": "none",
    "tower_lr": 1e-3,
}  # fmt: skip


def make_recipe(**changes: Any) -> Recipe:
    """Make a recipe of small values and the defaults, with some changes."""
    return Recipe(**RESOLVED | changes)
