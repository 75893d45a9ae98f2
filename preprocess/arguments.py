"""Commands and options of stage 1, and their help."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from preprocess.caption_words import NUM_VARIANTS
from shared.command_line import add_command, add_option_file, name_of, positive_number, start_parser, whole_number
from shared.modalities import MODALITIES
from shared.pictures import PICTURES
from shared.schema import COMPRESSIONS, RenderSettings, parse_views
from shared.store.paths import open_path
from shared.store.storage import STORES

DEFAULT_MODEL, DEFAULT_PRETRAINED = "ViT-B-16", "laion2b_s34b_b88k"
DEFAULT_WORDINGS = 4  # captions of a row

DESCRIPTION = "Turns licensed 3D face scans and 4D sequences into a cache of multiview images, once per data set."
EXAMPLES = """from scans to a first training:
  python -m preprocess build bu3dfe --root /data/BU_3DFE --cache data_cache/bu3dfe
  python -m preprocess prompts --cache data_cache/bu3dfe --model ViT-B-16 --pretrained laion2b_s34b_b88k
  python -m preprocess inspect --cache data_cache/bu3dfe --sheet sheet.png
  python -m train fit --cache data_cache/bu3dfe --out runs/first

without licensed scans, on synthetic faces:
  python -m preprocess synth bu3dfe --out /tmp/synth --subjects 10

without a network, with random weights of a small tower (to try the program, not for results):
  python -m preprocess prompts --cache data_cache/bu3dfe-synth --model facet-tiny --pretrained synthetic-2
"""


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of `python -m preprocess`.

    Args:
        command: add the options of this command only, because some import much; None: of all commands.
    """
    parser, commands = start_parser("python -m preprocess", DESCRIPTION, EXAMPLES)
    for name, (summary, about, add_options) in COMMANDS.items():
        added = add_command(commands, name, summary, about)
        if command in (None, name):
            add_options(added)
    return parser


def _add_synth(parser: argparse.ArgumentParser) -> None:
    from preprocess.synth.layouts import LAYOUTS

    names, add = tuple(LAYOUTS), parser.add_argument
    add("name", type=name_of(names), metavar="NAME", help=", ".join(names))
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write; new or empty")
    add("--subjects", type=positive_number, default=10, metavar="N", help="number of people (default 10)")
    add("--frames", type=positive_number, metavar="T", help="frames per sequence (default 16 to 24)")
    add("--seed", type=_number(0), default=0, metavar="S", help="other seeds give other people (default 0)")


def _add_build(parser: argparse.ArgumentParser) -> None:
    from preprocess.datasets import DATASETS

    names = ", ".join(DATASETS)
    named = f"{names}; folder: your own meshes, listed in manifest.csv (path,subject,label[,…]) or by --pattern"
    parser.add_argument("name", type=name_of(tuple(DATASETS)), metavar="NAME", help=named)
    add_option_file(parser)
    add = parser.add_argument_group("files").add_argument
    add("--root", type=Path, required=True, metavar="DIR", help="the data set as it was delivered")
    cache_help = "cache to write, such as data_cache/bu3dfe or s3://bucket/prefix (credentials from the environment)"
    add("--cache", type=open_path, metavar="DIR", help=cache_help)
    list_help = "only print the scans that would be rendered; with FILE.csv, also write them (for folder: a manifest)"
    add("--list", nargs="?", type=Path, const=True, metavar="FILE.csv", help=list_help)
    add("--store", choices=STORES, default="zarr", help="file format of the images (default zarr)")
    compression_help = (
        "of the images (default lz4); none: two to three times the disk space, fastest if it fits into memory"
    )
    add("--compression", choices=COMPRESSIONS, default="lz4", help=compression_help)

    add = parser.add_argument_group("images; to change them for an existing cache, add --overwrite").add_argument
    views = RenderSettings().views_text()
    views_help = f'yaw in degrees, + toward the subject\'s left; yaw:pitch for a raised camera (default "{views}")'
    add("--views", default=views, metavar="LIST", help=views_help)
    add("--size", type=whole_number, default=224, metavar="PX", help="width and height (default 224)")
    modalities = ",".join(MODALITIES)
    add("--modalities", default=modalities, metavar="LIST", help=f"some of {modalities} (default all)")
    moving = " and ".join(name for name, dataset in DATASETS.items() if dataset.stabilised)
    stabilise_help = f"register each frame on forehead and nose bridge (default for {moving}, where heads move)"
    add("--stabilise", action=argparse.BooleanOptionalAction, help=stabilise_help)

    add = parser.add_argument_group("options of some data sets").add_argument
    about: dict[tuple[str, str], list[str]] = {}
    for dataset in DATASETS.values():
        for option in dataset.options:
            about.setdefault((option.flag, option.metavar), []).append(f"{dataset.name}: {option.help}")
    for (flag, metavar), lines in about.items():
        add(flag, metavar=metavar, help=". ".join(lines))

    workers = parser.add_argument_group("workers")
    add = workers.add_argument
    add("--workers", type=positive_number, metavar="N", help="processes on this machine (default: one per core)")
    memory_help = (
        "limit per worker, such as 2GB; a scan that needs more is left out (default: an equal share of all memory)"
    )
    add("--worker-memory", type=_num_bytes, metavar="SIZE", help=memory_help)
    add = workers.add_mutually_exclusive_group().add_argument
    add("--scheduler", metavar="ADDRESS", help="workers of a dask scheduler, such as tcp://node7:8786")
    add("--scheduler-file", type=Path, metavar="FILE", help="the same, by the file that `dask scheduler` wrote")

    add = parser.add_argument_group("failures and existing caches").add_argument
    add("--strict", action="store_true", help="stop at the first scan that fails or has a warning")
    repair_help = "check every stored byte and render damaged samples again; retry scans that crashed a worker"
    add("--repair", action="store_true", help=repair_help)
    add("--overwrite", action="store_true", help="replace a cache that has other settings")


def _add_prompts(parser: argparse.ArgumentParser) -> None:
    add = parser.add_mutually_exclusive_group(required=True).add_argument
    add("--cache", type=open_path, metavar="DIR", help="embed the classes of this cache, into its folder text/")
    add("--out", type=Path, metavar="FILE.h5", help="embed all classes of the prompts file, into this file")
    add = parser.add_argument
    model_help = f"an open_clip model, facet-tiny (small, for CPUs) or local-dir:DIR (default {DEFAULT_MODEL})"
    add("--model", default=DEFAULT_MODEL, metavar="NAME", help=model_help)
    weights_help = (
        f"weights: a tag of open_clip, a file, or none for random ones (default for {DEFAULT_MODEL}: "
        f"{DEFAULT_PRETRAINED}). A file does not name its activation function: for OpenAI's weights use "
        "--model ViT-B-16-quickgelu"
    )
    add("--pretrained", metavar="TAG|FILE|none", help=weights_help)
    prompts_help = (
        "your own prompts, lines `class name: prompt`; {view}: where a view sees the face from (default: built in)"
    )
    add("--prompts", type=Path, metavar="FILE", help=prompts_help)
    add(
        "--per-view",
        action="store_true",
        help="end each prompt with where the view sees the face from, if {view} does not",
    )
    captions_help = "also caption every labelled row of the cache, for `train pretrain`"
    add("--captions", action="store_true", help=captions_help)
    wordings_help = f"with --captions: captions of each row (default {DEFAULT_WORDINGS})"
    add("--wordings", type=_number(1, NUM_VARIANTS), metavar="K", help=wordings_help)


def _add_cache(parser: argparse.ArgumentParser, about: str = "a finished cache") -> None:
    parser.add_argument("--cache", type=open_path, required=True, metavar="DIR", help=about)


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    _add_cache(parser)
    add = parser.add_argument_group("text and picture files, instead of pages").add_argument
    add("--summary", action="store_true", help="print what the cache holds")
    add("--sheet", type=Path, metavar="FILE", help="write a contact sheet: .png, .pdf or .svg")
    add("--subject", metavar="S", help="with --sheet: one subject, all classes and intensities")
    add("--sample", metavar="ID", help="with --sheet: one sample, all views and modalities")
    add("--animation", type=Path, metavar="FILE", help="write the sequence of --sequence: .gif or .mp4")
    add("--sequence", metavar="NAME", help="with --animation: a name in sequences.csv")
    add = parser.add_argument_group("what these pictures show").add_argument
    show_help = (
        f"some of {','.join(PICTURES)} (default: one of each modality). normal: directions as colours, as the network sees "
        "them; relief: the same surface, lit"
    )
    add("--show", type=_list_names, default=(), metavar="LIST", help=show_help)
    views_help = "views of the cache, such as -20,0,20 (default: all; --animation: the front)"
    add("--views", type=parse_views, default=(), metavar="LIST", help=views_help)
    add("--plain", action="store_true", help="no titles, names of samples or legends, as for a paper")
    add("--size", type=_number(16, 1024), metavar="PX", help="with --animation: of a picture (default: as cached)")
    add("--fps", type=float, metavar="N", help="with --animation: frames per second (default: the recording's)")
    before_help = (
        "with --animation: beside each picture, also as it would be without --stabilise, drawn from cached depth"
    )
    add("--before-after", action="store_true", help=before_help)
    add = parser.add_argument_group("pages in the browser").add_argument
    run_help = "a finished run: show its predictions and attention; may be given several times, to compare runs"
    add("--run", type=Path, action="append", default=[], metavar="RUN", help=run_help)
    add("--tags", type=Path, metavar="FILE.csv", help="where tags are kept (default: NAME.tags.csv beside the cache)")
    host_help = "let other machines in; the token is then sent unencrypted (default 127.0.0.1)"
    add("--host", metavar="HOST", help=host_help)
    add("--port", type=_number(1, 65535), metavar="N", help="default 8050, or a free one if it is taken")
    add("--no-open", action="store_true", help="print the address without opening a browser")
    add("--no-faces", action="store_true", help="show no images")


def _add_verify(parser: argparse.ArgumentParser) -> None:
    _add_cache(parser)
    quick_help = "check files, sizes, tables, records and indices, but not every image byte"
    parser.add_argument("--quick", action="store_true", help=quick_help)


def _add_dynamic(parser: argparse.ArgumentParser) -> None:
    _add_cache(parser, "a finished cache of a 4D data set")
    parser.add_argument("--out", type=open_path, required=True, metavar="DIR", help="the cache to write")


def _add_predict(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="a run folder of `train fit`, or a folder of `train export`")
    add(
        "scans",
        type=Path,
        nargs="+",
        metavar="SCAN",
        help="a mesh (OBJ, PLY, STL, GLB, OFF, WRL, ABS), or a depth image with its camera in --columns",
    )
    out_help = "picture of the views, the probabilities, and what they depend on: a file for one scan, else a folder"
    add("--out", type=Path, dest="picture", metavar="FILE.png|.pdf|.svg|DIR", help=out_help)
    add(
        "--csv",
        type=Path,
        dest="table",
        metavar="FILE.csv",
        help="table of probabilities, as `train predict` writes it",
    )
    sequence_help = "the scans are frames of one sequence, in this order, and are predicted as one"
    add("--sequence", action="store_true", dest="is_sequence", help=sequence_help)
    neutral_help = "a neutral scan of the same person: half of its scores is subtracted, usually more accurate"
    add("--neutral", type=Path, metavar="SCAN", help=neutral_help)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 … (default auto)")
    add = parser.add_argument_group("how to read the scans").add_argument
    landmarks_help = "a file of landmarks for each scan (default: the face is found by its shape)"
    add("--landmarks", type=Path, nargs="+", default=[], metavar="FILE", help=landmarks_help)
    texture_help = "an image for each scan (default: the one that the mesh names)"
    add("--texture", type=Path, nargs="+", default=[], dest="textures", metavar="FILE", help=texture_help)
    columns_help = (
        "columns of a manifest, for all scans: units, scale, up, facing, texture_origin, camera …, such as units=m,up=z"
    )
    add("--columns", metavar="LIST", help=columns_help)


# Command → (summary, description in its own help, function that adds its options).
COMMANDS: dict[str, tuple[str, str, Callable[[argparse.ArgumentParser], None]]] = {
    "synth": (
        "write a synthetic data set in a real data set's file layout",
        "Writes synthetic faces with expressions built from facial action units, to try and to test the program.\n"
        "Scans per subject: bu3dfe 25, bosphorus 16 to 18; sequences per subject: bu4dfe 6, bp4d 8, bp4dplus 10, 4dme 6.",
        _add_synth,
    ),
    "build": (
        "render every scan of a data set into a cache",
        "Finds the scans under --root, aligns each face, renders it from every view and stores the images.\n"
        "Run the same command again after an interruption, or when scans were added or changed: finished shards stay.\n"
        "folder: manifest.csv has one line per mesh. Your own columns (age, sex, site …) become groups, which filter pages,\n"
        "scores and trainings. A column landmarks may name a file with lines name,x,y,z of left_eye, right_eye, nose_tip\n"
        "and mouth (also: nose_bridge, nose), or a .bnd or .ljson. More in preprocess/README.md, own scans.\n"
        "Exit code 0: all scans are in; 1: finished, but some scans failed (failures.csv); 2: stopped, with the reason.",
        _add_build,
    ),
    "prompts": (
        "embed the text prompts of each class with a CLIP text tower",
        "Trainings read the embeddings from the cache and never load a text tower. The weights are downloaded once.\n"
        "Without a network, a small model that ships serves for a first try; it saw synthetic faces only:\n"
        "--model facet-tiny --pretrained synthetic-2. To use a larger one there, give its file:\n"
        "open_clip's, transformers' (pytorch_model.bin, model.safetensors) or OpenAI's.",
        _add_prompts,
    ),
    "inspect": (
        "show a cache: pages in the browser, a summary, contact sheets",
        "Without options: serves pages to the browser of this machine, until Ctrl-C.\n"
        "With --summary: prints what the cache holds. With --sheet or --animation: writes a picture.",
        _add_inspect,
    ),
    "predict": (
        "predict scans with a trained model, in one step and without a cache",
        "Reads, aligns and renders the scans as the training images of the model, and prints a probability per class.\n"
        "--out also draws what the prediction depends on.\n"
        "For many scans, build a cache once and use `python -m train predict`.\n"
        "Exit code 0: all scans are predicted; 1: some failed; 2: stopped, with the reason.",
        _add_predict,
    ),
    "verify": (
        "check every byte of a cache against its records",
        "Names what is missing or damaged, down to the sample. Exit code 0: all intact; 1: problems, listed.",
        _add_verify,
    ),
    "dynamic": (
        "turn a cache of sequences into one of dynamic images, a row per sequence",
        'Pools the frames of each sequence into one image per view, by approximate rank pooling (Bilen et al. 2016, "Dynamic\n'
        'image networks for action recognition"): what grows over time is bright, what fades is dark, the rest is grey.\n'
        "Texture and normals: 128 + 2 d, d in steps of the 8-bit images; depth: the change, in 0.02 mm; 0: no surface.\n"
        "Run the same command again after an interruption, after damage, or when the old cache has changed.",
        _add_dynamic,
    ),
}


def _number(lowest: int, highest: int | None = None) -> Callable[[str], int]:
    """Return the type of an option that is a whole number within limits."""

    def parse(text: str) -> int:
        number = whole_number(text)
        if number < lowest or (highest is not None and number > highest):
            limits = f"{lowest} or more" if highest is None else f"{lowest} to {highest}"
            raise argparse.ArgumentTypeError(f"expected {limits}, found {number}")
        return number

    return parse


def _list_names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _num_bytes(text: str) -> int:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([MG])i?B?", text.strip(), re.IGNORECASE)
    if not found or not float(found[1]):
        raise argparse.ArgumentTypeError(f"expected a size such as 2GB or 800MB, found {text!r}")
    return int(float(found[1]) * {"M": 10**6, "G": 10**9}[found[2].upper()])
