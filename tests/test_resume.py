"""Training that was stopped, or killed at any moment, ends with what an uninterrupted one ends with, bit for bit."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import VIEWS, MakeCache
from test_train_cli import call
from tiny_training import RECIPE, TOWER, TRANSFORM, StopAt, assert_same, make_model, make_training, read_log
from train_process import start

from shared.cache import Cache, open_cache
from train.data.batch_transform import BatchTransform
from train.data.embeddings import read_embeddings
from train.data.preload import preload_images
from train.model.facet import Facet
from train.model.image_tower import load_tower
from train.options import Recipe
from train.training.build_embeddings import build_embeddings
from train.training.checkpoint import find_checkpoints, read_checkpoint
from train.training.loop import Stopped, train

CPU = torch.device("cpu")


def finish(folder: Path, cache: Cache, recipe: Recipe, transform: BatchTransform, stops: Sequence[int] = ()) -> Facet:
    """Trains to the end, stopped after some steps and begun again."""
    folder.mkdir(exist_ok=True)
    training = make_training(cache)
    done = 0
    for stop in (*stops, 0):
        model = make_model(recipe)
        if stop:
            model.__class__ = StopAt
            assert isinstance(model, StopAt)
            model.stop_at(stop - done)
            done = stop
            with pytest.raises(Stopped):
                train(folder, model, cache, training, transform, recipe, checkpoint_every=1000)
        else:
            train(folder, model, cache, training, transform, recipe, checkpoint_every=1000)
    return model


def test_a_sample_drawn_again_is_seen_otherwise(tiny_cache: MakeCache, tmp_path: Path) -> None:
    """Of two draws within an epoch neither the frames nor the changes are the same; one draw is the same after a stop."""
    cache = open_cache(tiny_cache(num_frames=6, num_subjects=3, scans_per_class=1))
    recipe = replace(RECIPE, frames=2, epochs=2, sampler="balanced")
    seen: list[list[tuple[int, int, bytes, bytes]]] = []

    class Seen(BatchTransform):
        def prepare(self, raw: Any, changes: Any = None, chosen: Any = None) -> Any:
            pixels = raw.images["normal"]
            for i, item in enumerate(raw.items):
                seen[-1].append((item.index, item.repeat, pixels[i].tobytes(), changes.table[i].numpy().tobytes()))
            return super().prepare(raw, changes, chosen)

    transform = Seen(TRANSFORM.modalities, VIEWS, TOWER, CPU)
    for folder, stop_at in (("whole", 0), ("parts", 3), ("parts", 0)):
        (tmp_path / folder).mkdir(exist_ok=True)
        model = make_model(recipe)
        if stop_at:
            model.__class__ = StopAt
            assert isinstance(model, StopAt)
            model.stop_at(stop_at)
        seen.append([])
        with pytest.raises(Stopped) if stop_at else nullcontext():
            train(tmp_path / folder, model, cache, make_training(cache), transform, recipe, checkpoint_every=100)
    whole, first, second = seen
    assert first + second == whole
    for epoch in (whole[:9], whole[9:]):
        again = [place for place, repeat, *_ in epoch if repeat]
        assert again  # 9 draws of 9 sequences
        for place in again:
            assert len({frames for p, _, frames, _ in epoch if p == place}) > 1
            assert len({changes for p, _, _, changes in epoch if p == place}) == sum(p == place for p, *_ in epoch)


@pytest.mark.parametrize("kind", ["sequences", "preload", "embeddings"])
def test_stopped_and_begun_again(kind: str, tiny_cache: MakeCache, tiny_model: str, tmp_path: Path) -> None:
    cache = open_cache(tiny_cache(num_subjects=3, num_frames=4 if kind == "sequences" else 0, without_texture=(1,)))
    recipe, transform = replace(RECIPE, ema=0.5), TRANSFORM
    if kind == "sequences":
        recipe = replace(recipe, frames=2)
    elif kind == "preload":
        source = preload_images(cache, make_training(cache).items, TRANSFORM.modalities, "ram", CPU)
        transform = replace(TRANSFORM, source=source)
    else:
        recipe = replace(recipe, tune="frozen", augment="flip")
        tower, config = load_tower(tiny_model, "none", seed=0)
        build_embeddings(tmp_path / "embeddings", cache, tower, config, TRANSFORM.modalities, CPU)
        items = make_training(cache).items
        table = read_embeddings(tmp_path / "embeddings", cache, config, TRANSFORM.modalities, items, CPU, mirrored=True)
        transform = replace(TRANSFORM, embeddings=table, only_flip=True)
    whole = finish(tmp_path / "whole", cache, recipe, transform)
    parts = finish(tmp_path / "parts", cache, recipe, transform, stops=(3, 10))
    assert_same(whole.state_dict(), parts.state_dict())
    assert read_log(tmp_path / "whole") == read_log(tmp_path / "parts")
    a, b = read_checkpoint(tmp_path / "whole"), read_checkpoint(tmp_path / "parts")
    assert a is not None
    assert b is not None
    for key, state in a.optimizer["state"].items():
        assert_same(state, b.optimizer["state"][key])


def test_killed_at_random_moments(tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real processes, killed by SIGKILL; at most --checkpoint-every steps are lost each time, and the end is the same."""
    cache, run, whole = tiny_cache(), tmp_path / "run", tmp_path / "whole"
    options = ["--folds", "2", "--epochs", "40", "--batch-size", "4", "--device", "cpu"]
    options += ["--ema", "0.9", "--gradient-accumulation", "2", "--checkpoint-every", "7", "--keep-checkpoints", "2"]
    moments, num_kills, before = random.Random(), 0, 0
    while num_kills < 3:
        process = start(["fit", "--cache", cache, "--out", run, *options], tmp_path / "output")
        deadline = time.monotonic() + 120
        while (found := _step(run)) <= before:
            assert time.monotonic() < deadline
            assert process.is_alive(), (tmp_path / "output").read_text()
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 0.15))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        num_kills += 1
        found = _step(run)
        assert before < found < 120  # it got on, and was not at the end
        logged = read_log(run)
        assert not logged or logged[-1]["step"] - found < 7
        before = found
    assert 2 <= len(find_checkpoints(run)) <= 3  # a kill may come before the one too many is removed
    for out in (run, whole):
        assert call("fit", "--cache", cache, "--out", out, *options) == 0
    for name in ("model.safetensors", "predictions.csv", "metrics.json"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    assert read_log(run) == read_log(whole)
    assert "Traceback" not in (tmp_path / "output").read_text()


def _step(run: Path) -> int:
    found = read_checkpoint(run)
    return found.step if found else 0
