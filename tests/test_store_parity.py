"""Zarr or HDF5: training, inspecting and verifying cannot tell which of the two holds a cache."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import MakeCache

from preprocess.build.verify import verify_cache
from preprocess.inspection.sheet import write_sheet
from preprocess.inspection.summary import describe_cache
from shared.cache import open_cache
from shared.errors import run_command_line
from shared.store.storage import STORES
from train.__main__ import main

# Every kind of row and array that a cache can have.
CACHES = {
    "scans": {
        "num_subjects": 6,
        "without_texture": (5,),
        "invalid": (7,),
        "modalities": ("texture", "normal", "depth"),
    },
    "frames": {"num_subjects": 3, "num_frames": 4, "units": "targets"},
}


@pytest.mark.parametrize("kind", CACHES)
def test_inspect_and_verify_say_the_same(kind: str, tiny_cache: MakeCache, tmp_path: Path) -> None:
    texts, sheets = [], []
    for store in STORES:
        path = tiny_cache(name=store, store=store, **CACHES[kind])
        for quick in (False, True):
            assert verify_cache(path, quick=quick) == []
        cache = open_cache(path)
        write_sheet(cache, tmp_path / f"{store}.png")
        sheets.append((tmp_path / f"{store}.png").read_bytes())
        lines = describe_cache(cache).replace(str(path), "CACHE").splitlines()
        assert lines[0].endswith(store)
        # What must differ: the store's name, the bytes on disk, and the hash of what holds them.
        texts.append([line for line in lines[1:] if "on disk" not in line and "content" not in line])
    assert texts[0] == texts[1]
    assert sheets[0] == sheets[1]


def test_training_gives_the_same_predictions(tiny_cache: MakeCache, tmp_path: Path) -> None:
    for store in STORES:
        path = tiny_cache(name=store, store=store, num_subjects=4, num_frames=3)
        arguments = ["fit", "--cache", path, "--out", tmp_path / f"run-{store}", "--folds", 2, "--epochs", 2]
        arguments += ["--batch-size", 8, "--frames", 2, "--device", "cpu"]
        assert run_command_line(lambda given=arguments: main([str(a) for a in given])) == 0  # type: ignore[misc]
    first, second = (tmp_path / f"run-{store}" for store in STORES)
    assert (first / "predictions.csv").read_bytes() == (second / "predictions.csv").read_bytes()
    assert losses(first) == losses(second)
    assert losses(first)


def losses(run: Path) -> list[float]:
    steps = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [step["loss"] for step in steps if "loss" in step]
