"""Every fold of a protocol from the command line: all of them, one of them, side by side, gone wrong."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from conftest import MakeCache
from next_commands import next_commands
from test_train_cli import QUICK, call, fails

from shared.cache import open_cache
from train.experiment import prepare_experiment
from train.options import Options, RunOptions
from train.protocols.folds import read_folds

FAST = [*QUICK[2:], "--epochs", "2"]  # without --folds


def read_report(run: Path) -> dict[str, object]:
    value: dict[str, object] = json.loads((run / "report.json").read_text())
    return value


def test_all_folds_and_their_report(tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache, run = tiny_cache(num_subjects=5), tmp_path / "run"
    command = ["crossval", "--cache", cache, "--out", run, "--protocol", "loso", "--jobs", 1, *FAST]
    assert call(*command) == 0
    out = capsys.readouterr().out
    tested: list[str] = []
    for fold in read_folds(run / "folds.json").folds:
        folder = run / fold.name
        assert (folder / "model.safetensors").is_file()
        assert not (folder / "checkpoint.pt").exists()  # finished: three times the model, for nothing
        with (folder / "predictions.csv").open(newline="") as file:
            tested += [row["sample_id"] for row in csv.DictReader(file)]
        assert f"{fold.name}: accuracy" in out
    assert sorted(tested) == sorted(sample.sample_id for sample in open_cache(cache).samples)  # everyone once
    report = read_report(run)
    assert report["summary"]["pooled"]["num_samples"] == 30  # type: ignore[index]
    assert report["about"]["missing_folds"] == []  # type: ignore[index]
    for fold in report["summary"]["calibration"]:  # type: ignore[index]
        metrics = json.loads((run / fold["name"] / "metrics.json").read_bytes())
        assert fold["plain"] == metrics["calibration"] and fold["temperature"] > 0
    for name in (
        "report.txt",
        "confusion.png",
        "classes.pdf",
        "folds.png",
        "reliability.png",
        "reliability.pdf",
        "folds.csv",
        "table.csv",
        "table.tex",
    ):
        assert (run / name).stat().st_size > 200
        assert str(tmp_path.parent).encode() not in (run / name).read_bytes()  # no folder of this machine: the model's
    assert "local-dir" not in (run / "table.tex").read_text().split("\\begin{tabular}")[1]
    assert (run / "report.txt").read_text().strip() in out
    assert "RANDOM WEIGHTS" in out
    assert next_commands(out) == ["train predict"]

    before = {path: path.stat().st_mtime_ns for path in run.glob("*/model.safetensors")}
    assert call(*command) == 0  # nothing to do but the report
    assert "5 of 5 folds are finished already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "different: --epochs" in fails(capsys, *command, "--epochs", 3)
    assert call("evaluate", run / "subject-S2") == 0
    assert "run of one fold" in fails(capsys, *command[:4], run / "subject-S2", *command[5:])


def test_single_folds_make_the_same_report_as_all_at_once(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, whole, parts = tiny_cache(), tmp_path / "whole", tmp_path / "parts"
    command = ["crossval", "--cache", cache, "--folds", 2, "--discard-weights", *FAST, "--out"]
    assert call(*command, whole, "--jobs", 1) == 0
    assert not list(whole.rglob("model.safetensors"))
    assert next_commands(capsys.readouterr().out) == ["train report"]  # no model is there to predict with
    assert call(*command, parts, "--fold", 1) == 0
    out = capsys.readouterr().out
    assert "1 of 2 folds are left: the same command, without --fold, trains them" in out and not next_commands(out)
    assert read_report(parts)["about"]["missing_folds"] == ["fold-00"]  # type: ignore[index]
    assert "PARTIAL" in (parts / "report.txt").read_text()
    assert call(*command, parts, "--fold", 0) == 0
    for name in ("fold-00/predictions.csv", "fold-01/metrics.json", "table.csv", "table.tex"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_fold_that_breaks(tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache, run = tiny_cache(num_subjects=3), tmp_path / "run"
    command = ["crossval", "--cache", cache, "--protocol", "loso", *FAST, "--jobs", 1, "--out", run]
    (run / "subject-S1").mkdir(parents=True)
    (run / "subject-S1" / "thesis.txt").write_text("mine")
    assert "is not empty and holds no cross-validation" in fails(capsys, *command)
    (run / "subject-S1" / "thesis.txt").rename(tmp_path / "thesis.txt")
    (run / "subject-S1").rmdir()
    run.rmdir()
    capsys.readouterr()
    assert call("protocols", "loso", "--cache", cache, "--export", run / "folds.json") == 0
    assert next_commands(capsys.readouterr().out) == ["train crossval"]
    assert call(*command, "--fold", 0) == 0
    (run / "subject-S1").mkdir()
    (tmp_path / "thesis.txt").rename(run / "subject-S1" / "thesis.txt")
    capsys.readouterr()
    assert call(*command) == 1  # the others are finished all the same
    captured = capsys.readouterr()
    assert "failed: subject-S1" in captured.err
    assert "is not empty and holds no run" in captured.err
    assert read_report(run)["about"]["missing_folds"] == ["subject-S1"]  # type: ignore[index]
    (run / "subject-S1" / "thesis.txt").unlink()
    assert call(*command) == 0
    assert read_report(run)["about"]["missing_folds"] == []  # type: ignore[index]


def test_the_same_folds_in_another_run(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, file = tiny_cache(num_subjects=5), tmp_path / "shared.json"
    assert call("protocols", "kfold", "--cache", cache, "--seed", 7, "--export", file) == 2  # 10 folds of 5 people
    assert "only 5 subjects" in capsys.readouterr().err
    assert call("protocols", "loso", "--cache", cache, "--seed", 7, "--export", file) == 0
    experiment = prepare_experiment(Options(protocol=str(file)), RunOptions(cache=cache), tmp_path)
    assert experiment.folds == read_folds(file)
    value = json.loads(file.read_text())
    value["folds"] = value["folds"][:2]
    value["folds"][0]["train_subjects"] = ["S1", "S2"]
    value["protocol"] = "our own"
    file.write_text(json.dumps(value))
    run = tmp_path / "run"
    assert call("crossval", "--cache", cache, "--protocol", file, "--out", run, "--jobs", 1, *FAST) == 0
    split = json.loads((run / "subject-S0" / "split.json").read_text())
    assert split["train_subjects"] == ["S1", "S2"]
    assert read_report(run)["summary"]["num_folds"] == 2  # type: ignore[index]
    value["folds"][0]["train_subjects"] = ["S1", "S3"]
    file.write_text(json.dumps(value))
    again = ["crossval", "--cache", cache, "--protocol", file, "--out", run, *FAST]
    assert "different: the subjects of the folds" in fails(capsys, *again)
    other = tiny_cache(name="other", num_subjects=2)
    assert "S2" in fails(capsys, *again[:2], other, *again[3:])


def test_across_data_sets(tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = tiny_cache(dataset="ours", class_names=("anger", "fear", "happiness"))
    theirs = tiny_cache(name="theirs", dataset="theirs", class_names=("fear", "surprise", "happiness"), seed=5)
    run = tmp_path / "run"
    command = ["crossval", "--train-cache", ours, "--test-cache", theirs, "--out", run, "--jobs", 1, *FAST]
    assert call(*command) == 0
    out = capsys.readouterr().out
    assert "label map: fear → fear, happiness → happiness" in out
    metrics = json.loads((run / "cross" / "metrics.json").read_text())
    assert metrics["class_names"] == ["fear", "happiness"]
    assert metrics["num_samples"] == 16
    split = json.loads((run / "cross" / "split.json").read_text())
    assert split["train_subjects"] == ["ours:S0", "ours:S1", "ours:S2", "ours:S3"]  # the same names, other people
    assert split["test_subjects"] == ["theirs:S0", "theirs:S1", "theirs:S2", "theirs:S3"]
    before = (run / "cross" / "predictions.csv").read_bytes()
    assert call("evaluate", run / "cross") == 0
    assert (run / "cross" / "predictions.csv").read_bytes() == before
    # the data set that trained, with one more person: nobody else is unseen
    more = tiny_cache(name="more", dataset="ours", class_names=("anger", "fear", "happiness"), num_subjects=5)
    assert call("evaluate", run / "cross", "--cache", more) == 0
    with (run / "cross" / "on-more" / "predictions.csv").open() as file:
        assert {row["subject"] for row in csv.DictReader(file)} == {"S4"}
    assert "no sample of an unseen subject" in fails(capsys, "evaluate", run / "cross", "--cache", ours)
    assert "the same scans" in fails(
        capsys, "fit", "--train-cache", ours, "--test-cache", ours, "--out", tmp_path / "x"
    )
    turned = tiny_cache(name="turned", dataset="turned", size_px=48)
    assert "size_px 48" in fails(capsys, *command[:4], turned, *command[5:])


def test_leaks_are_found_before_training(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tiny_cache(same_scan=(0, 7))  # S0/anger0 is S1/anger1, byte for byte
    message = fails(capsys, "crossval", "--cache", cache, "--protocol", "loso", "--out", tmp_path / "run", *FAST)
    assert "one scan is in both train and test" in message
    assert "S0/anger0 of S0" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("units", ["aus", "targets"])
def test_several_classes_at_once(tiny_cache: MakeCache, tmp_path: Path, units: str) -> None:
    """It learns which of three yes or no a face shows, with thresholds that test subjects have no say in."""
    cache, run = tiny_cache(num_frames=3, units=units, num_subjects=5), tmp_path / "run"
    command = ["crossval", "--cache", cache, "--task", units, "--folds", 2, "--out", run, "--jobs", 1, *FAST]
    assert (
        call(
            *command,
            "--epochs",
            15 if units == "aus" else 30,
            "--lr",
            5e-3,
            "--class-weights",
            "balanced",
            "--augment",
            "none",
            "--train-views",
            3,
        )
        == 0
    )
    report = read_report(run)
    assert report["summary"]["task"] == units  # type: ignore[index]
    assert report["about"]["unit"] == ("frame" if units == "aus" else "sequence")  # type: ignore[index]
    assert report["summary"]["pooled"]["macro_f1"] > 0.85  # type: ignore[index]  # always yes: 0.67
    fold = run / "fold-00"
    thresholds = json.loads((fold / "thresholds.json").read_text())["thresholds"]
    before = (fold / "predictions.csv").read_bytes()
    with (fold / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        said = [
            name for name, t in zip(("AU1", "AU4", "AU12"), thresholds, strict=True) if float(row[f"p_{name}"]) >= t
        ]
        assert row["predicted"] == "+".join(said)
    assert len({row["sample_id"] for row in rows}) == len(rows)
    assert call("evaluate", fold) == 0
    assert (fold / "predictions.csv").read_bytes() == before
    plain = tiny_cache(name="plain", num_subjects=1, num_frames=2)
    assert call("predict", fold, "--cache", plain, "--out", tmp_path / "p.csv") == 0
    with (tmp_path / "p.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["unknown"] == "AU1+AU4+AU12"


@pytest.mark.parametrize(
    "options", [["--reference", "onset", "--frame-sampling", "apex", "--frame-window", "4"], ["--reference", "neutral"]]
)
def test_faces_compared_with_the_face_at_rest(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    if "onset" in options:
        cache = tiny_cache(num_frames=6, apex=3)
    else:
        cache = tiny_cache(class_names=("anger", "neutral", "surprise"))
    run = tmp_path / "run"
    fit = ["fit", "--cache", cache, "--out", run, *QUICK, *options, "--augment", "none", "--epochs", 20, "--lr", 3e-3]
    assert call(*fit) == 0
    assert json.loads((run / "metrics.json").read_text())["accuracy"] > 0.7
    assert call("evaluate", run) == 0
    capsys.readouterr()
    if "neutral" in options:
        message = fails(capsys, *fit[:4], tmp_path / "x", *fit[5:], "--classes", "anger,neutral")
        assert "would be compared with itself" in message


def test_every_other_frame_trains_and_every_frame_is_tested(tiny_cache: MakeCache) -> None:
    cache = tiny_cache(num_frames=4, units="aus")
    recipes = [Options(task="aus", folds=2, frame_stride=stride) for stride in (1, 4)]
    (all_train, all_test), (train, test) = (
        e.items_of(e.fold(0))
        for e in (prepare_experiment(options, RunOptions(cache=cache), cache) for options in recipes)
    )
    assert len(train) == -(-len(all_train) // 4)
    assert test == all_test
