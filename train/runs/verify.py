"""`python -m train verify`: compare the files of a run, and the embeddings below it, with their hashes."""

from __future__ import annotations

import json
from pathlib import Path

import safetensors.numpy
from safetensors import SafetensorError

from shared.errors import FacetError, first_line
from shared.runs import (
    CONFIG_JSON,
    HASHES_JSON,
    METRICS_JSON,
    PREDICTIONS_CSV,
    SPLIT_JSON,
    WEIGHTS,
    find_changed,
    find_recorded,
    read_hashes,
)
from shared.schema import fingerprint
from train.data.embeddings import EMBEDDINGS_JSON, KEY_DIGITS, check_features

_FINISHED = (CONFIG_JSON, SPLIT_JSON, PREDICTIONS_CSV)  # are recorded where metrics.json is


def verify_run(run: Path) -> tuple[list[str], int]:
    """Compare all recorded files of a run, or of all runs in a folder, with their hashes.

    Returns:
        What is wrong, a line each; how many files were compared.
    Raises:
        FacetError: nothing there records hashes.
    """
    folders, tables = find_recorded(run), sorted(path.parent for path in run.rglob(EMBEDDINGS_JSON))
    if not folders and not tables:
        raise FacetError(f"{run}: no finished run here (no {HASHES_JSON}); make one with `python -m train fit`")
    problems, num_files = [], 0
    for folder in folders:
        try:
            hashes = read_hashes(folder)
            problems += find_changed(folder)
        except FacetError as error:
            problems.append(str(error))
            continue
        num_files += len(hashes)
        wanted = [name for name in _FINISHED if (folder / name).exists()] if METRICS_JSON in hashes else []
        wanted += [WEIGHTS] if (folder / WEIGHTS).exists() else []
        problems += [f"{folder / name}: {HASHES_JSON} does not record it" for name in wanted if name not in hashes]
    for folder in tables:
        files = sorted(folder.glob("*.safetensors"))
        num_files += len(files)
        problems += _verify_embeddings(folder, files)
    return problems, num_files


def _verify_embeddings(folder: Path, files: list[Path]) -> list[str]:
    """Check the embeddings of one modality; return a line for each damaged file."""
    try:
        description = json.loads((folder / EMBEDDINGS_JSON).read_bytes())
        if fingerprint(description)[:KEY_DIGITS] != folder.name:
            raise ValueError("describes another folder's")
    except (OSError, ValueError, RecursionError) as error:
        return [f"{folder / EMBEDDINGS_JSON}: damaged ({first_line(error)})"]
    problems = []
    for path in files:
        try:
            check_features(path, description, safetensors.numpy.load(path.read_bytes()))
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            problems.append(f"{path}: damaged ({first_line(error)})")
    return problems
