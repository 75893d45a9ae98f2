"""`build`: render a data set into a cache; with `--list` only show which scans it would render."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from preprocess.build.build import build_cache
from preprocess.build.executors import Workers
from preprocess.build.ledger import BUILD_TOML
from preprocess.commands.next_steps import PROMPTS_OFFLINE
from preprocess.datasets import DATASETS
from preprocess.datasets.scan import SCAN_GONE, DatasetReader
from preprocess.datasets.scan_table import describe_listing, write_listing
from preprocess.inspection.summary import count_failed, describe_reasons
from preprocess.rendering.cameras import warn_of_views
from shared.cache import FAILURES_CSV
from shared.command_line import print_next
from shared.errors import FacetError
from shared.modalities import MODALITIES
from shared.option_file import format_table
from shared.processors import num_cores
from shared.schema import RenderSettings, parse_views
from shared.store.storage import write_file


def run(arguments: argparse.Namespace) -> int:
    dataset = DATASETS[arguments.name]
    for flag in dict.fromkeys(option.flag for other in DATASETS.values() for option in other.options):
        text = getattr(arguments, flag.removeprefix("--").replace("-", "_"))
        if text is not None and flag not in (option.flag for option in dataset.options):
            owners = [name for name, other in DATASETS.items() if flag in (option.flag for option in other.options)]
            raise FacetError(f"{flag}: is an option of {' and '.join(owners)}, not of {dataset.name}")
        dataset = dataset if text is None else dataset.with_option(flag, text)
    if arguments.list:
        return _list_scans(dataset, arguments)
    if arguments.cache is None:
        raise FacetError("--cache DIR: name the cache to write; or give --list to see which scans would be rendered")
    settings = RenderSettings(
        views=parse_views(arguments.views),
        size_px=arguments.size,
        modalities=_modalities(arguments.modalities),
        stabilised=dataset.stabilised if arguments.stabilise is None else arguments.stabilise,
    )
    if warning := warn_of_views(settings.views):
        print(warning, file=sys.stderr)
    report = build_cache(
        dataset,
        arguments.root,
        arguments.cache,
        settings,
        store=arguments.store,
        compression=arguments.compression,
        workers=_workers(arguments),
        strict=arguments.strict,
        repair=arguments.repair,
        overwrite=arguments.overwrite,
    )
    cache, info = arguments.cache, report.info
    write_file(cache / BUILD_TOML, _describe_build(dataset, arguments, settings).encode())
    if report.num_rendered:
        print("\n".join(report.work.describe()))
    else:
        print("nothing to do: every shard is finished, and no scan has changed")
    failed = [failure for failure in report.failures if failure.kind == "failed"]
    warnings = [failure for failure in report.failures if failure.kind == "warning"]
    for line in describe_reasons(warnings):
        print(f"warning: {line.strip()}")
    if report.failures:
        print(f"failures and their reasons: {cache / FAILURES_CSV}")
    print_next("preprocess", "inspect", "--cache", cache, about="pages in the browser")
    print_next("preprocess", "prompts", "--cache", cache, about=PROMPTS_OFFLINE)
    counted = count_failed(failure.reason for failure in failed)
    lacking = f", {len(warnings)} with a warning" if warnings else ""
    print(f"{cache}: {info.num_valid} scans of {info.num_subjects} subjects; {counted}{lacking}")
    return int(any(failure.reason != SCAN_GONE for failure in failed))


def _list_scans(dataset: DatasetReader, arguments: argparse.Namespace) -> int:
    root, path = arguments.root, None if arguments.list is True else arguments.list
    listing = dataset.find(root)
    print(describe_listing(listing))
    for line in listing.notes:
        print(line)
    if path is not None:
        write_listing(path, listing, listing.au_names or dataset.au_names)
        print(f"table of {len(listing.records):,} scans: {path}")
    if path is None or dataset.name != "folder":
        how = (
            f" into {arguments.cache}, leave --list out" if arguments.cache else ", give --cache DIR in place of --list"
        )
        print(f"to render them{how}" + ("; --list FILE.csv also writes the table" if path is None else ""))
    else:
        cache = arguments.cache or f"data_cache/{root.resolve().name}"
        print_next("preprocess", "build", "folder", "--root", root, "--manifest", path, "--cache", cache)
    return 0


def _describe_build(dataset: DatasetReader, arguments: argparse.Namespace, settings: RenderSettings) -> str:
    """Return the options that decide what a cache holds, for `--config`."""
    names = ["name", "root", "cache", "store", "compression", "views", "size", "modalities"]
    values = {name: getattr(arguments, name) for name in names} | {"stabilise": settings.stabilised}
    for option in dataset.options:
        name = option.flag.removeprefix("--").replace("-", "_")
        value = getattr(arguments, name)
        values[name] = Path(value) if value and option.metavar.startswith("FILE") else value
    paths = {name: value.absolute() for name, value in values.items() if hasattr(value, "absolute")}
    return format_table("build", values | paths)


def _workers(arguments: argparse.Namespace) -> Workers:
    if arguments.scheduler or arguments.scheduler_file:
        if arguments.workers or arguments.worker_memory:
            raise FacetError("--workers and --worker-memory apply to this machine; a scheduler has its own workers")
        return Workers(scheduler=arguments.scheduler or "", scheduler_file=arguments.scheduler_file)
    return Workers(arguments.workers or num_cores(), arguments.worker_memory)


def _modalities(text: str) -> tuple[str, ...]:
    """Return the modalities of an option's value, in the schema's order."""
    asked = [item.strip() for item in text.split(",")]
    if {*asked} - {*MODALITIES} or len({*asked}) != len(asked):
        raise FacetError(f"--modalities {text!r}: expected some of {','.join(MODALITIES)}, each once")
    return tuple(item for item in MODALITIES if item in asked)
