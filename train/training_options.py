"""The options of a training on the command line: a Recipe's fields, where its data lies, and how folds are run."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from shared.command_line import positive_number
from shared.store.paths import open_path
from shared.views import parse_views
from train.config import PRELOAD, Recipe, option_name

_METAVARS = {
    "model": "NAME|local-dir:DIR",
    "pretrained": "TAG|FILE|none",
    "protocol": "NAME|FILE.json",
    "where": "COLUMN=VALUE",
    "test_subjects": "LIST|FILE",
    "tune": "HOW",
    "extra_losses": "NAME=WEIGHT",
}


def add_training_options(parser: argparse.ArgumentParser, *, every_fold: bool) -> None:
    """The options of fit, and of crossval and ablate, whose --fold is none of the recipe's."""
    caches = parser.add_mutually_exclusive_group(required=True)
    caches.add_argument(
        "--cache", type=open_path, metavar="DIR", help="a cache, with prompt embeddings in it or in --prompts"
    )
    caches.add_argument(
        "--train-cache", type=open_path, metavar="DIR", help="across data sets: the cache that trains …"
    )
    parser.add_argument("--test-cache", type=open_path, metavar="DIR", help="… and the cache that is tested, all of it")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="RUN", help="folder of the results; new, or to go on with"
    )
    parser.add_argument(
        "--prompts",
        type=open_path,
        metavar="FILE",
        help="prompt embeddings that `preprocess prompts --out FILE` wrote, for a cache that is not yours to write to "
        "(default: the cache's)",
    )
    for option in dataclasses.fields(Recipe):
        if option.name != "fold" or not every_fold:
            add_option(parser, option)
    if every_fold:
        parser.add_argument("--fold", type=int, metavar="N", help="this fold alone, 0 the first (default: all)")
    parser.add_argument(
        "--embeddings",
        default="auto",
        metavar="DIR",
        help="with --tune frozen: folder of the tower's embeddings of all images, computed once for all runs (auto: "
        "embeddings beside RUN; off: compute them in every step). With embeddings, --augment standard means flip, because "
        "only mirrored images are embedded too",
    )
    parser.add_argument(
        "--preload",
        default="none",
        choices=PRELOAD,
        help="load the training images once, into RAM or GPU memory; none: read them when they are needed. The results are the "
        "same. Each of several --jobs loads its own (default none)",
    )
    parser.add_argument("--checkpoint-every", type=positive_number, default=200, metavar="STEPS", help="default 200")
    tensorboard = (
        "also write each fold's log for TensorBoard, into RUN/FOLD/tensorboard"
        if every_fold
        else "also write the log for TensorBoard, into RUN/tensorboard"
    )
    parser.add_argument("--tensorboard", action="store_true", help=tensorboard)


def add_crossval_options(parser: argparse.ArgumentParser) -> None:
    """The options of crossval, and of ablate, which is several of them."""
    parser.add_argument(
        "--jobs",
        type=positive_number,
        metavar="N",
        help="folds at a time (default: one a GPU, or as many as there are cores)",
    )
    parser.add_argument(
        "--discard-weights", action="store_true", help="keep each fold's scores and predictions, but not its model"
    )


def add_option(parser: argparse.ArgumentParser, option: dataclasses.Field[Any]) -> None:
    """One command line option from a field of Recipe."""
    choices = [choice for choice in option.metadata["choices"] if choice]
    text = option.metadata["help"]
    if option.type == "bool":
        parser.add_argument(option_name(option.name), action="store_true", help=text)
        return
    if "default" not in text and option.name != "shuffle_labels" and option.default != ():
        text += f" (default {option.default})"
    kind = {"int": int, "float": float}.get(str(option.type), str)
    parser.add_argument(
        option_name(option.name),
        type=kind,
        choices=choices or None,
        metavar=None if choices else _METAVARS.get(option.name) or {int: "N", float: "X"}.get(kind, "LIST"),
        help=text,
        default=",".join(option.default) if option.default == () else option.default,
    )


def read_lists(values: dict[str, Any]) -> dict[str, Any]:
    """Options as they were typed, with those that are lists as a Recipe has them.

    Raises:
        FacetError: no views.
    """
    read = dict(values)
    for name in {"classes", "modalities", "where", "extra_losses"} & read.keys():
        read[name] = tuple(part.strip() for part in read[name].split(",")) if read[name] else ()
    if "views" in read:
        read["views"] = tuple(map(str, parse_views(read["views"]))) if read["views"] else ()
    return read
