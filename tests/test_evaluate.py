"""A trained run tested again: which folder is a run, and what another data set's words mean to it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from conftest import MakeCache
from test_train_cli import QUICK, call, fails

from shared.labels import BASIC_EXPRESSIONS
from shared.runs import Prediction, Predictions
from train.inference.predictor import name_like_openface


def test_a_folder_of_folds_is_told_from_a_run(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, run = tiny_cache(num_subjects=2, scans_per_class=1), tmp_path / "run"
    command = ["--cache", cache, "--out", run, "--epochs", 1, "--folds", 2, "--tune", "frozen", "--device", "cpu"]
    assert call("crossval", *command, "--jobs", 1) == 0
    advice = f"{run}: is a cross-validation; name one of its folds, such as {run / 'fold-00'}"
    for arguments in (["evaluate", run], ["predict", run, "--cache", cache], ["export", run, "--out", tmp_path / "x"]):
        assert advice in fails(capsys, *arguments)
    (run / "crossval.json").rename(run / "ablation.json")
    assert "is an ablation; name a fold of a run, such as" in fails(capsys, "evaluate", run)


def test_another_data_set_in_the_runs_own_words(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"num_subjects": 3, "scans_per_class": 1}
    fine = tiny_cache(name="fine", dataset="bu3dfe", class_names=BASIC_EXPRESSIONS, **options)
    words = ("positive", "negative", "surprise", "repression")
    coarse = tiny_cache(name="coarse", dataset="4dme", class_names=words, seed=3, **options)
    train = [*QUICK, "--epochs", 1, "--tune", "frozen"]
    assert call("fit", "--cache", coarse, "--out", tmp_path / "coarse-run", *train) == 0
    assert call("evaluate", tmp_path / "coarse-run") == 0
    assert "label map" not in capsys.readouterr().out
    assert call("evaluate", tmp_path / "coarse-run", "--cache", fine) == 0
    printed = capsys.readouterr().out
    assert "label map: anger → negative, disgust → negative, fear → negative, happiness → positive" in printed
    with (tmp_path / "coarse-run" / "on-fine" / "predictions.csv").open(newline="") as file:
        labels = [row["label"] for row in csv.DictReader(file)]
    assert {name: labels.count(name) for name in words} == {
        "positive": 3, "negative": 12, "surprise": 3, "repression": 0
    }  # fmt: skip

    assert call("fit", "--cache", fine, "--out", tmp_path / "fine-run", *train) == 0
    assert call("evaluate", tmp_path / "fine-run", "--cache", coarse) == 0
    printed = capsys.readouterr().out
    assert "label map" not in printed
    assert (
        "note: 4dme has negative, positive for anger, disgust, fear, happiness, sadness: such samples are not tested, and "
        "the decision stays among all 6 classes" in printed
    )
    assert "left out: 3 labelled negative, 3 labelled positive, 3 labelled repression (no class of this run)" in printed
    assert json.loads((tmp_path / "fine-run" / "on-coarse" / "metrics.json").read_text())["num_samples"] == 3


def test_predict_says_what_scans_lack(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, run = tiny_cache(num_subjects=3, scans_per_class=1), tmp_path / "run"
    assert call("fit", "--cache", cache, "--out", run, *QUICK, "--epochs", 1, "--tune", "frozen") == 0
    assert len({file.stat().st_mode for file in run.iterdir()}) == 1  # the weights are as readable as the rest
    other = tiny_cache(name="other", seed=3, num_subjects=2, scans_per_class=1, without_texture=(1, 4), invalid=(2,))
    capsys.readouterr()
    assert call("predict", run, "--cache", other) == 0
    notes = capsys.readouterr().err
    assert "note: 2 of 5 scans have no texture; their other modalities are used (S0/happiness0, …)" in notes
    assert "1 of 6 scans are not valid and get no prediction" in notes
    with (run / "predictions-other.csv").open(newline="") as file:
        lacks = {row["sample_id"]: row["lacks"] for row in csv.DictReader(file)}
    assert lacks == {
        "S0/anger0": "", "S0/happiness0": "texture", "S1/anger0": "", "S1/happiness0": "texture", "S1/surprise0": ""
    }  # fmt: skip
    whole = tiny_cache(name="whole", seed=4, num_subjects=2, scans_per_class=1)
    assert call("predict", run, "--cache", whole, "--out", tmp_path / "p.csv") == 0
    printed = capsys.readouterr().err
    assert "have no" not in printed and "not valid" not in printed


def test_a_test_of_few_classes_says_how_averages_count_them(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, run = tiny_cache(num_subjects=3, scans_per_class=1), tmp_path / "run"
    assert call("fit", "--cache", cache, "--out", run, *QUICK, "--epochs", 1, "--tune", "frozen") == 0
    assert "no test sample shows" not in capsys.readouterr().out
    few = tiny_cache(name="few", seed=3, num_subjects=4, scans_per_class=1, unlabelled=(2, 5, 8, 11))
    assert call("evaluate", run, "--cache", few) == 0
    assert "no test sample shows surprise: macro-F1 counts it as 0, UAR leaves it out" in capsys.readouterr().out


def test_a_run_of_other_spellings_is_tested_in_its_own_words(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"num_subjects": 3, "scans_per_class": 1}
    before = tiny_cache(name="before", class_names=("Angry", "happiness", "Smirk"), **options)
    after = tiny_cache(name="after", class_names=("anger", "happiness", "smirk"), seed=1, **options)
    assert call("fit", "--cache", before, "--out", tmp_path / "run", *QUICK, "--epochs", 1, "--tune", "frozen") == 0
    capsys.readouterr()
    assert call("evaluate", tmp_path / "run", "--cache", after) == 0
    assert "label map: anger → Angry, smirk → Smirk" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "run" / "on-after" / "metrics.json").read_text())
    assert [sum(row) for row in metrics["confusion"]] == [1, 1, 1]


def test_action_units_have_the_columns_of_openface() -> None:
    def name(*predicted: tuple[str, ...]) -> dict[str, list[str]]:
        rows = tuple(Prediction(str(k), "S", (), one, (0.5, 0.5)) for k, one in enumerate(predicted))
        return name_like_openface(Predictions(("AU4", "AU12"), True, rows))

    assert name(("AU4",), ("AU4", "AU12"), ()) == {"AU04_c": ["1", "1", "0"], "AU12_c": ["0", "1", "0"]}
    assert name(("AU4=2.31", "AU12=0.00")) == {"AU04_r": ["2.31"], "AU12_r": ["0.00"]}
    assert name_like_openface(Predictions(("anger", "AU12_side"), True, ())) == {}
