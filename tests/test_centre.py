"""Scores centred per subject."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import MakeCache
from test_train_cli import QUICK, call, fails

from train.inference.centre import centre_logits, describe_centring

CLASSES = ("anger", "happiness", "surprise")


def test_each_subject_is_compared_with_its_own_mean() -> None:
    rng = np.random.default_rng(0)
    subjects = [f"S{k % 4}" for k in range(24)] + ["few"] * 3 + ["enough"] * 5
    faces = rng.normal(size=(32, 5)).astype(np.float32)
    offsets = {name: rng.normal(size=5).astype(np.float32) * 9 for name in {*subjects}}
    found = centre_logits(faces + [offsets[name] for name in subjects], subjects, "subject")
    for name in ("S0", "S1", "S2", "S3", "enough"):
        rows = [k for k, other in enumerate(subjects) if other == name]
        expected = faces[rows] - faces[rows].mean(0)  # whatever is added to all scans of a person is gone
        np.testing.assert_allclose(found[rows], expected, atol=1e-5)
    shifted = faces + np.array([offsets[name] for name in subjects])
    np.testing.assert_allclose(found[24:27], (shifted - shifted.mean(0))[24:27], atol=1e-5)  # too few of their own
    np.testing.assert_allclose(centre_logits(shifted, subjects, "all"), shifted - shifted.mean(0), atol=1e-5)
    assert centre_logits(shifted, subjects, "none") is shifted
    assert centre_logits(shifted[:4], subjects[:4], "subject") is not None
    np.testing.assert_array_equal(
        centre_logits(shifted[:4], subjects[:4], "subject"), shifted[:4]
    )  # 4 scans, 5 classes


def test_half_of_the_neutral_scans_scores_is_subtracted() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    at_rest = np.array([[1, 5], [1, 5], [np.nan, np.nan]], np.float32)
    expected = logits - [[0.5, 2.5], [0.5, 2.5], [0, 0]]
    np.testing.assert_allclose(centre_logits(logits, ["a", "a", "b"], "neutral", at_rest), expected, atol=1e-6)


def test_where_centring_does_not_what_it_says_is_said() -> None:
    subjects = ["a"] * 6 + ["b"] * 6 + ["few"] * 2
    even = [*CLASSES, *CLASSES, *CLASSES, *CLASSES, "anger", ""]
    assert (
        describe_centring(subjects[:12], even[:12], 3, "subject") == describe_centring(subjects, even, 3, "none") == []
    )
    (line,) = describe_centring(subjects, even, 3, "subject")
    assert line.startswith("2 of 14 scores are centred by the mean over all: of subjects (1) with fewer")
    assert describe_centring(subjects, even, 3, "all") == []
    assert "not centred: 2 are too few for 3 classes" in describe_centring(["a", "b"], ["", ""], 3, "all")[0]
    (line,) = describe_centring(subjects[:12], ["anger"] * 6 + even[6:12], 3, "subject")
    assert "which 1 of 2 subjects do not" in line
    assert describe_centring(subjects[:12], [""] * 12, 3, "subject") == []  # nothing is known


def read(path: Path) -> tuple[np.ndarray, list[str]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return np.array([[float(row[f"p_{name}"]) for name in CLASSES] for row in rows]), [row["subject"] for row in rows]


def test_predictions_of_a_run_and_of_zero_shot_are_centred_on_request(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tiny_cache(num_subjects=4, scans_per_class=2, class_names=CLASSES, dataset="bu3dfe")
    run, plain, centred = tmp_path / "run", tmp_path / "plain.csv", tmp_path / "centred.csv"
    assert call("fit", "--cache", cache, "--out", run, *QUICK, "--epochs", 1, "--centre-scores", "subject") == 0
    assert "CENTRED SCORES" in capsys.readouterr().out
    assert json.loads((run / "metrics.json").read_text())["centred_scores"] == "subject"
    assert call("predict", run, "--cache", cache, "--out", centred) == 0  # as the run was tested
    assert "CENTRED SCORES" in capsys.readouterr().out
    assert call("predict", run, "--cache", cache, "--out", plain, "--centre-scores", "none") == 0
    assert "CENTRED SCORES" not in capsys.readouterr().out
    (raw, subjects), (found, _) = read(plain), read(centred)
    odds = np.exp(centre_logits(np.log(raw), subjects, "subject"))
    np.testing.assert_allclose(found, odds / odds.sum(1, keepdims=True), atol=1e-5)
    assert np.abs(found - raw).max() > 1e-3

    # subjects of BU-3DFE show every expression equally often, so that is the default of an untrained model
    for name, more in (("default", []), ("raw", ["--centre-scores", "none"])):
        words = ["--zero-shot", "--cache", cache, "--out", tmp_path / name, "--classes", ",".join(CLASSES)]
        assert call("predict", *words, *more) == 0
    scores = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("default", "raw")]
    assert scores[0]["accuracy_uncentred"] == scores[1]["accuracy"] == scores[1]["accuracy_uncentred"]
    (found, subjects), (raw, _) = (read(tmp_path / name / "predictions.csv") for name in ("default", "raw"))
    odds = np.exp(centre_logits(np.log(raw), subjects, "subject"))
    np.testing.assert_allclose(found, odds / odds.sum(1, keepdims=True), atol=1e-5)
    assert "--task aus" in fails(
        capsys, "fit", "--cache", cache, "--out", run, "--task", "aus", "--centre-scores", "all"
    )


def test_tests_are_centred_by_neutral_scans(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also of people whom a cross-data-set test names anew, with two neutral scans each."""
    names, about = ("neutral", *CLASSES), {"num_subjects": 4, "scans_per_class": 2}
    trained = tiny_cache(name="a", class_names=names, dataset="bu3dfe", **about)
    tested = tiny_cache(name="b", class_names=names, dataset="bosphorus", seed=1, **about)
    run, fit = tmp_path / "run", ["fit", *QUICK, "--epochs", 1, "--train-cache", trained, "--test-cache", tested]
    assert call(*fit, "--out", run, "--centre-scores", "neutral") == 0
    assert "CENTRED SCORES: half of the scores of each subject's neutral scan" in capsys.readouterr().out
    assert call("predict", run, "--cache", tested, "--out", tmp_path / "alone.csv", "--centre-scores", "none") == 0
    with (tmp_path / "alone.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    logits = {row["sample_id"]: np.log([float(row[f"p_{name}"]) for name in CLASSES]) for row in rows}
    at_rest = {
        one["subject"]: np.mean(
            [logits[row["sample_id"]] for row in rows if (row["subject"], row["label"]) == (one["subject"], "neutral")],
            0,
        )
        for one in rows
    }
    own = {row["sample_id"]: at_rest[row["subject"]] for row in rows}
    with (run / "predictions.csv").open(newline="") as file:
        found = {row["sample_id"]: [float(row[f"p_{name}"]) for name in CLASSES] for row in csv.DictReader(file)}
    assert len(found) == 4 * 2 * len(CLASSES)
    labels = {row["sample_id"]: row["label"] for row in rows}
    alone = np.mean([CLASSES[int(logits[name].argmax())] == labels[name] for name in found])
    assert json.loads((run / "metrics.json").read_text())["accuracy_uncentred"] == pytest.approx(alone)
    for name, probabilities in found.items():
        odds = np.exp(logits[name] - own[name] / 2)
        np.testing.assert_allclose(probabilities, odds / odds.sum(), atol=1e-5)

    for wrong, more in (
        ("leave neutral out of --classes", ["--classes", ",".join(names)]),
        ("both subtract", ["--reference", "neutral"]),
    ):
        words = ["fit", "--cache", trained, *QUICK, "--centre-scores", "neutral", "--out", tmp_path / "no", *more]
        assert wrong in fails(capsys, *words)
    without = tiny_cache(name="c", class_names=CLASSES, dataset="bu3dfe", **about)
    words = ["--cache", without, "--out", tmp_path / "no", "--centre-scores", "neutral"]
    assert "no subject has a neutral scan" in fails(capsys, "fit", *QUICK, *words)
    assert "no subject has a neutral scan" in fails(capsys, "predict", "--zero-shot", *words)
    assert (
        call("predict", run, "--cache", without, "--out", tmp_path / "p.csv") == 0
    )  # as the run was tested: a note, no error
    out = capsys.readouterr().out
    assert "24 of 24 scores are not centred" in out and "CENTRED SCORES" not in out
