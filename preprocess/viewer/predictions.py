"""What a finished run said of a cache's scans and sequences, row by row."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path

from preprocess.viewer.catalogue import FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_NEGATIVE, TRUE_POSITIVE, Prediction
from shared.cache import Cache
from shared.errors import FacetError, first_line

PREDICTIONS_CSV = "predictions.csv"
_COLUMNS = ["sample_id", "subject", "label", "predicted"]


def read_predictions(run: Path, cache: Cache) -> dict[int, Prediction]:
    """Predictions by row of the cache. A sequence's prediction counts for each of its frames.

    Takes a run's own test (predictions.csv), all folds of a crossval folder, or, where there is neither, what `predict` wrote
    about this cache (predictions-<cache>.csv). Of several rounds that name one face, the last counts.

    Raises:
        FacetError: no predictions there, the table cannot be read, or none of its names is in the cache.
    """
    said = {name: prediction for table in _read_tables(run, cache) for name, prediction in table.items()}
    found = {
        row: said[name]
        for row, sample in enumerate(cache.samples)
        for name in (sample.sample_id, sample.sequence)
        if name in said
    }
    if not found:
        raise FacetError(f"--run {run}: none of its {len(said)} predictions is for a scan or sequence of {cache.path}")
    return found


def read_tested(run: Path, cache: Cache) -> list[Prediction]:
    """Each prediction for something in the cache once, as the run's own scores count them: a sequence is one, and of several
    rounds each counts. Raises FacetError as `read_predictions`."""
    names = {name for sample in cache.samples for name in (sample.sample_id, sample.sequence) if name}
    return [said for table in _read_tables(run, cache) for name, said in table.items() if name in names]


def _read_tables(run: Path, cache: Cache) -> list[dict[str, Prediction]]:
    files = find_tests(run, cache)
    if not files:
        raise FacetError(f"--run {run}: no {PREDICTIONS_CSV} there or in its folds; give the folder of a finished run")
    sequences = {sequence.sequence for sequence in cache.sequences}
    return [
        {name: dataclasses.replace(said, of_sequence=name in sequences) for name, said in read_table(file).items()}
        for file in files
    ]


def find_tests(run: Path, cache: Cache) -> list[Path]:
    """The tables of predictions in a run's folder: its own, else its folds', else what `predict` wrote about this cache."""
    if (run / PREDICTIONS_CSV).is_file():
        return [run / PREDICTIONS_CSV]
    by_hand = run / f"predictions-{cache.name}.csv"
    folds = sorted(run.glob(f"*/{PREDICTIONS_CSV}")) or sorted(run.glob(f"round-*/*/{PREDICTIONS_CSV}"))
    return folds or ([by_hand] if by_hand.is_file() else [])


def read_table(path: Path) -> dict[str, Prediction]:
    """A table of predictions by name. Raises FacetError where it cannot be read."""
    result: dict[str, Prediction] = {}
    try:
        reader = csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
        header = next(reader, [])
        if header[:1] == ["name"]:  # as it was called in runs of before
            header[0] = _COLUMNS[0]
        if header[:4] != _COLUMNS:
            raise FacetError(f"{path}: expected columns {','.join(_COLUMNS)},…, found {','.join(header)[:200]!r}")
        classes = tuple(name.removeprefix("p_") for name in header[4:] if name.startswith("p_"))
        several = header[4 + len(classes) :][:1] == ["unknown"]  # what stands behind is for people
        for values in reader:
            if len(values) != len(header):
                raise ValueError(f"line {reader.line_num}: {len(values)} fields")
            probabilities = tuple(float(text) for text in values[4 : 4 + len(classes)])
            if not all(0 <= probability <= 1 for probability in probabilities):
                raise ValueError(f"line {reader.line_num}: no probabilities")
            read = _read_several if several else _read_one
            result[values[0]] = read(values, classes, probabilities)
    except (ValueError, csv.Error) as error:
        raise FacetError(
            f"{path}: cannot be read ({first_line(error)}); run `python -m train evaluate` again"
        ) from error
    return result


def _read_one(values: list[str], classes: tuple[str, ...], probabilities: tuple[float, ...]) -> Prediction:
    if values[3] not in classes:
        raise ValueError(f"{values[3]!r} is no class of the run")
    return Prediction(values[3], probabilities[classes.index(values[3])], classes, probabilities, label=values[2])


def _read_several(values: list[str], classes: tuple[str, ...], probabilities: tuple[float, ...]) -> Prediction:
    """Several classes at once: those that hold, that are said and that are not known, each joined by +."""
    true, said, unknown = ({name for name in values[at].split("+") if name} for at in (2, 3, 4 + len(classes)))
    if strange := (true | said | unknown) - {*classes}:
        raise ValueError(f"{sorted(strange)[0]!r} is no class of the run")
    names = {
        (True, True): TRUE_POSITIVE,
        (True, False): FALSE_NEGATIVE,
        (False, True): FALSE_POSITIVE,
        (False, False): TRUE_NEGATIVE,
    }
    decisions = tuple((name, names[name in true, name in said]) for name in classes if name not in unknown)
    surest = max((p for name, p in zip(classes, probabilities, strict=True) if name in said), default=0.0)
    return Prediction(
        "+".join(n for n in classes if n in said) or "none", surest, classes, probabilities, True, decisions, values[2]
    )
