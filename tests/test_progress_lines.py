"""Where no terminal shows a bar, lines on stderr tell how far a training is: an epoch each, and not too many."""

from __future__ import annotations

import os
import pty
import re
import sys
from pathlib import Path

import pytest
from conftest import MakeCache
from test_train_cli import call

import train.training.progress
from train.training.progress import ProgressLines

QUICK = ["--folds", "2", "--batch-size", "2", "--device", "cpu"]


@pytest.mark.parametrize(
    ("steps_an_epoch", "expected"),
    [
        (1, [30, 60, 90]),  # short epochs share a line
        (45, [30, 60, 90]),
        (70, [30, 70]),
        (1000, [30]),  # within an epoch after five minutes alone
    ],
)
def test_a_line_an_epoch_but_not_too_many(
    steps_an_epoch: int, expected: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    lines = ProgressLines("run", 0, 100, "step", silent=False, clock=lambda: now)
    for second in range(1, 100):  # a step takes a second
        now = float(second)
        lines.report(second, second // steps_an_epoch, lambda: "loss 1")
    printed = capsys.readouterr().err.splitlines()
    assert [int(re.findall(r"step (\d+)", line)[0]) for line in printed] == expected
    assert printed[0] == "run: step 30 of 100, loss 1, 01:10 left"


def test_long_epochs_are_reported_from_time_to_time(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    lines = ProgressLines("run", 500, 2500, "step", silent=False, clock=lambda: now)
    for second in range(1, 1001):
        now = float(second)
        lines.report(500 + second, 0, str)
    printed = capsys.readouterr().err.splitlines()
    assert printed[:2] == ["run: step 530 of 2,500, 32:50 left", "run: step 830 of 2,500, 27:50 left"]
    assert len(printed) == 4
    ProgressLines("run", 0, 1, "step", silent=True, clock=lambda: now).report(1, 0, str)
    assert capsys.readouterr().err == ""


def test_a_terminal_has_its_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal, os.fdopen(master, "rb", buffering=0) as screen:
        monkeypatch.setattr(sys, "stderr", terminal)
        ticks = iter(range(0, 1000, 100))
        lines = ProgressLines("run", 0, 9, "step", silent=False, clock=lambda: float(next(ticks)))
        lines.report(1, 0, str)
        print("end", file=terminal, flush=True)
        assert screen.read(100) == b"end\r\n"


def test_what_is_said_is_in_a_log_file_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "log").open("w") as log:
        monkeypatch.setattr(sys, "stdout", log)
        assert call("protocols", "kfold") == 0
        assert "kfold" in (tmp_path / "log").read_text()


def test_trainings_tell_where_they_are(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train.training.progress, "LEAST_SECONDS", 0.0)
    cache = tiny_cache(scans_per_class=2)  # 12 samples, 6 steps an epoch
    assert call("fit", "--cache", cache, "--out", tmp_path / "run", *QUICK, "--epochs", 4) == 0
    printed = capsys.readouterr().err.splitlines()
    form = (
        r"\S+/run: step {} of 24, epoch {}, loss \d+\.\d{{3}}, accuracy \d\.\d{{3}}, [\d.]+ samples/s, \d\d:\d\d left"
    )
    for line, (step, epoch) in zip(printed, ((10, 2), (20, 4)), strict=True):
        assert re.fullmatch(form.format(step, epoch), line), line
    embed = ["embed", "--cache", cache, "--out", tmp_path / "embeddings", "--device", "cpu"]
    assert call(*embed) == 0
    (line, *_) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"embed: image \d+ of \d+, \d\d:\d\d left", line)
