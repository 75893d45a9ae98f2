"""Intensity of action units: ICC(3,1), MAE and MSE against their definitions, and a run from labels to reports."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MakeCache
from test_train_cli import QUICK, call, fails

from preprocess.viewer.run_records import read_run
from shared.cache import open_cache
from shared.runs import Prediction, read_predictions
from train.tasks.criterion import IntensityCrossEntropy
from train.tasks.intensity import LARGEST
from train.tasks.task import Metrics, find_task

TASK = find_task("au-intensity")
# Shrout & Fleiss 1979, "Intraclass correlations: uses in assessing rater reliability", table 2: 6 targets, 4 judges.
RATINGS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)


def brute_icc(table: np.ndarray) -> float:
    """ICC(3,1) of a table (targets, raters) by the two-way analysis of variance: (BMS − EMS) / (BMS + (k − 1) EMS)."""
    num, raters = table.shape
    mean, rows, columns = table.mean(), table.mean(1), table.mean(0)
    between = raters * sum((row - mean) ** 2 for row in rows) / (num - 1)
    residual = sum((table[i, j] - rows[i] - columns[j] + mean) ** 2 for i in range(num) for j in range(raters)) / (
        (num - 1) * (raters - 1)
    )
    return float((between - residual) / (between + (raters - 1) * residual))


def predict(true: np.ndarray, values: np.ndarray) -> list[Prediction]:
    """Rows of two units; true intensities (n, 2), -1 = unknown."""
    rows = []
    for number, (labels, predicted) in enumerate(zip(true, values, strict=True)):
        names = ("AU6", "AU12")
        rows.append(
            Prediction(
                f"frame {number}",
                f"S{number % 5}",
                tuple(f"{name}={value}" for name, value in zip(names, labels, strict=True) if value >= 0),
                tuple(f"{name}={value:.2f}" for name, value in zip(names, predicted, strict=True)),
                tuple((predicted / LARGEST).astype(np.float32).tolist()),
                tuple(name for name, value in zip(names, labels, strict=True) if value < 0),
            )
        )
    return rows


def test_icc_is_the_published_one() -> None:
    assert brute_icc(RATINGS) == pytest.approx(0.7148, abs=5e-5)  # table 4 of the paper: .71
    halves = np.array([[0, 1], [1, 1], [3, 2], [5, 4]]) + 0.0
    metrics = TASK.test(predict(np.tile(halves[:, :1], 2).astype(int), np.tile(halves[:, 1:], 2)), ("AU6", "AU12"))
    assert metrics["icc"] == pytest.approx(brute_icc(halves))


def test_scores_equal_their_definitions_and_unknown_frames_count_nowhere() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(-1, 6, (200, 2))
    values = np.clip(0.6 * true + rng.normal(1, 1, true.shape), 0, 5)
    rows = predict(true, values)
    metrics = TASK.test(rows, ("AU6", "AU12"))
    for unit in range(2):
        known = true[:, unit] >= 0
        x, y = true[known, unit], values[known, unit]
        assert metrics.per_class["num_known"][unit] == known.sum()
        assert metrics.per_class["icc"][unit] == pytest.approx(brute_icc(np.stack([x, y], 1)), abs=1e-6)
        assert metrics.per_class["mae"][unit] == pytest.approx(np.abs(x - y).mean(), abs=1e-6)
        assert metrics.per_class["mse"][unit] == pytest.approx(((x - y) ** 2).mean(), abs=1e-6)
    for name in ("icc", "mae", "mse"):
        assert metrics[name] == pytest.approx(
            np.mean([value for value in metrics.per_class[name] if value is not None])
        )
    folds = [TASK.test(part, ("AU6", "AU12")) for part in (rows[:70], rows[70:])]
    pooled: Metrics = TASK.pool(folds)
    assert pooled.per_class["icc"] == pytest.approx(metrics.per_class["icc"])
    again = TASK.read_metrics(json.loads(json.dumps(metrics.to_json(TASK))), 2)
    assert again == metrics


def test_icc_is_not_defined_where_labels_do_not_vary() -> None:
    true, values = np.array([[0, 2], [0, 4], [0, 0]]), np.array([[0.1, 2], [0.3, 4], [0.2, 0]])
    metrics = TASK.test(predict(true, values), ("AU6", "AU12"))
    assert metrics.per_class["icc"][0] is None
    assert metrics.per_class["icc"][1] == pytest.approx(1) and metrics["icc"] == pytest.approx(1)
    assert metrics.per_class["mae"][0] == pytest.approx(0.2)
    nothing = TASK.test(predict(np.full((2, 2), -1), np.ones((2, 2))), ("AU6", "AU12"))
    assert nothing["icc"] is None and nothing["mae"] is None


def test_the_loss_is_least_at_the_mean_intensity() -> None:
    labels = torch.tensor([[0], [1], [5], [-1]], dtype=torch.int8)
    logits = torch.zeros(4, 1, requires_grad=True)
    mean = torch.logit(torch.tensor(2.0 / LARGEST))
    loss = IntensityCrossEntropy().mean_loss(logits + mean, labels)
    loss.backward()
    assert logits.grad is not None
    assert float(logits.grad.sum()) == pytest.approx(0, abs=1e-6) and logits.grad[3] == 0


def test_a_run_of_intensities(tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache, out = tiny_cache(num_subjects=4, num_frames=2, scans_per_class=1, units="aus"), tmp_path / "cv"
    options = [*QUICK, "--folds", 2, "--epochs", 20, "--lr", 3e-3, "--batch-size", 4, "--task", "au-intensity"]
    assert call("crossval", "--cache", cache, "--out", out, "--jobs", 1, *options) == 0
    text = capsys.readouterr().out
    report = (out / "report.txt").read_text()
    assert "ICC(3,1)" in report and "MAE" in report and "%" not in report.split("follows")[0] and "in %" not in text
    assert not (out / "reliability.png").exists() and not (out / "fold-00" / "thresholds.json").exists()
    tested = [row for name in ("fold-00", "fold-01") for row in read_predictions(out / name / "predictions.csv").rows]
    known = [row for row in tested if row.labels]
    assert len(known) == 23  # row 0 is not coded
    pairs = np.array([[int(row.labels[0].split("=")[1]), LARGEST * row.probabilities[0]] for row in known])
    pooled = json.loads((out / "report.json").read_text())["summary"]["pooled"]
    assert pooled["icc"] == pytest.approx(brute_icc(pairs), abs=1e-6)
    assert pooled["icc"] > 0.3  # the spot that tells is easy to see
    with (out / "table.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["class"] == "AU12" and float(row["icc"]) == pytest.approx(pooled["icc"])
    assert "AU12" in (out / "table.tex").read_text()

    run = out / "fold-00"
    assert call("evaluate", run) == 0
    assert call("report", out, run, "--out", tmp_path / "r.html", "--no-faces") == 0
    page = (tmp_path / "r.html").read_text()
    assert "not of the test" not in page and "ICC(3,1)" in page
    assert call("compare", out, "--out", tmp_path / "compared") == 0
    assert "ICC(3,1)," not in (tmp_path / "compared" / "compare.tex").read_text()
    assert call("predict", run, "--cache", cache, "--out", tmp_path / "p.csv") == 0
    with (tmp_path / "p.csv").open(newline="") as file:
        for line in csv.DictReader(file):
            assert float(line["AU12_r"]) == pytest.approx(5 * float(line["p_AU12"]), abs=0.006)
            assert "AU12_c" not in line
    records = read_run(out, open_cache(cache))
    for prediction in records.tested:
        shown = [name for name, found in records.decide(prediction).items() if found in ("TP", "FN")]
        assert bool(shown) == (prediction.labels == ("AU12",))
    message = fails(capsys, "fit", "--cache", cache, "--out", tmp_path / "b", *options, "--class-weights", "balanced")
    assert "is for yes or no" in message
