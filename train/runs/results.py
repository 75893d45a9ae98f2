"""A run folder read back: settings, log, scores, predictions. No model is loaded."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.errors import FacetError, first_line, name_some
from shared.runs import (
    CONFIG_JSON,
    CROSSVAL_JSON,
    FOLDS_JSON,
    LOG_JSONL,
    METRICS_JSON,
    OTHER_TEST,
    PREDICTIONS_CSV,
    SPLIT_JSON,
    Prediction,
    read_log,
    read_predictions,
    read_timing,
)
from shared.typed_json import make
from train.config import RunConfig, read_config
from train.protocols.folds import read_folds, read_split
from train.runs.groups import GroupScore, read_groups
from train.tasks.task import Metrics, Task, find_task

LARGEST_BYTES = 16 << 20  # a metrics.json is a few kilobytes


@dataclass(frozen=True)
class TestInfo:
    """What metrics.json says of a test besides its scores."""

    __test__ = False  # no test of pytest

    task: str = "classes"
    class_names: tuple[str, ...] = ()
    dataset: str = ""
    licence: str = ""
    model: str = ""
    pretrained: str = ""
    random_weights: bool = False
    shuffled_labels: bool = False
    centred_scores: str = "none"
    num_train_subjects: int | None = None
    num_test_subjects: int | None = None
    num_parameters: int | None = None
    accuracy_uncentred: float | None = None  # with --centre-scores none; None: the scores are not centred
    best_epoch: int | None = None  # whose weights are tested (--validate); None: the last


@dataclass(frozen=True)
class FoldResult:
    """One tested fold."""

    name: str  # "fold-03", "subject-S07"; "round-017/fold-03" where a protocol repeats its folds
    info: TestInfo
    metrics: Metrics
    groups: tuple[GroupScore, ...] = ()
    seconds: float | None = None  # of training and testing
    frame_votes: tuple[GroupScore, ...] = ()  # sequences decided by their frames alone, if the task has one label

    @property
    def task(self) -> Task:
        return find_task(self.info.task)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.info.class_names

    @property
    def round_name(self) -> str:
        """Return the round of a fold's name: "round-017" of "round-017/fold-03"; empty if folds are not repeated."""
        return self.name.rpartition("/")[0]


def read_fold_result(run: Path, name: str | None = None) -> FoldResult | None:
    """Read the test of a run; scores are computed from the counts of metrics.json.

    Args:
        name: the fold's name; without one, the folder's own, with its round's ("round-017/fold-03") where it lies in one.
    Returns:
        None where the fold has not been tested yet.
    Raises:
        FacetError: metrics.json is damaged.
    """
    path = run / METRICS_JSON
    if not path.is_file():
        return None
    if name is None:
        name = f"{run.parent.name}/{run.name}" if run.parent.name.startswith("round-") else run.name
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise ValueError(f"larger than {LARGEST_BYTES >> 20} MiB")
        value = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
        if not isinstance(value, dict):
            raise ValueError("holds no object")
        return parse_result(value, name, read_timing(run).seconds)
    except (FacetError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else first_line(error)
        raise FacetError(f"{path}: damaged ({reason}); delete this fold's folder and run crossval again") from error


def parse_result(value: dict[str, Any], name: str, seconds: float | None = None) -> FoldResult:
    """Return the result that a parsed metrics.json holds.

    Raises:
        FacetError, ValueError, KeyError, TypeError: a field is missing or cannot be.
    """
    info = make(
        TestInfo, {field.name: value[field.name] for field in dataclasses.fields(TestInfo) if field.name in value}
    )
    task, names = find_task(info.task), info.class_names
    if len(names) < (1 if task.several else 2):
        raise ValueError("class_names is no list of class names")
    if len(set(names)) != len(names) or not all(name.isprintable() and name.strip() for name in names):
        raise ValueError("class_names holds a name twice, or one that cannot be printed")
    metrics = task.read_metrics(value, len(names))
    groups, votes = (read_groups(value.get(key, {}), task, len(names)) for key in ("groups", "frame_votes"))
    return FoldResult(name, info, metrics, groups, seconds, votes)


def _refuse_constant(text: str) -> float:
    raise ValueError(f"holds {text}")


@dataclass(frozen=True)
class RecordedFold:
    """One training and its test; result is None until it is tested."""

    name: str
    log: list[dict[str, float]]  # in the order of steps
    result: FoldResult | None
    predictions: list[Prediction]
    environment: dict[str, str]


@dataclass(frozen=True)
class RecordedRun:
    """A run of `fit` (one fold), or a cross-validation.

    split: numbers of training and test subjects of a single run. missing: what its folder lacks, one line each.
    """

    path: Path
    name: str
    config: RunConfig
    is_crossval: bool
    folds: list[RecordedFold]
    split: tuple[int, int] | None
    missing: list[str]
    other_tests: list[FoldResult]

    @property
    def results(self) -> list[FoldResult]:
        return [fold.result for fold in self.folds if fold.result is not None]

    @property
    def licences(self) -> list[str]:
        """Return the licence lines of all data sets that the run was trained or tested on."""
        tested = (result.info.licence for result in (*self.results, *self.other_tests))
        return [line for line in dict.fromkeys((self.config.licence, *tested)) if line]


def name_runs(paths: Sequence[Path]) -> list[str]:
    """Return the name of each run: that of its folder, or its whole path where two folders are named alike.

    Raises:
        FacetError: a folder is given twice.
    """
    places = [path.resolve() for path in paths]
    if twice := [str(path) for path, place in zip(paths, places, strict=True) if places.count(place) > 1]:
        raise FacetError(f"{twice[0]}: is named twice; name each run once")
    names = [place.name for place in places]
    return [str(path) if names.count(name) > 1 else name for path, name in zip(paths, names, strict=True)]


def read_recorded_runs(paths: Sequence[Path]) -> list[RecordedRun]:
    """Read runs, named as by `name_runs`.

    Raises:
        FacetError: no run in a folder, a file of it is damaged, or one is named twice.
    """
    return [read_recorded_run(path, name) for path, name in zip(paths, name_runs(paths), strict=True)]


def read_recorded_run(path: Path, name: str) -> RecordedRun:
    """Read a run of `fit` or `crossval`.

    Raises:
        FacetError: no run in the folder, or a file of it is damaged.
    """
    missing: list[str] = []
    other_tests: list[FoldResult] = []
    split = None
    is_crossval = (path / CROSSVAL_JSON).is_file()
    if is_crossval:
        config = read_config(path, CROSSVAL_JSON)
        places = [(fold.name, path / fold.name) for fold in read_folds(path / FOLDS_JSON).folds]
        begun = (where for _, where in places if (where / CONFIG_JSON).is_file())
        if (first := next(begun, None)) is not None:  # names the weights that were loaded
            config = dataclasses.replace(config, tower=read_config(first).tower)
    elif (path / CONFIG_JSON).is_file():
        config = read_config(path)
        places = [(path.resolve().name, path)]
        found = [read_fold_result(folder, folder.name) for folder in sorted(path.glob(f"{OTHER_TEST}*"))]
        other_tests = [one for one in found if one is not None]
        if (path / SPLIT_JSON).is_file():
            fold = read_split(path)
            split = (len(fold.train_subjects), len(fold.test_subjects))
    else:
        raise FacetError(
            f"{path}: no run here (no {CONFIG_JSON}, no {CROSSVAL_JSON}); name a folder of fit or crossval"
        )
    folds = [_read_fold(where, fold_name, missing) for fold_name, where in places]
    why = "trained on everyone" if split and not split[1] else "training or testing is not finished"
    for what, lacking in (
        (f"scores ({METRICS_JSON}): {why}", [f for f in folds if f.result is None]),
        (f"curves ({LOG_JSONL})", [f for f in folds if not f.log]),
        (f"predictions ({PREDICTIONS_CSV})", [f for f in folds if f.result is not None and not f.predictions]),
    ):
        if lacking:
            which = f" of {len(lacking)} of {len(folds)} folds: {name_some([f.name for f in lacking])}"
            missing.append(f"no {what}{which if is_crossval else ''}")
    return RecordedRun(path, name, config, is_crossval, folds, split, missing, other_tests)


def _read_fold(path: Path, name: str, missing: list[str]) -> RecordedFold:
    result = read_fold_result(path, name)
    predictions = None if result is None else read_tested(path, result)
    if predictions is None and result is not None:
        missing.append(f"predictions of {name}: {PREDICTIONS_CSV} is not of the test of {METRICS_JSON}")
    return RecordedFold(name, read_log(path), result, predictions or [], read_timing(path).environment)


def read_tested(run: Path, result: FoldResult) -> list[Prediction] | None:
    """Read the predictions of a test; [] without predictions.csv, None if they do not add up to its scores.

    Raises:
        FacetError: predictions.csv is damaged.
    """
    if not (run / PREDICTIONS_CSV).is_file():
        return []
    table = read_predictions(run / PREDICTIONS_CSV)
    predictions = list(table.rows)
    return predictions if table.class_names == result.class_names and _agree(result, predictions) else None


def _agree(result: FoldResult, predictions: Sequence[Prediction]) -> bool:
    """Return whether predictions add up to a result's counts."""
    try:
        counts = result.task.count(predictions, result.class_names)
    except (KeyError, IndexError, ValueError):  # labels of another test
        return False
    same = all((counts[name] == table).all() for name, table in result.metrics.counts.items())
    return same and len(predictions) == result.metrics.num_samples
