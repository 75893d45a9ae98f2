"""Runs that rotted, were mixed up or come from a stranger; caches that are built anew under their readers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MakeCache
from safetensors.torch import load_file, save_file
from test_train_cli import QUICK, call, fails
from tiny_training import run as train_tiny

from preprocess.build.dynamic import build_dynamic_cache
from shared.cache import open_cache
from shared.errors import CacheError
from shared.runs import HASHES_JSON, record_hashes
from shared.store.zarr_reader import ZarrReader
from train.__main__ import main
from train.data.embeddings import EMBEDDINGS_JSON
from train.model.image_tower import load_tower
from train.training.build_embeddings import build_embeddings


@pytest.fixture
def folds(tiny_cache: MakeCache, tmp_path: Path) -> Path:
    """Two finished folds of one experiment."""
    cache = tiny_cache()
    for fold in (0, 1):
        assert call("fit", "--cache", cache, "--fold", fold, "--out", tmp_path / "runs" / str(fold), *QUICK) == 0
    return tmp_path / "runs"


def test_flipped_bytes_and_weights_of_another_fold(
    folds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = folds / "0", folds / "1"
    assert call("verify", folds) == 0
    assert "all equal" in capsys.readouterr().out
    for name in ("model.safetensors", "config.json", "split.json"):
        whole = (first / name).read_bytes()
        for place in np.random.default_rng(0).integers(0, len(whole), 5).tolist():
            damaged = bytearray(whole)
            damaged[place] ^= 4
            (first / name).write_bytes(damaged)
            assert name in fails(capsys, "evaluate", first)
            assert call("verify", first) == 1
            assert name in capsys.readouterr().out
        (first / name).write_bytes(whole)
    for name in ("predictions.csv", "metrics.json", "attention.safetensors"):
        whole = (first / name).read_bytes()
        (first / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert call("verify", folds) == 1
        assert f"{first.name}/{name}" in capsys.readouterr().out
        (first / name).write_bytes(whole)
    shutil.copy(second / "model.safetensors", first / "model.safetensors")
    assert "another run's" in fails(capsys, "evaluate", first)
    (first / HASHES_JSON).unlink()
    assert HASHES_JSON in fails(capsys, "evaluate", first)
    assert "no finished run" in fails(capsys, "verify", tmp_path / "nothing")


def test_weights_that_are_not_finite(folds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = folds / "0"
    weights = load_file(run / "model.safetensors")
    name = next(name for name in sorted(weights) if weights[name].is_floating_point() and weights[name].ndim == 2)
    weights[name][0, 0] = torch.nan
    save_file(weights, run / "model.safetensors")
    record_hashes(run, ("model.safetensors",))  # a stranger's hash fits
    assert "not finite" in fails(capsys, "evaluate", run)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text_dim", 10**9),
        ("text_dim", "x"),
        ("version", "3"),
        ("recipe", []),
        ("render", {"views": [{}]}),
        ("extra", 1),
    ],
)
def test_absurd_settings(folds: Path, capsys: pytest.CaptureFixture[str], field: str, value: Any) -> None:
    run = folds / "0"
    settings = json.loads((run / "config.json").read_bytes())
    settings[field] = value
    (run / "config.json").write_text(json.dumps(settings))
    record_hashes(run, ("config.json",))
    assert "config.json" in fails(capsys, "evaluate", run)


def test_addresses_in_a_run_are_not_followed(folds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = folds / "0"
    settings = json.loads((run / "config.json").read_bytes())
    cache = settings["cache"]
    settings |= {"cache": "s3://somebody/else", "prompts": "s3://somebody/prompts.h5"}
    (run / "config.json").write_text(json.dumps(settings))
    record_hashes(run, ("config.json",))
    message = fails(capsys, "evaluate", run)
    assert "s3://somebody/else" in message and "--cache" in message
    assert call("predict", run, "--cache", cache) == 0  # asks nobody, or it would fail: there is no such store
    assert call("report", run, "--out", run / "report.html") == 0
    assert "read only if you name it" in (run / "report.html").read_text()


def build_anew(old: Path, new: Path) -> None:
    """What a build does to a cache of other settings: cache.json goes first and comes last."""
    (old / "cache.json").unlink()
    for name in ("views.zarr", "records"):
        shutil.rmtree(old / name)
        shutil.copytree(new / name, old / name)
    for name in ("samples.csv", "sequences.csv", "failures.csv", "cache.json"):
        shutil.copy(new / name, old / name)


@pytest.mark.parametrize("what", ["train", "preload", "embed", "evaluate", "predict", "dynamic"])
def test_a_cache_that_is_built_anew_while_it_is_read(
    tiny_cache: MakeCache,
    tiny_model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    options: dict[str, Any] = {"num_frames": 3} if what == "dynamic" else {}
    path, other = tiny_cache(**options), tiny_cache(name="other", seed=1, **options)
    run, out = tmp_path / "run", tmp_path / "out"
    if what in ("evaluate", "predict"):
        assert call("fit", "--cache", path, "--out", run, *QUICK) == 0
    metrics = (run / "metrics.json").read_bytes() if what == "evaluate" else b""
    reads = 0
    original = ZarrReader.start_into

    def start_into(self: ZarrReader, *arguments: Any, **named: Any) -> Any:
        nonlocal reads
        reads += 1
        if reads == 1:
            build_anew(path, other)
        return original(self, *arguments, **named)

    def command(*arguments: object) -> Callable[[], object]:
        return lambda: main([str(argument) for argument in arguments])

    actions: dict[str, Callable[[], object]] = {
        "train": lambda: train_tiny(out, open_cache(path)),
        "preload": command("fit", "--cache", path, "--out", out, "--preload", "ram", *QUICK),
        "embed": lambda: build_embeddings(
            out, open_cache(path), *load_tower(tiny_model, "none", seed=0), ("texture",), torch.device("cpu")
        ),
        "evaluate": command("evaluate", run),
        "predict": command("predict", run, "--cache", path, "--out", out / "p.csv"),
        "dynamic": lambda: build_dynamic_cache(path, out),
    }
    monkeypatch.setattr(ZarrReader, "start_into", start_into)
    with pytest.raises(CacheError, match=r"built anew|damaged|missing"):
        actions[what]()
    assert reads
    kept = {file.name for file in out.rglob("*") if file.is_file()}
    assert not kept & {"model.safetensors", "metrics.json", "p.csv", EMBEDDINGS_JSON, "00000.safetensors"}
    assert not [name for name in kept if name.startswith("checkpoint")]
    if what == "evaluate":
        assert (run / "metrics.json").read_bytes() == metrics


def test_a_cache_that_stays_is_unchanged(tiny_cache: MakeCache) -> None:
    cache = open_cache(tiny_cache())
    cache.check_unchanged()
    cache.with_views(cache.info.settings.views[:1]).check_unchanged()
    os.utime(cache.path / "samples.csv")
    cache.check_unchanged()
    (cache.path / "cache.json").unlink()
    with pytest.raises(CacheError, match="built anew"):
        cache.check_unchanged()
