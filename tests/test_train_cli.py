"""The command line of stage 2, end to end on small caches, as a user runs it."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from conftest import MakeCache, random_text
from next_commands import next_commands
from safetensors.torch import load_file
from test_image_tower import TOWERS, save_clip
from train_process import start

from shared.errors import run_command_line
from shared.schema import View, text_file_name
from shared.text import write_text_embeddings
from shared.weights.identity import hash_arrays
from train.__main__ import main

ROOT = Path(__file__).parent.parent
QUICK = ["--folds", "3", "--epochs", "2", "--batch-size", "8", "--device", "cpu"]


def call(*arguments: object) -> int:
    """Runs the command line in this process, with its error handling."""
    return run_command_line(lambda: main([str(a) for a in arguments]))


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a user's error gives."""
    capsys.readouterr()
    assert call(*arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, lines
    return lines[0]


def test_fit_evaluate_predict(tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache, run = tiny_cache(num_subjects=6, unlabelled=(3,)), tmp_path / "run"
    assert call("fit", "--cache", cache, "--out", run, *QUICK, "--epochs", 30, "--lr", 3e-3, "--augment", "none") == 0
    out = capsys.readouterr().out
    names = {path.name for path in run.iterdir()}
    assert names == {
        "config.toml", "config.json", "hashes.json", "split.json", "log.jsonl", "checkpoint.pt", "model.safetensors",
        "metrics.json", "predictions.csv", "confusion.png", "confusion.pdf", "timing.json", "attention.safetensors", ".lock",
    }  # fmt: skip
    metrics = json.loads((run / "metrics.json").read_text())
    split = json.loads((run / "split.json").read_text())
    assert metrics["accuracy"] > 0.9  # the pattern is easy; chance is 1/3
    assert metrics["random_weights"] is True
    assert not set(split["train_subjects"]) & set(split["test_subjects"])
    assert metrics["num_samples"] == 2 * 3 * 2 - (split["test_subjects"].count("S0"))
    assert sum(metrics["view_weights"].values()) == pytest.approx(1, abs=1e-3)
    assert f"accuracy on 2 unseen subjects {metrics['accuracy']:.3f} (chance 0.333" in out
    assert "random weights" in out
    assert str(run / "confusion.png") in out
    assert next_commands(out) == ["train predict"]

    before = {name: (run / name).read_bytes() for name in ("metrics.json", "predictions.csv")}
    assert call("evaluate", run) == 0
    assert {name: (run / name).read_bytes() for name in before} == before

    table = tmp_path / "all.csv"
    assert call("predict", run, "--cache", cache, "--out", table) == 0
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 36  # unlabelled ones too
    assert rows[3]["label"] == ""
    for row in rows:
        assert sum(float(row[f"p_{name}"]) for name in metrics["class_names"]) == pytest.approx(1, abs=1e-5)
    tested = {row["sample_id"]: row for row in rows}
    with (run / "predictions.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            for key in row:  # batches differ, so the last digit may
                if key.startswith("p_"):
                    assert float(row[key]) == pytest.approx(float(tested[row["sample_id"]][key]), abs=1e-5)

    assert call("fit", "--cache", cache, "--out", run, *QUICK, "--epochs", 30, "--lr", 3e-3, "--augment", "none") == 0
    assert "this run is finished" in capsys.readouterr().out
    message = fails(capsys, "fit", "--cache", cache, "--out", run, *QUICK, "--lr", 1e-3)
    assert "different: --augment, --epochs, --lr, --tower-lr" in message


def test_a_run_needs_neither_its_cache_nor_its_model_any_more(
    tiny_cache: MakeCache, tiny_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, run = tiny_cache(store="hdf5"), tmp_path / "run"
    assert call("fit", "--cache", cache, "--out", run, *QUICK) == 0
    other = tiny_cache(name="other", store="zarr", seed=9, class_names=("fear", "anger"), with_text=False)
    cache.rename(tmp_path / "gone")
    config = Path(tiny_model.removeprefix("local-dir:")) / "open_clip_config.json"
    config.rename(config.with_suffix(".gone"))
    try:
        assert call("predict", run, "--cache", other) == 0
    finally:
        config.with_suffix(".gone").rename(config)
    with (run / "predictions-other.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 16
    assert call("evaluate", run, "--cache", tmp_path / "gone") == 0  # moved, the same content
    message = fails(capsys, "evaluate", run)
    assert f"{cache}: no cache here any more, on which the run was tested; if it was moved, give --cache DIR" in message
    foreign = tiny_cache(name="foreign", seed=9, dataset="others", num_subjects=5)
    assert call("evaluate", run, "--cache", foreign) == 0
    assert "holds other scans than those of this run's own test" in capsys.readouterr().out
    assert json.loads((run / "on-foreign" / "metrics.json").read_text())["num_samples"] == 30
    assert json.loads((run / "metrics.json").read_text())["num_samples"] < 30


def test_sequences_are_scored_one_by_one(tiny_cache: MakeCache, tmp_path: Path) -> None:
    cache, run = tiny_cache(num_frames=5, num_subjects=3), tmp_path / "run"
    assert call("fit", "--cache", cache, "--out", run, *QUICK, "--frames", 3) == 0
    assert json.loads((run / "metrics.json").read_text())["num_samples"] == 6  # 1 subject, 3 classes, 2 sequences


@pytest.mark.parametrize(
    "options",
    [
        ["--fusion", "mean", "--head", "cosine", "--lambda-con", "0", "--lambda-vt", "0"],
        ["--tune", "frozen", "--modalities", "normal,texture"],
        ["--shuffle-labels", "--test-subjects", "S1,S3"],
        [
            "--tune",
            "lora-2",
            "--ema",
            "0.9",
            "--gradient-accumulation",
            "2",
            "--layer-decay",
            "0.7",
            "--gradient-checkpointing",
        ],
        ["--model", "facet-tiny", "--epochs", "1"],
    ],
)
def test_switches(tiny_cache: MakeCache, tmp_path: Path, options: list[str]) -> None:
    cache, run = tiny_cache(without_texture=(0, 7)), tmp_path / "run"
    if "facet-tiny" in options:  # two sets of prompts: one must be named
        text = random_text(("anger", "happiness", "surprise"), 128, "facet-tiny")
        write_text_embeddings(cache / "text" / "facet-tiny.h5", text)
    assert call("fit", "--cache", cache, "--out", run, *QUICK, *options) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["shuffled_labels"] == ("--shuffle-labels" in options)
    if "--ema" in options:  # what is kept is a plain tower, that the run's own command loads
        before = (run / "predictions.csv").read_bytes()
        assert call("evaluate", run) == 0
        assert (run / "predictions.csv").read_bytes() == before
        assert not any("parametrizations" in name for name in load_file(run / "model.safetensors"))
    if "--test-subjects" in options:
        assert json.loads((run / "split.json").read_text())["test_subjects"] == ["S1", "S3"]


def save_pretrained(folder: Path, cache: Path) -> tuple[str, str]:
    """A CLIP with saved weights, and its own prompt embeddings in the cache: (model name, checkpoint file)."""
    folder.mkdir()
    clip = save_clip(folder, TOWERS["vit"])
    model = f"local-dir:{folder}"
    tokenizer = open_clip.get_tokenizer(model)
    classes = ("anger", "happiness", "surprise")
    with torch.no_grad():
        vectors = torch.stack([clip.encode_text(tokenizer([f"a face of {c}", c]), normalize=True) for c in classes])  # type: ignore[operator]
    from dataclasses import replace

    text = replace(
        random_text(classes, 24, model),
        embeddings=vectors.numpy(),
        pretrained="laion_or_so",
        random_weights=False,
        image_tower_hash=hash_arrays({k: v.numpy() for k, v in clip.visual.state_dict().items()}),  # type: ignore[union-attr]
    )
    for path in (cache / "text").iterdir():
        path.unlink()
    write_text_embeddings(cache / "text" / text_file_name(model), text)
    return model, str(folder / "open_clip_model.safetensors")


def test_pretrained_towers_must_belong_to_their_prompts(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tiny_cache()
    save_pretrained(tmp_path / "clip", cache)
    run = tmp_path / "run"
    assert call("fit", "--cache", cache, "--out", run, *QUICK) == 0
    assert "random weights" not in capsys.readouterr().out
    config = json.loads((run / "config.json").read_text())
    assert config["recipe"]["tower_lr"] == pytest.approx(1e-5)  # pretrained: a hundredth of --lr
    assert json.loads((run / "metrics.json").read_text())["random_weights"] is False
    assert call("fit", "--cache", cache, "--out", tmp_path / "random", *QUICK, "--pretrained", "none") == 0
    assert "random weights" in capsys.readouterr().out

    weights = tmp_path / "clip" / "open_clip_model.safetensors"
    from safetensors.torch import load_file, save_file

    state = load_file(weights)
    state["visual.conv1.weight"][0, 0, 0, 0] += 0.5
    save_file(state, weights)
    message = fails(capsys, "fit", "--cache", cache, "--out", tmp_path / "other", *QUICK)
    assert "the image tower is another model" in message
    assert "python -m preprocess prompts" in message
    weights.unlink()
    assert "--pretrained none (random weights)" in fails(
        capsys, "fit", "--cache", cache, "--out", tmp_path / "other", *QUICK
    )
    assert not (tmp_path / "other").exists()


def test_what_a_user_gets_wrong_is_one_line(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, out = tiny_cache(), tmp_path / "run"
    fit = ["fit", "--cache", cache, "--out", out, *QUICK]
    assert "no cache here" in fails(capsys, "fit", "--cache", tmp_path / "none", "--out", out)
    assert "--fold 3: there is no such fold" in fails(capsys, *fit, "--fold", 3)
    assert "only 4 subjects" in fails(capsys, *fit, "--folds", 9)
    assert "S9 not among the 4 subjects" in fails(capsys, *fit, "--test-subjects", "S1,S9")
    assert "no subject to train on" in fails(capsys, *fit, "--test-subjects", "S0,S1,S2,S3")
    message = fails(capsys, *fit, "--classes", "joy,Anger")
    assert "joy not among the classes" in message and "did you mean happiness?" in message
    assert "holds no sequences" in fails(capsys, *fit, "--frame-sampling", "apex")
    assert "holds no sequences" in fails(capsys, *fit, "--frames", 4)
    assert "holds no depth" in fails(capsys, *fit, "--modalities", "depth")
    message = fails(capsys, *fit, "--model", "ViT-B-32")
    assert "no prompt embeddings of ViT-B-32" in message and f"--cache {cache} --model ViT-B-32`" in message
    with pytest.raises(SystemExit, match="2"):
        call(*fit, "--init-form", "runs/a")
    message = capsys.readouterr().err
    assert "did you mean --init-from? (" in message and "train fit --help-all lists the options" in message
    assert "is a cache, not a run" in fails(capsys, *fit, "--init-from", cache)
    assert "--epochs: expected 0" in fails(capsys, *fit, "--epochs", -1)
    assert "--device nonsense" in fails(capsys, *fit, "--device", "nonsense")
    assert "--device meta" in fails(capsys, *fit, "--device", "meta")  # torch knows it, and computes nothing on it
    assert not out.exists()  # nothing was begun
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    assert "is not empty and holds no run" in fails(capsys, *fit)
    assert "no run here" in fails(capsys, "evaluate", out)
    (out / "config.json").write_text("{}")
    assert "is a run or a model, not a cache" in fails(capsys, "fit", "--cache", out, "--out", tmp_path / "x")
    empty = tiny_cache(name="no-text", with_text=False)
    assert "python -m preprocess prompts" in fails(capsys, "fit", "--cache", empty, "--out", tmp_path / "x", *QUICK)
    lacking = tiny_cache(name="lacking", num_subjects=2, scans_per_class=1, unlabelled=(0, 3))
    assert "no usable sample of this cache shows anger" in fails(
        capsys, "fit", "--cache", lacking, "--out", tmp_path / "y", "--folds", 2
    )


def test_other_view_settings_are_refused(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert call("fit", "--cache", tiny_cache(), "--out", run, *QUICK) == 0
    turned = tiny_cache(name="turned", views=(View(0), View(30), View(-30)))
    assert "views 0,30,-30, but" in fails(capsys, "predict", run, "--cache", turned)
    assert "size_px 48, but" in fails(capsys, "evaluate", run, "--cache", tiny_cache(name="big", size_px=48))
    bare = tiny_cache(name="bare", modalities=("normal",))
    assert "holds no texture" in fails(capsys, "predict", run, "--cache", bare)
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.json").write_bytes((run / "config.json").read_bytes())
    assert "training is not finished" in fails(capsys, "predict", unfinished, "--cache", turned)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_writes_a_checkpoint_and_the_same_command_goes_on(
    tiny_cache: MakeCache, tmp_path: Path, number: signal.Signals
) -> None:
    cache, run, whole = tiny_cache(), tmp_path / "run", tmp_path / "whole"
    options = ["--folds", "2", "--epochs", "40", "--batch-size", "4", "--device", "cpu"]
    process = start(["fit", "--cache", cache, "--out", run, *options], tmp_path / "output")
    log = run / "log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.is_file() and log.stat().st_size):
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(timeout=120)
    assert process.exitcode == (0 if number == signal.SIGTERM else 128 + number)
    errors = (tmp_path / "output").read_text()
    assert "a checkpoint is written; run the same command again to continue" in errors
    assert "Traceback" not in errors
    assert 10 <= torch.load(run / "checkpoint.pt", weights_only=True)["step"] < 120
    if number == signal.SIGINT:
        return  # it goes on as after SIGTERM
    for out in (run, whole):
        assert call("fit", "--cache", cache, "--out", out, *options) == 0
    for name in ("model.safetensors", "predictions.csv", "metrics.json"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    assert len((run / "log.jsonl").read_text().splitlines()) == 12


def test_help_names_every_command_and_example() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "train", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for word in ("fit", "evaluate", "predict", "runs/first"):
        assert word in result.stdout
    detail = subprocess.run(
        [sys.executable, "-m", "train", "fit", "--help-all"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for line in detail.stdout.splitlines():  # the examples are commands that parse
        if line.startswith("  python -m train fit"):
            from train.arguments import build_parser

            build_parser().parse_args(line.split()[3:])
    assert np.all([option in detail.stdout for option in ("--fold ", "--lambda-con", "--shuffle-labels", "--tower-lr")])


@pytest.mark.parametrize("chosen", [{}, {"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "123456"}])
def test_waiting_threads_leave_their_core_to_others(chosen: dict[str, str]) -> None:
    """GNU OpenMP itself says how long its threads wait; what the user sets is kept."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    code = "from shared.errors import run_command_line; run_command_line(lambda: bool(__import__('torch')) - 1)"
    words, environment = [sys.executable, "-c", code], clean | {"OMP_DISPLAY_ENV": "VERBOSE"} | chosen
    found = subprocess.run(words, env=environment, capture_output=True, text=True, check=True, cwd=ROOT)
    spins = re.search(r"GOMP_SPINCOUNT = '(\d+)'", found.stderr)
    assert spins is not None, "torch has another OpenMP than GNU's: find out how long its threads spin"
    assert int(spins[1]) <= 10_000 if not chosen else int(spins[1]) > 100_000
