"""Sequences decided by their frames: majority vote and mean, against counting by hand and frames tested alone."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MakeCache
from test_train_cli import QUICK, call

from shared.cache import open_cache
from train.data.items import gather_items
from train.inference.frame_votes import MAJORITY, MEAN, decide_by_frames
from train.inference.predictor import build_transform
from train.inference.score import score_items
from train.model.factory import load_run


def test_votes_are_counted() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4), (300, 5)).astype(np.float32)
    chosen = decide_by_frames(probabilities)
    for frames, majority, mean in zip(probabilities, chosen[MAJORITY], chosen[MEAN], strict=True):
        votes = Counter(int(frame.argmax()) for frame in frames)
        most = [label for label, count in votes.items() if count == max(votes.values())]
        assert majority == max(most, key=lambda label: frames.mean(0)[label])
        assert mean == frames.mean(0).argmax()
    frames = np.array([[[0.6, 0.4], [0.6, 0.4], [0.0, 1.0]]])
    assert [int(index[0]) for index in decide_by_frames(frames).values()] == [0, 1]


@pytest.mark.parametrize("options", [(), ("--reference", "onset", "--mtgf-tokens", "patches"), ("--fusion", "late")])
def test_a_frame_alone_scores_as_a_still_in_a_run_of_sequences(
    options: tuple[str, ...], tiny_cache: MakeCache, tmp_path: Path
) -> None:
    path, run = tiny_cache(num_frames=4, num_subjects=3, scans_per_class=1), tmp_path / "run"
    training = [*QUICK, "--epochs", 3, "--lr", 1e-2, "--frames", 3, "--modalities", "texture"]
    assert call("fit", "--cache", path, "--out", run, *training, *options) == 0
    config, model = load_run(run, torch.device("cpu"))
    cache = open_cache(path)
    items = gather_items(cache, config.recipe)
    transform = build_transform(cache, config, model)
    scores = score_items(model, cache, items, transform, config, each_frame=True)
    assert scores.frames is not None and scores.frames.shape == (9, 3, 3)
    for place, row in enumerate((0, 2, 3)):  # the frames that are tested: evenly spread
        stills = [dataclasses.replace(item, rows=(item.rows[row],)) for item in items]
        alone = score_items(model, cache, stills, transform, config).probabilities
        np.testing.assert_allclose(scores.frames[:, place], alone, atol=2e-5)

    metrics = json.loads((run / "metrics.json").read_text())
    tested = [
        i
        for i, item in enumerate(items)
        if item.subject in json.loads((run / "split.json").read_text())["test_subjects"]
    ]
    true = [config.recipe.classes.index(items[i].class_name) for i in tested]
    chosen = decide_by_frames(scores.frames[tested])
    for key, name in (("accuracy_majority", MAJORITY), ("accuracy_frame_mean", MEAN)):
        assert metrics[key] == pytest.approx((chosen[name] == true).mean())
        assert np.trace(metrics["frame_votes"]["decision"][name]["confusion"]) == (chosen[name] == true).sum()


def test_votes_reach_every_report(tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache, out = tiny_cache(num_frames=3, num_subjects=4, scans_per_class=1), tmp_path / "cv"
    options = [*QUICK, "--folds", 2, "--epochs", 1, "--tune", "frozen", "--jobs", 1]
    assert call("crossval", "--cache", cache, "--out", out, *options) == 0
    pooled = json.loads((out / "report.json").read_text())["summary"]["frame_votes"]["decision"][MAJORITY]
    assert np.sum(pooled["confusion"]) == 12 and pooled["num_subjects"] == 4
    assert MAJORITY in (out / "report.txt").read_text()
    before = (out / "fold-00" / "metrics.json").read_bytes()
    assert call("evaluate", out / "fold-00") == 0
    assert (out / "fold-00" / "metrics.json").read_bytes() == before
    capsys.readouterr()
    centred = ["--centre-scores", "all", "--out", tmp_path / "centred"]
    assert call("fit", "--cache", cache, *options[:-2], *centred) == 0
    assert "note: no votes of frames" in capsys.readouterr().out
    assert "frame_votes" not in (tmp_path / "centred" / "metrics.json").read_text()
    assert call("report", out, "--out", tmp_path / "r.html", "--no-faces") == 0
    assert MAJORITY in (tmp_path / "r.html").read_text()
