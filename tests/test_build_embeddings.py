"""Embeddings: equal to what the tower makes of each image, resumed, verified; training from them is training on images."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MakeCache
from test_train_cli import QUICK, ROOT, call, fails

from shared.cache import Cache, open_cache
from shared.errors import FacetError
from train.config import TowerConfig, read_config
from train.data.embeddings import find_embeddings, read_embeddings
from train.data.items import find_items
from train.data.pixels import mirror, normalise, to_device, to_unit
from train.model.image_tower import load_tower
from train.training.build_embeddings import build_embeddings

CPU = torch.device("cpu")
MODALITIES = ("texture", "normal", "depth")


def open_with_tower(path: Path, model: str) -> tuple[Cache, torch.nn.Module, TowerConfig]:
    return open_cache(path), *load_tower(model, "none", seed=0)


def test_every_image_and_its_mirror_image(tiny_cache: MakeCache, tiny_model: str, tmp_path: Path) -> None:
    path = tiny_cache(modalities=MODALITIES, num_subjects=12, without_texture=(1,), invalid=(5,))  # two shards
    cache, tower, config = open_with_tower(path, tiny_model)
    assert build_embeddings(tmp_path, cache, tower, config, MODALITIES, CPU) == 2 * 3 * (71 * 3 - 1)
    table = read_embeddings(tmp_path, cache, config, MODALITIES, find_items(cache, MODALITIES), CPU, mirrored=True)
    assert table.features.shape == (2, 71, 3, 3, 32)
    for row in (0, 4, 70):
        for column, modality in enumerate(MODALITIES):
            stored = to_device(cache.arrays.read(modality, [row])[0], CPU)
            for copy in (False, True):
                pixels = mirror(stored, modality) if copy else stored
                with torch.no_grad():
                    wanted = tower(normalise(to_unit(pixels, modality), config.mean, config.std))
                found = table.gather(np.array([[row]]), torch.tensor([copy]))[0, 0, column]
                torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    assert not table.features[:, table.index[1], 0].any()  # absent
    assert table.index[5] == -1
    assert not torch.equal(table.features[0], table.features[1])


def test_only_what_is_missing_or_damaged_is_computed(
    tiny_cache: MakeCache, tiny_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, tower, config = open_with_tower(tiny_cache(num_subjects=12), tiny_model)
    assert build_embeddings(tmp_path, cache, tower, config, ("texture",), CPU, mirrored=False) == 72 * 3
    assert build_embeddings(tmp_path, cache, tower, config, ("texture",), CPU) == 72 * 3  # the mirrored ones alone
    assert build_embeddings(tmp_path, cache, tower, config, ("texture",), CPU) == 0
    one = find_embeddings(tmp_path, cache, config, "texture")
    before = {path: path.read_bytes() for path in one.folder.glob("*.safetensors")}
    assert len(before) == 4
    items = find_items(cache, ("texture",))
    first, last = one.path(0, False), one.path(1, True)
    for path, damage in (
        (first, before[first][:-1] + bytes([before[first][-1] ^ 1])),  # one bit
        (first, before[last]),  # another's file
        (first, before[first][:200]),
        (first, b""),
        (first, bytes(len(before[first]) + 8192)),
    ):
        path.write_bytes(damage)
        with pytest.raises(FacetError, match=r"00000.safetensors: damaged; .*computes it again"):
            read_embeddings(tmp_path, cache, config, ("texture",), items, CPU, mirrored=False)
    last.unlink()
    with pytest.raises(FacetError, match=r"00001-mirrored.safetensors: missing"):
        read_embeddings(tmp_path, cache, config, ("texture",), items[64:], CPU, mirrored=True)
    capsys.readouterr()
    assert build_embeddings(tmp_path, cache, tower, config, ("texture",), CPU) == (64 + 8) * 3
    assert "00000.safetensors: damaged; computing it again" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before


def test_the_key_names_everything_that_decides_the_values(
    tiny_cache: MakeCache, tiny_model: str, tmp_path: Path
) -> None:
    cache, _, config = open_with_tower(tiny_cache(), tiny_model)
    other_cache = open_cache(tiny_cache(name="other", seed=1))
    _, other_weights = load_tower(tiny_model, "none", seed=1)
    folders = {
        find_embeddings(tmp_path, c, t, m).folder
        for c, t, m in (
            (cache, config, "texture"),
            (cache, config, "normal"),
            (other_cache, config, "texture"),
            (cache, other_weights, "texture"),
            (cache, TowerConfig(**{**vars(config), "image_size": 48}), "texture"),
            (cache, TowerConfig(**{**vars(config), "mean": (0.0,) * 3}), "texture"),
            (cache, config.with_background("mean"), "texture"),
            (cache, config.with_background("mean"), "normal"),  # as with any other background
        )
    }
    assert len(folders) == 7
    renamed = TowerConfig(**{**vars(config), "name": "same tower, called otherwise"})
    assert find_embeddings(tmp_path, cache, renamed, "texture").folder in folders


def test_killed_and_started_again(tiny_cache: MakeCache, tmp_path: Path) -> None:
    cache, whole, parts = tiny_cache(num_subjects=24), tmp_path / "whole", tmp_path / "parts"
    command = [sys.executable, "-m", "train", "embed", "--cache", str(cache), "--out", str(parts), "--device", "cpu"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(parts.rglob("*.safetensors")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert call("embed", "--cache", cache, "--out", whole, "--device", "cpu") == 0
    names = {path.relative_to(whole) for path in whole.rglob("*.safetensors")}
    done = {path: path.stat().st_mtime_ns for path in parts.rglob("*.safetensors") if path.name[0] != "."}
    assert 0 < len(done) < len(names)
    folder = next(iter(done)).parent
    half, others = folder / f".00001.safetensors.{process.pid}.partial", folder / ".thesis.partial"
    for path in (half, others):
        path.write_bytes(b"half of a")
    assert call("embed", "--cache", cache, "--out", parts, "--device", "cpu") == 0
    assert {path: path.stat().st_mtime_ns for path in done} == done
    for name in names:
        assert (parts / name).read_bytes() == (whole / name).read_bytes()
    assert not half.exists() and others.exists()  # only what embed itself left


@pytest.mark.parametrize(
    "options",
    [
        ["--augment", "none"],
        ["--augment", "flip", "--reference", "neutral", "--modalities", "texture,normal"],
        ["--augment", "flip", "--task", "targets", "--background", "mean"],
    ],
)
def test_training_from_embeddings_is_training_on_images(
    tiny_cache: MakeCache, tmp_path: Path, options: list[str]
) -> None:
    units = {"units": "targets"} if "targets" in options else {}
    names = (
        ("neutral", "anger", "happiness", "surprise") if "neutral" in options else ("anger", "happiness", "surprise")
    )
    cache = tiny_cache(class_names=names, num_subjects=6, scans_per_class=1, without_texture=(4, 9), **units)
    fit = ["fit", "--cache", cache, *QUICK, "--lr", 3e-3, "--tune", "frozen", *options]
    assert call(*fit, "--out", tmp_path / "images", "--embeddings", "off") == 0
    assert call(*fit, "--out", tmp_path / "features") == 0
    assert list((tmp_path / "embeddings").glob("*/00000.safetensors"))
    assert_same_predictions(tmp_path / "images", tmp_path / "features")
    one, other = (read_config(tmp_path / name) for name in ("images", "features"))
    assert one.recipe == other.recipe
    assert call("evaluate", tmp_path / "features") == 0  # from images
    assert_same_predictions(tmp_path / "images", tmp_path / "features")


def test_sequences_from_embeddings(tiny_cache: MakeCache, tmp_path: Path) -> None:
    cache = tiny_cache(num_frames=5, num_subjects=3, scans_per_class=1)
    fit = ["fit", "--cache", cache, *QUICK, "--tune", "frozen", "--frames", 3, "--reference", "onset"]
    assert call(*fit, "--augment", "flip", "--out", tmp_path / "images", "--embeddings", "off") == 0
    assert call(*fit, "--out", tmp_path / "features", "--embeddings", tmp_path / "elsewhere") == 0
    assert read_config(tmp_path / "features").recipe.augment == "flip"  # all that can be done to embeddings
    assert_same_predictions(tmp_path / "images", tmp_path / "features")
    assert not (tmp_path / "embeddings").exists()


def assert_same_predictions(one: Path, other: Path) -> None:
    tables = [read_probabilities(run / "predictions.csv") for run in (one, other)]
    assert tables[0].keys() == tables[1].keys()
    for name, values in tables[0].items():
        np.testing.assert_allclose(values, tables[1][name], atol=1e-4)
    assert any(max(values) - min(values) > 1e-3 for values in tables[0].values())


def read_probabilities(path: Path) -> dict[str, list[float]]:
    """Name → probabilities."""
    with path.open(newline="") as file:
        return {
            row["sample_id"]: [float(v) for k, v in row.items() if k.startswith("p_")] for row in csv.DictReader(file)
        }


def test_what_a_user_gets_wrong(tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = tiny_cache(with_text=False)
    assert "no prompt embeddings" in fails(capsys, "embed", "--cache", cache, "--out", tmp_path / "e")
    with pytest.raises(SystemExit):
        call("embed", "--cache", cache, "--out", tmp_path / "e", "--seed", -1)  # no training could ask for them
    assert "holds no depth" in fails(
        capsys, "embed", "--cache", cache, "--out", tmp_path / "e", "--modalities", "depth"
    )
    assert not (tmp_path / "e").exists()
    command = ["fit", "--cache", tiny_cache(name="other"), "--out", tmp_path / "run", "--embeddings", tmp_path / "e"]
    assert "add --tune frozen" in fails(capsys, *command)
