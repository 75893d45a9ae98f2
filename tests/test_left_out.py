"""What a training or a test leaves out is told: how many samples, why, and which is the first."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import MakeCache
from test_train_cli import call

from train.config import read_config

FOUR = ("neutral", "anger", "happiness", "surprise")
QUICK = ["--folds", "2", "--epochs", "1", "--batch-size", "8", "--device", "cpu"]


def notes(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [
        line
        for line in capsys.readouterr().out.splitlines()
        if "left out" in line or "not used" in line or "other modalities" in line
    ]


def test_a_modality_that_rows_in_use_lack(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"class_names": FOUR, "scans_per_class": 1}
    neutral = tiny_cache(name="neutral", without_texture=(0, 4), **options)  # nobody looks at these
    assert call("fit", "--cache", neutral, "--out", tmp_path / "a", *QUICK) == 0
    assert notes(capsys) == []
    assert read_config(tmp_path / "a").recipe.modalities == ("texture", "normal")
    two = tiny_cache(name="two", without_texture=(0, 5, 7), **options)
    assert call("fit", "--cache", two, "--out", tmp_path / "b", *QUICK) == 0
    told = "texture is not used: 2 of 12 scans have none (S1/anger0, …); --modalities texture,normal uses it"
    assert notes(capsys) == [f"note: {told}"]
    assert read_config(tmp_path / "b").recipe.modalities == ("normal",)
    # as references they are in use
    relative = ["--reference", "neutral", "--out", tmp_path / "c", *QUICK]
    assert call("fit", "--cache", neutral, *relative) == 0
    assert "texture is not used: 2 of 16 scans have none (S0/neutral0, …)" in notes(capsys)[0]
    assert call("fit", "--cache", two, "--modalities", "texture", "--out", tmp_path / "d", *QUICK) == 0
    assert notes(capsys) == ["note: 2 of 12 scans have no texture and are left out (S1/anger0, …)"]
    assert call("fit", "--cache", two, "--modalities", "texture,normal", "--out", tmp_path / "e", *QUICK) == 0
    assert notes(capsys) == ["note: 2 of 12 scans have no texture; their other modalities are used (S1/anger0, …)"]
    crossval = ["crossval", "--cache", two, "--out", tmp_path / "f", *QUICK, "--jobs", 1]
    assert call(*crossval) == 0
    assert notes(capsys)[0] == f"note: {told}"
    assert told in (tmp_path / "f" / "report.txt").read_text()


def test_across_data_sets_both_are_looked_at(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = tiny_cache(name="train", scans_per_class=1)
    test = tiny_cache(name="test", scans_per_class=1, dataset="others", without_texture=(11,))
    caches = ["--train-cache", train, "--test-cache", test, "--epochs", 1, "--device", "cpu"]
    assert call("fit", *caches, "--out", tmp_path / "a") == 0
    assert notes(capsys) == ["note: 1 of 12 scans have no texture; their other modalities are used (S3/surprise0)"]
    assert read_config(tmp_path / "a").recipe.modalities == ("texture", "normal")
    assert call("fit", *caches, "--modalities", "texture", "--out", tmp_path / "b") == 0
    assert notes(capsys) == ["note: 1 of 12 scans have no texture and are left out (S3/surprise0)"]


def test_samples_that_a_test_on_another_cache_leaves_out(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    own = tiny_cache(class_names=FOUR, scans_per_class=1)
    assert call("fit", "--cache", own, "--out", run, *QUICK, "--test-subjects", "S0,S1") == 0
    other = tiny_cache(name="other", class_names=FOUR, seed=1, scans_per_class=1, num_subjects=5, unlabelled=(5, 17))
    capsys.readouterr()
    assert call("evaluate", run, "--cache", other) == 0
    assert notes(capsys) == [
        "note: left out: 2 without a label; 5 labelled neutral (no class of this run); 6 of 2 subjects who trained (S2, S3)"
    ]
    assert call("evaluate", run) == 0
    assert notes(capsys) == []
