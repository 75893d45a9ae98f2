"""A fold's metrics.json: read back whole, and refused when its numbers cannot be."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from crossval_results import metrics_json, multilabel_folds, random_folds
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import FacetError
from shared.schema import canonical_json
from train.reporting.spread import measure_spread
from train.reporting.summary import summarise_folds
from train.runs.results import FoldResult, read_fold_result


def write_metrics(folder: Path, result: FoldResult, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(canonical_json({**metrics_json(result), **changes}))
    return folder


@pytest.mark.parametrize("multilabel", [False, True])
def test_a_written_fold_is_read_back(tmp_path: Path, multilabel: bool) -> None:
    result = multilabel_folds(2, [30])[0] if multilabel else random_folds(2, [30])[0][0]
    assert read_fold_result(tmp_path / "fold-00") is None
    run = write_metrics(tmp_path / "fold-00", result, dataset="bu3dfe")
    (run / "timing.json").write_text('{"seconds": 12.5}')
    found = read_fold_result(run)
    assert found is not None
    assert (found.name, found.seconds, found.task.several) == ("fold-00", 12.5, multilabel)
    assert dataclasses.replace(summarise_folds([found]), seconds=measure_spread([result.seconds])) == summarise_folds(
        [result]
    )
    inside = write_metrics(tmp_path / "round-003" / "fold-01", result)
    again = read_fold_result(inside)
    assert again is not None and again.name == "round-003/fold-01" and again.round_name == "round-003"
    assert again.seconds is None
    named = read_fold_result(inside, "subject-S07")
    assert named is not None and named.name == "subject-S07" and named.round_name == ""


DAMAGES: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("lacks 'confusion'", lambda v: v.pop("confusion")),
    ("lacks 'num_samples'", lambda v: v.pop("num_samples")),
    ("confusion", lambda v: v["confusion"].pop()),
    ("confusion", lambda v: v["confusion"][1].append(0)),
    ("counts", lambda v: v["confusion"][0].__setitem__(0, -1)),
    ("counts", lambda v: v["confusion"][0].__setitem__(0, 10**30)),
    ("counts", lambda v: v["confusion"][0].__setitem__(0, "3")),
    ("counts", lambda v: v.update(num_samples="many")),
    ("class_names", lambda v: v.update(class_names="abcd")),
    ("class_names", lambda v: v.update(class_names=["a", "a", "b", "c"])),
    ("class_names", lambda v: v.update(class_names=["a", "b\x1b[2J", "c", "d"])),
    ("class_names", lambda v: v.update(class_names=["a"])),
    ("confusion", lambda v: v.update(class_names=["a", "b", "c"])),
    ("lacks 'true_positives'", lambda v: v.update(task="aus")),
    ("'faces' is not among", lambda v: v.update(task="faces")),
]


@pytest.mark.parametrize(("words", "damage"), DAMAGES)
def test_damaged_results_are_refused(tmp_path: Path, words: str, damage: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads(canonical_json(metrics_json(random_folds(2, [30])[0][0])))
    damage(value)
    (tmp_path / "metrics.json").write_text(json.dumps(value))
    with pytest.raises(FacetError, match="damaged") as error:
        read_fold_result(tmp_path)
    assert words in str(error.value)
    assert str(tmp_path / "metrics.json") in str(error.value)
    assert "run crossval again" in str(error.value)


MULTILABEL_DAMAGES: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("true_positives", lambda v: v["true_positives"].pop()),
    ("counts", lambda v: v["true_negatives"].__setitem__(0, -1)),
    ("auc", lambda v: v["per_class_auc"].__setitem__(0, -1.5)),
    ("auc", lambda v: v.update(per_class_auc=[0.5])),
    ("lacks 'confusion'", lambda v: v.update(task="classes")),
]


@pytest.mark.parametrize(("words", "damage"), MULTILABEL_DAMAGES)
def test_damaged_multilabel_results_are_refused(
    tmp_path: Path, words: str, damage: Callable[[dict[str, Any]], Any]
) -> None:
    value = json.loads(canonical_json(metrics_json(multilabel_folds(2, [30])[0])))
    damage(value)
    (tmp_path / "metrics.json").write_text(json.dumps(value))
    with pytest.raises(FacetError, match="damaged") as error:
        read_fold_result(tmp_path)
    assert words in str(error.value)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b'{"class_names": NaN}', b"\xff\xfe", b"[" * 100_000, b" " * (17 << 20)]
)
def test_files_that_are_no_results_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "metrics.json").write_bytes(data)
    with pytest.raises(FacetError, match="damaged"):
        read_fold_result(tmp_path)


@given(seed=st.integers(0, 10**6), data=st.data())
@settings(max_examples=30)
def test_any_truncation_is_refused(tmp_path_factory: pytest.TempPathFactory, seed: int, data: st.DataObject) -> None:
    text = canonical_json(metrics_json(random_folds(seed, [12])[0][0])).rstrip()
    run = tmp_path_factory.mktemp("run")
    (run / "metrics.json").write_text(text[: data.draw(st.integers(0, len(text) - 1))])
    with pytest.raises(FacetError, match="damaged"):
        read_fold_result(run)


@pytest.mark.parametrize("text", ["", "{", '{"seconds": -1}', '{"seconds": "12"', "[]", '{"seconds": 1e999}', "null"])
def test_a_damaged_time_is_no_time(tmp_path: Path, text: str) -> None:
    run = write_metrics(tmp_path, random_folds(2, [30])[0][0])
    (run / "timing.json").write_text(text)
    found = read_fold_result(run)
    assert found is not None
    assert found.seconds is None
