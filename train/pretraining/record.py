"""pretrain.json of a pretraining: its settings, caches and validation subjects, and a line for each epoch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import FacetError, first_line
from shared.runs import CONFIG_TOML, LOG_JSONL, PRETRAIN_JSON, load_pretrain_json
from shared.schema import canonical_json
from shared.store.storage import write_file
from train.option_values import option_name
from train.pretraining.options import PretrainOptions
from train.pretraining.rows import CaptionedRows
from train.protocols.selection import prefix_subject
from train.protocols.trained_subjects import list_tower_subjects
from train.runs.out_folder import check_same_settings, check_unused
from train.training.timing import describe_environment


def describe_run(
    options: PretrainOptions, sources: Sequence[CaptionedRows], held_out: Sequence[str], model: str
) -> dict[str, Any]:
    """Return the record of a pretraining that has not begun. held_out: the validation subjects. model: that it starts from."""
    caches = [
        {
            "name": source.cache.name,
            "dataset": source.cache.info.dataset,
            "licence": source.cache.info.licence,
            "content_hash": source.cache.info.content_hash,
            "modalities": list(source.modalities),
            "rows": len(source.rows),
            "captions": len(np.unique(source.captions[source.captions >= 0])),
        }
        for source in sources
    ]
    people = {source.person_of(row) for source in sources for row in source.rows}
    trained = {prefix_subject(*one) for one in people if "/".join(one) not in set(held_out)}
    settings = {n: list(v) if isinstance(v, tuple) else v for n, v in dataclasses.asdict(options).items()}
    return {
        "complete": False,
        "settings": settings,
        "caches": caches,
        "validation_subjects": list(held_out),
        "trained_subjects": sorted(trained | list_tower_subjects(model)),
        "epochs": [],
    }


def write_record(out: Path, record: dict[str, Any]) -> None:
    hours = sum(line["seconds"] for line in record["epochs"]) / 3600
    value = {**record, "hours": round(hours, 3), "environment": describe_environment()}
    write_file(out / PRETRAIN_JSON, canonical_json(value).encode())


def read_record(out: Path, record: dict[str, Any]) -> dict[str, Any] | None:
    """Read the record of an interrupted or finished run with the same settings as `record`; None in a new folder.

    Raises:
        FacetError: it is damaged, has other settings, or the folder holds something else.
    """
    path = out / PRETRAIN_JSON
    if not path.is_file():
        check_unused(out, "pretraining", PRETRAIN_JSON, (LOG_JSONL, CONFIG_TOML))
        return None
    try:
        found: dict[str, Any] = load_pretrain_json(path)
        settings = {"background": "black", "flip_epochs": 0, **found["settings"]}  # once the only ones
        names = [option_name(n) for n, value in record["settings"].items() if settings.get(n) != value]
        if [cache["content_hash"] for cache in found["caches"]] != [c["content_hash"] for c in record["caches"]]:
            names.append("the caches or their content")
        epochs = [{**line, "seconds": float(line["seconds"])} for line in found["epochs"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FacetError(f"{path}: damaged ({first_line(error)}); choose another --out") from error
    check_same_settings(out, "a pretraining", names)
    return {**found, "epochs": epochs}
