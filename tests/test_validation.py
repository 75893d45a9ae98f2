"""--validate: who is held out, which epoch is kept, and that test subjects decide nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MakeCache
from safetensors.torch import load_file
from test_train_cli import QUICK, call, fails

from shared.cache import open_cache
from shared.errors import FacetError
from shared.runs import read_log, read_predictions
from train.options import Options
from train.protocols.folds import Fold, hold_out
from train.split import split_folds

NAMES = tuple(f"S{number:02d}" for number in range(20))


def read_split(run: Path) -> Any:
    return json.loads((run / "split.json").read_text())


def validation_lines(run: Path) -> list[dict[str, float]]:
    lines = [line for line in read_log(run) if "validation_loss" in line]
    return [{k: v for k, v in line.items() if k in ("step", "epoch") or k.startswith("validation_")} for line in lines]


def test_held_out_subjects_are_training_subjects() -> None:
    fold = Fold("fold-00", NAMES[:15], NAMES[15:])
    drawn = hold_out(fold, ("0.2",), 7)
    assert drawn.train_subjects == fold.train_subjects and drawn.test_subjects == fold.test_subjects
    assert len(drawn.validation_subjects) == 3 and drawn.trained_subjects == {*NAMES[:15]} - {
        *drawn.validation_subjects
    }
    assert drawn == hold_out(fold, ("0.2",), 7) != hold_out(fold, ("0.2",), 8)
    assert len(hold_out(fold, ("0.001",), 7).validation_subjects) == 1
    assert hold_out(fold, ("S03", "S16"), 0).validation_subjects == ("S03",)  # S16 is tested here
    for wrong, message in (
        ("0.99", "nobody is left"),
        ("1.5", "of 0 to 1"),
        ("nan", "of 0 to 1"),
        ("S17", "none of them"),
    ):
        with pytest.raises(FacetError, match=message):
            hold_out(fold, (wrong,), 0)


def test_the_best_epoch_is_tested_and_resuming_changes_nothing(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, run = tiny_cache(num_subjects=5), tmp_path / "run"
    options = ["--cache", cache, *QUICK, "--folds", 5, "--validate", "0.25", "--ema", 0.5, "--lr", 1e-2, "--epochs", 8]
    options += ["--checkpoint-every", 3, "--keep-checkpoints", 99]
    options += ["--shuffle-labels", "--patience", 2]  # nothing can be learned that holds for others
    assert call("fit", *options, "--out", run) == 0
    out, lines, split = capsys.readouterr().out, validation_lines(run), read_split(run)
    assert len(split["validation_subjects"]) == 1 and len(split["train_subjects"]) == 4
    assert "18 training samples of 3 subjects, 6 validation samples of 1" in out
    losses = [line["validation_loss"] for line in lines]
    best = int(np.argmin(losses)) + 1
    assert f"best epoch {best}: loss {min(losses):.3f}" in out
    assert len(losses) == best + 2 < 8
    assert all(0 <= line["validation_accuracy"] <= 1 for line in lines)
    assert "lr" in read_log(run)[-1]  # the last step is logged, though training stopped early

    state = torch.load(run / f"checkpoint-{3 * best}.pt", weights_only=True)
    kept = load_file(run / "model.safetensors")
    for name, mean in state["ema"].items():
        assert torch.equal(kept[name], mean), name

    # from an earlier checkpoint: the same epochs, the same weights, the same log
    stopped = tmp_path / "stopped"
    shutil.copytree(run, stopped)
    for name in ("metrics.json", "model.safetensors", "hashes.json"):
        (stopped / name).unlink()
    (stopped / "checkpoint-3.pt").rename(stopped / "checkpoint.pt")
    for path in stopped.glob("checkpoint-*.pt"):
        path.unlink()
    assert call("fit", *options, "--out", stopped) == 0
    assert (stopped / "predictions.csv").read_bytes() == (run / "predictions.csv").read_bytes()
    assert validation_lines(stopped) == lines

    assert call("report", run, "--out", tmp_path / "r.html", "--no-faces") == 0
    assert f"epoch {best} by validation" in (tmp_path / "r.html").read_text()
    before = (run / "metrics.json").read_bytes()
    assert json.loads(before)["best_epoch"] == best
    assert call("evaluate", run) == 0
    assert (run / "metrics.json").read_bytes() == before
    message = fails(capsys, "fit", *options, "--out", run, "--validate", "0.5")
    assert "different: --validate" in message
    assert "add --validate" in fails(capsys, "fit", "--cache", cache, *QUICK, "--out", tmp_path / "x", "--patience", 2)

    words, folds = [*QUICK, "--folds", 5, "--validate"], split_folds(open_cache(cache), Options(folds=5)).folds.folds
    (name,) = folds[0].test_subjects  # trains in all other folds, one of which is enough for fit
    assert split_folds(open_cache(cache), Options(folds=5, fold=1, validate=(name,))).options.validate == (name,)
    for command in ("crossval", "fit"):
        message = fails(capsys, command, "--cache", cache, "--out", tmp_path / "x", *words, name)
        assert f"{name}: none of them is a training subject of {folds[0].name}" in message


def test_labels_of_test_subjects_change_no_weight(tiny_cache: MakeCache, tmp_path: Path) -> None:
    """Also with --validate, which chooses the epoch."""
    options = [*QUICK, "--folds", 5, "--validate", "S1,S3", "--epochs", 4, "--batch-size", 6, "--lr", 1e-2]
    kept, labels = [], []
    for name, relabel in (("a", {}), ("b", {"S0": ("surprise", "anger", "happiness")})):
        cache, run = tiny_cache(name=name, num_subjects=5, relabel=relabel), tmp_path / f"run-{name}"
        assert call("fit", "--cache", cache, "--out", run, *options, "--test-subjects", "S0") == 0
        kept.append(load_file(run / "model.safetensors"))
        labels.append([row.labels for row in read_predictions(run / "predictions.csv").rows])
        assert len(validation_lines(run)) == 4
    assert all(one != other for one, other in zip(*labels, strict=True))
    for name, value in kept[0].items():
        assert torch.equal(value, kept[1][name]), name


def test_folds_and_tasks_of_every_kind_validate(tiny_cache: MakeCache, tmp_path: Path) -> None:
    cache, out = tiny_cache(num_subjects=4, num_frames=2, scans_per_class=1, units="aus"), tmp_path / "cv"
    options = [*QUICK, "--folds", 2, "--task", "aus", "--validate", "0.5", "--tune", "frozen", "--jobs", 1]
    assert call("crossval", "--cache", cache, "--out", out, *options) == 0
    assert "held out (--validate 0.5); no choice was made on test data" in " ".join(
        (out / "report.txt").read_text().split()
    )
    assert "best_epoch" in (out / "folds.csv").read_text().splitlines()[0]
    folds = json.loads((out / "folds.json").read_text())["folds"]
    assert all("validation_subjects" not in fold for fold in folds)
    for fold in folds:
        split = read_split(out / fold["name"])
        assert len(split["validation_subjects"]) == 1 and split["train_subjects"] == fold["train_subjects"]
        assert all("validation_macro_f1" in line for line in validation_lines(out / fold["name"]))
