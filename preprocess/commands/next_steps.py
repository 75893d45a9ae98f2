"""The commands that are advised after more than one command."""

from __future__ import annotations

from pathlib import Path

from shared.cache import read_info
from shared.command_line import print_next

PROMPTS_OFFLINE = "without a network, for a first try: --model facet-tiny --pretrained synthetic-2"
_NUM_FOLDS = 10  # of `train fit`, where --folds is not given


def print_next_fit(cache: Path, out: str) -> None:
    """Name the training of a first fold; with fewer folds than by default if the cache has fewer subjects."""
    subjects = read_info(cache).num_subjects
    folds = ("--folds", subjects) if 2 <= subjects < _NUM_FOLDS else ()
    print_next("train", "fit", "--cache", cache, "--out", out, *folds)
