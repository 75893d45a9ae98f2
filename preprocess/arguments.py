"""What the command line of stage 1 takes: its commands, their options and help."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from shared.command_line import add_command, name_of, positive_number, start_parser, whole_number
from shared.schema import COMPRESSIONS, MODALITIES, STORES, RenderSettings
from shared.store.paths import open_path

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

without a network, a small tower with random weights, for trying the product:
  python -m preprocess prompts --cache data_cache/bu3dfe-synth --model facet-tiny --pretrained none
"""


def build_parser() -> argparse.ArgumentParser:
    parser, commands = start_parser("python -m preprocess", DESCRIPTION, EXAMPLES)

    synth = add_command(
        commands,
        "synth",
        "write a synthetic data set in a real data set's own file layout",
        "Procedural faces with expressions built from facial action units, for trying the product and testing it.\n"
        "Scans a subject: bu3dfe 25, bosphorus 11 to 13; sequences a subject: bu4dfe 6, bp4d 8, 4dme 6.",
    )
    synth.add_argument("name", type=name_of(SYNTHETIC), metavar="NAME", help=", ".join(SYNTHETIC))
    synth.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write; new or empty")
    synth.add_argument(
        "--subjects", type=positive_number, default=10, metavar="N", help="number of people (default 10)"
    )
    synth.add_argument("--frames", type=positive_number, metavar="T", help="frames a sequence (default 16 to 24)")
    synth.add_argument(
        "--seed", type=_not_negative, default=0, metavar="S", help="another seed is other people (default 0)"
    )

    build = add_command(
        commands,
        "build",
        "render every scan of a data set into a cache",
        "Finds the scans under --root, aligns each face, draws it from every view and stores the images.\n"
        "Run it again to go on after an interruption, or after scans were added or mended: finished shards are kept.\n"
        "folder: manifest.csv has a line a mesh; columns of your own (age, sex, site …) are kept as groups, to filter pages,\n"
        "scores and trainings by. Its column landmarks may name a file with lines name,x,y,z of left_eye, right_eye,\n"
        "nose_tip and mouth (also: nose_bridge, nose), or a .bnd or .ljson. More in preprocess/README.md: own scans.\n"
        "Exit code 0: all scans are in; 1: finished, but some scans failed (failures.csv); 2: stopped, with the reason.",
    )
    build.add_argument(
        "name",
        type=name_of(DATASETS),
        metavar="NAME",
        help=f"{', '.join(DATASETS)}; folder is your own meshes, listed in manifest.csv (path,subject,label[,…])",
    )
    build.add_argument("--root", type=Path, required=True, metavar="DIR", help="the data set as it was delivered")
    build.add_argument(
        "--cache",
        type=open_path,
        required=True,
        metavar="DIR",
        help="the cache to write, e.g. data_cache/bu3dfe, or s3://bucket/prefix (credentials from the environment)",
    )
    build.add_argument(
        "--views",
        default=RenderSettings().views_text(),
        metavar="LIST",
        help='yaw angles in degrees, + toward the subject\'s left; yaw:pitch for a raised camera (default "0,20,-20")',
    )
    build.add_argument("--size", type=int, default=224, metavar="PX", help="side of the images (default 224)")
    build.add_argument(
        "--modalities", default=",".join(MODALITIES), metavar="LIST", help="some of texture,normal,depth (default all)"
    )
    build.add_argument("--store", choices=STORES, default="zarr", help="file format of the arrays (default zarr)")
    build.add_argument(
        "--compression",
        choices=COMPRESSIONS,
        default="lz4",
        help="of the stored images: lz4 (default), or none: two to three times the disk, and the fastest to "
        "train from where it fits into memory or lies on a fast disk",
    )
    build.add_argument(
        "--stabilise",
        action=argparse.BooleanOptionalAction,
        help="sequences: hold forehead and nose bridge still in every frame (default: for bp4d and 4dme, where heads move)",
    )
    build.add_argument(
        "--pattern",
        metavar="TEXT",
        help="4dme: where frames lie, e.g. Meshes/{subject}/{clip}/*_{frame}.obj; {subject} may be left out",
    )
    build.add_argument(
        "--label-map",
        type=Path,
        metavar="FILE.csv",
        help="folder: lines word,class such as joy,happiness; an empty class is no label (default: happy, Joy … are happiness)",
    )
    build.add_argument(
        "--workers", type=positive_number, metavar="N", help="processes of this machine (default: one a core)"
    )
    build.add_argument(
        "--worker-memory",
        type=_num_bytes,
        metavar="SIZE",
        help="a worker that takes more, e.g. 2GB, is stopped and the scan to blame left out (default: a share of the machine)",
    )
    cluster = build.add_mutually_exclusive_group()
    cluster.add_argument(
        "--scheduler", metavar="ADDRESS", help="render on the workers of a dask scheduler, e.g. tcp://node7:8786"
    )
    cluster.add_argument(
        "--scheduler-file", type=Path, metavar="FILE", help="likewise; the file that `dask scheduler` wrote"
    )
    build.add_argument("--strict", action="store_true", help="stop at the first scan that fails or has a warning")
    build.add_argument(
        "--repair",
        action="store_true",
        help="compare every stored byte with its record; render what is damaged; try again what brought its worker down",
    )
    build.add_argument("--overwrite", action="store_true", help="render again a cache that has other settings")

    prompts = add_command(
        commands,
        "prompts",
        "embed the text prompts of each class with a CLIP text tower",
        "Trainers read the embeddings from the cache and never load a text tower.\n"
        "The weights are downloaded once. Without a network, for a first try and not for results, take random weights of a\n"
        "small tower that comes with the program: --model facet-tiny --pretrained none. For results there, fetch the weights\n"
        "elsewhere and give the file: open_clip's, transformers' (pytorch_model.bin, model.safetensors) or OpenAI's.",
    )
    target = prompts.add_mutually_exclusive_group(required=True)
    target.add_argument(
        "--cache", type=open_path, metavar="DIR", help="a cache: its classes, written into its folder text/"
    )
    target.add_argument("--out", type=Path, metavar="FILE.h5", help="a file: all classes of the prompts file")
    prompts.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME",
        help=f"open_clip model, facet-tiny (small, for a CPU) or local-dir:DIR (default {DEFAULT_MODEL})",
    )
    prompts.add_argument(
        "--pretrained",
        metavar="TAG|FILE|none",
        help=f"weights: open_clip's tag, a file, or none = random (default {DEFAULT_PRETRAINED} for {DEFAULT_MODEL}). A file "
        "does not say its activation: for OpenAI's own take --model ViT-B-16-quickgelu; with a tag it is known",
    )
    prompts.add_argument(
        "--prompts", type=Path, metavar="FILE", help="your own: lines `class name: prompt` (default: built in)"
    )

    inspect = add_command(
        commands,
        "inspect",
        "look at a cache: in the browser, as a summary, contact sheets",
        "Without options: pages in the browser, served by this machine to itself until Ctrl-C. With --summary: what the\n"
        "cache holds, as text. With --sheet or --gif: a picture.",
    )
    inspect.add_argument("cache", type=open_path, metavar="CACHE")
    inspect.add_argument("--summary", action="store_true", help="print what the cache holds")
    inspect.add_argument("--sheet", type=Path, metavar="FILE.png", help="write a contact sheet")
    inspect.add_argument(
        "--gif", type=Path, metavar="FILE.gif", help="write the sequence of --sequence as a moving picture"
    )
    inspect.add_argument(
        "--sequence", metavar="NAME", help="with --gif: which sequence (sequences.csv has their names)"
    )
    inspect.add_argument("--subject", metavar="S", help="with --sheet: one subject, all classes and intensities")
    inspect.add_argument("--sample", metavar="ID", help="with --sheet: one sample, all views and modalities")
    pages = inspect.add_argument_group("pages in the browser")
    pages.add_argument("--run", type=Path, metavar="RUN", help="a finished run: its predictions and attention")
    pages.add_argument(
        "--host", metavar="HOST", help="let other machines in; the token is then sent unencrypted (default 127.0.0.1)"
    )
    pages.add_argument("--port", type=_port, metavar="N", help="default 8050, or a free one where that is taken")
    pages.add_argument("--no-open", action="store_true", help="print the address, open no browser")
    pages.add_argument("--no-faces", action="store_true", help="leave the pictures out")

    verify = add_command(
        commands,
        "verify",
        "check every byte of a cache against its records",
        "Names what is missing or damaged, down to the sample. Exit code 0: all well; 1: problems, listed.",
    )
    verify.add_argument("cache", type=open_path, metavar="CACHE")
    verify.add_argument(
        "--quick",
        action="store_true",
        help="existence, sizes, tables, records and the index of every shard, but not every byte of the images",
    )

    dynamic = add_command(
        commands,
        "dynamic",
        "turn a cache of sequences into one of dynamic images, a row a sequence",
        'Pools the frames of each sequence into one image a view by approximate rank pooling (Bilen et al. 2016, "Dynamic\n'
        'image networks for action recognition"): what grows over time comes out bright, what fades dark, what stays grey.\n'
        "Texture and normals: 128 + 2 d, d in steps of the 8-bit images; depth: the change, 0.02 mm a step; 0 = not shown.\n"
        "Run it again to go on after an interruption, to repair the new cache, or when the old one has changed.",
    )
    dynamic.add_argument("cache", type=open_path, metavar="CACHE", help="a finished cache of a 4D data set")
    dynamic.add_argument("--out", type=open_path, required=True, metavar="CACHE2", help="the cache to write")
    return parser


def _not_negative(text: str) -> int:
    number = whole_number(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"expected 0 or more, found {number}")
    return number


def _port(text: str) -> int:
    number = whole_number(text)
    if not 0 < number < 65536:
        raise argparse.ArgumentTypeError(f"expected 1 to 65535, found {number}")
    return number


def _num_bytes(text: str) -> int:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([MG])i?B?", text.strip(), re.IGNORECASE)
    if not found or not float(found[1]):
        raise argparse.ArgumentTypeError(f"expected a size such as 2GB or 800MB, found {text!r}")
    return int(float(found[1]) * {"M": 10**6, "G": 10**9}[found[2].upper()])
