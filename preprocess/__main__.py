"""The command line of stage 1: python -m preprocess synth | build | prompts | inspect | verify."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shared.errors import FacetError, run_command_line
from shared.schema import MODALITIES, STORES, RenderSettings

SYNTHETIC = ("bu3dfe", "bosphorus", "bu4dfe", "bp4d", "4dme")
DATASETS = ("bu3dfe", "bosphorus", "bu4dfe", "bp4d", "4dme", "folder")
DEFAULT_MODEL, DEFAULT_PRETRAINED = "ViT-B-16", "laion2b_s34b_b88k"

DESCRIPTION = """Turns licensed 3D face scans and 4D sequences into a cache of multiview images, once per data set."""
EXAMPLES = """the way of a data set:
  python -m preprocess build bu3dfe --root /data/BU_3DFE --cache data_cache/bu3dfe
  python -m preprocess prompts --cache data_cache/bu3dfe --model ViT-B-16 --pretrained laion2b_s34b_b88k
  python -m preprocess inspect data_cache/bu3dfe --sheet sheet.png
  python -m train fit --cache data_cache/bu3dfe --out runs/first

without a licence at hand, faces that the product draws itself:
  python -m preprocess synth bu3dfe --out /tmp/synth --subjects 10
"""


def main() -> int:
    arguments = _parser().parse_args()
    result: int = arguments.run(arguments)
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m preprocess",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    synth = _command(
        commands,
        "synth",
        "write a synthetic data set in a real data set's own file layout",
        "Procedural faces with expressions built from facial action units, for trying the product and testing it.\n"
        "Scans a subject: bu3dfe 25, bosphorus 11 to 13; sequences a subject: bu4dfe 6, bp4d 8, 4dme 6.",
    )
    synth.add_argument("name", choices=SYNTHETIC, metavar="NAME", help=", ".join(SYNTHETIC))
    synth.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write; new or empty")
    synth.add_argument("--subjects", type=_positive, default=10, metavar="N", help="number of people (default 10)")
    synth.add_argument("--frames", type=_positive, metavar="T", help="frames a sequence (default 16 to 24)")
    synth.add_argument("--seed", type=int, default=0, metavar="S", help="another seed is other people (default 0)")
    synth.set_defaults(run=_synth)

    build = _command(
        commands,
        "build",
        "render every scan of a data set into a cache",
        "Finds the scans under --root, aligns each face, draws it from every view and stores the images.\n"
        "Run it again to go on after an interruption, or after scans were added or mended: finished shards are kept.\n"
        "Exit code 0: all scans are in; 1: finished, but some scans failed (failures.csv); 2: stopped, with the reason.",
    )
    build.add_argument(
        "name",
        choices=DATASETS,
        metavar="NAME",
        help=f"{', '.join(DATASETS)}; folder is your own meshes, listed in manifest.csv (path,subject,label[,…])",
    )
    build.add_argument("--root", type=Path, required=True, metavar="DIR", help="the data set as it was delivered")
    build.add_argument(
        "--cache", type=Path, required=True, metavar="DIR", help="the cache to write, e.g. data_cache/bu3dfe"
    )
    build.add_argument(
        "--views",
        default=RenderSettings().views_text(),
        metavar="LIST",
        help='yaw angles in degrees, + toward the subject\'s left; yaw:pitch for a raised camera (default "0,20,-20"; '
        'write --views="-20,0" when the first is negative)',
    )
    build.add_argument("--size", type=int, default=224, metavar="PX", help="side of the images (default 224)")
    build.add_argument(
        "--modalities", default=",".join(MODALITIES), metavar="LIST", help="some of texture,normal,depth (default all)"
    )
    build.add_argument("--store", choices=STORES, default="zarr", help="file format of the arrays (default zarr)")
    build.add_argument(
        "--stabilise",
        action=argparse.BooleanOptionalAction,
        help="sequences: hold forehead and nose bridge still in every frame (default: for bp4d and 4dme, where heads move)",
    )
    build.add_argument(
        "--pattern", metavar="TEXT", help="4dme: where frames lie, e.g. Meshes/{subject}/{clip}/*_{frame}.obj"
    )
    build.add_argument("--workers", type=_positive, metavar="N", help="processes (default: one a core)")
    build.add_argument("--strict", action="store_true", help="stop at the first scan that fails")
    build.add_argument(
        "--repair", action="store_true", help="compare every stored byte with its record; render what is damaged"
    )
    build.add_argument("--overwrite", action="store_true", help="render again a cache that has other settings")
    build.set_defaults(run=_build)

    prompts = _command(
        commands,
        "prompts",
        "embed the text prompts of each class with a CLIP text tower",
        "Trainers read the embeddings from the cache and never load a text tower.\n"
        "--pretrained none takes random weights: good for a first try without a network, not for results.",
    )
    target = prompts.add_mutually_exclusive_group(required=True)
    target.add_argument("--cache", type=Path, metavar="DIR", help="a cache: its classes, written into its folder text/")
    target.add_argument("--out", type=Path, metavar="FILE.h5", help="a file: all classes of the prompts file")
    prompts.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME",
        help=f"open_clip model or local-dir:DIR (default {DEFAULT_MODEL})",
    )
    prompts.add_argument(
        "--pretrained",
        metavar="TAG|FILE|none",
        help=f"weights: open_clip's tag, a file, or none = random (default {DEFAULT_PRETRAINED} for {DEFAULT_MODEL})",
    )
    prompts.add_argument(
        "--prompts", type=Path, metavar="FILE", help="your own: lines `class name: prompt` (default: built in)"
    )
    prompts.set_defaults(run=_prompts)

    inspect = _command(
        commands,
        "inspect",
        "look at a cache: a summary, contact sheets",
        "Without options, or with --summary: what the cache holds, as text. With --sheet: a picture.",
    )
    inspect.add_argument("cache", type=Path, metavar="CACHE")
    inspect.add_argument("--summary", action="store_true", help="print what the cache holds")
    inspect.add_argument("--sheet", type=Path, metavar="FILE.png", help="write a contact sheet")
    inspect.add_argument("--subject", metavar="S", help="with --sheet: one subject, all classes and intensities")
    inspect.add_argument("--sample", metavar="ID", help="with --sheet: one sample, all views and modalities")
    inspect.set_defaults(run=_inspect)

    verify = _command(
        commands,
        "verify",
        "check every byte of a cache against its records",
        "Names what is missing or damaged, down to the sample. Exit code 0: all well; 1: problems, listed.",
    )
    verify.add_argument("cache", type=Path, metavar="CACHE")
    verify.set_defaults(run=_verify)
    return parser


def _command(commands: argparse._SubParsersAction, name: str, summary: str, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, found {number}")
    return number


def _synth(arguments: argparse.Namespace) -> int:
    from preprocess.synth.layouts import write_layout

    num_scans = write_layout(
        arguments.name,
        arguments.out,
        num_subjects=arguments.subjects,
        num_frames=arguments.frames,
        seed=arguments.seed,
    )
    print(f"{num_scans} scans of {arguments.subjects} synthetic subjects in {arguments.out}")
    print(
        f"next: python -m preprocess build {arguments.name} --root {arguments.out} --cache data_cache/{arguments.name}-synth"
    )
    return 0


def _build(arguments: argparse.Namespace) -> int:
    from preprocess.build import build_cache
    from preprocess.cameras import parse_views
    from preprocess.datasets import DATASETS
    from preprocess.datasets.fourdme import with_pattern
    from shared.cache import FAILURES_CSV

    dataset = DATASETS[arguments.name]
    if arguments.pattern is not None:
        if arguments.name != "4dme":
            raise FacetError("--pattern: is for 4dme, whose frames' names are not publicly known")
        dataset = with_pattern(arguments.pattern)
    settings = RenderSettings(
        views=parse_views(arguments.views),
        size_px=arguments.size,
        modalities=_modalities(arguments.modalities),
        stabilised=dataset.stabilised if arguments.stabilise is None else arguments.stabilise,
    )
    report = build_cache(
        dataset,
        arguments.root,
        arguments.cache,
        settings,
        store=arguments.store,
        num_workers=arguments.workers,
        strict=arguments.strict,
        repair=arguments.repair,
        overwrite=arguments.overwrite,
    )
    cache, info = arguments.cache, report.info
    if report.num_rendered:
        total = sum(report.seconds.values()) or 1.0
        stages = ", ".join(f"{stage} {spent / total:.0%}" for stage, spent in report.seconds.items())
        print(f"{report.num_rendered} scans in {report.wall_seconds:.0f} s ({stages})")
    else:
        print("nothing to do: every shard is finished and its scans are unchanged")
    prompts = f"python -m preprocess prompts --cache {cache}"
    next_step = f"python -m preprocess inspect {cache} --sheet sheet.png; {prompts}"
    if report.failures:
        print(f"next: look at {cache / FAILURES_CSV}; {next_step}")
        print(f"{cache}: {info.num_valid} scans of {info.num_subjects} subjects; {len(report.failures)} failed")
        return 1
    print(f"next: {next_step}")
    print(f"{cache}: {info.num_valid} scans of {info.num_subjects} subjects; none failed")
    return 0


def _modalities(text: str) -> tuple[str, ...]:
    """Modalities in the schema's order, whatever order they were asked for in."""
    asked = [item.strip() for item in text.split(",")]
    unknown = [item for item in asked if item not in MODALITIES]
    if unknown or len(set(asked)) != len(asked):
        raise FacetError(f"--modalities {text!r}: expected some of {','.join(MODALITIES)}, each once")
    return tuple(item for item in MODALITIES if item in asked)


def _prompts(arguments: argparse.Namespace) -> int:
    from preprocess.prompts import DEFAULT_PROMPTS, choose_prompts, encode_prompts, read_prompts
    from shared.cache import read_info
    from shared.schema import text_file_name
    from shared.text import write_text_embeddings

    source = arguments.prompts or DEFAULT_PROMPTS
    prompts = read_prompts(source)
    if arguments.cache is not None:
        prompts = choose_prompts(prompts, read_info(arguments.cache).class_names, source)
        path = arguments.cache / "text" / text_file_name(arguments.model)
    else:
        path = arguments.out
        if path.suffix != ".h5":
            raise FacetError(f"--out {path}: expected a name that ends in .h5")
    pretrained = arguments.pretrained
    if pretrained is None:
        if arguments.model != DEFAULT_MODEL and ":" not in arguments.model:
            raise FacetError(
                f"--model {arguments.model}: say which weights with --pretrained TAG, FILE or none (random)"
            )
        pretrained = DEFAULT_PRETRAINED if ":" not in arguments.model else "its own"
    text = encode_prompts(prompts, model=arguments.model, pretrained=pretrained)
    write_text_embeddings(path, text)
    mark = " (RANDOM WEIGHTS: for trying the product, not for results)" if text.random_weights else ""
    print(f"{int(text.mask.sum())} prompts for {len(text.class_names)} classes by {arguments.model}{mark}: {path}")
    if arguments.cache is not None:
        print(f"next: python -m train fit --cache {arguments.cache} --out runs/first")
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    from preprocess.sheet import write_sheet
    from preprocess.summary import describe_cache
    from shared.cache import open_cache

    if (arguments.subject or arguments.sample) and not arguments.sheet:
        raise FacetError("--subject and --sample choose what --sheet FILE.png shows; give it too")
    cache = open_cache(arguments.cache)
    if arguments.summary or not arguments.sheet:
        print(describe_cache(cache))
    if arguments.sheet:
        write_sheet(cache, arguments.sheet, subject=arguments.subject, sample_id=arguments.sample)
        print(f"contact sheet: {arguments.sheet}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from preprocess.verify import verify_cache
    from shared.cache import read_info

    problems = verify_cache(arguments.cache)
    for problem in problems:
        print(problem)
    info = read_info(arguments.cache)
    if problems:
        print(
            f"{arguments.cache}: {len(problems)} problems; `build … --repair` with the same settings renders damaged shards"
        )
        return 1
    print(f"{arguments.cache}: {info.num_samples} rows in {info.num_shards} shards, every byte as it was written")
    return 0


if __name__ == "__main__":
    sys.exit(run_command_line(main))
