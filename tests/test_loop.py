"""Training: it learns, it goes on bit for bit where it stopped, and it says when it breaks."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
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
from train.items import find_items
from train.loop import Stopped, TrainingSet, Watch, train
from train.optimizer import build_optimizer, rate_at
from train.prepare import Preparer
from train.progress import LOG_JSONL, TIMING_FIELDS, open_progress
from train.prompts import mean_prompts
from train.step import StepResult
from train.tuning import tune_tower

TOWER = TowerConfig("tiny", "none", TINY_CLIP, 32, (0.5,) * 3, (0.25,) * 3, "", True)
TINY_RESNET = TINY_CLIP | {"vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16}}
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
        build_tower(TINY_RESNET if recipe.model == "resnet" else TINY_CLIP),
        32,
        mean_prompts(text),
        text.logit_scale,
        num_modalities=2,
        num_frames=recipe.frames,
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


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "averaged, in parts": {"ema": 0.9, "accumulate": 3, "layer_decay": 0.5},
    "low rank": {"tune": "lora-2", "ema": 0.5},
    "last block": {"tune": "last-1", "checkpoint_activations": True},
    "batch statistics": {"model": "resnet", "ema": 0.9},
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


def assert_same(wanted: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> None:
    assert set(wanted) == set(found)
    for name, value in wanted.items():
        assert torch.equal(value, found[name]), name


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
        patch.setattr("train.loop.write_checkpoint", note)
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
        run(tmp_path / name, cache, replace(RECIPE, lambda_con=0.0, accumulate=accumulate))
    for a, b in zip(read_log(tmp_path / "whole"), read_log(tmp_path / "parts"), strict=True):
        assert a == pytest.approx(b, rel=1e-3)


def test_every_line_of_the_log_says_how_fast_it_went(tiny_cache: MakeCache, tmp_path: Path) -> None:
    cache = open_cache(tiny_cache(num_subjects=3))
    started = time.perf_counter()
    run(tmp_path / "run", cache)
    seconds = time.perf_counter() - started
    lines = [json.loads(line) for line in (tmp_path / "run" / LOG_JSONL).read_text().splitlines()]
    assert len(lines) == 2
    for line in lines:
        assert {
            "step",
            "epoch",
            "ce",
            "con",
            "vt",
            "loss",
            "grad_norm",
            "accuracy",
            "face_cosine",
            "scale",
            "lr",
        } <= set(line)
        assert line["samples_per_second"] > 36 / seconds  # 36 samples before the first line took a part of that time
        assert 0 < line["wait_share"] < 1
        assert 1e8 < line["memory_bytes"] < 1e11
        assert "mfu" not in line  # the peak of a CPU is not known


def test_time_spent_waiting_for_batches_is_counted(tmp_path: Path) -> None:
    def slow() -> Iterator[int]:
        for number in range(3):
            time.sleep(0.02)
            yield number

    result = StepResult({"loss": torch.tensor(1.0)}, torch.zeros(1), torch.zeros(1))
    with open_progress(tmp_path, 0, 3, CPU) as progress:
        progress.flops_per_sample, progress.peak_flops = 1e6, 1e9
        for number in progress.waiting_for(slow()):
            time.sleep(0.02)
            progress.add(number, result, 5)
        waited, seconds = progress.waited_seconds(), time.perf_counter() - progress.started
        assert 0.06 <= waited <= seconds - 0.06
        progress.write({"step": 3, **progress.read(tmp_path, "--lr")})
    line = json.loads((tmp_path / LOG_JSONL).read_text())
    assert line["wait_share"] == pytest.approx(waited / seconds, rel=0.2)
    assert line["samples_per_second"] == pytest.approx(15 / seconds, rel=0.2)
    assert line["mfu"] == pytest.approx(line["samples_per_second"] * 1e6 / 1e9)


def test_tensorboard_shows_what_the_log_says(tiny_cache: MakeCache, tmp_path: Path) -> None:
    """Read back with TensorBoard's own reader; after an interruption each step is there once."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    cache, folder = open_cache(tiny_cache(num_subjects=3)), tmp_path / "run"
    watch = Watch(tensorboard=True)
    run(folder, cache, replace(RECIPE, epochs=2), watch=watch)
    run(folder, cache, replace(RECIPE, epochs=4), watch=watch)  # goes on
    events = accumulator.EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    lines = read_log(folder)
    assert [line["step"] for line in lines] == [10, 20]
    for name in ("ce", "con", "vt", "loss", "lr", "accuracy"):
        shown = [(event.step, event.value) for event in events.Scalars(name)]
        assert shown == [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in lines]
    assert {"samples_per_second", "wait_share", "memory_bytes"} <= set(events.Tags()["scalars"])


def test_without_tensorboard_one_line_says_what_to_install(tiny_cache: MakeCache, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch.utils.tensorboard", None)
        with pytest.raises(FacetError, match="pip install tensorboard"):
            run(tmp_path / "run", open_cache(tiny_cache()), watch=Watch(tensorboard=True))


@pytest.mark.parametrize(("num_steps", "last"), [(2, 5), (50, 6)])
def test_profile_records_the_steps_asked_for(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str], num_steps: int, last: int
) -> None:
    cache = open_cache(tiny_cache(num_subjects=2))
    run(tmp_path / "run", cache, replace(RECIPE, epochs=2), watch=Watch(profile_steps=num_steps))  # 6 steps
    path = tmp_path / "run" / "profile" / f"steps-4-{last}.json"
    assert f"{path}; open it at https://ui.perfetto.dev" in capsys.readouterr().out
    names = [event["name"] for event in json.loads(path.read_text())["traceEvents"] if event.get("ph") == "X"]
    assert sum(name.startswith("ProfilerStep#") for name in names) in (last - 3, last - 2)  # a last one may be begun
    assert sum("_fused_adamw_" in name for name in names) >= last - 3


class StopAt(Facet):
    """Sends this process a real SIGTERM in the middle of a chosen step."""

    def stop_at(self, num_calls: int) -> None:
        self.remaining = num_calls

    def forward(self, batch: Any) -> Any:
        self.remaining -= 1
        if self.remaining == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().forward(batch)


def run_and_stop(folder: Path, cache: Cache, step: int, recipe: Recipe) -> None:
    folder.mkdir(exist_ok=True)
    model = make_model(recipe)
    model.__class__ = StopAt
    assert isinstance(model, StopAt)
    found = read_checkpoint(folder)
    model.stop_at((step - (found.step if found else 0)) * recipe.accumulate)
    train(folder, model, cache, make_training(cache), PREPARER, recipe, checkpoint_every=1000)


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
