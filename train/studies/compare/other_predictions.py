"""Predictions of a method that was not trained here, from a CSV file, on the test samples of a run."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from shared.errors import FacetError, describe_os_error, first_line, name_some
from shared.runs import Prediction
from train.tasks.task import AUC, Task

Decision = tuple[tuple[str, ...], tuple[float, ...] | None]  # predicted classes; probabilities, if the file has them


def read_decisions(path: Path, classes: Sequence[str], task: Task) -> dict[str, Decision]:
    """Read sample_id → decision. Columns: sample_id, predicted, and p_CLASS of each class, as in predictions.csv.

    Several labels are joined by + in `predicted`; in its place, each class may have a column of 0 and 1. Further columns
    are ignored. The p_CLASS may be left out, but for intensities.

    Raises:
        FacetError: missing, not such a table, another class, or a sample twice; names the line.
    """
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""))
        columns = [*(reader.fieldnames or ())]
        has_probabilities = {f"p_{name}" for name in classes} <= {*columns}
        by_class = task.several and "predicted" not in columns and {*classes} <= {*columns}
        if "sample_id" not in columns or ("predicted" not in columns and not by_class):
            own = f", or of each class ({', '.join(classes)}) with 0 and 1" if task.several else ""
            raise ValueError(f"expected the columns sample_id and predicted{own}, found {name_some(columns)}")
        if not (has_probabilities or AUC in task.compared or not task.several):
            raise ValueError("intensities need the columns p_CLASS: predicted intensity / 5")
        found: dict[str, Decision] = {}
        for row in reader:
            name = row["sample_id"]
            if name in found:
                raise ValueError(f"line {reader.line_num}: {name} stands twice")
            predicted = _read_predicted(row, classes, by_class=by_class, several=task.several)
            probabilities = tuple(float(row[f"p_{one}"]) for one in classes) if has_probabilities else None
            if not all(0 <= value <= 1 for value in probabilities or ()):
                raise ValueError(f"line {reader.line_num}: p_CLASS must be 0 to 1")
            found[name] = predicted, probabilities
    except OSError as error:
        raise FacetError(describe_os_error(error)) from error
    except (ValueError, TypeError, csv.Error) as error:
        raise FacetError(f"{path}: not a table of predictions ({first_line(error)})") from error
    return found


def _read_predicted(
    row: Mapping[str, str], classes: Sequence[str], *, by_class: bool, several: bool
) -> tuple[str, ...]:
    if by_class:
        if strange := [name for name in classes if row[name] not in ("0", "1")]:
            raise ValueError(f"{row['sample_id']}: {strange[0]} is {row[strange[0]]!r}, expected 0 or 1")
        return tuple(name for name in classes if row[name] == "1")
    names = tuple(filter(None, row["predicted"].split("+"))) if several else (row["predicted"],)
    if strange := [name for name in names if name.partition("=")[0] not in classes]:
        raise ValueError(f"{row['sample_id']}: {strange[0]!r} is none of {', '.join(classes)}")
    return names


def replace_decisions(path: Path, tested: Sequence[Prediction], decisions: Mapping[str, Decision]) -> list[Prediction]:
    """Return tested samples with the decisions of a file; labels stay. Without probabilities, those stay too.

    Raises:
        FacetError: samples are missing in the file.
    """
    if lacking := [one.name for one in tested if one.name not in decisions]:
        raise FacetError(
            f"{path}: lacks {len(lacking)} of {len(tested)} tested samples ({name_some(lacking, 3)}); sample_id must be as in "
            "predictions.csv of the run"
        )
    return [
        dataclasses.replace(one, predicted=predicted, probabilities=probabilities or one.probabilities)
        for one in tested
        for predicted, probabilities in (decisions[one.name],)
    ]
