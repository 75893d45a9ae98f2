"""Short trainings of a very small model on a small cache."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import TINY_CLIP, VIEWS, random_text
from recipes import make_recipe

from shared.cache import Cache
from shared.runs import LOG_JSONL
from train.config import TowerConfig
from train.data.batch_transform import BatchTransform
from train.data.items import find_items
from train.data.prompts import mean_prompts
from train.model.facet import Facet, FacetConfig
from train.model.image_tower import build_tower
from train.options import Recipe
from train.training.loop import TrainingSet, train

TOWER = TowerConfig("tiny", "none", TINY_CLIP, 32, (0.5,) * 3, (0.25,) * 3, "", True)
TINY_RESNET = TINY_CLIP | {"vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16}}
RECIPE = make_recipe(
    classes=("anger", "happiness", "surprise"),
    modalities=("texture", "normal"),
    frames=1,
    epochs=3,
    batch_size=4,
    lr=3e-3,
    tower_lr=3e-3,
)
TRANSFORM = BatchTransform(("texture", "normal"), VIEWS, TOWER, torch.device("cpu"))

# Fields of a log line that measure time or memory; all others are the same when a training is repeated.
TIMING_FIELDS = ("samples_per_second", "wait_share", "mfu", "memory_bytes")


def make_model(recipe: Recipe = RECIPE) -> Facet:
    torch.manual_seed(recipe.seed)
    text = random_text(recipe.classes, 32, "tiny")
    config = FacetConfig(
        tower_dim=32,
        num_modalities=2,
        num_views=len(VIEWS),
        num_frames=recipe.frames,
        fusion=recipe.fusion,
        head=recipe.head,
        class_vectors=recipe.class_vectors,
        losses=recipe.loss_weights,
        tower_per_view=recipe.towers == "view",
        patch_channels=TINY_CLIP["vision_cfg"]["width"] if recipe.mtgf_tokens == "patches" else 0,
    )
    tower = build_tower(TINY_RESNET if recipe.model == "resnet" else TINY_CLIP)
    return Facet(tower, mean_prompts(text), text.logit_scale, config)


def make_training(cache: Cache, num: int | None = None) -> TrainingSet:
    items = find_items(cache, TRANSFORM.modalities)[:num]
    return TrainingSet(items, np.array([RECIPE.classes.index(item.class_name) for item in items]))


def run(folder: Path, cache: Cache, recipe: Recipe = RECIPE, num: int | None = None, **options: Any) -> Facet:
    folder.mkdir(exist_ok=True)
    model = make_model(recipe)
    train(folder, model, cache, make_training(cache, num), TRANSFORM, recipe, **{"checkpoint_every": 2, **options})
    return model


def read_log(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / LOG_JSONL).read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMING_FIELDS} for line in lines]


class StopAt(Facet):
    """Sends this process a real SIGTERM in the middle of a chosen step."""

    def stop_at(self, num_calls: int) -> None:
        self.remaining = num_calls

    def forward(self, batch: Any) -> Any:
        self.remaining -= 1
        if self.remaining == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().forward(batch)


def assert_same(wanted: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> None:
    assert set(wanted) == set(found)
    for name, value in wanted.items():
        assert torch.equal(value, found[name]), name
