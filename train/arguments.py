"""The commands of stage 2 with their options and help texts."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from shared.command_line import add_command, add_option_file, natural_number, positive_number, start_parser
from shared.figures import FORMS
from shared.store.paths import open_path
from train.option_parser import add_option, add_sections, split_names
from train.options import OPTIONS, Options, RunOptions
from train.pretraining.options import PretrainOptions
from train.studies.ablation.variants import ABLATE_EXAMPLES, FULL

DESCRIPTION = "Trains FACET-VLM on a cache of multiview face images and tests it on people it has never seen."
EXAMPLES = """examples:
  python -m train fit --cache data_cache/bu3dfe --out runs/first            fold 0 of 10
  python -m train crossval --cache data_cache/bu3dfe --protocol bu3dfe-subset1 --out runs/subset1
  python -m train evaluate runs/first                                       the same test again
  python -m train predict runs/first --cache data_cache/my_scans            a probability per class and scan
  python -m train report runs/first --out first.html                        everything in one file
  python -m train compare runs/full-s0 runs/full-s1 runs/mean-s0 runs/mean-s1    is the difference chance?

`python -m train COMMAND --help` explains the options of a command. shared/README.md lists the files of a run folder.
"""
FIT_EXAMPLES = """Run the same command again to continue from the last checkpoint. SIGTERM writes one and ends with exit code 0.

examples:
  python -m train fit --cache data_cache/bu3dfe --out runs/texture --modalities texture --tune frozen
  python -m train fit --cache data_cache/bu3dfe --out runs/plain --fusion mean --head cosine --lambda-con 0 --lambda-vt 0
  python -m train fit --cache data_cache/bp4d --out runs/aus --protocol bp4d-au --frame-stride 10
  python -m train fit --config bu3dfe --cache data_cache/bu3dfe --out runs/bu3dfe
  python -m train fit --config runs/first/config.toml --out runs/longer --epochs 40
  python -m train fit --cache data_cache/bu3dfe --out runs/sweep --sweep grid.toml --sweep-index 0
  torchrun --nproc-per-node 8 -m train fit --cache data_cache/bp4d --out runs/bp4d --batch-size 512

Without a network: --pretrained FILE, --model local-dir:DIR, or facet-tiny --pretrained synthetic-2 (small, ships).
"""
CROSSVAL_EXAMPLES = """Trains and tests every fold of a protocol, each in its own folder, and writes one report: text, JSON,
CSV, a LaTeX table, a picture. Run the same command again to continue. Exit code 1: some folds failed; they are listed.

examples:
  python -m train crossval --cache data_cache/bu4dfe --protocol bu4dfe --out runs/bu4dfe
  python -m train crossval --cache data_cache/bu3dfe --protocol bu3dfe-p1 --rounds 2 --discard-weights --out runs/p1
  python -m train crossval --train-cache data_cache/bu4dfe --test-cache data_cache/bp4d --protocol bu4dfe-bp4d --out runs/cross
one fold per array job of a cluster; the last job to end writes the full report:
  python -m train crossval --cache data_cache/bu4dfe --protocol bu4dfe --out runs/bu4dfe --fold 7
the same folds in another paper:
  python -m train crossval --cache data_cache/bu4dfe --protocol runs/bu4dfe/folds.json --out runs/again
"""
EMBED_EXAMPLES = """fit and crossval do this by themselves with --tune frozen. Do it before if many of them start together.
All views of the cache are embedded. Run the same command again to compute only what is missing.

examples:
  python -m train embed --cache data_cache/bu3dfe
  python -m train embed --cache data_cache/bu3dfe --model ViT-B-16 --pretrained openai --out runs/embeddings
"""
PRETRAIN_EXAMPLES = """Pairs every image of a row with one of the row's captions, from `preprocess prompts --captions`. Writes
a folder with both towers, which open_clip and all commands load as --model local-dir:RUN, and pretrain.json. Run the same
command again to continue after an interruption, from the end of the last epoch.

examples:
  python -m train pretrain --cache data_cache/a --cache data_cache/b --out runs/pretrained --model facet-tiny
  python -m train pretrain --config runs/pretrained/config.toml --out runs/longer --epochs 60
  python -m train pretrain --cache data_cache/bp4d --out runs/adapted --model ViT-B-16 --tune-text frozen --lr 1e-5
"""
EXPORT_EXAMPLES = """Writes model.safetensors, config.json, split.json and a README.md that says how to load them.

examples:
  python -m train export runs/first --out facet-bu3dfe
  python -m train predict facet-bu3dfe --cache data_cache/my_scans
"""
REPORT_EXAMPLES = """Writes one file, with its pictures inside: scores, curves, confusion matrix, classes, subjects, worst
samples, settings and machine of each run. It shows faces: mind the licence of the data set, which it names.

examples:
  python -m train report runs/first --out first.html
  python -m train report runs/texture runs/normal runs/subset1 --out compared.html --no-faces
"""
DIFF_EXAMPLES = """Compares options, data and model, split, environment and scores.

examples:
  python -m train diff runs/first runs/longer
  python -m train diff runs/subset1 runs/subset1-frozen --all
"""
COMPARE_EXAMPLES = """Runs that differ only in the seed are one method. All runs must have been tested on the same samples
with the same split: train them with one --fold-seed. Writes compare.json, .csv, .tex, .png and .pdf.

examples:
  python -m train compare runs/full-s* runs/mean-s* runs/cosine-s* --baseline runs/mean-s0 --out compared
  python -m train compare runs/full-s* runs/mean-s* --name FACET=runs/full-s0 --name "mean of views"=runs/mean-s0
"""
PROTOCOLS_EXAMPLES = """examples:
  python -m train protocols                                                  list all
  python -m train protocols bu3dfe-p1                                        one in detail, with its source
  python -m train protocols bosphorus --cache data_cache/bosphorus --export folds.json
"""
VERIFY_TEXT = """Compares weights, settings, predictions and scores of a run, a cross-validation or an ablation with
hashes.json, and embeddings with their own checksums. Exit code 0: all equal; 1: problems, listed."""
PREDICT_EXAMPLES = """With --zero-shot, any class can be predicted: its prompts describe it, and nobody has trained it.

examples:
  python -m train predict runs/first --cache data_cache/my_scans
  python -m train predict runs/first --cache data_cache/my_scans --explain
  python -m train predict --zero-shot --cache data_cache/bu3dfe --out runs/zero-shot
  python -m preprocess prompts --out contempt.h5 --prompts my_prompts.txt --model ViT-B-16 --pretrained openai
  python -m train predict --zero-shot --cache data_cache/my_scans --prompts contempt.h5 --out runs/contempt
"""
# Fields of Options and RunOptions that describe an untrained model.
_ZERO_SHOT = ("prompts", "model", "pretrained", "modalities", "views", "background", "classes")
ZERO_SHOT_OPTIONS = tuple(o for kind in (RunOptions, Options) for o in dataclasses.fields(kind) if o.name in _ZERO_SHOT)
FIT_ONLY = ("profile", "keep_checkpoints")
CROSSVAL_ONLY = ("jobs", "discard_weights", "name")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser. Where an option's `dest` is given, it is the argument of the function that runs the command."""
    parser, commands = start_parser("python -m train", DESCRIPTION, EXAMPLES)
    fit = add_command(commands, "fit", "train on some subjects, test on others", examples=FIT_EXAMPLES)
    fit.usage = "python -m train fit --cache DIR --out RUN [options]"
    summary = "train and test every fold of a protocol, and report"
    crossval = add_command(commands, "crossval", summary, examples=CROSSVAL_EXAMPLES)
    crossval.usage = "python -m train crossval --cache DIR --out RUN [options]"
    summary = "cross-validate the full model and variants that lack one part, and compare"
    ablate = add_command(commands, "ablate", summary, examples=ABLATE_EXAMPLES)
    ablate.usage = "python -m train ablate --cache DIR --out RUN [options]"
    for command in (fit, crossval, ablate):
        left_out = {fit: CROSSVAL_ONLY, crossval: FIT_ONLY, ablate: (*FIT_ONLY, "sweep")}
        add_sections(command, leave_out=left_out[command])
    add = ablate.add_argument_group("ablation: which variants are compared").add_argument
    text = (
        f"variants from the list below, e.g. no-cvsa,no-mtgf, or obvious for all obvious networks; {FULL} is always included "
        "(default: all that need not be named)"
    )
    add("--variants", metavar="LIST", help=text)
    text = "a variant of your own: options of fit that are added to those of the full model; may be repeated"
    add("--variant", action="append", default=[], metavar="NAME='OPTIONS'", help=text)
    text = "train each variant with N seeds, --seed and those after it, on the same folds (default 1)"
    add("--seeds", type=positive_number, default=1, metavar="N", help=text)

    summary = "list the protocols: who trains and who is tested"
    add = add_command(commands, "protocols", summary, examples=PROTOCOLS_EXAMPLES).add_argument
    add("name", nargs="?", metavar="NAME", help="show one in detail")
    add("--cache", type=open_path, metavar="DIR", help="with NAME: split the subjects of this cache")
    add("--folds", type=positive_number, metavar="N", help="number of folds (default: the protocol's)")
    add("--export", type=Path, metavar="FILE.json", help="with --cache: write the folds to a file")
    add("--seed", type=natural_number, default=0, metavar="N", help="seed of the split (default 0)")

    summary = "compute the image tower's embeddings of a cache once, for many trainings with --tune frozen"
    embed = add_command(commands, "embed", summary, examples=EMBED_EXAMPLES)
    add = embed.add_argument
    add("--cache", type=open_path, required=True, dest="cache_path", metavar="DIR", help="a finished cache")
    text = "folder of the embeddings (default runs/embeddings, where runs/NAME look for them)"
    add("--out", type=Path, default=Path("runs/embeddings"), metavar="DIR", help=text)
    add("--model", default="", metavar="NAME|local-dir:DIR", help="open_clip model (default: the model of the prompts)")
    text = "weights: an open_clip tag, a file, or none (default: those of the prompts)"
    add("--pretrained", default="", metavar="TAG|FILE|none", help=text)
    add("--modalities", type=split_names, default=(), metavar="LIST", help="default: all modalities of the cache")
    add(
        "--seed",
        type=natural_number,
        default=0,
        metavar="N",
        help="seed of random weights, with --pretrained none (default 0)",
    )
    add_option(embed, OPTIONS["background"])
    text = "leave out the mirrored images, which --augment flip needs"
    add("--no-mirrored", action="store_false", dest="mirrored", help=text)

    summary = "train an image tower and its text tower on captioned caches (contrastive)"
    command = add_command(commands, "pretrain", summary, examples=PRETRAIN_EXAMPLES)
    add = command.add_argument
    text = "a finished cache with captions; may be repeated"
    add("--cache", type=open_path, required=True, action="append", dest="caches", metavar="DIR", help=text)
    text = "folder of the model: a new one, or one to continue"
    add("--out", type=Path, required=True, metavar="RUN", help=text)
    add_option_file(command)
    for option in dataclasses.fields(PretrainOptions):
        add_option(command, option)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 … (default auto)")
    text = "load the images once, into RAM or GPU memory (default none)"
    add("--preload", choices=("none", "ram", "gpu"), default="none", help=text)
    add_option(command, next(option for option in dataclasses.fields(RunOptions) if option.name == "log"))
    text = "also write the weights in half precision, with only those words that the captions and prompts need"
    add("--ship", type=Path, metavar="FILE.safetensors", help=text)
    text = "with --ship: a text file, such as a prompts file, whose words are kept as well"
    add("--ship-words", type=Path, metavar="FILE.txt", help=text)

    summary = "write runs and cross-validations as one HTML file"
    add = add_command(commands, "report", summary, examples=REPORT_EXAMPLES).add_argument
    add("paths", type=Path, nargs="+", metavar="RUN", help="folders of fit or crossval")
    add("--out", type=Path, required=True, metavar="FILE.html", help="the file to write")
    text = (
        "cache with the pictures of the samples, if it was moved; may be repeated (default: where each run was tested)"
    )
    add("--cache", type=open_path, action="append", default=[], dest="caches", metavar="DIR", help=text)
    add("--no-faces", action="store_false", dest="faces", help="leave out the pictures of the samples")
    text = "number of misclassified samples shown, the worst first (default 12)"
    add("--worst", type=positive_number, default=12, dest="num_worst", metavar="N", help=text)

    summary = "compare methods, with intervals and significance"
    add = add_command(commands, "compare", summary, examples=COMPARE_EXAMPLES).add_argument
    add(
        "paths",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="finished folders of fit or crossval; after them, CSV files of predictions of other programs",
    )
    text = "the method that the others are compared with, by name or by a run (default: that of the first RUN)"
    add("--baseline", metavar="RUN|NAME", help=text)
    text = "name of RUN's method; may be repeated (default: the settings in which the methods differ)"
    add("--name", type=_read_name, action="append", default=[], dest="names", metavar="NAME=RUN", help=text)
    add("--out", type=Path, metavar="DIR", help="folder of the files (default: compare-RUN beside the first RUN)")

    summary = "list the settings, data and scores in which runs differ"
    add = add_command(commands, "diff", summary, examples=DIFF_EXAMPLES).add_argument
    add("paths", type=Path, nargs="+", metavar="RUN", help="folders of fit or crossval, at least two")
    add("--all", action="store_true", dest="show_all", help="also show what is equal")

    evaluate = add_command(commands, "evaluate", "test a finished run again, or on another cache")
    evaluate.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    text = "the cache to test on (default: where the run was tested; needed if that was moved)"
    evaluate.add_argument("--cache", type=open_path, dest="cache_path", metavar="DIR", help=text)

    summary = "write a probability per class for every scan, labelled or not"
    predict = add_command(commands, "predict", summary, examples=PREDICT_EXAMPLES)
    predict.add_argument("run", type=Path, nargs="?", metavar="RUN", help="a run folder")
    text = "a cache; with RUN, one with the views and view settings of the training"
    predict.add_argument("--cache", type=open_path, required=True, dest="cache_path", metavar="DIR", help=text)
    text = "the file to write (default: RUN/predictions-CACHE.csv); with --zero-shot a folder"
    predict.add_argument("--out", type=Path, metavar="FILE.csv|DIR", help=text)
    text = "also explain N samples, wrong ones first (default 12), or those named: attention and occlusion, pictures and HDF5"
    metavar = "N|NAME,NAME"
    predict.add_argument("--explain", nargs="?", const="12", dest="explained", metavar=metavar, help=text)
    text = "of the pictures of --explain (default png); pdf and svg are for a paper"
    predict.add_argument("--format", choices=FORMS, dest="form", help=text)
    text = (
        "subtract half of the scores of the subject's neutral scan; or the mean score of the subject's scans, or of all scans, "
        "without labels: for subjects who show all classes equally often (default: as the run was tested; with --zero-shot: "
        "subject for bu3dfe and bu4dfe, else none)"
    )
    choices = OPTIONS["centre_scores"].metadata["choices"]
    predict.add_argument("--centre-scores", choices=choices, dest="centre", help=text)
    text = "no RUN: predict with a CLIP model and the prompts of the classes, before any training"
    predict.add_argument("--zero-shot", action="store_true", help=text)
    text = "--classes: by default all that have prompts, without neutral and action units"
    group = predict.add_argument_group("only with --zero-shot", text)
    for option in ZERO_SHOT_OPTIONS:
        add_option(group, option)
    text = "keep the tower's batch statistics (default: those of the cache's images, without labels: AdaBN)"
    group.add_argument("--no-adapt", dest="adapt", action="store_false", help=text)
    for command in (embed, evaluate, predict):
        command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 … (default auto)")

    verify = add_command(commands, "verify", "check every file of a run against its recorded hash", VERIFY_TEXT)
    verify.add_argument("run", type=Path, metavar="RUN", help="a folder of fit, crossval, ablate, export or embed")

    summary = "write a trained model to a folder that needs nothing else"
    add = add_command(commands, "export", summary, examples=EXPORT_EXAMPLES).add_argument
    add("run", type=Path, metavar="RUN", help="a run folder")
    add("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    text = (
        "also write model.pt2: the whole model, from images of a cache to probabilities, for PyTorch alone. Such a file can "
        "run code when it is opened: open only one that you made"
    )
    add("--program", action="store_true", help=text)
    text = "also write model.onnx, the same for ONNX Runtime (pip install onnx onnxscript onnxruntime)"
    add("--onnx", action="store_true", help=text)
    return parser


def _read_name(text: str) -> tuple[str, Path]:
    name, mark, run = text.partition("=")
    if not (name and mark and run):
        raise argparse.ArgumentTypeError(f"expected NAME=RUN, found {text!r}")
    return name, Path(run)
