"""The HTML report: whole in itself, its numbers those of metrics.json, its pictures the cache's pixels, its gaps named."""

from __future__ import annotations

import base64
import importlib.metadata
import io
import json
import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import write_tiny_cache
from PIL import Image
from report_page import read_page

from shared.cache import open_cache
from shared.errors import FacetError, run_command_line
from shared.modalities import BACKGROUND, MODALITIES
from shared.pictures import centre_face
from shared.runs import Prediction, read_log, read_timing, record_hashes
from train.__main__ import main
from train.reporting.html.curves import MOST_POINTS, draw_curves, find_terms
from train.reporting.html.misclassified import find_misclassified, score_subjects
from train.reporting.html.pictures import GAP_PX, draw_sample
from train.reporting.html.report import write_html_report
from train.runs.results import read_recorded_run

CLASSES = ("anger", "happiness", "surprise")
HOSTILE = '</td><script src="http://evil.example/x.js"></script><img src=http://evil.example/y>'


@dataclass(frozen=True)
class Runs:
    cache: Path
    fit: Path
    crossval: Path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: str) -> Runs:
    """A short training and a cross-validation on one cache, in which a scan has a hostile name."""
    folder = tmp_path_factory.mktemp("html")
    write_tiny_cache(folder / "cache", model=tiny_model, num_subjects=6, without_texture=(1,))
    quick = ["--cache", folder / "cache", "--folds", 3, "--epochs", 2, "--batch-size", 8, "--device", "cpu"]
    quick += ["--modalities", "texture,normal"]
    for command in (
        ["fit", "--out", folder / "one"],
        ["crossval", "--out", folder / "all", "--tune", "frozen", "--jobs", 1],
    ):
        assert run_command_line(lambda c=command: main([str(a) for a in (*c, *quick)])) == 0  # type: ignore[misc]
    return Runs(folder / "cache", folder / "one", folder / "all")


def test_numbers_are_those_of_metrics_json(runs: Runs, tmp_path: Path) -> None:
    out = tmp_path / "a.html"
    assert run_command_line(lambda: main(["report", str(runs.fit), "--out", str(out)])) == 0
    page = read_page(out)
    metrics = json.loads((runs.fit / "metrics.json").read_text())
    scores = page.numbers("scores")
    assert scores["accuracy"][0] == [metrics["accuracy"]]
    assert scores["UAR (balanced accuracy)"][0] == [metrics["uar"]]
    assert scores["macro-F1"][0] == [metrics["macro_f1"]]
    assert scores["samples"][0] == [metrics["num_samples"]]
    assert scores["accuracy"][1] == metrics["accuracy_95"]
    found = page.numbers("confusion")
    assert [[cell[0] for cell in found[name]] for name in CLASSES] == metrics["confusion"]
    assert page.numbers("calibration")["as trained"][0] == [metrics["calibration"]["ece"]]
    assert "reliability diagram" in page.text
    classes = page.numbers("classes")
    assert [classes[name][1][0] for name in CLASSES] == metrics["per_class_recall"]
    assert [classes[name][3][0] for name in CLASSES] == metrics["per_class_f1"]
    subjects = page.numbers("subjects")
    assert sum(cells[0][0] for cells in subjects.values()) == metrics["num_samples"]
    assert sum(cells[1][0] for cells in subjects.values()) == np.trace(metrics["confusion"])
    settings = {row[0][0]: row[1][0] for row in page.tables["settings"][1:]}
    assert settings["--epochs"] == "2" and settings["data set"] == "tiny"
    assert {row[0][0] for row in page.tables["environment"]} >= {"python", "torch", "processor", "memory, at most"}
    assert "drawn by the tests; free" in page.text and "RANDOM WEIGHTS" in page.text
    assert str(runs.cache.parent) not in page.text  # no folder of this machine
    assert page.elements.count("img") > 1


def test_worst_samples_are_the_caches_pixels(runs: Runs, tmp_path: Path) -> None:
    out = tmp_path / "a.html"
    write_html_report([runs.crossval], out)
    page = read_page(out)
    pictures = dict(re.findall(r'alt="([^",]*), every view" src="data:image/png;base64,([^"]*)"', page.text))
    assert 0 < len(pictures) <= 12
    cache = open_cache(runs.cache)
    sizes = cache.info.settings.size_px
    for name, data in pictures.items():
        found = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        row = next(row for row, sample in enumerate(cache.samples) if sample.sample_id == name)
        there = [m for m in ("texture", "normal") if cache.samples[row].has(m)]
        assert found.shape == (
            len(there) * (sizes + GAP_PX) - GAP_PX, 3 * (sizes + GAP_PX) - GAP_PX, 3,
        )  # fmt: skip
        for line, modality in enumerate(there):
            for column, view in enumerate((2, 0, 1)):  # of 0, 20, -20
                top, left = line * (sizes + GAP_PX), column * (sizes + GAP_PX)
                tile = found[top : top + sizes, left : left + sizes]
                drawn = MODALITIES[modality].draw(cache.arrays.read(modality, [row])[0][view], dynamic=False)
                expected = centre_face(drawn, cache.info.settings.views[view], BACKGROUND)
                np.testing.assert_array_equal(tile, expected)

    write_html_report([runs.crossval], out, faces=False)
    without = read_page(out)
    assert not any("png" in address[:20] for address in without.addresses)
    assert all(name in without.text for name in pictures)  # told, not shown
    assert "drawn by the tests; free" in without.text


def test_a_cross_validation_has_all_its_folds(runs: Runs, tmp_path: Path) -> None:
    out = tmp_path / "a.html"
    write_html_report([runs.crossval, runs.fit], out)
    page = read_page(out)
    report = json.loads((runs.crossval / "report.json").read_text())
    folds = page.numbers("folds")
    for one in report["folds"]:
        assert folds[one["name"]][1] == [one["metrics"]["accuracy"]]
    comparison = page.numbers("comparison")
    assert comparison["all"][2] == [report["summary"]["pooled"]["accuracy"]]
    assert comparison["one"][2] == [json.loads((runs.fit / "metrics.json").read_text())["accuracy"]]
    spread = report["summary"]["over_folds"]["accuracy"]
    assert page.tables["comparison"][1][4][0] == f"{100 * spread['mean']:.1f} ± {100 * spread['std']:.1f}"
    over_folds = report["summary"]["classes_over_folds"]["recall"]
    for row, name, one in zip(page.tables["classes"][1:4], CLASSES, over_folds, strict=True):
        assert (row[0][0], row[3][1]) == (name, [one["mean"]])
    differing = {row[0][0]: [cell[0] for cell in row[1:]] for row in page.tables["differences"][1:]}
    assert differing == {"--tune": ["frozen", "full"]}
    assert "not tested on the same samples" in page.text


def test_what_is_missing_is_one_line(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = tmp_path / "run", tmp_path / "a.html"
    shutil.copytree(runs.fit, run)
    config = json.loads((run / "config.json").read_text())
    config["cache"] = str(tmp_path / "gone")
    (run / "config.json").write_text(json.dumps(config))
    record_hashes(run, ("config.json",))
    with (run / "log.jsonl").open("a") as log:
        log.write('{"step": 99, "lo')
    write_html_report([run], out)
    page = read_page(out)
    assert page.text.count("no pictures of samples") == 1 and "no cache here any more" in page.text
    assert "no pictures of samples" in capsys.readouterr().out

    table = (run / "predictions.csv").read_text().splitlines()
    (run / "predictions.csv").write_text("\n".join(table[:-1]) + "\n")
    (run / "log.jsonl").unlink()
    (run / "timing.json").unlink()
    write_html_report([run], out)
    page = read_page(out)
    assert "is not of the test of metrics.json" in page.text
    assert "no curves (log.jsonl)" in page.text and "not recorded by the version that trained it" in page.text
    assert "subjects" not in page.tables

    (run / "metrics.json").unlink()
    write_html_report([run], out)
    assert "training or testing is not finished" in read_page(out).text
    (run / "predictions.csv").unlink()

    for paths, name, words in (
        ([tmp_path], "a.html", "no run here"),
        ([run], "a.pdf", r"ends in \.html"),
        ([run, run], "a.html", "named twice"),
    ):
        with pytest.raises(FacetError, match=words):
            write_html_report(paths, tmp_path / name)


def test_hostile_names_stay_text(runs: Runs, tmp_path: Path) -> None:
    run, out = tmp_path / HOSTILE[2:8], tmp_path / "a.html"
    shutil.copytree(runs.fit, run)
    table = (run / "predictions.csv").read_text()
    quoted = '"' + HOSTILE.replace('"', '""') + '"'
    subject = table.splitlines()[1].split(",")[1]
    (run / "predictions.csv").write_text(table.replace(f",{subject},", f",{quoted},"))
    config = json.loads((run / "config.json").read_text())
    config["licence"] = config["dataset"] = config["tower"]["name"] = HOSTILE
    (run / "config.json").write_text(json.dumps(config))
    record_hashes(run, ("config.json",))
    write_html_report([run, runs.fit], out)
    page = read_page(out)
    assert any(row[0][0] == HOSTILE for row in page.tables["subjects"])


def test_subjects_and_worst_samples_are_ranked() -> None:
    def one(name: str, subject: str, label: str, said: str, *p: float) -> Prediction:
        return Prediction(name, subject, (label,), (said,), p)

    rows = [
        one("a", "S1", "anger", "anger", 0.6, 0.3, 0.1),
        one("b", "S1", "anger", "surprise", 0.2, 0.1, 0.7),
        one("c", "S2", "happiness", "anger", 0.9, 0.05, 0.05),
        one("b", "S1", "anger", "surprise", 0.4, 0.1, 0.5),  # another round: mean 0.3
    ]
    scores = score_subjects(rows, CLASSES, multilabel=False)
    assert [(s.subject, s.num, s.num_right) for s in scores] == [("S2", 1, 0), ("S1", 3, 1)]
    assert scores[1].most_frequent_mistake == "anger → surprise (2)"
    worst = find_misclassified(rows, CLASSES, 5, multilabel=False)
    assert [(w.name, round(w.true_probability, 6)) for w in worst] == [("c", 0.05), ("b", 0.3)]
    several = [Prediction("f", "S1", ("AU1",), ("AU2",), (0.2, 0.9, 0.4), ("AU4",))]
    units = ("AU1", "AU2", "AU4")
    assert score_subjects(several, units, multilabel=True)[0].num == 2  # of AU4 nothing is known
    assert find_misclassified(several, units, 5, multilabel=True)[0].true_probability == pytest.approx((0.2 + 0.1) / 2)


def test_tests_on_other_caches_are_told(runs: Runs, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs.fit, run)
    other = json.loads((run / "metrics.json").read_text()) | {"licence": "another licence"}
    (run / "on-elsewhere").mkdir()
    (run / "on-elsewhere" / "metrics.json").write_text(json.dumps(other))
    write_html_report([run], tmp_path / "a.html")
    page = read_page(tmp_path / "a.html")
    assert page.numbers("other tests")["elsewhere"][1] == [other["accuracy"]]
    assert "another licence" in page.text


def test_the_machine_is_recorded_without_names_of_its_own(runs: Runs) -> None:
    found = read_timing(runs.fit).environment
    assert found["torch"] == importlib.metadata.version("torch")
    assert found["python"] == platform.python_version()
    assert platform.node() not in " ".join(found.values()).split()
    for text in ("", "[]", '{"seconds": 1}', '{"environment": [1]}', "{" * 10_000):
        (runs.fit.parent / "timing.json").write_text(text)
        assert read_timing(runs.fit.parent).environment == {}


def test_curves_are_equal_for_equal_logs_and_bounded(runs: Runs) -> None:
    log = read_log(runs.fit)
    assert find_terms(log) == ["ce", "con", "vt"]
    long = [{"step": float(i), "loss": 1 / (i + 1), "accuracy": 0.5, "lr": 1e-3} for i in range(50 * MOST_POINTS)]
    assert draw_curves({"a": long}) == draw_curves({"a": long})
    assert len(draw_curves({"a": long})) < 400_000
    assert draw_curves({"a": long}) != draw_curves({"a": long[:900]})


def test_large_pictures_are_scaled_down_by_means(tmp_path: Path, tiny_model: str) -> None:
    write_tiny_cache(tmp_path / "c", model=tiny_model, num_subjects=1, scans_per_class=1, size_px=226)
    cache = open_cache(tmp_path / "c")
    found = draw_sample(cache, 0, ("texture",))
    assert found.shape == (113, 3 * 113 + 2 * GAP_PX, 3)
    whole = MODALITIES["texture"].draw(cache.arrays.read("texture", [0])[0][0], dynamic=False).astype(float)
    expected = (whole[::2, ::2] + whole[1::2, ::2] + whole[::2, 1::2] + whole[1::2, 1::2]) / 4
    assert np.abs(found[:, 113 + GAP_PX : 226 + GAP_PX] - expected).max() <= 0.5  # the front, between -20 and 20
    assert (found[:, 113 : 113 + GAP_PX] == BACKGROUND).all()


def test_multilabel_runs_are_told(tmp_path: Path, tiny_model: str) -> None:
    write_tiny_cache(tmp_path / "c", model=tiny_model, units="aus", num_frames=2, scans_per_class=1)
    options = ["--folds", "2", "--epochs", "1", "--device", "cpu", "--task", "aus", "--tune", "frozen"]
    command = ["fit", "--cache", str(tmp_path / "c"), "--out", str(tmp_path / "run"), *options]
    assert run_command_line(lambda: main(command)) == 0
    write_html_report([tmp_path / "run"], tmp_path / "a.html")
    page = read_page(tmp_path / "a.html")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert page.numbers("scores")["macro-F1"][0] == [metrics["macro_f1"]]
    assert [cells[2] for cells in page.numbers("classes").values()] == [[f] for f in metrics["per_class_f1"]]
    known = sum(metrics["per_class_num_known"])
    assert sum(cells[0][0] for cells in page.numbers("subjects").values()) == known
    right = sum(metrics["true_positives"]) + sum(metrics["true_negatives"])
    assert sum(cells[1][0] for cells in page.numbers("subjects").values()) == right
    assert "confusion" not in page.tables
    run = read_recorded_run(tmp_path / "run", "run")
    assert run.split == (2, 2) and not run.missing
