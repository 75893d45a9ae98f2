"""What a test leaves behind can be read back and says what the scores say."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from crossval_results import compute_metrics, compute_multilabel_metrics
from PIL import Image

from shared.runs import Prediction, Predictions
from train.reporting.report import describe_absent, write_report
from train.reporting.scores import format_confusion, list_classes
from train.runs.results import FoldResult, TestInfo
from train.tasks.single_label import SingleLabel

CLASSES = ("anger", 'fear, "great"', "surprise")


def write_test(folder: Path, true: np.ndarray, probabilities: np.ndarray) -> FoldResult:
    """The files of a test; items are of subjects S0, S1, …"""
    rows = tuple(
        Prediction(f"S{n},x", f"S{n}", (CLASSES[label],), (CLASSES[row.argmax()],), tuple(row.tolist()))
        for n, (label, row) in enumerate(zip(true, probabilities, strict=True))
    )
    info = TestInfo("classes", CLASSES, random_weights=True, num_test_subjects=3)
    result = FoldResult("run", info, SingleLabel().test(rows, CLASSES))
    write_report(folder, result, Predictions(CLASSES, False, rows), {"view_weights": {"texture 0": 0.6}})
    return result


def test_report_files_agree(tmp_path: Path) -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.3, 0.2]], np.float32)
    result = write_test(tmp_path, np.array([0, 1, 1]), probabilities)
    value = json.loads((tmp_path / "metrics.json").read_text())
    assert value["accuracy"] == 2 / 3
    assert value["confusion"] == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert value["random_weights"] is True
    assert value["view_weights"] == {"texture 0": 0.6}
    assert value["per_class_recall"] == [1, 0.5, None]
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["predicted"] for row in rows] == [CLASSES[0], CLASSES[1], CLASSES[0]]
    assert [row["sample_id"] for row in rows] == ["S0,x", "S1,x", "S2,x"]
    found = np.array([[float(row[f"p_{name}"]) for name in CLASSES] for row in rows])
    np.testing.assert_array_equal(found.astype(np.float32), probabilities)
    table = list_classes(result.task, CLASSES, result.metrics).format_text()
    assert len(table) == 4
    assert "50.0" in table[2]
    assert "–" in table[3]  # no recall where a class does not occur


def test_confusion_picture_shows_the_counts_where_they_are(tmp_path: Path) -> None:
    """Dark cells on the diagonal for a perfect test, off it for a test that is always wrong."""
    shades = []
    for predicted in (np.arange(3), np.array([1, 2, 0])):
        write_test(tmp_path, np.arange(3), np.eye(3, dtype=np.float32)[predicted])
        with Image.open(tmp_path / "confusion.png") as image:
            assert image.format == "PNG"
            shades.append(np.asarray(image.convert("RGB")).astype(float))
    assert shades[0].shape == shades[1].shape
    assert min(shades[0].shape[:2]) > 300
    darkest = (8, 48, 107)  # matplotlib's Blues at 1
    for picture, on_diagonal in zip(shades, (True, False), strict=True):
        rows, columns = np.nonzero(np.abs(picture - darkest).sum(-1) < 12)
        slope = np.polyfit(columns, rows, 1)[0]
        assert (slope > 0.5) == on_diagonal


def test_classes_that_nobody_tested_shows_are_named() -> None:
    metrics = compute_metrics(np.array([0, 0]), np.array([0, 1]), 3)
    note = describe_absent(metrics, ("anger", "fear", "joy"))
    assert "fear, joy" in note and "macro-F1" in note and "UAR" in note
    assert (metrics["macro_f1"] or 1) < (metrics["uar"] or 0)  # which is what the note is about
    assert describe_absent(compute_metrics(np.arange(3), np.arange(3), 3), CLASSES) == ""
    targets = np.array([[1, 0, -1], [0, 0, -1]], np.int8)
    several = compute_multilabel_metrics(targets, np.full((2, 3), 0.7, np.float32), np.full(3, 0.5, np.float32))
    assert "no test sample shows AU4:" in describe_absent(several, ("AU1", "AU4", "AU9"))


def test_class_names_are_whole_or_numbers_on_a_console() -> None:
    few, many = (
        ("happiness", "embarrassment", "sadness"),
        tuple(f"a rather long class {number}" for number in range(1, 13)),
    )
    head, *rows = format_confusion(compute_metrics(np.arange(3), np.array([0, 2, 1]), 3), few)
    assert head.split()[-3:] == list(few)
    assert [row.rindex("1") + 1 for row in rows] == [head.index(few[c]) + len(few[c]) for c in (0, 2, 1)]
    counts = np.repeat(np.arange(12), 10)
    head, *rows = format_confusion(compute_metrics(counts, counts, 12), many)
    assert head.split()[-12:] == [str(number) for number in range(1, 13)]
    assert all(f"{number} {name}" in row for number, name, row in zip(range(1, 13), many, rows, strict=True))
    assert max(map(len, (head, *rows))) <= 120 and len(set(map(len, rows))) == 1
