"""What a finished run said of a cache's scans and sequences, row by row."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from preprocess.viewer.catalogue import Prediction
from shared.cache import Cache
from shared.errors import FacetError, first_line

PREDICTIONS_CSV = "predictions.csv"
_COLUMNS = ["name", "subject", "label", "predicted"]


def read_predictions(run: Path, cache: Cache) -> dict[int, Prediction]:
    """Predictions by row of the cache. A sequence's prediction counts for each of its frames.

    Takes a run's own test (predictions.csv), all folds of a crossval folder, or, where there is neither, what `predict` wrote
    about this cache (predictions-<cache>.csv). Of several rounds that name one face, the last counts.

    Raises:
        FacetError: no predictions there, the table cannot be read, or none of its names is in the cache.
    """
    files = [run / PREDICTIONS_CSV] if (run / PREDICTIONS_CSV).is_file() else sorted(run.glob(f"*/{PREDICTIONS_CSV}"))
    by_hand = run / f"predictions-{cache.path.name}.csv"
    files = files or ([by_hand] if by_hand.is_file() else [])
    if not files:
        raise FacetError(f"--run {run}: no {PREDICTIONS_CSV} there or in its folds; give the folder of a finished run")
    said = {name: prediction for file in files for name, prediction in _read_table(file).items()}
    found = {
        row: said[name]
        for row, sample in enumerate(cache.samples)
        for name in (sample.sample_id, sample.sequence)
        if name in said
    }
    if not found:
        raise FacetError(f"--run {run}: none of its {len(said)} predictions is for a scan or sequence of {cache.path}")
    return found


def _read_table(path: Path) -> dict[str, Prediction]:
    result: dict[str, Prediction] = {}
    try:
        reader = csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
        header = next(reader, [])
        if header[:4] != _COLUMNS:
            raise FacetError(f"{path}: expected columns {','.join(_COLUMNS)},…, found {','.join(header)[:200]!r}")
        if header[-1] == "unknown":
            raise FacetError(f"{path}: is of a run on several classes at once; pages here are for one class a face")
        classes = [name.removeprefix("p_") for name in header[4:]]
        for values in reader:
            if len(values) != len(header) or values[3] not in classes:
                raise ValueError(f"line {reader.line_num}: {len(values)} fields, predicted {values[3:4]}")
            result[values[0]] = Prediction(values[3], float(values[4 + classes.index(values[3])]))
    except (ValueError, csv.Error) as error:
        raise FacetError(
            f"{path}: cannot be read ({first_line(error)}); run `python -m train evaluate` again"
        ) from error
    return result
