"""Every file of a cross-validation report says what the folds say, and what qualifies it."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crossval_results import (
    ABOUT,
    CLASSES,
    about_with,
    compute_multilabel_metrics,
    fold_result,
    multilabel_folds,
    random_folds,
    single_fold,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import accuracy_score, balanced_accuracy_score, recall_score

from train.reporting.crossval import (
    format_crossval_report,
    format_latex_table,
    list_folds,
    write_crossval_report,
)
from train.reporting.figures import draw_crossval
from train.reporting.limits import list_warnings
from train.reporting.summary import summarise_folds
from train.reporting.table import escape_latex
from train.tasks.multi_label import ActionUnits


def test_all_files_say_the_same(tmp_path: Path) -> None:
    results, trues, predictions = random_folds(5, [60, 50, 70])
    results = [dataclasses.replace(result, seconds=10.0 + k) for k, result in enumerate(results)]
    summary, about = summarise_folds(results), about_with(method="Ours")
    write_crossval_report(tmp_path, summary, results[::-1], about)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "classes.pdf", "classes.png", "confusion.pdf", "confusion.png", "folds.csv", "folds.pdf", "folds.png", "report.json",
        "report.txt", "table.csv", "table.tex",
    ]  # fmt: skip
    true, predicted = np.concatenate(trues), np.concatenate(predictions)
    value = json.loads((tmp_path / "report.json").read_bytes())
    assert value["summary"]["pooled"]["uar"] == pytest.approx(balanced_accuracy_score(true, predicted))
    assert value["about"] == vars(about)
    assert [fold["name"] for fold in value["folds"]] == ["fold-00", "fold-01", "fold-02"]
    accuracy = value["summary"]["over_folds"]["accuracy"]
    text = (tmp_path / "report.txt").read_text()
    shown = f"{100 * accuracy['mean']:.1f} ± {100 * accuracy['std']:.1f}"
    assert re.search(rf"^accuracy +{shown} +{100 * accuracy_score(true, predicted):.1f}$", text, re.MULTILINE)
    assert "11.0 s a fold, 33 s for 3 folds" in text

    with (tmp_path / "folds.csv").open(newline="") as file:
        folds = list(csv.DictReader(file))
    assert [float(row["accuracy"]) for row in folds] == [
        accuracy_score(*k) for k in zip(trues, predictions, strict=True)
    ]
    for row, result in zip(folds, results, strict=True):
        assert row["fold"] == result.name
        found = [float(row[f"recall_{name}"]) if row[f"recall_{name}"] else None for name in CLASSES]
        assert found == list(result.metrics.per_class["recall"])
    with (tmp_path / "table.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    recall = recall_score(true, predicted, labels=range(4), average=None)
    assert [row["class"] for row in table] == list(CLASSES)
    assert [float(row["recall"]) for row in table] == pytest.approx(list(recall))

    latex = (tmp_path / "table.tex").read_text()
    method, heads, *cells = parse_latex(latex)
    assert method[1:] == [r"\multicolumn{2}{c}{Ours}"] and heads == ["", r"Mean $\pm$ std", "Pooled"]
    assert [row[0] for row in cells] == ["Anger", "Disgust", "Fear", "Happiness", "Acc.", "UAR", "F1"]
    assert cells[4][1] == rf"${100 * accuracy['mean']:.1f}_{{\pm {100 * accuracy['std']:.1f}}}$"
    assert [row[2] for row in cells[:4]] == [f"{100 * r:.1f}" for r in recall]
    as_row = " & ".join(["Ours", *(row[1] for row in cells)])
    assert f"% as one row (Anger, Disgust, Fear, Happiness, Acc., UAR, F1): {as_row} \\\\" in latex.splitlines()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write_crossval_report(tmp_path, summary, results, about)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_qualifies_the_numbers_stands_in_every_text() -> None:
    results, _, _ = random_folds(5, [60, 50])
    named = [
        dataclasses.replace(r, name=f"round-000/{r.name}", info=dataclasses.replace(r.info, random_weights=True))
        for r in results
    ]
    about = about_with(
        num_folds=4,
        missing_folds=["round-001/fold-00", "round-001/fold-01"],
        num_rounds=2,
        num_rounds_published=100,
        label_map={"happiness": "positive"},
        notes=["20 subjects,\nwhere the literature has 100"],
    )
    summary = summarise_folds(named)
    text = format_crossval_report(summary, named, about)
    latex = format_latex_table(summary, named, about)
    for words in (
        "PARTIAL: 2 of 4 folds are finished; missing: round-001/fold-00, round-001/fold-01",
        "FEWER ROUNDS: 2, where the protocol has 100",
        "RANDOM WEIGHTS",
        "One sample is one scan",
        "after its last epoch (30); no choice was made on test data",
        "licensed: show no face",
        "20 subjects, where the literature has 100",
    ):
        assert words in text
        assert words in latex
    assert "happiness → positive" in text
    assert all(line.startswith("%") for line in latex.split("\\begin{tabular}")[0].splitlines())
    assert list_warnings(summarise_folds(results), results, about_with(num_folds=2)) == []

    marked = [
        dataclasses.replace(r, info=dataclasses.replace(r.info, random_weights=True, shuffled_labels=True))
        for r in results
    ]
    warnings = " ".join(list_warnings(summarise_folds(marked), marked, about_with(num_folds=2)))
    assert "RANDOM WEIGHTS" in warnings  # a fold knows better than who asks
    assert "CONTROL" in warnings


def test_one_fold_has_no_standard_deviation() -> None:
    results, _, _ = random_folds(1, [50])
    summary = summarise_folds(results)
    text = format_crossval_report(summary, results, about_with(num_folds=1))
    assert re.search(r"^accuracy +\d+\.\d +\d", text, re.MULTILINE)
    assert "no standard deviation" in text
    latex = format_latex_table(summary, results, about_with(num_folds=1))
    assert "pm" not in latex.split("\\midrule")[1]


def test_many_folds_and_classes_without_samples_are_reported() -> None:
    true = [np.array([0, 0, 1])] * 60
    results = [single_fold(f"subject-S{k:02d}", t, np.array([0, k % 4, 1])) for k, t in enumerate(true)]
    summary = summarise_folds(results)
    text = format_crossval_report(summary, results, about_with(num_folds=60))
    assert re.search(r"^fear +0 +– +–", text, re.MULTILINE)
    assert "subject-S17" not in text  # in folds.csv
    assert "60 of 60 folds lack a class" in text
    assert len(list(csv.reader(io.StringIO(list_folds(summary, results).format_csv())))) == 61
    assert format_latex_table(summary, results, ABOUT).count("--") >= 2


# --- LaTeX ---


def parse_latex(text: str) -> list[list[str]]:
    """The cells of the tabular; rules and comments dropped. Fails where a row has another number of cells."""
    begin = re.search(r"\\begin\{tabular\}\{(.*)\}\n", text)
    assert begin is not None
    num = sum(character in "lcr" for character in begin[1].replace(r"@{\quad}", ""))
    body = text[begin.end() : text.index(r"\end{tabular}")]
    rows = []
    for line in body.splitlines():
        if line.endswith(r" \\"):
            rows.append([cell.strip() for cell in re.split(r"(?<!\\)&", line[:-3])])
            spanned = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d)\}", line))
            assert len(rows[-1]) + spanned == num
        else:
            assert line in (r"\toprule", r"\midrule", r"\bottomrule", r"\cmidrule(lr){2-3}")
    return rows


UNESCAPE = {
    r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", r"\textless{}": "<",
    r"\textgreater{}": ">", r"$\pm$": "±", r"$\to$": "→", "--": "–",
    r"\{": "{", r"\}": "}", r"\$": "$", r"\&": "&", r"\#": "#", r"\_": "_", r"\%": "%",
}  # fmt: skip


@given(text=st.text(alphabet="ab \\{}$&#_%~^<>±→\n\t"))
def test_latex_escapes_can_be_read_back(text: str) -> None:
    escaped = escape_latex(text)
    pattern = "|".join(re.escape(key) for key in UNESCAPE)
    assert re.sub(pattern, lambda match: UNESCAPE[match[0]], escaped) == " ".join(text.split())
    assert not re.search(
        r"[\\{}$&#_%~^\n]", re.sub(pattern, "", escaped)
    )  # nothing special is left outside the escapes


def test_awkward_names_reach_every_file_whole(tmp_path: Path) -> None:
    names = ('50% & "more"', "a_b{$x^2", "=1+1,#", "\\end{tabular}")
    rng = np.random.default_rng(0)
    results = [single_fold(f"fold-{k:02d}", rng.integers(0, 4, 30), rng.integers(0, 4, 30), names) for k in range(3)]
    about = about_with(title="a $title_{", licence="100 % yours\n& mine")
    summary = summarise_folds(results)
    write_crossval_report(tmp_path, summary, results, about)
    cells = parse_latex((tmp_path / "table.tex").read_text())
    assert cells[3][0] == r"A\_b\{\$x\textasciicircum{}2"
    with (tmp_path / "table.csv").open(newline="") as file:
        assert [row["class"] for row in csv.DictReader(file)] == list(names)
    with Image.open(tmp_path / "confusion.png") as image:
        assert image.format == "PNG"


@pytest.mark.parametrize(("f1_name", "num_folds"), [("F1", 3), ("UF1", 1)])
def test_the_latex_table_fits_a_column(f1_name: str, num_folds: int) -> None:
    """Every cell in 10 pt, each letter as wide as a wide one (5.6 pt), is narrower than CVPR's 237 pt; UF1 is MEGC's word."""
    names = tuple(f"AU{k}" for k in (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24))
    results = multilabel_folds(1, [60] * num_folds, names)
    about = about_with(method="Ours", f1_name=f1_name, num_folds=num_folds)
    *heads, first = (rows := parse_latex(format_latex_table(summarise_folds(results), results, about)))[
        : 1 + min(num_folds, 2)
    ]
    assert first[0] == "AU1" and [row[0] for row in rows[-3:]] == [f1_name, "Micro-F1", "UAR"]
    assert "Ours" in heads[0][1]
    shown = [[re.sub(r"\\pm|[${}_\\]", "", cell) for cell in row] for row in rows if len(row) == len(first)]
    widths = [max(len(row[column]) for row in shown) for column in range(len(first))]
    assert 5.6 * sum(widths) + 12 * len(widths) < 237


def test_each_class_has_a_row_in_the_latex_table() -> None:
    names = tuple(f"AU{k}" for k in (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24))
    results = multilabel_folds(1, [60, 60, 60], names)
    summary = summarise_folds(results)
    rows = parse_latex(format_latex_table(summary, results, ABOUT))[1:]
    assert [row[0] for row in rows[1:]] == [*names, "F1", "Micro-F1", "UAR"]
    one = summary.classes_over_folds["f1"][6]
    assert one.mean is not None and one.std is not None
    assert rows[7][1] == rf"${100 * one.mean:.1f}_{{\pm {100 * one.std:.1f}}}$"
    text = format_crossval_report(summary, results, about_with(unit="frame"))
    assert "thresholds were chosen on training" in " ".join(text.split())
    table = list(csv.DictReader(io.StringIO(summary.list_classes().format_csv())))
    assert [int(row["support"]) for row in table] == list(summary.pooled.per_class["support"])


# --- the picture ---


def blue_rows(png: bytes, columns: slice) -> np.ndarray:
    """Heights (from the top) of the fold dots' blue in some columns of the picture."""
    with Image.open(io.BytesIO(png)) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)[:, columns]
    rows, _ = np.nonzero(np.abs(pixels - (0x21, 0x66, 0xAC)).sum(-1) < 8)
    return rows


def test_dots_of_better_folds_stand_higher() -> None:
    heights = []
    for num_right in (2, 8):
        results = [
            single_fold(f"fold-{k}", np.zeros(10, int), np.array([0] * num_right + [1] * (10 - num_right)))
            for k in range(3)
        ]
        png = draw_crossval(summarise_folds(results), results, [], "png")["folds"]
        heights.append(blue_rows(png, slice(None)).mean())
    assert heights[1] < heights[0] - 100


def test_the_picture_of_action_units_shows_taller_bars_for_better_ones() -> None:
    true = np.tile(np.array([[1], [0]], np.int8), (20, 2))
    probabilities = np.stack([true[:, 0] * 1.0, np.where(np.arange(40) < 20, 1 - true[:, 1], true[:, 1])], 1)
    metrics = compute_multilabel_metrics(true, probabilities.astype(np.float32), np.full(2, 0.5, np.float32))
    assert metrics.per_class["f1"] == (1, 0.5)
    results = [fold_result("fold-00", ActionUnits(), metrics, ("AU1", "AU2"))]
    png = draw_crossval(summarise_folds(results), results, ["A WARNING: its reason"], "png")["classes"]
    with Image.open(io.BytesIO(png)) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert (np.abs(pixels - (0xB2, 0x18, 0x2B)).sum(-1) < 30)[-30:].any()  # in red, at the foot
    blue = (np.abs(pixels - (0x7F, 0xA8, 0xD1)).sum(-1) < 8)[pixels.shape[0] // 5 :]  # below the legend
    columns = np.flatnonzero(blue.sum(0) > 40)
    first, last = blue[:, columns[5]].sum(), blue[:, columns[-5]].sum()
    assert first > 1.5 * last


def test_no_name_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long names of classes and of folds are wrapped; unfinished folds are counted against all."""
    drawn: list[Any] = []
    monkeypatch.setattr("train.reporting.figures.encode_figure", lambda figure, form: drawn.append(figure))
    names = ("a class whose name is of many words", "another", "third")
    results = [single_fold(f"subject-{'x' * 30}{n}", np.arange(3), np.arange(3), names) for n in range(2)]
    about = about_with(num_folds=5, missing_folds=["a", "b", "c"])
    draw_crossval(summarise_folds(results), results, [], "png")
    classes, folds, confusion = ([label.get_text() for label in one.axes[0].get_xticklabels()] for one in drawn)
    for labels in (classes, confusion):
        assert " ".join(" ".join(labels).split()) == " ".join(names)
    assert ["".join(label.split()) for label in folds] == [result.name for result in results]
    assert all(not figure.get_suptitle() and not figure.get_supxlabel() for figure in drawn)
    assert "over 2 of 5 folds" in format_latex_table(summarise_folds(results), results, about)
