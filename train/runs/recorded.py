"""What a run's folder tells afterwards: settings, log, scores, predictions. Nothing is taken on trust; no model is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared.errors import FacetError
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
from train.config import RunConfig, read_config
from train.protocols.folds import list_some, read_folds, read_split
from train.runs.results import FoldResult, read_fold_result
from train.tasks.metrics import confusion_matrix


@dataclass(frozen=True)
class RecordedFold:
    """One training and its test; result is None until it is tested."""

    name: str
    log: list[dict[str, float]]  # in the order of steps; numbers alone
    result: FoldResult | None
    predictions: list[Prediction]
    environment: dict[str, str]


@dataclass(frozen=True)
class RecordedRun:
    """A run of `fit` (one fold), or a cross-validation.

    split: of a single run, (training, test) subjects. missing: what its folder lacks, a line each, for the reader.
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
        """The licence lines of all data sets whose faces the run has seen."""
        tested = (str(result.metrics.get("licence", "")) for result in (*self.results, *self.other_tests))
        return [line for line in dict.fromkeys((self.config.licence, *tested)) if line]


def read_recorded_runs(paths: Sequence[Path]) -> list[RecordedRun]:
    """Runs under names that tell them apart: their folders' names, or their whole paths where two are alike.

    Raises:
        FacetError: no run in a folder, a file of it is damaged, or one is named twice.
    """
    places = [path.resolve() for path in paths]
    if twice := [str(path) for path, place in zip(paths, places, strict=True) if places.count(place) > 1]:
        raise FacetError(f"{twice[0]}: is named twice; name each run once")
    names = [place.name for place in places]
    return [
        read_recorded_run(path, str(path) if names.count(name) > 1 else name)
        for path, name in zip(paths, names, strict=True)
    ]


def read_recorded_run(path: Path, name: str) -> RecordedRun:
    """
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
        if (first := next(begun, None)) is not None:  # it knows which weights were loaded
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
    for what, lacking in (
        (f"scores ({METRICS_JSON}): training or testing is not finished", [f for f in folds if f.result is None]),
        (f"curves ({LOG_JSONL})", [f for f in folds if not f.log]),
        (f"predictions ({PREDICTIONS_CSV})", [f for f in folds if f.result is not None and not f.predictions]),
    ):
        if lacking:
            which = f" of {len(lacking)} of {len(folds)} folds: {list_some([f.name for f in lacking])}"
            missing.append(f"no {what}{which if is_crossval else ''}")
    return RecordedRun(path, name, config, is_crossval, folds, split, missing, other_tests)


def _read_fold(path: Path, name: str, missing: list[str]) -> RecordedFold:
    result = read_fold_result(path, name)
    predictions: list[Prediction] = []
    if result is not None and (path / PREDICTIONS_CSV).is_file():
        table = read_predictions(path / PREDICTIONS_CSV)
        predictions = list(table.rows)
        if table.class_names != result.class_names or not _agree(result, predictions):
            missing.append(f"predictions of {name}: {PREDICTIONS_CSV} is not of the test that {METRICS_JSON} tells of")
            predictions = []
    return RecordedFold(name, read_log(path), result, predictions, read_timing(path).environment)


def _agree(result: FoldResult, predictions: Sequence[Prediction]) -> bool:
    """Whether predictions count up to a result."""
    if len(predictions) != result.metrics["num_samples"]:
        return False
    names = result.class_names
    known = {*names}
    if any(not {*p.labels, *p.predicted, *p.unknown} <= known for p in predictions):
        return False
    if result.is_multilabel:
        counts = [sum(name in p.labels and name in p.predicted for p in predictions) for name in names]
        return counts == list(result.metrics["true_positives"])
    if any(len(p.labels) != 1 or len(p.predicted) != 1 for p in predictions):
        return False
    true, said = (np.array([names.index(w) for w in column]) for column in zip(
        *((p.labels[0], p.predicted[0]) for p in predictions), strict=True
    ))  # fmt: skip
    return confusion_matrix(true, said, len(names)).tolist() == [list(row) for row in result.metrics["confusion"]]
