"""Methods side by side, from the folders of runs to a paper's table: pooled over seeds, refused where they cannot be paired."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import VIEWS, MakeCache
from crossval_results import compute_metrics
from PIL import Image
from recipes import make_recipe
from test_train_cli import QUICK, call, fails

from shared.cache import open_cache
from shared.runs import CROSSVAL_JSON, FOLDS_JSON
from shared.schema import RenderSettings
from train.config import RunConfig, TowerConfig, write_config
from train.inference.predictor import predict_items
from train.inference.score import Scores
from train.options import Options
from train.protocols.folds import Fold, FoldList, write_folds, write_split
from train.reporting.report import write_report
from train.runs.results import FoldResult, TestInfo
from train.split import split_folds
from train.studies.compare.runs import read_methods
from train.studies.compare.scores import score_run
from train.tasks.item import Item
from train.tasks.task import find_task

CLASSES = ("anger", "fear", "joy")
SUBJECTS = tuple(f"S{n}" for n in range(8))
RECIPE = make_recipe(
    model="local-dir:/home/me/mytower", pretrained="none", protocol="kfold", classes=CLASSES, modalities=("depth",)
)
FOLDS = tuple(Fold(f"fold-0{n}", tuple(set(SUBJECTS) - {*SUBJECTS[n::2]}), SUBJECTS[n::2]) for n in range(2))


def write_run(
    folder: Path,
    *,
    rate: float = 0.6,
    folds: Sequence[Fold] = FOLDS,
    content: str = "content",
    relabel: int | None = None,
    num_scans: int = 4,
    random_weights: bool = False,
    **options: Any,
) -> Path:
    """A finished cross-validation, or, of one fold, a run of fit: as training leaves it, with made-up probabilities."""
    recipe = dataclasses.replace(RECIPE, **options)
    tower = TowerConfig(recipe.model, "none", {}, 32, (), (), "hash", random_weights)
    config = RunConfig(
        recipe, tower, "tiny", "free", content, RenderSettings(views=VIEWS), "text", 32, False, "/home/me/cache"
    )  # fmt: skip
    one = len(folds) == 1
    noise, samples = np.random.default_rng([recipe.seed, int(100 * rate)]), np.random.default_rng(0)
    true = {(subject, n): int(samples.integers(3)) for subject in SUBJECTS for n in range(num_scans)}
    targets = {key: tuple(map(int, samples.integers(-1, 2, 3))) for key in true}
    if not one:
        write_config(folder, config, CROSSVAL_JSON)
        write_folds(folder / FOLDS_JSON, FoldList("kfold", "tiny", 0, CLASSES, tuple(folds)))
    for fold in folds:
        where = folder if one else folder / fold.name
        write_config(where, config)
        write_split(where, fold)
        keys = [key for key in true if key[0] in fold.test_subjects]
        labels = np.array([true[key] for key in keys])
        if relabel is not None and fold is folds[0]:
            labels[relabel] = (labels[relabel] + 1) % 3
        many = np.array([targets[key] for key in keys], np.int8)
        items = [
            Item(f"{subject}/{n}", subject, CLASSES[label], (0,), 0, targets=targets[subject, n])
            for (subject, n), label in zip(keys, labels, strict=True)
        ]
        sharp = noise.random(len(keys)) < rate
        logits = noise.random((len(keys), 3)).astype(np.float32)
        if recipe.is_multilabel:
            chances = np.where(sharp[:, None], np.abs(many) * 0.9, logits).astype(np.float32)
        else:
            logits[sharp, labels[sharp]] += 1
            chances = logits / logits.sum(1, keepdims=True)
        half = np.full(3, 0.5, np.float32)
        predictions = predict_items(Scores(items, chances, logits, {}, 0.0), half, recipe)
        task = find_task(recipe.task)
        info = TestInfo(task.name, CLASSES, licence="free")
        result = FoldResult(fold.name, info, task.test(predictions.rows, CLASSES))
        write_report(where, result, predictions, {})
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ablations of one method, three seeds each."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1, 2):
        write_run(folder / f"full-{seed}", rate=0.9, seed=seed)
        write_run(folder / f"mean-{seed}", rate=0.4, seed=seed, fusion="mean")
        write_run(folder / f"plain-{seed}", rate=0.7, seed=seed, head="cosine", lambda_con=0.0)
    return folder


def name_runs(runs: Path) -> list[Path]:
    return [runs / f"{name}-{seed}" for name in ("full", "mean", "plain") for seed in (0, 1, 2)]


def test_every_file_tells_of_all_methods(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "compared"
    assert call("compare", *name_runs(runs), "--out", out, "--name", f"A & B={runs / 'full-1'}") == 0
    text = capsys.readouterr().out
    names = ["A & B", "fusion mean", "head cosine, lambda-con 0"]
    value = json.loads((out / "compare.json").read_text())
    assert value["methods"] == names and value["num_samples"] == 32 and value["num_subjects"] == 8
    rows = {(row["method"], row["score"]): row for row in value["rows"]}
    assert len(rows) == 9
    for number, method in enumerate(("full", "mean", "plain")):
        for score in ("accuracy", "uar", "macro_f1"):
            row = rows[names[number], score]
            pooled = []
            for seed in (0, 1, 2):
                folds = [
                    json.loads((runs / f"{method}-{seed}" / fold.name / "metrics.json").read_text()) for fold in FOLDS
                ]
                confusion = np.sum([fold["confusion"] for fold in folds], 0)
                true, said = np.repeat(np.indices((3, 3)).reshape(2, 9), confusion.ravel(), 1)
                pooled.append(compute_metrics(true, said, 3)[score] or 0.0)
            assert [row["seeds"][str(seed)] for seed in (0, 1, 2)] == pytest.approx(pooled)
            assert row["mean"] == pytest.approx(np.mean(pooled)) and row["std"] == pytest.approx(np.std(pooled, ddof=1))
            assert row["low"] < row["mean"] < row["high"]
            if number:
                one = row["difference"]
                assert one["value"] == pytest.approx(row["mean"] - rows[names[0], score]["mean"])
                assert one["low"] < one["value"] < one["high"] and one["p"] <= one["p_holm"] <= 2 * one["p"]
    far = rows[names[1], "accuracy"]["difference"]
    assert far["high"] < 0 and far["p"] == 2 / 2**8  # worse for everyone

    shown = [
        f"{100 * rows[name, 'accuracy']['mean']:.1f} ± {100 * rows[name, 'accuracy']['std']:.1f}" for name in names
    ]
    for name, score in zip(names, shown, strict=True):
        assert re.search(rf"^{re.escape(name)} +3 +{score} ", text, re.MULTILINE)
    latex = (out / "compare.tex").read_text()
    cells = [row.split(" & ") for row in latex.split("\\midrule")[1].split("\\bottomrule")[0].split("\\\\")]
    heads = [row[0].strip() for row in cells if len(row) == 5 and row[1].strip()]
    assert heads == [r"A \& B" if name == "A & B" else name for name in names]
    assert "\\toprule" in latex and latex.count("p = ") + latex.count("p <") >= 6
    for words in ("Holm", "percentile bootstrap over the 8 subjects", "permutation test", "all 256 sign flips"):
        assert words in latex.split("\\footnotesize")[1] and words in " ".join(text.split())
    with (out / "compare.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["method"], row["score"]) for row in table] == list(rows)
    assert float(table[1]["p_holm"]) == rows[names[1], "accuracy"]["difference"]["p_holm"]
    assert (out / "compare.pdf").read_bytes().startswith(b"%PDF")
    with Image.open(out / "compare.png") as image:
        assert min(image.size) > 400
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert call("compare", *name_runs(runs), "--out", out, "--name", f"A & B={runs / 'full-1'}") == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert "/home/me" not in text + latex + (out / "compare.json").read_text()


def test_names_and_baseline(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("compare", runs / "full-0", runs / "mean-0", "--baseline", "fusion mean") == 0
    value = json.loads((runs / "compare-full-0" / "compare.json").read_text())
    assert value["methods"] == ["fusion mean", "fusion cvsa"]
    assert value["num_samples"] == 32
    assert "ONE SEED" in capsys.readouterr().out
    assert call("compare", runs / "full-0", runs / "full-1", "--baseline", runs / "full-1") == 0  # a method alone
    out = capsys.readouterr().out
    assert "difference" not in out and re.search(r"^full-0 +2 ", out, re.MULTILINE)
    two = (runs / "full-0", runs / "mean-0")
    assert "none of the methods ('fusion cvsa', 'fusion mean')" in fails(capsys, "compare", *two, "--baseline", "x")
    assert "none of the runs" in fails(capsys, "compare", *two, "--name", f"a={runs / 'plain-0'}")
    named = ["--name", f"a={two[0]}", "--name", f"a={two[1]}"]
    assert "names two methods" in fails(capsys, "compare", *two, *named)
    named = ["--name", f"a={two[0]}", "--name", f"b={two[0]}"]
    assert "has the name a already" in fails(capsys, "compare", *two, *named)
    assert "is named twice" in fails(capsys, "compare", two[0], two[0])
    assert "is a file" in fails(capsys, "compare", *two, "--out", runs / "full-0" / FOLDS_JSON)
    assert "no run here" in fails(capsys, "compare", two[0], runs)


def test_intervals_of_a_difference_are_paired(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other settings that change no prediction differ by nothing, whoever is drawn."""
    runs = [write_run(tmp_path / f"r{n}", rate=0.6, epochs=n) for n in (1, 2)]
    assert call("compare", *runs) == 0
    assert re.search(r"^epochs 2 ", capsys.readouterr().out, re.MULTILINE)
    for row in json.loads((tmp_path / "compare-r1" / "compare.json").read_text())["rows"][1::2]:
        assert row["high"] - row["low"] > 0.1
        assert row["difference"] == {"value": 0, "low": 0, "high": 0, "p": 1, "p_holm": 1}


def test_what_cannot_be_paired_is_told(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = runs / "full-0"

    def refuse(name: str, **options: Any) -> str:
        return fails(capsys, "compare", first, write_run(tmp_path / name, **options))

    assert "its cache holds other content" in refuse("content", content="other")
    assert "labelled differently (S0/1)" in refuse("labels", seed=7, relabel=1)
    assert "8 samples are tested in only one of them (S0/3, S1/3, S2/3 and 5 more)" in refuse(
        "few", num_scans=3, seed=8
    )
    others = (
        Fold("fold-00", SUBJECTS[4:], SUBJECTS[:4]),
        Fold("fold-01", SUBJECTS[:4], SUBJECTS[4:]),
    )
    message = refuse("folds", folds=others, seed=1)
    assert "other people are tested together" in message
    assert "--fold-seed" in message and f"--protocol {first / FOLDS_JSON}" in message
    fewer = (dataclasses.replace(FOLDS[0], train_subjects=FOLDS[0].train_subjects[1:]), FOLDS[1])
    assert "the same people are tested, but others train" in refuse("fewer", folds=fewer)
    assert "its folds differ" in refuse("one", folds=FOLDS[:1])
    assert "the same settings and seed" in refuse("again")
    assert "its --task is targets, not classes" in refuse("units", task="targets")
    more = write_run(tmp_path / "more", content="content", seed=3)
    for path in more.glob("*/metrics.json"):
        path.write_text(path.read_text().replace('"joy"', '"glee"'))
    for path in more.glob("*/predictions.csv"):
        path.write_text(path.read_text().replace("joy", "glee"))
    assert "its classes are anger, fear, glee, not anger, fear, joy" in fails(capsys, "compare", first, more)
    (tmp_path / "again" / "fold-01" / "metrics.json").unlink()
    assert "1 of 2 folds are not tested yet (fold-01)" in fails(capsys, "compare", first, tmp_path / "again")
    (tmp_path / "labels" / "fold-01" / "predictions.csv").unlink()
    assert "no predictions.csv of this test" in fails(capsys, "compare", first, tmp_path / "labels")


def test_several_classes_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        write_run(tmp_path / f"a{seed}", task="targets", seed=seed, rate=0.9)
        write_run(tmp_path / f"b{seed}", task="targets", seed=seed, rate=0.2, fusion="mean")
    paths = [tmp_path / name for name in ("a0", "a1", "b0", "b1")]
    assert call("compare", *paths, "--out", tmp_path / "out") == 0
    assert "macro-F1, %" in (text := capsys.readouterr().out) and "AUC, %" in text and "accuracy" not in text
    value = json.loads((tmp_path / "out" / "compare.json").read_text())
    rows = {(row["method"], row["score"]): row for row in value["rows"]}
    for method, run in (("fusion cvsa", "a0"), ("fusion mean", "b0")):
        auc = [json.loads((tmp_path / run / fold.name / "metrics.json").read_text())["per_class_auc"] for fold in FOLDS]
        assert rows[method, "auc"]["seeds"]["0"] == pytest.approx(
            np.mean(auc), abs=1e-4
        )  # six digits in predictions.csv
    assert rows["fusion mean", "auc"]["difference"]["p"] < 0.05


@pytest.mark.parametrize("task", ["classes", "targets"])
def test_predictions_of_another_program(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run's own predictions, given as a file, score as the run does; without probabilities there is no AUC."""
    ours, theirs = write_run(tmp_path / "ours", task=task), write_run(tmp_path / "theirs", task=task, rate=0.9, lr=0.1)
    rows = [row for fold in FOLDS for row in csv.DictReader((theirs / fold.name / "predictions.csv").open())]
    columns = {
        "p.csv": [name for name in rows[0] if name not in ("subject", "label", "unknown")],
        "decided.csv": ["sample_id", "predicted"],
    }
    if task == "targets":
        rows = [row | {name: int(name in row["predicted"].split("+")) for name in CLASSES} for row in rows]
        columns["decided.csv"] = ["sample_id", *CLASSES]
    for name, chosen in columns.items():
        with (tmp_path / name).open("w") as file:
            writer = csv.DictWriter(file, chosen, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows[::-1])
        _, trained, given = (method.runs[0].results for method in read_methods([ours, theirs, tmp_path / name]))
        for score in trained.score_names:
            value = score_run(given, score)
            assert value == pytest.approx(score_run(trained, score)) or (
                score == "auc" and name != "p.csv" and np.isnan(value)
            )
    (tmp_path / "few.csv").write_text("sample_id,predicted\nS0/0,fear\n")
    assert "lacks 15 of 16 tested samples" in fails(capsys, "compare", ours, tmp_path / "few.csv")
    (tmp_path / "few.csv").write_text("sample_id,predicted\nS0/0,glee\n")
    assert "'glee' is none of anger, fear, joy" in fails(capsys, "compare", ours, tmp_path / "few.csv")
    assert "the first RUN must be a folder" in fails(capsys, "compare", tmp_path / "few.csv", ours)


def test_centred_scores_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, centred = write_run(tmp_path / "a"), write_run(tmp_path / "b", centre_scores="subject")
    assert call("compare", plain, centred) == 0
    assert re.search(r"CENTRED SCORES: [^()]*\(centre.scores subject\)", " ".join(capsys.readouterr().out.split()))


def test_rounds_are_averaged_and_few_people_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    people = SUBJECTS[:5]
    folds = [
        Fold(f"round-00{r}/fold-0{n}", tuple({*people} - {*people[n::2]} - {people[r]}), tuple({*people[n::2]} - {people[r]}))
        for r in range(2)
        for n in range(2)
    ]  # fmt: skip
    first = write_run(tmp_path / "a", folds=folds, rate=0.9)
    other = write_run(tmp_path / "b", folds=folds, rate=0.5, fusion="mean", random_weights=True)
    assert call("compare", first, other) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "FEW SUBJECTS: 5 are tested" in out and "no p can be below 0.0625" in out
    assert "RANDOM WEIGHTS" in out and "(fusion mean)" in out
    assert "20 samples of 5 subjects, 2 rounds" in out and "averaged over rounds" in out
    value = json.loads((tmp_path / "compare-a" / "compare.json").read_text())
    accuracies = []
    for number in range(2):
        tables = [
            json.loads((first / f.name / "metrics.json").read_text())["confusion"] for f in folds[2 * number :][:2]
        ]
        accuracies.append(np.trace(np.sum(tables, 0)) / np.sum(tables))
    row = next(row for row in value["rows"] if row["score"] == "accuracy")
    assert row["mean"] == pytest.approx(np.mean(accuracies))


def test_runs_of_fit_with_one_fold_seed(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained by the program itself: --seed alone deals other folds, --fold-seed the same."""
    path = tiny_cache(num_subjects=6)
    command = ["fit", "--cache", path, *QUICK, "--epochs", 1]
    assert call(*command, "--out", tmp_path / "s0") == 0
    assert call(*command, "--out", tmp_path / "s1", "--seed", 1, "--fold-seed", 0) == 0
    assert call("compare", tmp_path / "s0", tmp_path / "s1") == 0
    assert re.search(r"^s0 +2 ", capsys.readouterr().out, re.MULTILINE)  # one method of two seeds
    cache = open_cache(path)
    dealt = [
        split_folds(cache, Options(folds=3, seed=seed, fold_seed=fold_seed)).folds
        for seed, fold_seed in ((0, None), (1, 0), (1, None))
    ]
    assert dealt[0] == dealt[1] != dealt[2]
