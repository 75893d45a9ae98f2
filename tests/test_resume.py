"""Training that was stopped, or killed at any moment, ends with what an uninterrupted one ends with, bit for bit."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import MakeCache
from test_loop import PREPARER, RECIPE, StopAt, assert_same, make_model, make_training, read_log
from test_train_cli import call
from train_process import start

from shared.cache import Cache, open_cache
from train.checkpoint import find_checkpoints, read_checkpoint
from train.config import Recipe
from train.embed import build_embeddings
from train.embedded import read_embeddings
from train.encoder import load_tower
from train.facet import Facet
from train.loop import Stopped, train
from train.prepare import Preparer
from train.resident import load_resident

CPU = torch.device("cpu")


def finish(folder: Path, cache: Cache, recipe: Recipe, preparer: Preparer, stops: Sequence[int] = ()) -> Facet:
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
                train(folder, model, cache, training, preparer, recipe, checkpoint_every=1000)
        else:
            train(folder, model, cache, training, preparer, recipe, checkpoint_every=1000)
    return model


@pytest.mark.parametrize("kind", ["sequences", "resident", "embeddings"])
def test_stopped_and_begun_again(kind: str, tiny_cache: MakeCache, tiny_model: str, tmp_path: Path) -> None:
    cache = open_cache(tiny_cache(num_subjects=3, num_frames=4 if kind == "sequences" else 0, without_texture=(1,)))
    recipe, preparer = replace(RECIPE, ema=0.5), PREPARER
    if kind == "sequences":
        recipe = replace(recipe, frames=2)
    elif kind == "resident":
        source = load_resident(cache, make_training(cache).items, PREPARER.modalities, "ram", CPU)
        preparer = replace(PREPARER, source=source)
    else:
        recipe = replace(recipe, tune="frozen", augment="flip")
        tower, config = load_tower(tiny_model, "none", seed=0)
        build_embeddings(tmp_path / "embeddings", cache, tower, config, PREPARER.modalities, CPU)
        items = make_training(cache).items
        table = read_embeddings(tmp_path / "embeddings", cache, config, PREPARER.modalities, items, CPU, mirrored=True)
        preparer = replace(PREPARER, embeddings=table, only_flip=True)
    whole = finish(tmp_path / "whole", cache, recipe, preparer)
    parts = finish(tmp_path / "parts", cache, recipe, preparer, stops=(3, 10))
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
    options = ["--folds", "2", "--epochs", "60", "--batch-size", "4", "--device", "cpu"]
    options += ["--ema", "0.9", "--accumulate", "2", "--checkpoint-every", "7", "--keep-checkpoints", "2"]
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
        assert before < found < 180  # it got on, and was not at the end
        logged = read_log(run)
        assert not logged or logged[-1]["step"] - found < 7
        before = found
    assert len(find_checkpoints(run)) == 2
    for out in (run, whole):
        assert call("fit", "--cache", cache, "--out", out, *options) == 0
    for name in ("model.safetensors", "predictions.csv", "metrics.json"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    assert read_log(run) == read_log(whole)
    assert "Traceback" not in (tmp_path / "output").read_text()


def _step(run: Path) -> int:
    found = read_checkpoint(run)
    return found.step if found else 0
