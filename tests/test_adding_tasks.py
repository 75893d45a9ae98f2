"""The worked examples of train/README.md: a task is one file and one line, a report column is one line."""

from __future__ import annotations

import csv
import re
import sys
import types
from pathlib import Path

import pytest
from conftest import MakeCache
from crossval_results import random_folds
from test_train_cli import QUICK, call

from shared.runs import read_predictions
from train import parts
from train.reporting.crossval import list_folds
from train.reporting.summary import summarise_folds
from train.reporting.table import Column, Table, decimals
from train.runs.results import read_fold_result

README = Path(__file__).resolve().parents[1] / "train" / "README.md"


def read_example(name: str) -> str:
    found = re.search(rf"```python\n# {re.escape(name)}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def test_a_task_of_the_manual_trains_tests_and_reports(
    tiny_cache: MakeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("train.tasks.strong_units")
    exec(read_example("train/tasks/strong_units.py"), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    ((name, part),) = eval("{" + read_example("TASKS in train/parts.py") + "}", {"Part": parts.Part}).items()
    monkeypatch.setitem(parts.TASKS, name, part)
    cache, out = tiny_cache(num_subjects=4, num_frames=2, scans_per_class=1, units="aus"), tmp_path / "cv"
    options = (*QUICK, "--folds", 2, "--epochs", 2, "--task", "strong-aus", "--tune", "frozen")
    assert call("crossval", "--cache", cache, "--out", out, "--jobs", 1, *options) == 0
    run = out / "fold-00"
    result, rows = read_fold_result(run), read_predictions(run / "predictions.csv").rows
    assert result is not None and result.metrics.num_samples == len(rows)
    for row in rows:  # AU12 has intensity 3 in the faces of surprise, and 0 in others
        assert row.unknown or row.labels == ("AU12",) * ("surprise" in row.name)
    with (out / "table.csv").open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert line["class"] == "AU12" and line["f1_mean"]
    assert call("evaluate", run) == 0
    assert call("report", out, "--out", tmp_path / "r.html", "--no-faces") == 0


def test_a_column_of_the_manual_reaches_every_rendering() -> None:
    results, _, _ = random_folds(1, [20, 30])
    column = eval(read_example("a column of list_folds"), {"Column": Column, "decimals": decimals})
    table = list_folds(summarise_folds(results), results)
    table = Table([*table.columns, column], table.rows)
    assert table.format_text()[0].split()[-1] == "tested/s"
    assert table.format_csv().splitlines()[0].endswith(",per_second")
