"""Training: it learns, it goes on bit for bit where it stopped, and it says when it breaks."""

from __future__ import annotations

import math
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import MakeCache
from tiny_training import RECIPE, TRANSFORM, StopAt, assert_same, make_model, make_training, read_log, run

from shared.cache import Cache, open_cache
from shared.errors import FacetError
from train.model.facet import Facet
from train.model.tuning import tune_tower
from train.options import Recipe
from train.training.checkpoint import read_checkpoint
from train.training.loop import Stopped, train


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


@pytest.mark.parametrize("fusion", ["mean", "max", "concat", "late"])
def test_the_obvious_networks_overfit_eight_samples(tiny_cache: MakeCache, tmp_path: Path, fusion: str) -> None:
    cache = open_cache(tiny_cache(num_subjects=2, scans_per_class=2))
    plain = replace(RECIPE, fusion=fusion, head="linear", lambda_con=0.0, lambda_vt=0.0)
    run(tmp_path / "run", cache, replace(plain, epochs=60, batch_size=8, augment="none"), num=8, checkpoint_every=1000)
    last = read_log(tmp_path / "run")[-1]
    assert last["accuracy"] == 1
    assert last["ce"] < 0.2


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "averaged, in parts": {"ema": 0.9, "gradient_accumulation": 3, "layer_decay": 0.5},
    "low rank": {"tune": "lora-2", "ema": 0.5},
    "last block": {"tune": "last-1", "gradient_checkpointing": True},
    "batch statistics": {"model": "resnet", "ema": 0.9},
    "a tower a view": {"model": "resnet", "towers": "view", "fusion": "late", "head": "linear"},
    "extra terms": {
        "fusion": "concat",
        "class_vectors": "learned",
        "extra_losses": ("margin=1", "cross-correlation=1"),
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_interrupted_and_resumed_equals_uninterrupted(tiny_cache: MakeCache, tmp_path: Path, variant: str) -> None:
    """Bit for bit, stopped in the middle of an epoch and right after one; weights, optimiser, average and log."""
    cache = open_cache(tiny_cache(num_subjects=3))  # 18 samples, 5 steps an epoch
    recipe = replace(RECIPE, **VARIANTS[variant])
    whole = run(tmp_path / "whole", cache, recipe)
    for stop_at in (3, 10):
        with pytest.raises(Stopped) as stopped:
            run_and_stop(tmp_path / "parts", cache, stop_at, recipe)
        assert (stopped.value.step, stopped.value.number) == (stop_at, signal.SIGTERM)
    resumed = run(tmp_path / "parts", cache, recipe)
    assert_same(whole.state_dict(), resumed.state_dict())
    a, b = read_checkpoint(tmp_path / "whole"), read_checkpoint(tmp_path / "parts")
    assert a is not None
    assert b is not None
    assert a.step == b.step == 15
    assert_same(a.model, b.model)
    assert_same(a.ema or {}, b.ema or {})
    assert bool(a.ema) == (recipe.ema > 0)
    for key, state in a.optimizer["state"].items():
        assert_same(state, b.optimizer["state"][key])
    assert read_log(tmp_path / "whole") == read_log(tmp_path / "parts")
    assert [line["step"] for line in read_log(tmp_path / "whole")] == [10, 15]
    again = run(tmp_path / "parts", cache, recipe)  # killed after the last checkpoint, before its weights were written
    assert_same(whole.state_dict(), again.state_dict())


def test_what_is_kept_is_the_average_and_low_rank_changes_merged(tiny_cache: MakeCache, tmp_path: Path) -> None:
    """The moving average over steps, computed here from every step's checkpoint."""
    cache = open_cache(tiny_cache(num_subjects=2))
    recipe = replace(RECIPE, epochs=1, ema=0.3, tune="lora-2")
    seen: list[dict[str, torch.Tensor]] = []

    def note(folder: Path, step: int, model: Facet, *rest: Any, **options: Any) -> None:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})

    start = make_model(recipe)
    tune_tower(start, recipe.tune)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.training.loop.write_checkpoint", note)
        model = run(tmp_path / "run", cache, recipe, checkpoint_every=1)
    assert len(seen) == 3
    wanted = {name: value.detach().clone() for name, value in start.state_dict().items()}
    for step, weights in enumerate(seen):
        decay = min(0.3, (1 + step) / (10 + step))
        wanted = {name: value + (1 - decay) * (weights[name] - value) for name, value in wanted.items()}
    assert set(model.state_dict()) == set(make_model().state_dict())
    torch.testing.assert_close(model.projection.weight.detach(), wanted["projection.weight"])
    name = "transformer.resblocks.0.attn.in_proj_weight"
    low_rank = "tower.transformer.resblocks.0.attn.parametrizations.in_proj_weight."
    merged = wanted[f"{low_rank}original"] + wanted[f"{low_rank}0.b"] @ wanted[f"{low_rank}0.a"]
    torch.testing.assert_close(model.tower.state_dict()[name], merged)
    assert not torch.equal(merged, wanted[f"{low_rank}original"])


def test_parts_train_as_the_whole_batch_does(tiny_cache: MakeCache, tmp_path: Path) -> None:
    cache = open_cache(tiny_cache(num_subjects=3))
    for name, accumulate in (("whole", 1), ("parts", 2)):
        run(tmp_path / name, cache, replace(RECIPE, lambda_con=0.0, gradient_accumulation=accumulate))
    for a, b in zip(read_log(tmp_path / "whole"), read_log(tmp_path / "parts"), strict=True):
        assert a == pytest.approx(b, rel=1e-3)


def run_and_stop(folder: Path, cache: Cache, step: int, recipe: Recipe) -> None:
    folder.mkdir(exist_ok=True)
    model = make_model(recipe)
    model.__class__ = StopAt
    assert isinstance(model, StopAt)
    found = read_checkpoint(folder)
    model.stop_at((step - (found.step if found else 0)) * recipe.gradient_accumulation)
    train(folder, model, cache, make_training(cache), TRANSFORM, recipe, checkpoint_every=1000)


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
    with pytest.raises(FacetError, match=r"failed at step 0 \(ce is nan.*lower --lr"):
        train(tmp_path, model, cache, make_training(cache), TRANSFORM, RECIPE, checkpoint_every=1)
    assert read_checkpoint(tmp_path) is None  # broken weights are never written
