"""Scans predicted in one step: the same numbers as by way of a cache, and one line for what is wrong."""

from __future__ import annotations

import csv
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from command_lines import preprocess
from conftest import random_text
from PIL import Image
from scan_folders import write_scan
from test_build_embeddings import read_probabilities
from test_train_cli import QUICK, call

from shared.schema import text_file_name
from shared.text import write_text_embeddings

LABELS = ("neutral", "anger", "happiness")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: str) -> Path:
    """Scans of three people, scans/S0-anger.obj …, their cache, and runs on it: plain, and compared with neutral scans."""
    folder = tmp_path_factory.mktemp("predict")
    (folder / "scans").mkdir()
    lines = ["path,subject,label,landmarks"]
    for subject in range(3):
        for label, word in enumerate(LABELS):
            name = f"S{subject}-{word}"
            textured, skin = (subject, label) != (0, 1), 3 * subject + label
            write_scan(folder / "scans", name, 4.0 * label, textured=textured, skin=skin)
            lines.append(f"{name}.obj,S{subject},{word},{name}.csv")
    (folder / "scans" / "manifest.csv").write_text("\n".join(lines) + "\n")
    cache = folder / "cache"
    assert (
        preprocess("build", "folder", "--root", folder / "scans", "--cache", cache, "--size", 32, "--workers", 1) == 0
    )
    write_text_embeddings(cache / "text" / text_file_name(tiny_model), random_text(LABELS, 32, tiny_model))
    fit = ["fit", "--cache", cache, *QUICK, "--lr", 1e-2, "--modalities", "texture,normal", "--views", "-20,0"]
    assert call(*fit, "--out", folder / "run") == 0
    assert call(*fit, "--out", folder / "compared", "--reference", "neutral") == 0
    for run in ("run", "compared"):
        assert call("predict", folder / run, "--cache", cache, "--out", folder / f"{run}.csv") == 0
    return folder


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Return the one line of a user's error."""
    capsys.readouterr()
    assert preprocess(*arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("error: ", "failed: "))]
    assert len(lines) == 1, lines
    return lines[0]


def test_a_scan_is_predicted_as_its_row_of_a_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder / "scans")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    capsys.readouterr()
    scans, landmarks = ["S0-anger.obj", "S1-happiness.obj"], ["S0-anger.csv", "S1-happiness.csv"]
    table = folder / "found.csv"
    command = [
        "predict",
        folder / "run",
        *scans,
        "--landmarks",
        *landmarks,
        "--csv",
        table,
        "--out",
        folder / "pictures",
    ]
    assert preprocess(*command) == 0
    found, wanted = read_probabilities(table), read_probabilities(folder / "run.csv")
    printed = capsys.readouterr().out
    assert list(found) == scans
    for scan in scans:
        probabilities = wanted[scan.removesuffix(".obj")]
        np.testing.assert_allclose(found[scan], probabilities, atol=1e-6)
        assert (
            f"{scan}: {('anger', 'happiness')[int(np.argmax(probabilities))]} {100 * max(probabilities):.1f} %"
            in printed
        )
        assert re.search(rf"{scan}: aligned by its landmarks, .* turned by [0-3]°; .* eyes 6\d mm apart", printed)
    assert "S0-anger.obj: no texture; predicted from the other images" in printed and "RANDOM WEIGHTS" in printed
    with table.open(newline="") as file:
        assert [line["lacks"] for line in csv.DictReader(file)] == ["texture", ""]
    assert sorted(path.name for path in (folder / "pictures").iterdir()) == ["S0-anger.png", "S1-happiness.png"]
    with Image.open(folder / "pictures" / "S0-anger.png") as image:
        assert min(image.size) > 500
    assert not list(tmp_path.iterdir())  # nothing of the faces is left behind


def test_units_axes_and_exports(folder: Path, tmp_path: Path) -> None:
    """A copy in metres with z up, as Blender writes it, and without landmarks; the model in a folder of its own."""
    lines = (folder / "scans" / "S1-happiness.obj").read_text().splitlines()
    turned = []
    for line in lines:
        if line.startswith("v "):
            x, y, z = (float(text) / 1000 for text in line.split()[1:])
            line = f"v {x:.7f} {-z:.7f} {y:.7f}"
        turned.append(line)
    for name in ("S1-happiness.mtl", "S1-happiness.png"):
        (tmp_path / name).write_bytes((folder / "scans" / name).read_bytes())
    scan, table, picture = tmp_path / "turned.obj", tmp_path / "p.csv", tmp_path / "new" / "p.pdf"
    scan.write_text("\n".join(turned))
    assert call("export", folder / "run", "--out", tmp_path / "exported") == 0
    command = ["predict", tmp_path / "exported", scan, "--columns", "units=m,up=z"]
    assert preprocess(*command, "--csv", table, "--out", picture) == 0
    wanted = read_probabilities(folder / "run.csv")["S1-happiness"]
    np.testing.assert_allclose(read_probabilities(table)[str(scan)], wanted, atol=0.02)
    assert picture.read_bytes().startswith(b"%PDF")


def test_a_model_that_compares_with_a_neutral_scan(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scans, table = folder / "scans", folder / "compared-found.csv"
    command = ["predict", folder / "compared", scans / "S2-anger.obj", "--csv", table]
    assert "--neutral FILE" in refused(capsys, *command)
    assert preprocess(*command, "--neutral", scans / "S2-neutral.obj") == 0
    found = read_probabilities(table)
    assert list(found) == [str(scans / "S2-anger.obj")]
    np.testing.assert_allclose(
        found[str(scans / "S2-anger.obj")], read_probabilities(folder / "compared.csv")["S2-anger"], atol=0.02
    )
    notes = folder / "notes.obj"
    notes.write_text("no mesh")
    assert f"error: {notes}: " in refused(capsys, *command, "--neutral", notes)


def test_a_neutral_scan_centres_the_scores_of_any_model_of_classes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans, cache, tables = folder / "scans", folder / "cache", [folder / "one.csv", folder / "all.csv"]
    command = ["predict", folder / "run", scans / "S2-anger.obj", "--csv", tables[0]]
    assert preprocess(*command, "--neutral", scans / "S2-neutral.obj") == 0
    assert "CENTRED SCORES: half of the scores" in capsys.readouterr().out
    assert call("predict", folder / "run", "--cache", cache, "--out", tables[1], "--centre-scores", "neutral") == 0
    one, centred, alone = (read_probabilities(path) for path in (*tables, folder / "run.csv"))
    assert list(one) == [str(scans / "S2-anger.obj")]
    np.testing.assert_allclose(one[str(scans / "S2-anger.obj")], centred["S2-anger"], atol=0.02)
    odds = np.array(alone["S2-anger"]) / np.sqrt(alone["S2-neutral"])
    np.testing.assert_allclose(centred["S2-anger"], odds / odds.sum(), atol=1e-5)


def test_a_model_that_predicts_neutral_has_no_use_for_a_neutral_scan(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", "--cache", folder / "cache", *QUICK, "--classes", ",".join(LABELS), "--out", tmp_path / "run"]
    assert call(*words) == 0
    scan, neutral = folder / "scans" / "S2-anger.obj", folder / "scans" / "S2-neutral.obj"
    assert "predicts neutral" in refused(capsys, "predict", tmp_path / "run", scan, "--neutral", neutral)


def test_a_scan_is_predicted_alike_whatever_is_named_beside_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, scans = folder / "centred", [folder / "scans" / f"S{k}-anger.obj" for k in range(3)]
    fit = ["fit", "--cache", folder / "cache", *QUICK, "--epochs", 0, "--modalities", "normal", "--views", "0"]
    assert call(*fit, "--out", run, "--centre-scores", "all") == 0  # three scans are enough for two classes
    tables = [folder / "together.csv", folder / "one.csv"]
    for table, some in zip(tables, (scans, scans[:1]), strict=True):
        capsys.readouterr()
        assert preprocess("predict", run, *some, "--csv", table) == 0
        printed = capsys.readouterr().out
        assert "each scan is decided alone; the run's own scores are centred" in printed
        assert "CENTRED SCORES" not in printed
    together, one = map(read_probabilities, tables)
    np.testing.assert_allclose(together[str(scans[0])], one[str(scans[0])], atol=1e-6)


def test_frames_are_one_prediction(folder: Path) -> None:
    table = folder / "sequence.csv"
    frames = [folder / "scans" / f"S2-{word}.obj" for word in LABELS]
    assert preprocess("predict", folder / "run", *frames, "--sequence", "--csv", table) == 0
    assert list(read_probabilities(table)) == ["scans"]


def test_one_line_says_what_is_wrong(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, good = folder / "run", folder / "scans" / "S0-anger.obj"
    notes, flat = tmp_path / "notes.docx", tmp_path / "flat.obj"
    notes.write_bytes(b"PK\3\4")
    flat.write_text("v 0 0 0\nv 150 0 0\nv 0 150 0\nv 150 150 0\nf 1 2 3\nf 2 4 3\n")
    assert f"{notes}: " in refused(capsys, "predict", run, notes)
    assert "no face found" in refused(capsys, "predict", run, flat)
    assert "no such file" in refused(capsys, "predict", run, tmp_path / "none.obj")
    assert "name its meshes" in refused(capsys, "predict", run, tmp_path)
    assert "no run here" in refused(capsys, "predict", tmp_path, good)
    assert "give a folder" in refused(capsys, "predict", run, good, flat, "--out", tmp_path / "p.png")
    assert ".pdf" in refused(capsys, "predict", run, good, "--out", tmp_path / "p.jpeg")
    assert "2 files for 1 scans" in refused(capsys, "predict", run, good, "--landmarks", good, good)
    assert "given twice" in refused(capsys, "predict", run, good, good)
    assert "same axis" in refused(capsys, "predict", run, good, "--columns", "up=z,facing=z")
    capsys.readouterr()
    assert preprocess("predict", run, good, flat, "--csv", tmp_path / "p.csv") == 1
    assert f"failed: {flat}: no face found" in capsys.readouterr().err
    assert list(read_probabilities(tmp_path / "p.csv")) == [str(good)]
