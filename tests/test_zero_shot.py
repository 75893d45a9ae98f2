"""Zero-shot: an untrained CLIP and its prompts, as a command and as a row of an ablation."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from conftest import MakeCache, random_text
from test_image_tower import TOWERS, save_clip
from test_train_cli import QUICK, call, fails

from preprocess.__main__ import main as preprocess
from shared.cache import find_text_files, open_cache
from shared.schema import View
from shared.text import write_text_embeddings
from train.config import read_config
from train.model.image_tower import load_tower
from train.studies.ablation.variants import OBVIOUS, list_variants, read_chosen

UNTRAINED = ["--epochs", 0, "--fusion", "mean", "--head", "cosine", "--lambda-con", 0, "--lambda-vt", 0]


def read_rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row["sample_id"]: row for row in csv.DictReader(file)}


def probabilities(row: dict[str, str], classes: list[str]) -> list[float]:
    return [float(row[f"p_{name}"]) for name in classes]


def test_it_is_the_model_before_its_first_step(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against the test of `fit --epochs 0`, and against the tower's own features in a few lines of NumPy."""
    cache, out, run = (
        tiny_cache(unlabelled=(3,), invalid=(5,), without_texture=(7,)),
        tmp_path / "out",
        tmp_path / "run",
    )
    command = ["predict", "--zero-shot", "--cache", cache, "--out", out, "--device", "cpu"]
    assert call(*command) == 0
    shown = capsys.readouterr()
    assert "22 of 23 samples have a label among the classes" in shown.err and "1 of 24 scans are not valid" in shown.err
    assert "true / predicted" in shown.out and "RANDOM WEIGHTS" in shown.out and "over subjects" in shown.out
    rows, classes = read_rows(out / "predictions.csv"), ["anger", "happiness", "surprise"]
    assert len(rows) == 23 and sum(row["lacks"] == "texture" for row in rows.values()) == 1

    assert call("fit", "--cache", cache, "--out", run, *QUICK, *UNTRAINED) == 0
    tested = read_rows(run / "predictions.csv")
    assert 0 < len(tested) < 22
    for name, row in tested.items():
        np.testing.assert_allclose(probabilities(row, classes), probabilities(rows[name], classes), rtol=1e-5)

    opened = open_cache(cache)
    tower, config = load_tower(f"{opened.read_text().model}", "none", seed=0)
    text = opened.read_text().select(classes)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (config.mean, config.std))
    images = np.concatenate([opened.arrays.read(m, [0])[0] for m in ("texture", "normal")]).transpose(0, 3, 1, 2)
    with torch.no_grad():
        units = torch.from_numpy((images.astype(np.float32) / 255 - mean) / std)
        features = tower.eval()(units).numpy()
    face = (features / np.linalg.norm(features, axis=1, keepdims=True)).mean(0)
    scores = text.logit_scale * (text.embeddings @ (face / np.linalg.norm(face))).mean(1)
    wanted = np.exp(scores) / np.exp(scores).sum()
    np.testing.assert_allclose(probabilities(rows[opened.samples[0].sample_id], classes), wanted, rtol=2e-3)

    metrics = json.loads((out / "metrics.json").read_text())
    known = [row for row in rows.values() if row["label"]]
    assert metrics["accuracy"] == np.mean([row["label"] == row["predicted"] for row in known])
    means = [np.mean([r["label"] == r["predicted"] for r in known if r["subject"] == f"S{s}"]) for s in range(4)]
    low, high = metrics["accuracy_95"]
    assert min(means) <= low <= metrics["accuracy"] <= high <= max(means)
    assert metrics["num_train_subjects"] == 0


def test_prompts_of_views(tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each stored image against the texts of its own view, by open_clip's own towers; training starts from the same scores."""
    folder, out, run = tmp_path / "clip", tmp_path / "out", tmp_path / "run"
    folder.mkdir()
    clip: Any = save_clip(folder, TOWERS["vit"])
    cache = tiny_cache(with_text=False, without_texture=(0,), views=(View(0), View(35), View(-35, 20)))
    lines = ["anger: an angry face, seen {view}", "anger: rage", "happiness: joy {view}", "surprise: surprise"]
    (tmp_path / "words.txt").write_text("\n".join([*lines, "from the front: in front"]))
    embed = ["prompts", "--cache", cache, "--model", f"local-dir:{folder}", "--prompts", tmp_path / "words.txt"]
    assert preprocess([str(word) for word in embed]) == 0
    assert (
        "of faces seen from the front, from the left, from the right and above, from the right, from the left and"
        in (capsys.readouterr().out.replace("\n", " "))
    )
    command = ["predict", "--zero-shot", "--cache", cache, "--out", out, "--device", "cpu"]
    assert call(*command) == 0

    seen = ("in front", "from the left", "from the right and above")
    texts = [[f"an angry face, seen {words}", "rage", f"joy {words}", "surprise"] for words in seen]
    opened = open_cache(cache)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]))
    tokenizer, rows, classes = (
        open_clip.get_tokenizer(f"local-dir:{folder}"),
        read_rows(out / "predictions.csv"),
        opened.info.class_names,
    )
    with torch.no_grad():
        embedded = torch.stack([clip.encode_text(tokenizer(one), normalize=True) for one in texts]).numpy()
        for row, sample in enumerate(opened.samples[:3]):
            pixels = [opened.arrays.read(m, [row])[0] for m in ("texture", "normal") if sample.has(m)]
            units = (np.concatenate(pixels).transpose(0, 3, 1, 2).astype(np.float32) / 255 - mean) / std
            images = clip.encode_image(torch.from_numpy(units), normalize=True).numpy()
            cosines = np.array([embedded[image % 3] @ images[image] for image in range(len(images))])  # (images, texts)
            by_class = np.stack([cosines[:, :2].mean(1), cosines[:, 2], cosines[:, 3]], 1)
            scores = clip.logit_scale.exp().item() * by_class.mean(0) / np.linalg.norm(images.mean(0))
            wanted = np.exp(scores) / np.exp(scores).sum()
            np.testing.assert_allclose(probabilities(rows[sample.sample_id], list(classes)), wanted, rtol=1e-4)

    assert call("fit", "--cache", cache, "--out", run, *QUICK, *UNTRAINED) == 0
    for name, tested in read_rows(run / "predictions.csv").items():
        np.testing.assert_allclose(
            probabilities(tested, list(classes)), probabilities(rows[name], list(classes)), rtol=1e-4
        )
    assert read_config(run).text_per_view
    before = (run / "predictions.csv").read_bytes()
    assert call("evaluate", run) == 0
    assert (run / "predictions.csv").read_bytes() == before
    assert call("fit", "--cache", cache, "--out", tmp_path / "more", *QUICK, "--init-from", run, "--views", "0,35") == 0

    other = tiny_cache(name="other", with_text=False, views=(View(0), View(0, -20)))
    text = ["--prompts", find_text_files(opened.path)[0]]
    for words in (["fit", "--out", tmp_path / "no", *QUICK], [*command[:2], "--out", tmp_path / "no"]):
        message = fails(capsys, *words, "--cache", other, *text)
        assert "--prompts" in message and "no prompts of a face seen from below, as in view 0:-20" in message
    assert not (tmp_path / "no").exists()


def test_classes_that_no_one_trained(tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Labels that match a class, in any spelling, are scored; a file's action units and neutral are not predicted."""
    cache, out, file = tiny_cache(num_frames=3, scans_per_class=1), tmp_path / "out", tmp_path / "text.h5"
    model = open_cache(cache).read_text().model
    write_text_embeddings(file, random_text(("contempt", "Angry", "neutral", "AU12"), 32, model))
    command = ["predict", "--zero-shot", "--cache", cache, "--prompts", file, "--out", out, "--device", "cpu"]
    assert call(*command, "--views", "0", "--modalities", "normal") == 0
    shown = capsys.readouterr()
    assert "label map: anger → Angry" in shown.out and "4 of 12 samples have a label" in shown.err
    rows = read_rows(out / "predictions.csv")
    assert {row["predicted"] for row in rows.values()} <= {"contempt", "Angry"}
    assert [key for key in rows["S0/anger0"] if key.startswith("p_")] == ["p_contempt", "p_Angry"]

    assert call(*command, "--classes", "contempt,neutral") == 0  # no sample is labelled so
    assert not (out / "metrics.json").exists() and len(read_rows(out / "predictions.csv")) == 12


def test_what_cannot_be_is_one_line(tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache, out = tiny_cache(), tmp_path / "out"
    command = ["predict", "--zero-shot", "--cache", cache, "--out", out]
    assert "no prompts for class contempt" in fails(capsys, *command, "--classes", "anger,contempt")
    assert "at least two" in fails(capsys, *command, "--classes", "anger")
    assert "give a RUN, or --zero-shot" in fails(capsys, "predict", "--cache", cache)
    assert "give a RUN, or --zero-shot" in fails(capsys, "predict", tmp_path, *command[1:])
    assert "--classes: is for --zero-shot" in fails(capsys, "predict", tmp_path, "--cache", cache, "--classes", "fear")
    assert "--out: give the folder" in fails(capsys, *command[:-2])
    assert not out.exists()
    out.mkdir()
    (out / "config.json").write_text("{}")
    assert "holds a trained run" in fails(capsys, *command)


def test_it_is_the_first_row_of_the_obvious_networks() -> None:
    names = [variant.name for variant in list_variants(read_chosen("obvious", []), ("normal",))]
    assert names == ["full", "zero-shot", *list(OBVIOUS)[1:], "plain-clip"]
