"""`verify`: compare every byte of a cache with what was written."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from preprocess.build.ledger import BUILD_TOML
from preprocess.build.verify import verify_cache
from shared.cache import read_info
from shared.store.paths import is_file


def run(arguments: argparse.Namespace) -> int:
    problems = verify_cache(arguments.cache, quick=arguments.quick)
    for problem in problems:
        print(problem)
    info = read_info(arguments.cache)
    if problems:
        repair = (
            f"`python -m preprocess dynamic --cache CACHE --out {arguments.cache}` pools damaged shards again"
            if info.settings.dynamic
            else f"`{_describe_repair(arguments.cache)}` renders the damaged shards again"
        )
        print(f"{arguments.cache}: {len(problems)} problems; {repair}")
        return 1
    checked = (
        "all there; verify without --quick reads every byte" if arguments.quick else "every byte is as it was written"
    )
    print(f"{arguments.cache}: {info.num_samples} rows in {info.num_shards} shards, {checked}")
    return 0


def _describe_repair(cache: Path) -> str:
    """Return the command that repairs a cache."""
    if not is_file(cache / BUILD_TOML):  # of an earlier version
        return "build … --repair, with the same settings,"
    words = ["build", "--config", cache / BUILD_TOML, "--cache", cache, "--repair"]
    return f"python -m preprocess {shlex.join(map(str, words))}"
