"""From the bytes of each data set's layout to a result, by the commands a user types: one fold, on people not trained on.

The faces are synthetic, few and small, and so is the tower, which ships with its weights: what is shown is that the way is
whole and that what arrives at its end can be learned from, far above chance.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import command_lines
import pytest
from scipy.stats import binomtest
from test_train_cli import call

AT_REST = ["--reference", "onset", "--frame-sampling", "apex", "--frame-window", "1", "--frames", "1"]
STUDIES = {
    "bu3dfe": (["--subjects", "3"], ["--protocol", "kfold", "--folds", "3", "--epochs", "2", "--reference", "neutral"]),
    "bosphorus": (["--subjects", "4"], ["--protocol", "bosphorus", "--folds", "2", "--epochs", "4"]),
    "bu4dfe": (
        ["--subjects", "4", "--frames", "3"],
        ["--protocol", "bu4dfe", "--folds", "4", "--epochs", "6", *AT_REST],
    ),
    "bp4d": (
        ["--subjects", "4", "--frames", "3"],
        ["--protocol", "bp4d", "--folds", "4", "--epochs", "6", *AT_REST],
    ),
}


def preprocess(*arguments: object) -> None:
    """On one core, so in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda pid: {0})
        assert command_lines.preprocess(*arguments) == 0


def make_cache(folder: Path, name: str, synth: list[str]) -> Path:
    scans, cache = folder / name, folder / f"{name}-cache"
    preprocess("synth", name, "--out", scans, *synth)
    preprocess(
        "build",
        name,
        "--root",
        scans,
        "--cache",
        cache,
        "--size",
        64,
        "--views=0",
        "--modalities",
        "normal,depth",
    )
    preprocess("prompts", "--cache", cache, "--model", "facet-tiny", "--pretrained", "synthetic-2")
    return cache


def read_pooled(run: Path) -> dict[str, Any]:
    pooled: dict[str, Any] = json.loads((run / "report.json").read_text())["summary"]["pooled"]
    return pooled


def assert_above_chance(run: Path) -> None:
    pooled = read_pooled(run)
    hits = sum(row[k] for k, row in enumerate(pooled["confusion"]))
    by_chance = binomtest(hits, pooled["num_samples"], max(pooled["chance"], pooled["majority"]), alternative="greater")
    assert by_chance.pvalue < 0.01, (hits, pooled["num_samples"])


@pytest.mark.parametrize("name", STUDIES)
def test_a_fold_is_learned_above_chance(name: str, tmp_path: Path) -> None:
    synth, options = STUDIES[name]
    cache, run = make_cache(tmp_path, name, synth), tmp_path / "run"
    common = ["--cache", cache, "--fold", 0, "--modalities", "normal", "--batch-size", 4, "--train-views", 9]
    assert call("crossval", *common, "--out", run, *options) == 0
    assert_above_chance(run)
    if name == "bp4d":  # the same frames, for their action units
        units = ["--protocol", "bp4d-au", "--reference", "onset", "--epochs", 3, "--class-weights", "balanced"]
        assert call("crossval", *common, "--out", tmp_path / "aus", *units) == 0
        pooled = read_pooled(tmp_path / "aus")
        always_yes = [2 * p / (1 + p) for p in pooled["per_class_prevalence"]]
        assert pooled["macro_f1"] > sum(always_yes) / len(always_yes) + 0.1
        assert pooled["uar"] > 0.6
