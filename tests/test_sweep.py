"""Sweeps and `train diff`: each run of a grid is the run of its options typed, and what differs between runs is listed."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from conftest import MakeCache
from next_commands import PARSERS, next_commands
from test_option_parser import assert_same_run
from test_train_cli import QUICK, call, fails

from shared.errors import FacetError
from train.studies.sweep import Cell, read_grid


def test_each_run_of_a_grid_is_the_run_of_its_options(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, grid = tmp_path / "sweep", tmp_path / "grid.toml"
    grid.write_text('lr = [1e-3, 3e-2]\nmodalities = ["normal", "texture,normal"]\nema = [0.9]\n')
    fixed = ["fit", "--cache", tiny_cache(), *QUICK, "--epochs", 1]
    command = [*fixed, "--out", out, "--sweep", grid]
    assert call(*command) == 0
    printed = capsys.readouterr().out
    assert not out.exists() and next_commands(printed) == ["train fit"]
    rows = [line.split() for line in printed.splitlines()[1:5]]
    assert [row[:4] for row in rows] == [
        ["0", "0.001", "normal", "0.9"],
        ["1", "0.001", "texture,normal", "0.9"],
        ["2", "0.03", "normal", "0.9"],
        ["3", "0.03", "texture,normal", "0.9"],
    ]
    job = next(line for line in printed.splitlines() if "sbatch" in line)
    assert "--array=0-3 " in job
    words = shlex.split(shlex.split(job)[-1].removeprefix("--wrap=").replace("$SLURM_ARRAY_TASK_ID", "1"))
    assert words[:3] == ["python", "-m", "train"] and PARSERS["train"]().parse_args(words[3:]).sweep_index == 1

    for number in (3, 0):
        assert call(*command, "--sweep-index", number) == 0
    run = out / "lr=0.03,modalities=texture,normal,ema=0.9"
    assert call(*fixed, "--lr", 0.03, "--modalities", "texture,normal", "--ema", 0.9, "--out", tmp_path / "typed") == 0
    assert_same_run(run, tmp_path / "typed")
    capsys.readouterr()
    assert call(*command) == 0
    printed = capsys.readouterr().out
    accuracy = json.loads((run / "metrics.json").read_text())["accuracy"]
    assert printed.splitlines()[4].split()[-1] == f"{100 * accuracy:.1f}"
    assert "2 finished" in printed and "--array=1,2 " in printed and "add --validate 0.1" in printed

    validated = [*command, "--validate", 0.5]
    validated[validated.index(out)] = tmp_path / "validated"
    assert call(*validated, "--sweep-index", 0) == 0
    capsys.readouterr()
    assert call(*validated) == 0
    printed = capsys.readouterr().out
    log = tmp_path / "validated" / "lr=0.001,modalities=normal,ema=0.9" / "log.jsonl"
    (loss,) = (line["validation_loss"] for line in map(json.loads, log.read_text().splitlines()) if "lr" not in line)
    assert f"{loss:.4f}" in printed.splitlines()[1] and "note:" not in printed

    assert "has runs 0 to 3" in fails(capsys, *command, "--sweep-index", 4)
    assert "--lr: is in" in fails(capsys, *command, "--lr", 1)
    assert "add --sweep" in fails(capsys, *fixed, "--out", out, "--sweep-index", 0)
    grid.write_text("lr = [1e-3, 99]\n")
    assert "--lr: expected 1e-09 to 10, found 99" in fails(capsys, *command)  # before any job starts

    other = next(path for path in out.iterdir() if path != run)
    assert call("diff", run, other) == 0
    printed = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert f"RUN1 {run}" in lines and "--lr 0.03 0.001" in lines and "--modalities texture,normal normal" in lines
    assert not [line for line in lines if line.startswith(("--epochs", "data set"))]
    assert next_commands(printed) == ["train compare"]
    assert call("diff", run, other, "--all") == 0
    assert "--epochs 1 1" in " ".join(capsys.readouterr().out.split())


def test_diff_names_the_subjects_that_differ(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also of an unfinished run, and of cross-validations."""
    command = ["--cache", tiny_cache(), *QUICK, "--epochs", 0, "--modalities", "normal"]
    for fold in (0, 1):
        assert call("fit", *command, "--fold", fold, "--out", tmp_path / f"run{fold}") == 0
    (tmp_path / "run1" / "metrics.json").unlink()
    tested = [json.loads((tmp_path / f"run{n}" / "split.json").read_text())["test_subjects"] for n in (0, 1)]
    capsys.readouterr()
    assert call("diff", tmp_path / "run0", tmp_path / "run1") == 0
    printed = capsys.readouterr().out
    (line,) = (line for line in printed.splitlines() if line.startswith("test subjects"))
    assert all(f"{len(names)}, not in all: {', '.join(names)}" in line for names in tested)
    assert "note: run1: no scores" in printed and not next_commands(printed)
    assert call("crossval", *command, "--jobs", 1, "--out", tmp_path / "cv") == 0
    capsys.readouterr()
    assert call("diff", tmp_path / "cv", tmp_path / "run0") == 0
    printed = capsys.readouterr().out  # `compare` would refuse runs with different tests
    assert "3 of 4 subjects" in printed and not next_commands(printed)
    assert "one run" in fails(capsys, "diff", tmp_path / "cv")
    assert "is named twice" in fails(capsys, "diff", tmp_path / "cv", tmp_path / "cv")
    assert "no run here" in fails(capsys, "diff", tmp_path / "cv", tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = [1]", "epoch: no option of a training; did you mean epochs?"),
        ("out = ['x']", "out: no option of a training"),
        ("[optim]\nlr = [1]", "optim: no option"),
        ("lr = 1", "lr: expected a list of values"),
        ("lr = []", "lr: expected a list"),
        ("views = [[0, 20]]", "views: expected a list of values as they are typed"),
        ("lr = [1, 1]", "lr: holds a value twice"),
        ("", "0 combinations"),
        ("seed = [" + ",".join(map(str, range(200))) + "]\nfold = [" + ",".join(map(str, range(60))) + "]", "12,000"),
        ("model = ['a b', 'a/b']", "two runs would share a folder"),
        ("lr = [", "not a TOML file"),
    ],
)
def test_what_a_grid_gets_wrong_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(text)
    with pytest.raises(FacetError) as error:
        read_grid(path)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value)


def test_folders_of_runs_stay_below_their_own() -> None:
    assert Cell(0, {"model": "../../x", "tune": "lora-4"}).folder == "model=.._.._x,tune=lora-4"
    assert Cell(0, {"model": ".."}).folder == "model=.."
    assert Cell(7, {"model": "x" * 300}).folder == "cell-7"
