"""Folds that train or test some classes only: leave one expression out, and class-incremental, as the manual says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CLASSES, MakeCache
from test_adding_tasks import read_example
from test_groups import add_groups
from test_train_cli import QUICK, call, fails

from shared.cache import open_cache
from shared.runs import read_predictions
from train.options import Options
from train.split import split_folds

FEW = [*QUICK[2:], "--jobs", 1, "--tune", "frozen"]


def write_folds(path: Path, classes: tuple[str, ...], **fields: Any) -> Path:
    subjects = ("S0", "S1", "S2", "S3")
    folds = [
        {
            "name": f"fold-{k}",
            "train_subjects": subjects[2 * (1 - k) :][:2],
            "test_subjects": subjects[2 * k :][:2],
            **fields,
        }
        for k in range(2)
    ]
    value = {
        "format": "facet folds 1",
        "protocol": "kfold",
        "dataset": "tiny",
        "seed": 0,
        "classes": classes,
        "folds": folds,
    }
    path.write_text(json.dumps(value))
    return path


def test_one_expression_is_left_out_of_training(
    tiny_cache: MakeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, out = tiny_cache(num_subjects=4), tmp_path / "cv"
    add_groups(cache, {"sex": tuple("FM"[s.subject == "S3"] for s in open_cache(cache).samples)})
    monkeypatch.chdir(tmp_path)
    write_folds(tmp_path / "folds.json", CLASSES)
    exec(read_example("leave_one_out.py"), {})
    assert call("crossval", "--cache", cache, "--protocol", "leave-one-expression-out.json", "--out", out, *FEW) == 0
    text = capsys.readouterr().out
    assert "6 of 6 folds do not train on every class" in text
    report = json.loads((out / "report.json").read_text())["summary"]["pooled"]
    assert np.array(report["confusion"]).sum(1).tolist() == [8, 8, 8]  # each sample once
    lines = (out / "groups.csv").read_text().splitlines()
    assert [line.split(",")[:4] for line in lines[1:]] == [["sex", "F", "18", "3"], ["sex", "M", "6", "1"]]
    run = out / "without-anger-fold-1"
    rows = read_predictions(run / "predictions.csv").rows
    assert {row.labels for row in rows} == {("anger",)} and {row.subject for row in rows} == {"S2", "S3"}
    before = (run / "predictions.csv").read_bytes()
    assert call("evaluate", run) == 0
    assert (run / "predictions.csv").read_bytes() == before
    assert "macro-F1 counts" in capsys.readouterr().out
    # only samples of the other classes train: half of the people, two of three classes
    command = [
        "fit",
        "--cache",
        cache,
        "--protocol",
        "leave-one-expression-out.json",
        *FEW[:-4],
        "--out",
        tmp_path / "one",
    ]
    assert call(*command, "--epochs", 0) == 0
    assert "8 training samples of 2 subjects, 4 test samples of 2 others" in capsys.readouterr().out
    assert call("compare", out, "--out", tmp_path / "compared") == 0


def test_classes_are_added_step_by_step(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tiny_cache(num_subjects=4)
    first = write_folds(tmp_path / "step1.json", CLASSES[:2])
    second = write_folds(tmp_path / "step2.json", CLASSES, train_classes=CLASSES[2:])
    assert call("crossval", "--cache", cache, "--protocol", first, "--out", tmp_path / "step1", *FEW) == 0
    options = ["--init-from", tmp_path / "step1", "--out", tmp_path / "step2"]
    assert call("crossval", "--cache", cache, "--protocol", second, *options, *FEW) == 0
    report = json.loads((tmp_path / "step2" / "report.json").read_text())["summary"]["pooled"]
    assert np.array(report["confusion"]).sum(1).tolist() == [8, 8, 8]

    fewer = split_folds(open_cache(cache), Options(protocol=str(first), classes=("surprise", "anger")))
    assert fewer.folds.classes == ("surprise", "anger")  # what the run's own folds.json says
    write_folds(second, CLASSES, test_classes=["fear"])
    command = ["crossval", "--cache", cache, "--protocol", second, "--out", tmp_path / "x", *FEW]
    assert "names the class fear" in fails(capsys, *command)
    units = tiny_cache(name="units", num_subjects=4, units="aus")
    write_folds(second, ("AU1", "AU4"), train_classes=["AU1"])
    command = ["crossval", "--cache", units, "--protocol", second, "--task", "aus", "--out", tmp_path / "y", *FEW]
    assert "are for --task classes" in fails(capsys, *command)
