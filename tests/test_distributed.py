"""Several processes train as one does; one that dies ends them all, with its name; and they go on together."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MakeCache
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_train_cli import call, fails
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from train_process import launch

import train.training.loop
from shared.errors import FacetError
from train.data.order import split_batches
from train.tasks.batch_slice import WHOLE_BATCH
from train.training.distributed import Ranks

FIT = ["--test-subjects", "S0,S1", "--batch-size", 5, "--epochs", 7, "--device", "cpu", "--class-weights", "balanced"]
EXTRA = ["--extra-losses", "margin=0.3,cross-correlation=0.3"]
TERMS = ("loss", "ce", "con", "vt", "margin", "cross-correlation", "grad_norm", "accuracy", "face_cosine")


def read_log(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines() if line.endswith("}")]


def kill_when(pid: Path, run: Path, num_steps: int) -> None:
    deadline = time.monotonic() + 120
    while not (run / "log.jsonl").is_file() or len(read_log(run)) < num_steps:
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    os.kill(int(pid.read_text()), signal.SIGKILL)


def test_two_processes_train_as_one_does(
    tiny_cache: MakeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """12 steps' losses to 1e-5: uneven slices, absent images, classes that count differently; then one process is killed."""
    cache, alone, together = tiny_cache(num_subjects=5, without_texture=(13, 14, 20)), tmp_path / "1", tmp_path / "2"
    with monkeypatch.context() as patch:
        patch.setattr(train.training.loop, "LOG_EVERY", 1)
        assert call("fit", "--cache", cache, "--out", alone, *FIT, *EXTRA) == 0
    wanted = read_log(alone)
    assert len(wanted) == 28

    command = ["fit", "--cache", cache, "--out", together, *FIT, *EXTRA, "--checkpoint-every", 5]
    killer = threading.Thread(target=kill_when, args=(tmp_path / "pid-1", together, 13))
    killer.start()
    with pytest.raises(ChildFailedError) as caught:
        launch(command, 2, tmp_path)
    killer.join()
    assert caught.value.get_first_failure()[0] == 1
    assert "exitcode  : -9" in str(caught.value)
    found = read_log(together)
    assert 13 <= len(found) < 28
    for a, b in zip(wanted[:12], found[:12], strict=True):
        assert [b[name] for name in TERMS] == pytest.approx([a[name] for name in TERMS], rel=1e-5, abs=1e-5)
    assert not (together / "metrics.json").exists()

    launch(command, 2, tmp_path)  # goes on from the checkpoint
    found = read_log(together)
    assert [line["step"] for line in found] == list(range(1, 29))
    assert found[-1]["ce"] == pytest.approx(wanted[-1]["ce"], rel=1e-2)
    names = {path.name for path in alone.iterdir()}
    assert {path.name for path in together.iterdir()} == names
    assert json.loads((together / "metrics.json").read_text())["num_samples"] == 12
    first, second = ((tmp_path / f"output-{rank}").read_text() for rank in (0, 1))
    assert "Traceback" not in first + second
    assert first.count("next: python -m train predict") == 1
    assert "predict" not in second
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "torchrun: is for `python -m train fit` alone" in fails(capsys, "predict", together, "--cache", cache)


def test_parts_of_batches_and_unknown_targets(
    tiny_cache: MakeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known of targets differs between slices and parts; each counts as in the whole batch."""
    cache, alone, together = tiny_cache(num_subjects=5, units="targets"), tmp_path / "1", tmp_path / "2"
    options = [*FIT, "--epochs", 5, "--task", "targets", "--gradient-accumulation", 2, "--lambda-con", 0, "--ema", 0.9]
    options += ["--test-subjects", "S4"]  # row 0, of which nothing is known, trains
    options += ["--validate", "S3", "--patience", 2]  # the first process alone validates; all stop together
    with monkeypatch.context() as patch:
        patch.setattr(train.training.loop, "LOG_EVERY", 1)
        assert call("fit", "--cache", cache, "--out", alone, *options) == 0
    launch(["fit", "--cache", cache, "--out", together, *options], 2, tmp_path)
    steps = [[line for line in read_log(run) if "loss" in line] for run in (alone, together)]
    epochs = [[line for line in read_log(run) if "validation_loss" in line] for run in (alone, together)]
    assert len(epochs[0]) == len(epochs[1]) == len(steps[0]) / 4
    for a, b in zip(*epochs, strict=True):
        assert b["validation_loss"] == pytest.approx(a["validation_loss"], rel=1e-3)
    wanted, found = steps
    assert len(wanted) == len(found)
    for a, b in zip(wanted, found, strict=True):
        for name in ("loss", "bce", "vt", "accuracy", "face_cosine"):
            assert b[name] == pytest.approx(a[name], rel=5e-5, abs=1e-5), (name, a["step"])
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-3)
    a, b = (load_file(run / "model.safetensors") for run in (alone, together))
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, atol=1e-3, rtol=1e-3, msg=name)


@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 8), st.integers(1, 5))
def test_every_sample_is_in_one_process_and_part(num: int, batch_size: int, num_ranks: int, num_parts: int) -> None:
    for batch in split_batches(np.arange(num), batch_size):
        if len(batch) < num_ranks:
            continue
        everyone = [Ranks(rank, num_ranks) for rank in range(num_ranks)]
        assert np.concatenate([ranks.part(batch) for ranks in everyone]).tolist() == batch.tolist()
        shares = [ranks.slice(len(batch)) for ranks in everyone]
        for ranks, share in zip(everyone, shares, strict=True):
            part = ranks.part(batch)
            if share is WHOLE_BATCH:
                assert num_ranks == 1
                continue
            assert share.counts[ranks.rank] == len(part)
            assert share.num_samples == len(batch)
            parts = share.split(num_parts)
            assert len(parts) == min(num_parts, len(batch) // num_ranks)
            sizes = [len(p) for p in torch.from_numpy(part).tensor_split(len(parts))]
            assert [p.counts[ranks.rank] for p in parts] == sizes
            assert sum(p.num_samples or 0 for p in parts) == len(batch)


def test_more_processes_than_gpus_are_refused() -> None:
    ranks = Ranks(1, 4, local_rank=1, local_num=torch.cuda.device_count() + 1)
    with pytest.raises(FacetError, match="GPUs; start at most one process per GPU"):
        ranks.choose_device("cuda")
    with pytest.raises(FacetError, match="leave --device out"):
        ranks.choose_device("cuda:1")
    assert ranks.choose_device("cpu") == "cpu"
