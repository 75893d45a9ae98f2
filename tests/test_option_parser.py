"""Options as text: a run's config.toml repeats the run, the command line overrides it, and what is wrong is one line."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from conftest import MakeCache
from recipes import make_recipe
from safetensors.numpy import load_file
from test_train_cli import QUICK, call, fails

from shared.errors import FacetError
from shared.runs import CONFIG_TOML
from train.arguments import build_parser
from train.option_parser import format_toml, read_options, read_toml
from train.options import SECTIONS, Options, RunOptions


def assert_same_run(one: Path, other: Path) -> None:
    expected, found = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert expected.keys() == found.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    for name in ("config.json", "split.json", "predictions.csv", "metrics.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_a_config_file_repeats_a_run(
    tiny_cache: MakeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, run = tiny_cache(), tmp_path / "run"
    options = ["--folds", 2, "--epochs", 2, "--batch-size", 4, "--fold", 1, "--modalities", "normal", "--lr", 3e-3]
    monkeypatch.chdir(tmp_path)
    assert call("fit", "--cache", cache.name, "--out", run, *options, "--device", "cpu") == 0
    monkeypatch.chdir("/")  # the file names the cache wherever it is read
    assert call("fit", "--config", run / CONFIG_TOML, "--out", tmp_path / "again") == 0
    assert_same_run(run, tmp_path / "again")
    assert (run / CONFIG_TOML).read_bytes() == (tmp_path / "again" / CONFIG_TOML).read_bytes()
    assert call("fit", "--config", run / CONFIG_TOML, "--out", run) == 0
    assert "this run is finished" in capsys.readouterr().out
    # the command line overrides the file, and defaults that depend on an option follow it
    message = fails(capsys, "fit", "--config", run / CONFIG_TOML, "--lr", 1e-2, "--out", run)
    assert "different: --lr, --tower-lr)" in message


@pytest.mark.parametrize("options", [["--tune", "frozen"], ["--tune", "frozen", "--embeddings", "off"]])
def test_a_fold_is_repeated_alone(tiny_cache: MakeCache, tmp_path: Path, options: list[str]) -> None:
    cache, out = tiny_cache(), tmp_path / "crossval"
    command = ["crossval", "--cache", cache, *QUICK[2:], "--folds", 2, *options, "--jobs", 1, "--out", out]
    assert call(*command) == 0
    fold, again = out / "fold-01", tmp_path / "again"
    assert call("fit", "--config", fold / CONFIG_TOML, "--out", again) == 0
    assert (fold / "config.json").read_bytes() == (again / "config.json").read_bytes()
    assert (fold / "split.json").read_bytes() == (again / "split.json").read_bytes()
    assert call("crossval", "--config", out / CONFIG_TOML, "--out", out) == 0  # the same cross-validation


def test_a_cross_validation_with_the_options_of_one_run_trains_all_folds(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[protocol]\nfold = 1\n[optim]\nepochs = 3\n")
    chosen = build_parser().parse_args(["crossval", "--config", str(path), "--out", "x"])
    assert read_options(chosen, all_folds=True)[0] == Options(epochs=3)
    chosen = build_parser().parse_args(["crossval", "--config", str(path), "--out", "x", "--fold", "0"])
    assert read_options(chosen, all_folds=True)[0] == Options(epochs=3, fold=0)


def test_a_file_of_a_windows_editor_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(b"\xef\xbb\xbf[optim]\r\nepochs = 3\r\n")  # a byte-order mark
    assert read_toml(path) == {"epochs": 3}


def test_a_file_of_an_earlier_run_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        "[run]\ntensorboard = true\n[data]\nsampling = 'apex'\nshuffle_labels = 0\n[optim]\naccumulate = 2\n"
    )
    assert read_toml(path) == {
        "log": ("tensorboard",),
        "frame_sampling": "apex",
        "shuffle_labels": True,
        "gradient_accumulation": 2,
    }


def test_every_option_survives_a_file(tmp_path: Path) -> None:
    path = tmp_path / "all.toml"
    options = Options(
        classes=("anger", 'a "quoted" name\n', "é\x7f"),
        gradient_checkpointing=True,
        lr=1e-5,
        warmup=0.0,
        where=("sex=F",),
        shuffle_labels=True,
    )
    run = RunOptions(cache=Path("/a folder/cache"), jobs=3, log=("tensorboard", "wandb"))
    path.write_text(format_toml(options, run, make_recipe()), encoding="utf-8")
    chosen = build_parser().parse_args(["fit", "--config", str(path), "--out", "x"])
    assert read_options(chosen) == (options, run)
    assert tomllib.loads(path.read_text())["optim"]["lr"] == 1e-5
    chosen = build_parser().parse_args(
        ["fit", "--config", str(path), "--out", "x", "--no-gradient-checkpointing", "--epochs", "3"]
    )
    assert read_options(chosen)[0] == dataclasses.replace(options, gradient_checkpointing=False, epochs=3)
    assert read_options(build_parser().parse_args(["fit", "--out", "x"])) == (Options(), RunOptions())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optim]\nepoch = 3", "[optim] epoch: unknown; did you mean epochs?"),
        ("[optim]\nfusion = 'mean'", "[optim] fusion: unknown; expected one of epochs,"),
        ("[optimizer]\nlr = 1", "[optimizer] is unknown; expected [run], [protocol], [data]"),
        ("lr = 1", "[lr] is unknown"),
        ("[optim]\nlr = 'fast'", "[optim] lr: expected a number, found 'fast'"),
        ("[optim]\nlr = nan", "[optim] lr: expected 1e-09 to 10, found nan"),
        ("[optim]\nepochs = 1.5", "[optim] epochs: expected a whole number, found 1.5"),
        ("[optim]\nepochs = true", "[optim] epochs: expected a whole number, found True"),
        ("[optim]\ngradient_checkpointing = 1", "expected true or false"),
        ("[data]\nmodalities = ['thermal']", "[data] modalities: expected texture or normal or depth, found 'thermal'"),
        ("[data]\nmodalities = 'texture'", "[data] modalities: expected a list of names"),
        ("[data]\nviews = [0]", "[data] views: expected a list of names"),
        ("[model]\nfusion = 'sum'", "[model] fusion: expected cvsa or mean"),
        ("[model]\nmodel = ''", "[model] model: expected a text"),
        ("[run]\ncache = 3", "[run] cache: expected a text"),
        ("[optim\n", "not a TOML file"),
        ("\x00", "not a TOML file"),
    ],
)
def test_what_a_file_gets_wrong_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text(text)
    with pytest.raises(FacetError) as error:
        read_toml(path)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value)


def test_help_shows_ten_options_and_help_all_the_rest_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("fit", "crossval", "ablate"):
        with pytest.raises(SystemExit):
            build_parser().parse_args([command, "--help"])
        shown = re.findall(r"^  (--[\w-]+)", capsys.readouterr().out, re.MULTILINE)
        assert shown[:2] == ["--help-all", "--out"] and len(shown) == 11 + 3 * (command == "ablate")
        with pytest.raises(SystemExit):
            build_parser().parse_args([command, "--help-all"])
        text = capsys.readouterr().out
        assert {*shown} <= {*re.findall(r"^  (--[\w-]+)", text, re.MULTILINE)}
        assert [line.split(":")[0] for line in text.splitlines() if line.split(":")[0] in SECTIONS] == list(SECTIONS)


def test_a_missing_file_or_cache_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such file" in fails(capsys, "fit", "--config", tmp_path / "none.toml", "--out", tmp_path / "x")
    assert "--cache: give the folder" in fails(capsys, "fit", "--out", tmp_path / "x")
