"""Training: it learns, it goes on bit for bit where it stopped, and it says when it breaks."""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_CLIP, VIEWS, MakeCache, random_text

from shared.cache import Cache, open_cache
from shared.errors import FacetError
from train.checkpoint import read_checkpoint
from train.config import Recipe, TowerConfig
from train.encoder import build_tower
from train.facet import Facet
from train.fit import mean_prompts
from train.items import find_items
from train.loop import Stopped, TrainingSet, train
from train.optimizer import build_optimizer, rate_at
from train.prepare import Preparer
from train.progress import LOG_JSONL, TIMING_FIELDS

TOWER = TowerConfig("tiny", "none", TINY_CLIP, 32, (0.5,) * 3, (0.25,) * 3, "", True)
RECIPE = Recipe(
    classes=("anger", "happiness", "surprise"),
    modalities=("texture", "normal"),
    frames=1,
    epochs=3,
    batch_size=4,
    lr=3e-3,
    tower_lr=3e-3,
)
PREPARER = Preparer(("texture", "normal"), VIEWS, TOWER, torch.device("cpu"))
CPU = PREPARER.device


def make_model(recipe: Recipe = RECIPE) -> Facet:
    torch.manual_seed(recipe.seed)
    text = random_text(recipe.classes, 32, "tiny")
    return Facet(
        build_tower(TINY_CLIP), 32, mean_prompts(text), text.logit_scale, num_modalities=2, num_frames=recipe.frames
    )


def make_training(cache: Cache, num: int | None = None) -> TrainingSet:
    items = find_items(cache, PREPARER.modalities)[:num]
    return TrainingSet(items, np.array([RECIPE.classes.index(item.class_name) for item in items]))


def run(folder: Path, cache: Cache, recipe: Recipe = RECIPE, num: int | None = None, **options: Any) -> Facet:
    folder.mkdir(exist_ok=True)
    model = make_model(recipe)
    train(folder, model, cache, make_training(cache, num), PREPARER, recipe, **{"checkpoint_every": 2, **options})
    return model


def read_log(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / LOG_JSONL).read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMING_FIELDS} for line in lines]


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
def test_overfits_eight_samples(tiny_cache: MakeCache, tmp_path: Path, store: str) -> None:
    cache = open_cache(tiny_cache(store=store, num_subjects=2, scans_per_class=2))
    recipe = replace(RECIPE, epochs=60, batch_size=8, augment="none")
    model = run(tmp_path / "run", cache, recipe, num=8, checkpoint_every=1000)
    last = read_log(tmp_path / "run")[-1]
    assert last["step"] == 60
    assert last["accuracy"] == 1
    assert last["ce"] < 0.05
    assert last["face_cosine"] < 0.9  # not collapsed
    assert model.training


def test_overfits_eight_sequences(tiny_cache: MakeCache, tmp_path: Path) -> None:
    cache = open_cache(tiny_cache(num_frames=5, num_subjects=3, scans_per_class=1))
    recipe = replace(RECIPE, epochs=60, batch_size=8, augment="none", frames=3)
    run(tmp_path / "run", cache, recipe, num=8, checkpoint_every=1000)
    assert read_log(tmp_path / "run")[-1]["ce"] < 0.05


def test_interrupted_and_resumed_equals_uninterrupted(tiny_cache: MakeCache, tmp_path: Path) -> None:
    """Bit for bit, stopped in the middle of an epoch and right after one; weights, optimiser and log."""
    cache = open_cache(tiny_cache(num_subjects=3))  # 18 samples, 5 steps an epoch
    whole = run(tmp_path / "whole", cache)
    for stop_at in (3, 10):
        with pytest.raises(Stopped) as stopped:
            run_and_stop(tmp_path / "parts", cache, stop_at)
        assert (stopped.value.step, stopped.value.number) == (stop_at, signal.SIGTERM)
    resumed = run(tmp_path / "parts", cache)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    a, b = read_checkpoint(tmp_path / "whole"), read_checkpoint(tmp_path / "parts")
    assert a is not None
    assert b is not None
    assert a.step == b.step == 15
    for key, state in a.optimizer["state"].items():
        for name, value in state.items():
            assert torch.equal(value, b.optimizer["state"][key][name])
    assert read_log(tmp_path / "whole") == read_log(tmp_path / "parts")
    assert [line["step"] for line in read_log(tmp_path / "whole")] == [10, 15]


class StopAt(Facet):
    """Sends this process a real SIGTERM in the middle of a chosen step."""

    def stop_at(self, step: int, first: int) -> None:
        self.remaining = step - first

    def forward(self, batch: Any) -> Any:
        self.remaining -= 1
        if self.remaining == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().forward(batch)


def run_and_stop(folder: Path, cache: Cache, step: int) -> None:
    folder.mkdir(exist_ok=True)
    model = make_model()
    model.__class__ = StopAt
    assert isinstance(model, StopAt)
    found = read_checkpoint(folder)
    model.stop_at(step, found.step if found else 0)
    train(folder, model, cache, make_training(cache), PREPARER, RECIPE, checkpoint_every=1000)


def test_other_seeds_train_otherwise(tiny_cache: MakeCache, tmp_path: Path) -> None:
    cache = open_cache(tiny_cache(num_subjects=2))
    losses = []
    for name, recipe in (("a", RECIPE), ("b", RECIPE), ("c", replace(RECIPE, seed=1))):
        run(tmp_path / name, cache, replace(recipe, epochs=1))
        losses.append(read_log(tmp_path / name)[-1]["loss"])
    assert losses[0] == losses[1] != losses[2]


def test_a_loss_that_is_not_finite_stops_with_step_and_cause(tiny_cache: MakeCache, tmp_path: Path) -> None:
    cache = open_cache(tiny_cache(num_subjects=2))
    model = make_model()
    model.projection.weight.data[0, 0] = math.nan
    with pytest.raises(FacetError, match=r"broke at step 0 \(ce is nan.*lower --lr"):
        train(tmp_path, model, cache, make_training(cache), PREPARER, RECIPE, checkpoint_every=1)
    assert read_checkpoint(tmp_path) is None  # broken weights are never written


def test_what_decays_and_at_which_rate() -> None:
    model = make_model(replace(RECIPE, frames=2))
    optimizer = build_optimizer(model, replace(RECIPE, lr=1.0, tower_lr=0.5, weight_decay=0.1))
    names = {id(p): name for name, p in model.named_parameters()}
    seen = {names[id(p)]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    assert set(seen) == set(names.values())
    for name, (rate, decay) in seen.items():
        assert rate == (0.5 if name.startswith("tower.") else 1.0), name
        if name.endswith("bias") or "norm" in name or ".ln_" in name or name in ("log_scale", "fusion.modality"):
            assert decay == 0, name
    assert seen["projection.weight"] == (1.0, 0.1)
    assert seen["tower.conv1.weight"] == (0.5, 0.1)
    assert seen["tower.positional_embedding"] == (0.5, 0.0)


def test_learning_rate_rises_then_falls_to_zero() -> None:
    rates = [rate_at(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert rates[10] == 1
    assert rates[55] == pytest.approx(0.5)
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert 0 < rates[-1] < 1e-3
    assert rate_at(0, 1, 0.0) == 1
    assert all(0 < rate_at(s, 3, 1.0) <= 1 for s in range(3))
