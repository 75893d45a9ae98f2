"""Prompts from a file, for a cache that one may not write to; caches that were moved; what is trained, and how fast."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import CLASSES, MakeCache, random_text
from recipes import make_recipe
from report_page import read_page
from test_train_cli import call, fails

from shared.attention_file import ATTENTION_FILE
from shared.text import write_text_embeddings
from train.config import read_config
from train.training.optimizer import describe_rates

QUICK = ["--folds", "2", "--epochs", "1", "--batch-size", "8", "--device", "cpu"]


def test_prompts_from_a_file_are_those_of_a_cache(
    tiny_cache: MakeCache, tiny_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, without = tiny_cache(name="own"), tiny_cache(name="without", with_text=False)
    file = tmp_path / "prompts" / "any.h5"
    write_text_embeddings(file, random_text(CLASSES, 32, tiny_model))
    assert "no prompt embeddings" in fails(capsys, "fit", "--cache", without, "--out", tmp_path / "x", *QUICK)
    assert call("fit", "--cache", own, "--out", tmp_path / "own-run", *QUICK) == 0
    fit = ["fit", "--cache", without, "--out", tmp_path / "run", *QUICK, "--prompts", file]
    assert call(*fit) == 0
    names = ("model.safetensors", "predictions.csv", ATTENTION_FILE)
    before = {name: (tmp_path / "own-run" / name).read_bytes() for name in names}
    assert {name: (tmp_path / "run" / name).read_bytes() for name in names} == before
    assert read_config(tmp_path / "run").prompts == str(file)
    assert call("evaluate", tmp_path / "run") == 0  # the attention still knows them
    assert {name: (tmp_path / "run" / name).read_bytes() for name in names} == before
    assert call("export", tmp_path / "run", "--out", tmp_path / "exported") == 0
    assert read_config(tmp_path / "exported").prompts == ""
    folds = ["crossval", "--cache", without, *QUICK, "--tune", "frozen", "--prompts", file, "--jobs", 1]
    assert call(*folds, "--out", tmp_path / "folds") == 0

    other = tmp_path / "other.h5"
    write_text_embeddings(other, random_text(CLASSES[:2], 32, tiny_model))
    wrong = [*fit[:3], "--out", tmp_path / "wrong", *QUICK, "--prompts"]
    assert f"--prompts {other}: no prompts for class surprise" in fails(capsys, *wrong, other)
    assert "was made by local-dir:" in fails(capsys, *wrong, file, "--model", "ViT-B-16")
    assert "no prompt embeddings here" in fails(capsys, *wrong, tmp_path / "nothing.h5")
    (tmp_path / "text.h5").write_text("no HDF5")
    assert "text.h5" in fails(capsys, *wrong, tmp_path / "text.h5")


def test_pictures_of_a_cache_that_was_moved(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, run, page = tiny_cache(), tmp_path / "run", tmp_path / "page.html"
    assert call("fit", "--cache", cache, "--out", run, *QUICK) == 0
    assert call("report", run, "--out", page) == 0
    before = page.read_bytes()
    cache.rename(tmp_path / "moved")
    capsys.readouterr()
    assert call("report", run, "--out", page) == 0
    assert f"{cache}: no cache here any more" in capsys.readouterr().out
    assert "no pictures of samples" in read_page(page).text
    assert call("report", run, "--out", page, "--cache", tmp_path / "moved") == 0
    assert page.read_bytes() == before
    other = tiny_cache(name="other", seed=1)
    assert f"--cache {other}: none of these runs" in fails(capsys, "report", run, "--out", page, "--cache", other)
    assert "no cache here" in fails(capsys, "report", run, "--out", page, "--cache", tmp_path / "nowhere")


def test_what_is_trained_and_how_fast_is_told(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("fit", "--cache", tiny_cache(), "--out", tmp_path / "run", *QUICK) == 0
    assert (
        "image tower trained at 0.001 (as --lr: its weights are random), all else at 0.001" in capsys.readouterr().out
    )
    assert json.loads((tmp_path / "run" / "config.json").read_text())["recipe"]["tower_lr"] == 1e-3
    told = describe_rates(make_recipe(pretrained="openai", tower_lr=1e-5))
    assert told == (
        "image tower trained at 1e-05 (--lr / 100 for pretrained weights, openai; if these are not pretrained, use "
        "--tower-lr 0.001), all else at 0.001 (--lr)"
    )
    assert "at 3e-05 (--tower-lr)" in describe_rates(make_recipe(pretrained="openai", tower_lr=3e-5))
    assert describe_rates(make_recipe(tune="last-2", tower_lr=1e-3)).startswith("2 last blocks of the image tower")
    assert describe_rates(make_recipe(tune="frozen")).startswith("image tower frozen")
