"""Commands of stage 1: python -m preprocess synth | build | prompts | inspect | predict | verify | dynamic."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from preprocess.arguments import DEFAULT_MODEL, DEFAULT_PRETRAINED, DEFAULT_WORDINGS, build_parser
from shared.command_line import join_angles, print_next
from shared.errors import FacetError, run_command_line
from shared.modalities import MODALITIES
from shared.processors import num_cores
from shared.schema import RenderSettings

BUILD_TOML = ".build/build.toml"
PROMPTS_OFFLINE = "without a network, for a first try: --model facet-tiny --pretrained synthetic-1"

_NUM_FOLDS = 10  # of `train fit`, where --folds is not given

if TYPE_CHECKING:
    from preprocess.build.executors import Workers
    from preprocess.datasets.scan import DatasetReader


def main(arguments: list[str] | None = None) -> int:
    words = join_angles(sys.argv[1:] if arguments is None else arguments)
    command = next((word for word in words if not word.startswith("-")), "")
    chosen = build_parser(command).parse_args(words)
    return RUN[chosen.command](chosen)


def _synth(arguments: argparse.Namespace) -> int:
    from preprocess.synth.layouts import LAYOUTS
    from preprocess.synth.population import write_population

    num_scans = write_population(
        LAYOUTS[arguments.name],
        arguments.out,
        num_subjects=arguments.subjects,
        num_frames=arguments.frames,
        seed=arguments.seed,
    )
    print(f"{num_scans} scans of {arguments.subjects} synthetic subjects in {arguments.out}")
    cache = f"data_cache/{arguments.name}-synth"
    print_next("preprocess", "build", arguments.name, "--root", arguments.out, "--cache", cache)
    return 0


def _build(arguments: argparse.Namespace) -> int:
    from preprocess.build.build import build_cache
    from preprocess.datasets import DATASETS
    from preprocess.datasets.scan import SCAN_GONE
    from preprocess.inspection.summary import count_failed, describe_reasons
    from preprocess.rendering.cameras import warn_of_views
    from shared.cache import FAILURES_CSV
    from shared.schema import parse_views
    from shared.store.storage import write_file

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
    from preprocess.datasets.scan_table import describe_listing, write_listing

    root, path = arguments.root, None if arguments.list is True else arguments.list
    listing = dataset.find(root)
    print(describe_listing(listing))
    for line in listing.notes:
        print(line)
    if path is None:
        print("to render them, give --cache DIR in place of --list; --list FILE.csv also writes the table")
    else:
        write_listing(path, listing, listing.au_names or dataset.au_names)
        print(f"table of {len(listing.records):,} scans: {path}")
        if dataset.name == "folder":
            cache = f"data_cache/{root.resolve().name}"
            print_next("preprocess", "build", "folder", "--root", root, "--manifest", path, "--cache", cache)
    return 0


def _describe_build(dataset: DatasetReader, arguments: argparse.Namespace, settings: RenderSettings) -> str:
    """Return the options that decide what a cache holds, for `--config`."""
    from shared.option_file import format_table

    names = ["name", "root", "cache", "store", "compression", "views", "size", "modalities"]
    values = {name: getattr(arguments, name) for name in names} | {"stabilise": settings.stabilised}
    for option in dataset.options:
        name = option.flag.removeprefix("--").replace("-", "_")
        value = getattr(arguments, name)
        values[name] = Path(value) if value and option.metavar.startswith("FILE") else value
    paths = {name: value.absolute() for name, value in values.items() if hasattr(value, "absolute")}
    return format_table("build", values | paths)


def _workers(arguments: argparse.Namespace) -> Workers:
    from preprocess.build.executors import Workers

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


def _prompts(arguments: argparse.Namespace) -> int:
    from preprocess.prompts import (
        DEFAULT_PROMPTS,
        choose_prompts,
        count_names,
        encode_prompts,
        occurrence_names,
        read_prompts,
    )
    from shared.cache import read_info
    from shared.schema import text_file_name
    from shared.text import write_text_embeddings

    if arguments.cache is None and arguments.captions:
        raise FacetError("--captions: describe the rows of a cache; give --cache DIR")
    if arguments.wordings and not arguments.captions:
        raise FacetError("--wordings: is the number of captions of a row; add --captions")
    source = arguments.prompts or DEFAULT_PROMPTS
    prompts = read_prompts(source)
    if arguments.cache is not None:
        info = read_info(arguments.cache)
        units = occurrence_names(info.au_names)
        prompts, without, borrowed = choose_prompts(prompts, info.class_names, units, source)
        print(*borrowed, sep="\n", end="\n" if borrowed else "")
        path = arguments.cache / "text" / text_file_name(arguments.model)
        if without:
            which = "expressions only" if len(without) == len(units) else f"not for {', '.join(without)}"
            print(f"{source}: holds no prompts for {len(without)} of the cache's action units ({which})")
    else:
        path = arguments.out
        if path.suffix != ".h5":
            raise FacetError(f"--out {path}: expected a name that ends in .h5")
    pretrained = arguments.pretrained
    if pretrained is None:
        if arguments.model != DEFAULT_MODEL and ":" not in arguments.model:
            raise FacetError(
                f"--model {arguments.model}: choose its weights with --pretrained TAG, FILE or none (random)"
            )
        pretrained = DEFAULT_PRETRAINED if ":" not in arguments.model else "its own"
    text = encode_prompts(prompts, model=arguments.model, pretrained=pretrained)
    write_text_embeddings(path, text)
    mark = " (RANDOM WEIGHTS: to try the program, not for results)" if text.random_weights else ""
    print(f"{int(text.mask.sum())} prompts for {count_names(text.class_names)} by {arguments.model}{mark}: {path}")
    if arguments.captions:
        _caption(arguments, prompts, pretrained)
    elif arguments.cache is not None:
        _print_next_fit(arguments.cache, "runs/first")
    return 0


def _print_next_fit(cache: Path, out: str) -> None:
    """Name the training of a first fold; with fewer folds than by default if the cache has fewer subjects."""
    from shared.cache import read_info

    subjects = read_info(cache).num_subjects
    folds = ("--folds", subjects) if 2 <= subjects < _NUM_FOLDS else ()
    print_next("train", "fit", "--cache", cache, "--out", out, *folds)


def _caption(arguments: argparse.Namespace, prompts: dict[str, list[str]], pretrained: str) -> None:
    from preprocess.captions import encode_captions
    from shared.cache import open_cache
    from shared.captions import write_captions
    from shared.schema import captions_file_name

    cache, model = open_cache(arguments.cache), arguments.model
    num_wordings = arguments.wordings or DEFAULT_WORDINGS
    captions = encode_captions(cache, prompts, model=model, pretrained=pretrained, num_wordings=num_wordings)
    path = cache.path / "text" / captions_file_name(model)
    write_captions(path, captions)
    num_rows = int((captions.index[:, 0] >= 0).sum())
    print(
        f"{len(captions.texts)} captions of {num_rows} of {len(cache.samples)} rows, such as {captions.texts[0]!r}: {path}"
    )
    print_next("train", "pretrain", "--cache", cache.path, "--out", "runs/pretrained", "--model", model)


def _inspect(arguments: argparse.Namespace) -> int:
    from preprocess.inspection.animation import write_animation
    from preprocess.inspection.sheet import choose_shown, write_sheet
    from preprocess.inspection.summary import describe_cache
    from shared.cache import open_cache

    if (arguments.subject or arguments.sample) and not arguments.sheet:
        raise FacetError("--subject and --sample select the content of --sheet FILE; give it too")
    if arguments.subject and arguments.sample:
        raise FacetError("--subject and --sample need a sheet each; give one of them")
    if (arguments.animation is None) != (arguments.sequence is None):
        raise FacetError("--animation FILE and --sequence NAME: give both or none")
    if (arguments.size or arguments.fps is not None or arguments.before_after) and not arguments.animation:
        raise FacetError("--size, --fps and --before-after are for --animation FILE; give it too")
    if any((arguments.show, arguments.views, arguments.plain)) and not (arguments.sheet or arguments.animation):
        raise FacetError("--show, --views and --plain are for --sheet and --animation; give one of them")
    files = arguments.summary or arguments.sheet or arguments.animation
    if not files:
        return _serve_pages(arguments)
    options = (arguments.run, arguments.tags, arguments.host, arguments.port, arguments.no_open, arguments.no_faces)
    if any(options):
        raise FacetError(
            "--run, --tags, --host, --port, --no-open and --no-faces are for the pages, not for text or files"
        )
    cache = open_cache(arguments.cache)
    if arguments.summary:
        print(describe_cache(cache))
    if arguments.sheet:
        shown = choose_shown(cache, arguments.show, arguments.views, plain=arguments.plain)
        write_sheet(cache, arguments.sheet, subject=arguments.subject, sample_id=arguments.sample, shown=shown)
        print(f"contact sheet: {arguments.sheet}")
    if arguments.animation:
        settings = cache.info.settings
        views = arguments.views or [settings.views[settings.front_view]]
        shown = choose_shown(cache, arguments.show, views, plain=arguments.plain)
        about = write_animation(
            cache,
            arguments.animation,
            sequence=arguments.sequence,
            shown=shown,
            size_px=arguments.size,
            frames_per_second=arguments.fps,
            before_after=arguments.before_after,
        )
        print(f"{about}: {arguments.animation}")
    return 0


def _serve_pages(arguments: argparse.Namespace) -> int:
    from preprocess.viewer.live import LiveSite
    from preprocess.viewer.server import DEFAULT_HOST, serve
    from preprocess.viewer.site import open_site

    live = LiveSite(
        lambda: open_site(arguments.cache, *arguments.run, faces=not arguments.no_faces, tags_file=arguments.tags)
    )
    serve(live, host=arguments.host or DEFAULT_HOST, port=arguments.port, open_browser=not arguments.no_open)
    return 0


def _predict(arguments: argparse.Namespace) -> int:
    from preprocess.datasets.manifest import parse_columns
    from preprocess.predict import ScanFiles, predict_scans

    files = ScanFiles(
        arguments.scans,
        textures=arguments.textures,
        landmarks=arguments.landmarks,
        columns=parse_columns(arguments.columns) if arguments.columns else {},
        neutral=arguments.neutral,
        is_sequence=arguments.is_sequence,
    )
    run, picture = arguments.run, arguments.picture
    # A signal would leave pictures of faces in the folder for temporary files.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    code = predict_scans(run, files, picture=picture, table=arguments.table, device=arguments.device)
    if picture is None:
        about = "the views, and what the prediction depends on"
        print_next("preprocess", "predict", run, arguments.scans[0], "--out", "picture.png", about=about)
    return code


def _verify(arguments: argparse.Namespace) -> int:
    from preprocess.build.verify import verify_cache
    from shared.cache import read_info

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
    from shared.store.paths import is_file

    if not is_file(cache / BUILD_TOML):  # of an earlier version
        return "build … --repair, with the same settings,"
    words = ["build", "--config", cache / BUILD_TOML, "--cache", cache, "--repair"]
    return f"python -m preprocess {shlex.join(map(str, words))}"


def _dynamic(arguments: argparse.Namespace) -> int:
    from preprocess.build.dynamic import build_dynamic_cache
    from shared.cache import FAILURES_CSV, find_text_files

    report = build_dynamic_cache(arguments.cache, arguments.out)
    out, info = arguments.out, report.info
    if not report.num_pooled:
        print("nothing to do: every shard is finished, and no sequence has changed")
    if report.failures:
        print(f"failures and their reasons: {out / FAILURES_CSV}")
    if not find_text_files(out):
        print_next("preprocess", "prompts", "--cache", out, about=PROMPTS_OFFLINE)
    _print_next_fit(out, "runs/dynamic")
    print(
        f"{out}: dynamic images of {info.num_valid} sequences of {info.num_subjects} subjects; "
        f"{len(report.failures) or 'none'} failed"
    )
    return 1 if report.failures else 0


RUN = {
    "synth": _synth,
    "build": _build,
    "prompts": _prompts,
    "inspect": _inspect,
    "predict": _predict,
    "verify": _verify,
    "dynamic": _dynamic,
}


def run() -> int:
    """Run the command line: `python -m preprocess`, or `facet-preprocess` where it is installed."""
    return run_command_line(main)


if __name__ == "__main__":
    sys.exit(run())
