"""Folds that train at once are the folds that train one by one: weights, predictions, logs; interrupted or not."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MakeCache
from safetensors.torch import load_file
from test_crossval import read_report
from test_embed import read_probabilities
from test_train_cli import call, fails

from train.protocols.folds import read_folds
from train.studies.crossval.at_once.model import Stack
from train.studies.crossval.at_once.state import CHECKPOINT_AT_ONCE

FAST = ["--tune", "frozen", "--epochs", 4, "--batch-size", 5, "--lr", 3e-3, "--device", "cpu"]


def read_log(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def assert_same_runs(one: Path, other: Path, atol: float = 2e-4) -> None:
    folds = [fold.name for fold in read_folds(one / "folds.json").folds]
    for name in folds:
        a, b = one / name, other / name
        for key, values in read_probabilities(a / "predictions.csv").items():
            np.testing.assert_allclose(values, read_probabilities(b / "predictions.csv")[key], atol=atol)
        weights, others = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
        assert weights.keys() == others.keys()
        # Where gradients are no more than rounding errors AdamW makes steps of them; tests/test_at_once_model.py compares all.
        torch.testing.assert_close(weights["projection.weight"], others["projection.weight"], atol=atol, rtol=1e-3)
        for mine, theirs in zip(read_log(a), read_log(b), strict=True):
            shared = mine.keys() & theirs.keys() - {"samples_per_second"}
            assert {"step", "epoch", "loss", "grad_norm", "accuracy", "face_cosine", "scale", "lr"} <= shared
            for key in shared:
                assert mine[key] == pytest.approx(theirs[key], rel=2e-3, abs=2e-3), key
        for run in (a, b):
            assert_events_say_what_the_log_says(run)
        for file in ("config.json", "split.json"):
            assert (a / file).read_bytes() == (b / file).read_bytes()
        assert {p.name for p in a.iterdir()} == {p.name for p in b.iterdir()}


def assert_events_say_what_the_log_says(run: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    losses = [(event.step, event.value) for event in events.Scalars("loss")]
    assert losses == [(line["step"], pytest.approx(line["loss"])) for line in read_log(run)]
    assert set(events.Tags()["scalars"]) == read_log(run)[0].keys() - {"step"}


CASES = {
    "uneven folds, missing images": {
        "options": ["--folds", 3],
        "cache": {"num_subjects": 5, "without_texture": (4, 9)},
    },
    "sequences": {
        "options": ["--folds", 3, "--frames", 3, "--relative", "onset", "--draw", "balanced"],
        "cache": {"num_frames": 5, "scans_per_class": 1},
    },
    "several at once, averaged": {
        "options": ["--folds", 2, "--task", "targets", "--class-weights", "balanced", "--ema", 0.9],
        "cache": {"units": "targets", "num_subjects": 5},
    },
}


@pytest.mark.parametrize("case", CASES)
def test_equal_to_training_one_by_one(tiny_cache: MakeCache, tmp_path: Path, case: str) -> None:
    cache = tiny_cache(modalities=("texture", "normal"), **CASES[case]["cache"])  # type: ignore[arg-type]
    command = ["crossval", "--cache", cache, "--modalities", "texture,normal", *FAST, *CASES[case]["options"]]
    assert call(*command, "--out", tmp_path / "together", "--tensorboard") == 0
    assert call(*command, "--out", tmp_path / "apart", "--tensorboard", "--at-once", "off", "--jobs", 1) == 0
    for fold in read_folds(tmp_path / "apart" / "folds.json").folds:
        (tmp_path / "apart" / fold.name / "checkpoint.pt").unlink(missing_ok=True)
    assert_same_runs(tmp_path / "apart", tmp_path / "together")
    assert not (tmp_path / "together" / CHECKPOINT_AT_ONCE).exists()


def test_stopped_or_killed_and_started_again(
    tiny_cache: MakeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bit for bit what an uninterrupted run gives; what is finished is kept."""
    cache, take_step = tiny_cache(num_subjects=5), Stack.step
    command = ["crossval", "--cache", cache, "--folds", 3, *FAST, "--ema", 0.9, "--draw", "balanced"]
    command += ["--checkpoint-every", 3, "--out"]
    assert call(*command, tmp_path / "whole") == 0

    def stop(stack: Stack, step: int, *rest: object) -> object:
        if step == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return take_step(stack, step, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Stack, "step", stop)
    assert call(*command, tmp_path / "parts") == 0  # whoever asked it to stop was obeyed
    errors = capsys.readouterr().err
    assert "stopped by SIGTERM after step 8 of 3 folds" in errors
    assert "the same command goes on" in errors
    assert (tmp_path / "parts" / CHECKPOINT_AT_ONCE).is_file()

    def die(stack: Stack, step: int, *rest: object) -> object:
        if step == 13:
            raise SystemExit(9)
        return take_step(stack, step, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Stack, "step", die)
    with pytest.raises(SystemExit):
        call(*command, tmp_path / "parts")
    monkeypatch.setattr(Stack, "step", take_step)
    checkpoint = (tmp_path / "parts" / CHECKPOINT_AT_ONCE).read_bytes()
    (tmp_path / "parts" / CHECKPOINT_AT_ONCE).write_bytes(checkpoint[:1000])
    assert "at-once.pt: damaged" in fails(capsys, *command, tmp_path / "parts")
    (tmp_path / "parts" / CHECKPOINT_AT_ONCE).write_bytes(checkpoint)
    halves = [
        tmp_path / "parts" / f".{CHECKPOINT_AT_ONCE}.77.partial",
        tmp_path / "parts" / "fold-01" / ".a.csv.77.partial",
    ]
    for half in halves:
        half.write_bytes(checkpoint[:1000])
    assert call(*command, tmp_path / "parts") == 0
    assert not any(half.exists() for half in halves)
    for fold in read_folds(tmp_path / "whole" / "folds.json").folds:
        for name in ("model.safetensors", "metrics.json", "predictions.csv"):
            assert (tmp_path / "parts" / fold.name / name).read_bytes() == (
                tmp_path / "whole" / fold.name / name
            ).read_bytes()
        logs = [read_log(tmp_path / run / fold.name) for run in ("whole", "parts")]
        for line in (*logs[0], *logs[1]):
            del line["samples_per_second"]
        assert logs[0] == logs[1]
    assert not (tmp_path / "parts" / CHECKPOINT_AT_ONCE).exists()


def test_folds_that_cannot_be_trained_do_not_stop_the_others(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, run = tiny_cache(num_subjects=5), tmp_path / "run"
    command = ["crossval", "--cache", cache, "--protocol", "loso", *FAST, "--out", run, "--discard-weights"]
    assert call("protocols", "loso", "--cache", cache, "--export", run / "folds.json") == 0
    assert call(*command, "--fold", 0) == 0  # one by one
    (run / "subject-S1").mkdir()
    (run / "subject-S1" / "thesis.txt").write_text("mine")
    take_step = Stack.step

    def spoil(stack: Stack, step: int, *rest: object) -> object:
        if step == 2:
            stack.weights["projection.weight"][1, 0, 0] = float("nan")
        return take_step(stack, step, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Stack, "step", spoil)
    assert call(*command) == 1
    errors = capsys.readouterr().err
    assert "failed: subject-S1: " in errors and "not empty, and no run" in errors
    assert "failed: subject-S3: training broke at step 2 (its loss is not finite)" in errors
    assert read_report(run)["about"]["missing_folds"] == ["subject-S1", "subject-S3"]  # type: ignore[index]
    monkeypatch.setattr(Stack, "step", take_step)
    (run / "subject-S1" / "thesis.txt").unlink()
    assert call(*command) == 0
    assert read_report(run)["about"]["missing_folds"] == []  # type: ignore[index]
    assert not list(run.rglob("model.safetensors"))
