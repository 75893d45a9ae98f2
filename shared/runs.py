"""Define the files of a run folder, their columns and fields, and one reader for each. (For a cache: `schema`.)

A run of `fit`, and each fold of `crossval` (in FOLD/ or ROUND/FOLD/):

| file | content |
| --- | --- |
| config.json | settings of the run, resolved |
| split.json | subjects in training and test |
| config.toml | options of the run, for `--config` |
| log.jsonl | one JSON object per logged step: `step`, `epoch`, `loss` and its terms, `accuracy`, `lr`, speed, memory |
| checkpoint.pt, model.safetensors | training state; trained weights |
| thresholds.json | decision threshold of each class, for several labels at once |
| metrics.json | scores of the test and the counts that folds are pooled by; written last: the run is finished |
| predictions.csv | one row per tested item, see `Prediction` |
| attention.safetensors | attention weights of the test, see `shared.attention_file` |
| confusion.png, .pdf | confusion matrix, for one label per item |
| timing.json | time spent, versions and machine, see `Timing` |
| hashes.json | sha256 of each finished file |
| on-CACHE/ | a test on another cache, with the files of a test |

`crossval` adds crossval.json (shared settings), folds.json (subjects of all folds) and the files of its report; `ablate`
adds ablation.json, ablation.csv and ablation.tex.

Files rot and are exchanged, and weights of another fold have the same shapes. So weights and settings are compared with
their hashes when they are loaded, and `python -m train verify RUN` compares all. A hash does not prove who wrote a file.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.csv_tables import encode_csv
from shared.errors import FacetError, first_line
from shared.signed_json import read_signed_json, write_signed_json
from shared.store.storage import hash_bytes, hash_file, write_file

CONFIG_JSON = "config.json"
CONFIG_TOML = "config.toml"
SPLIT_JSON = "split.json"
LOG_JSONL = "log.jsonl"
WEIGHTS = "model.safetensors"
THRESHOLDS_JSON = "thresholds.json"
METRICS_JSON = "metrics.json"
PREDICTIONS_CSV = "predictions.csv"
CONFUSION_PNG = "confusion.png"
CONFUSION_PDF = "confusion.pdf"
TIMING_JSON = "timing.json"
HASHES_JSON = "hashes.json"
OTHER_TEST = "on-"  # prefix of the folder of a test on another cache
CROSSVAL_JSON = "crossval.json"
FOLDS_JSON = "folds.json"
REPORT_TXT = "report.txt"
REPORT_JSON = "report.json"
RELIABILITY = "reliability"  # .png and .pdf
FOLDS_CSV = "folds.csv"
TABLE_CSV = "table.csv"
TABLE_TEX = "table.tex"
ABLATION_JSON = "ablation.json"
ABLATION_CSV = "ablation.csv"
ABLATION_TEX = "ablation.tex"
PRETRAIN_JSON = "pretrain.json"

_COLUMNS = ["sample_id", "subject", "label", "predicted"]
_PROBABILITY = "p_"  # prefix of a class's column
_UNKNOWN = "unknown"  # the column after the probabilities, where several labels may hold
_JOINT = "+"
_NUMBER = re.compile(r"\d{1,6}(\.\d{1,9})?")  # of a class that has a value

# --- predictions.csv ---


@dataclass(frozen=True)
class Prediction:
    """One row: what an item shows, and what was predicted.

    Where several labels may hold at once, `labels` and `predicted` hold any number of class names, else at most one. A
    class that has a value is CLASS=VALUE.
    """

    name: str  # sample_id, or the sequence's name
    subject: str
    labels: tuple[str, ...]  # empty: not labelled
    predicted: tuple[str, ...]
    probabilities: tuple[float, ...]  # 0…1, one per class
    unknown: tuple[str, ...] = ()  # classes of which the truth is not known


@dataclass(frozen=True)
class Predictions:
    """The whole table. several: several labels may hold at once."""

    class_names: tuple[str, ...]
    several: bool
    rows: tuple[Prediction, ...]


def tabulate_predictions(
    predictions: Predictions, extra: Mapping[str, Sequence[str]] | None = None
) -> dict[str, list[Any]]:
    """Return column → values: sample_id, subject, label, predicted, p_CLASS of each class.

    Several labels are joined by +, and the column `unknown` follows.

    Args:
        extra: further columns, a value per row.
    """
    rows = predictions.rows
    texts = [
        [row.name for row in rows],
        [row.subject for row in rows],
        [_JOINT.join(row.labels) for row in rows],
        [_JOINT.join(row.predicted) for row in rows],
    ]
    table: dict[str, list[Any]] = dict(zip(_COLUMNS, texts, strict=True))
    for index, name in enumerate(predictions.class_names):
        table[_PROBABILITY + name] = [row.probabilities[index] for row in rows]
    if predictions.several:
        table[_UNKNOWN] = [_JOINT.join(row.unknown) for row in rows]
    return table | {name: list(values) for name, values in (extra or {}).items()}


def write_predictions(
    path: Path, predictions: Predictions, extra: Mapping[str, Sequence[str]] | None = None, *, like: Path | None = None
) -> None:
    """Write predictions.csv: the columns of `tabulate_predictions`.

    Args:
        extra: further columns, a value per row.
        like: file or folder whose access rights the table gets.
    """
    table = tabulate_predictions(predictions, extra)
    # f32 in nine digits, exact: rounded ones would tie and change the AUC
    rows = ([f"{v:.9g}" if isinstance(v, float) else v for v in row] for row in zip(*table.values(), strict=True))
    write_file(path, encode_csv([table, *rows]), like=like)


def read_predictions(path: Path) -> Predictions:
    """Read what `write_predictions` wrote; further columns are ignored.

    Raises:
        FacetError: the file is missing or damaged.
    """
    try:
        reader = csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
        header = next(reader, [])
        if header[:4] != _COLUMNS:
            raise ValueError(f"expected columns {','.join(_COLUMNS)},…, found {','.join(header)[:200]!r}")
        names = tuple(text.removeprefix(_PROBABILITY) for text in header[4:] if text.startswith(_PROBABILITY))
        several = header[4 + len(names) :][:1] == [_UNKNOWN]
        rows = []
        for values in reader:
            if len(values) != len(header):
                raise ValueError(f"line {reader.line_num} has {len(values)} fields, expected {len(header)}")
            rows.append(_read_prediction(values, names, several=several))
    except OSError as error:
        raise FacetError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, csv.Error) as error:
        raise FacetError(f"{path}: damaged ({first_line(error)}); `python -m train evaluate` writes it anew") from error
    return Predictions(names, several, tuple(rows))


def _read_prediction(values: Sequence[str], names: tuple[str, ...], *, several: bool) -> Prediction:
    probabilities = tuple(float(text) for text in values[4 : 4 + len(names)])
    if not all(0 <= value <= 1 for value in probabilities):
        raise ValueError(f"{values[0]}: no probabilities")
    if several:
        labels, predicted, unknown = (_split(values[index]) for index in (2, 3, 4 + len(names)))
        row = Prediction(values[0], values[1], labels, predicted, probabilities, unknown)
        classes = {*labels, *predicted, *unknown}
    else:
        labels = (values[2],) if values[2] else ()
        row = Prediction(values[0], values[1], labels, (values[3],), probabilities)
        classes = {values[3]}  # the label may be another data set's
    if not all(_NUMBER.fullmatch(text.partition("=")[2]) for text in classes if "=" in text and text not in names):
        raise ValueError(f"{values[0]}: expected CLASS=NUMBER")
    if strange := {text for text in classes - {*names} if text.partition("=")[0] not in names}:
        raise ValueError(f"{values[0]}: {min(strange)!r} is no class of the run")
    return row


def _split(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(_JOINT) if part)


def find_predictions(run: Path, cache_name: str = "") -> list[Path]:
    """List the tables of predictions of a run: its own test's, else its folds', else the one that `predict` wrote.

    Args:
        cache_name: the cache that `predict` was called with.
    """
    if (run / PREDICTIONS_CSV).is_file():
        return [run / PREDICTIONS_CSV]
    folds = sorted(run.glob(f"*/{PREDICTIONS_CSV}")) or sorted(run.glob(f"round-*/*/{PREDICTIONS_CSV}"))
    predicted = run / f"predictions-{cache_name}.csv"
    return folds or ([predicted] if predicted.is_file() else [])


# --- log.jsonl and timing.json ---


def read_log(run: Path) -> list[dict[str, float]]:
    """Read the finite numbers of each line of log.jsonl, in the order of steps; [] without a log.

    A line that cannot be read is left out: a killed process leaves half a line.
    """
    path = run / LOG_JSONL
    if not path.is_file():
        return []
    lines: dict[float, dict[str, float]] = {}
    for text in path.read_bytes().splitlines():
        try:
            value = json.loads(text)
            line = {str(k): float(v) for k, v in value.items() if type(v) in (int, float) and math.isfinite(v)}
            lines[line["step"]] = lines.get(line["step"], {}) | line  # also has one of validation
        except (ValueError, KeyError, AttributeError, OverflowError, RecursionError):
            continue
    return [lines[step] for step in sorted(lines)]


def find_best_epoch(run: Path) -> int | None:
    """Return the epoch, from 1, of the least validation loss in log.jsonl; None without validation."""
    lines = [line for line in read_log(run) if {"validation_loss", "epoch"} <= line.keys()]
    return int(min(lines, key=lambda line: line["validation_loss"])["epoch"]) + 1 if lines else None


@dataclass(frozen=True)
class Timing:
    """timing.json: time of training and test over all interruptions, and on what. None or empty where not known."""

    seconds: float | None = None  # wall-clock
    cpu_seconds: float | None = None  # of all cores together
    environment: dict[str, str] = field(default_factory=dict)  # name → version or description


def read_timing(run: Path) -> Timing:
    """Read timing.json; a missing or damaged value is None: that is no reason to train again."""
    try:
        value = json.loads((run / TIMING_JSON).read_bytes())
    except (OSError, ValueError, RecursionError):
        return Timing()
    if not isinstance(value, dict):
        return Timing()
    found = value.get("environment")
    environment = {name[:80]: str(text)[:400] for name, text in found.items()} if isinstance(found, dict) else {}
    return Timing(_read_seconds(value.get("seconds")), _read_seconds(value.get("cpu_seconds")), environment)


def _read_seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e12 else None


# --- hashes.json ---

_FORMAT = "facet run hashes 1"
_MAX_BYTES = 1 << 20
_MAX_PRETRAIN_BYTES = 1 << 26
_NAME = re.compile(r"[A-Za-z0-9][^/\\\x00-\x1f]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def record_hashes(folder: Path, names: Iterable[str]) -> None:
    """Record the hashes of files in a folder; a missing file is removed from the record."""
    hashes = read_hashes(folder)
    for name in names:
        if (folder / name).is_file():
            hashes[name] = hash_file(folder / name)
        else:
            hashes.pop(name, None)
    write_signed_json(folder / HASHES_JSON, {"format": _FORMAT, "files": hashes})


def read_hashes(folder: Path) -> dict[str, str]:
    """Read the recorded hashes: file name → sha256; {} where nothing is recorded.

    Raises:
        FacetError: the record itself is damaged.
    """
    path = folder / HASHES_JSON
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError("too large")
        value = read_signed_json(path)
        files = value["files"]
        if value["format"] != _FORMAT:
            raise ValueError(f"expected {_FORMAT}")
        if not all(_NAME.fullmatch(name) and _DIGEST.fullmatch(digest) for name, digest in files.items()):
            raise ValueError("names no file of this folder")
        return dict(files)
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FacetError(f"{path}: damaged ({first_line(error)}); copy the run again, or fit again") from error


def load_pretrain_json(path: Path) -> Any:
    """Return the content of pretrain.json, as it is.

    Raises:
        ValueError, RecursionError: too large, or no JSON.
    """
    if path.stat().st_size > _MAX_PRETRAIN_BYTES:
        raise ValueError("too large")
    return json.loads(path.read_bytes())


def check_file(folder: Path, name: str, data: bytes, *, required: bool = False) -> None:
    """Compare the bytes of a file with its recorded hash.

    Args:
        required: a file that is not recorded is refused, too.
    Raises:
        FacetError: they are others, or nothing is recorded of a file that must be.
    """
    digest = read_hashes(folder).get(name)
    if digest is None and required:
        raise FacetError(f"{folder / name}: {HASHES_JSON} does not record it; copy the whole run again, or fit again")
    if digest is not None and digest != hash_bytes(data):
        raise FacetError(
            f"{folder / name}: damaged, or another run's (its sha256 is not the one in {HASHES_JSON}); copy it again, or "
            "fit again"
        )


def find_recorded(folder: Path) -> list[Path]:
    """List a folder and the folders below it (folds, tests on other caches) that record hashes. Links are not followed."""
    found = [path.parent for path in folder.rglob(HASHES_JSON) if path.is_file()]
    return sorted(found)


def find_changed(folder: Path) -> list[str]:
    """List the problems of the recorded files of one folder, one line each.

    Raises:
        FacetError: the record itself is damaged.
    """
    problems = []
    for name, digest in read_hashes(folder).items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{path}: missing")
        elif hash_file(path) != digest:
            problems.append(f"{path}: changed since it was written")
    return problems
