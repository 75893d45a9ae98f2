"""What a training tells of itself: its log, profiles."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import MakeCache
from tiny_training import RECIPE, TRANSFORM, run

from shared.cache import open_cache
from shared.runs import LOG_JSONL
from train.training.loop import Monitoring
from train.training.progress import open_progress

CPU = TRANSFORM.device


def test_every_line_of_the_log_says_how_fast_it_went(tiny_cache: MakeCache, tmp_path: Path) -> None:
    cache = open_cache(tiny_cache(num_subjects=3))
    started = time.perf_counter()
    run(tmp_path / "run", cache)
    seconds = time.perf_counter() - started
    lines = [json.loads(line) for line in (tmp_path / "run" / LOG_JSONL).read_text().splitlines()]
    assert len(lines) == 2
    for line in lines:
        assert {
            "step",
            "epoch",
            "ce",
            "con",
            "vt",
            "loss",
            "grad_norm",
            "accuracy",
            "face_cosine",
            "scale",
            "lr",
        } <= set(line)
        assert line["samples_per_second"] > 36 / seconds  # 36 samples before the first line took a part of that time
        assert 0 < line["wait_share"] < 1
        assert 1e8 < line["memory_bytes"] < 1e11
        assert "mfu" not in line  # the peak of a CPU is not known


def test_time_spent_waiting_for_batches_is_counted(tmp_path: Path) -> None:
    def slow() -> Iterator[int]:
        for number in range(3):
            time.sleep(0.02)
            yield number

    with open_progress(tmp_path, 0, 3, CPU) as progress:
        progress.flops_per_sample, progress.peak_flops = 1e6, 1e9
        for number in progress.waiting_for(slow()):
            time.sleep(0.02)
            progress.add(number, {"loss": torch.tensor(1.0)}, 5)
        waited, seconds = progress.waited_seconds(), time.perf_counter() - progress.started
        assert 0.06 <= waited <= seconds - 0.06
        progress.write({"step": 3, **progress.read(tmp_path, "--lr")})
    line = json.loads((tmp_path / LOG_JSONL).read_text())
    assert line["wait_share"] == pytest.approx(waited / seconds, rel=0.2)
    assert line["samples_per_second"] == pytest.approx(15 / seconds, rel=0.2)
    assert line["mfu"] == pytest.approx(line["samples_per_second"] * 1e6 / 1e9)


@pytest.mark.parametrize(("num_steps", "last"), [(2, 5), (50, 6)])
def test_profile_records_the_steps_asked_for(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str], num_steps: int, last: int
) -> None:
    cache = open_cache(tiny_cache(num_subjects=2))
    run(tmp_path / "run", cache, replace(RECIPE, epochs=2), monitoring=Monitoring(profile_steps=num_steps))  # 6 steps
    path = tmp_path / "run" / "profile" / f"steps-4-{last}.json"
    assert f"{path}; open it at https://ui.perfetto.dev" in capsys.readouterr().out
    names = [event["name"] for event in json.loads(path.read_text())["traceEvents"] if event.get("ph") == "X"]
    assert sum(name.startswith("ProfilerStep#") for name in names) in (last - 3, last - 2)  # a last one may be begun
    assert sum("_fused_adamw_" in name for name in names) >= last - 3
