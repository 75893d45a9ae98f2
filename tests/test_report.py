"""What a test leaves behind can be read back and says what the scores say."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image

from train.data.items import Item
from train.inference.score import Scores
from train.reporting.report import describe_absent, format_table, write_report
from train.tasks.metrics import compute_metrics
from train.tasks.multilabel import compute_multilabel_metrics

CLASSES = ("anger", 'fear, "great"', "surprise")


def test_report_files_agree(tmp_path: Path) -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.3, 0.2]], np.float32)
    true = np.array([0, 1, 1])
    items = [Item(f"S{i},x", f"S{i}", CLASSES[label], (i,), i) for i, label in enumerate(true)]
    scores = Scores(items, probabilities, {"texture 0": 0.6, "texture 20": 0.4}, 0.25)
    metrics = compute_metrics(true, probabilities.argmax(1), 3)
    write_report(tmp_path, metrics, scores, CLASSES, {"random_weights": True}, "0.667")
    value = json.loads((tmp_path / "metrics.json").read_text())
    assert value["accuracy"] == 2 / 3
    assert value["confusion"] == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert value["random_weights"] is True
    assert value["view_weights"] == {"texture 0": 0.6, "texture 20": 0.4}
    assert value["per_class_recall"] == [1, 0.5, None]
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["predicted"] for row in rows] == [CLASSES[0], CLASSES[1], CLASSES[0]]
    assert [row["sample_id"] for row in rows] == ["S0,x", "S1,x", "S2,x"]
    found = np.array([[float(row[f"p_{name}"]) for name in CLASSES] for row in rows])
    np.testing.assert_allclose(found, probabilities, atol=1e-6)
    table = format_table(metrics, CLASSES).splitlines()
    assert len(table) == 4
    assert "0.500" in table[2]
    assert " - " in table[3]  # no recall where a class does not occur


def test_confusion_picture_shows_the_counts_where_they_are(tmp_path: Path) -> None:
    """Dark cells on the diagonal for a perfect test, off it for a test that is always wrong."""
    shades = []
    for predicted in (np.arange(3), np.array([1, 2, 0])):
        scores = Scores([], np.zeros((0, 3), np.float32), {}, 0)
        write_report(tmp_path, compute_metrics(np.arange(3), predicted, 3), scores, CLASSES, {}, "title")
        with Image.open(tmp_path / "confusion.png") as image:
            assert image.format == "PNG"
            shades.append(np.asarray(image.convert("RGB")).astype(float))
    assert shades[0].shape == shades[1].shape
    assert min(shades[0].shape[:2]) > 300
    darkest = (8, 48, 107)  # matplotlib's Blues at 1
    for picture, on_diagonal in zip(shades, (True, False), strict=True):
        rows, columns = np.nonzero(np.abs(picture[:, :-200] - darkest).sum(-1) < 12)
        slope = np.polyfit(columns, rows, 1)[0]
        assert (slope > 0.5) == on_diagonal


def test_a_console_names_every_class_in_full() -> None:
    names = ("happiness", "repression", "a much longer class name")
    metrics = compute_metrics(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 0]), 3)
    lines = format_table(metrics, names).splitlines()
    assert all(name in lines[0] for name in names) and len({len(line) for line in lines}) == 1
    many = [f"class-{number}" for number in range(20)]
    lines = format_table(compute_metrics(np.arange(20), np.arange(20), 20), many).splitlines()
    assert lines[0].split()[-20:] == [str(number) for number in range(1, 21)]
    assert lines[7].split()[:2] == ["7", "class-6"] and lines[7].split()[-20:] == ["0"] * 6 + ["1"] + ["0"] * 13


def test_classes_that_nobody_tested_shows_are_named() -> None:
    metrics = compute_metrics(np.array([0, 0]), np.array([0, 1]), 3)
    note = describe_absent(metrics, ("anger", "fear", "joy"))
    assert "fear, joy" in note and "macro-F1" in note and "UAR" in note
    assert metrics.macro_f1 < metrics.uar  # which is what the note is about
    assert describe_absent(compute_metrics(np.arange(3), np.arange(3), 3), CLASSES) == ""
    targets = np.array([[1, 0, -1], [0, 0, -1]], np.int8)
    several = compute_multilabel_metrics(targets, np.full((2, 3), 0.7, np.float32), np.full(3, 0.5, np.float32))
    assert "no test sample shows AU4:" in describe_absent(several, ("AU1", "AU4", "AU9"))


def test_class_names_are_whole_or_numbers_on_a_console() -> None:
    few, many = (
        ("happiness", "embarrassment", "sadness"),
        tuple(f"a rather long class {number}" for number in range(1, 13)),
    )
    head, *rows = format_table(compute_metrics(np.arange(3), np.array([0, 2, 1]), 3), few).splitlines()
    assert head.split()[-3:] == list(few)
    assert [head.index(name) + len(name) for name in few] == [
        row.rindex("1") + 1 if name == few[0] else head.index(name) + len(name)
        for name, row in zip(few, rows, strict=True)
    ]
    counts = np.repeat(np.arange(12), 1000)
    head, *rows = format_table(compute_metrics(counts, counts, 12), many).splitlines()
    assert head.split()[-12:] == [str(number) for number in range(1, 13)]
    assert all(f"{number} {name}" in row for number, name, row in zip(range(1, 13), many, rows, strict=True))
    assert max(map(len, (head, *rows))) <= 140 and len(set(map(len, rows))) == 1
