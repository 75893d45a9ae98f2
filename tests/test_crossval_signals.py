"""Cross-validation that is told to stop: wherever it is, it ends with 0, and the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import MakeCache
from test_crossval import FAST, read_report
from test_train_cli import ROOT, call

import train.training.fit
import train.training.loop
from train.inference.evaluate import evaluate_items
from train.protocols.folds import read_folds
from train.training.step import StepResult, train_step


def assert_same_folds(run: Path, whole: Path) -> None:
    """Bit for bit."""
    for fold in read_folds(whole / "folds.json").folds:
        for file in ("model.safetensors", "predictions.csv", "metrics.json"):
            assert (run / fold.name / file).read_bytes() == (whole / fold.name / file).read_bytes(), fold.name


def test_sigterm_ends_in_a_checkpoint_and_the_same_command_goes_on(
    tiny_cache: MakeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, run, whole = tiny_cache(), tmp_path / "run", tmp_path / "whole"
    command = ["crossval", "--cache", cache, "--folds", 2, "--jobs", 1, *FAST, "--out"]
    num_steps = 0

    def stop(*arguments: Any, **options: Any) -> StepResult:
        nonlocal num_steps
        num_steps += 1
        if num_steps == 6:  # the second fold's second of four
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(train.training.loop, "train_step", stop)
        assert call(*command, run) == 0  # whoever asked it to stop was obeyed
    assert "the same command goes on" in capsys.readouterr().err
    assert torch.load(run / "fold-01" / "checkpoint.pt", weights_only=True)["step"] == 2
    half = run / "fold-01" / ".model.safetensors.123.partial"  # of a kill -9 in another attempt
    half.write_bytes(b"half of a")
    for out in (run, whole):
        assert call(*command, out) == 0
    assert_same_folds(run, whole)
    assert not half.exists()


def test_folds_side_by_side_one_that_breaks_and_sigterm(tiny_cache: MakeCache, tmp_path: Path) -> None:
    """To the whole group of processes, as a cluster's scheduler sends it: the workers hear of it twice."""
    cache, run, whole = tiny_cache(num_subjects=4, scans_per_class=1), tmp_path / "run", tmp_path / "whole"
    prompts = tmp_path / "prompts.h5"  # an option that the workers must get, too
    next((cache / "text").glob("*.h5")).rename(prompts)
    options = ["--prompts", prompts, "--protocol", "loso", "--epochs", "24", "--batch-size", "3", "--device", "cpu"]
    start = ["crossval", "--cache", cache, *options, "--jobs"]
    assert call(*start, 1, "--out", run, "--fold", 0) == 0
    (run / "subject-S1").mkdir()
    (run / "subject-S1" / "thesis.txt").write_text("mine")
    process = subprocess.Popen(
        [sys.executable, "-m", "train", *map(str, start), "2", "--out", str(run)],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=_take_two_cores,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not any(log.stat().st_size for log in run.glob("subject-S[23]/log.jsonl")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "the same command goes on" in errors
    assert "subject-S1 failed: " in errors and "is not empty and holds no run" in errors
    assert "Traceback" not in errors
    assert list(run.glob("*/checkpoint.pt"))
    assert read_report(run)["about"]["missing_folds"] == ["subject-S1", "subject-S2", "subject-S3"]  # type: ignore[index]
    (run / "subject-S1" / "thesis.txt").unlink()
    for out in (run, whole):
        assert call(*start, 1, "--out", out) == 0
    assert_same_folds(run, whole)
    assert read_report(run)["summary"]["num_folds"] == 4  # type: ignore[index]


def _take_two_cores() -> None:
    """So that a worker has one thread, as the tests have: sums come in the same order."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])


def test_sigterm_between_trainings_loses_nothing(
    tiny_cache: MakeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not a step is under way: the first fold is finished, the second has just been tested."""
    cache, run = tiny_cache(), tmp_path / "run"
    command = ["crossval", "--cache", cache, "--folds", 2, "--out", run, "--jobs", 1, *FAST]
    num_tested = 0

    def count_and_stop(*arguments: object, **options: object) -> object:
        nonlocal num_tested
        num_tested += 1
        if num_tested == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate_items(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(train.training.fit, "evaluate_items", count_and_stop)
    assert call(*command) == 0
    errors = capsys.readouterr().err
    assert "stopped by SIGTERM; run the same command again to continue" in errors
    assert [(run / f"fold-0{n}" / "metrics.json").is_file() for n in (0, 1)] == [True, False]
    monkeypatch.undo()
    assert call(*command) == 0
    assert "1 of 2 folds are finished already" in capsys.readouterr().out
    assert read_report(run)["summary"]["num_folds"] == 2  # type: ignore[index]
