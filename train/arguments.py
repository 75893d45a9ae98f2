"""The commands of stage 2 with their options and help texts."""

from __future__ import annotations

import argparse
from pathlib import Path

from shared.command_line import add_command, positive_number, start_parser, whole_number
from shared.store.paths import open_path
from train.option_parser import add_sections
from train.studies.ablation.variants import ABLATE_EXAMPLES, FULL

DESCRIPTION = """Trains FACET-VLM on a cache of multiview face images and tests it on people it has never seen."""
EXAMPLES = """the way of an experiment:
  python -m train fit --cache data_cache/bu3dfe --out runs/first            fold 0 of 10
  python -m train crossval --cache data_cache/bu3dfe --protocol bu3dfe-subset1 --out runs/subset1
  python -m train evaluate runs/first                                       the same test again
  python -m train predict runs/first --cache data_cache/my_scans            a probability per class per scan
  python -m train report runs/first --out first.html                        all about it in one file
  python -m train compare runs/full-s0 runs/full-s1 runs/mean-s0 runs/mean-s1    is the difference chance?

--help after a command explains its options. A run is a folder: config.toml, config.json, split.json, log.jsonl, checkpoint.pt,
model.safetensors, metrics.json, predictions.csv, confusion.png and .pdf, attention.safetensors, hashes.json.
"""
FIT_EXAMPLES = """Interrupted? The same command goes on from the last checkpoint. SIGTERM writes one and ends with exit code 0.

examples:
  python -m train fit --cache data_cache/bu3dfe --out runs/fold3 --fold 3
  python -m train fit --cache data_cache/bu3dfe --out runs/texture --modalities texture --tune frozen
  python -m train fit --cache data_cache/bu3dfe --out runs/front --views 0
  python -m train fit --cache data_cache/bu3dfe --out runs/plain --fusion mean --head cosine --lambda-con 0 --lambda-vt 0
  python -m train fit --cache data_cache/bu3dfe --out runs/control --shuffle-labels 1
  python -m train fit --cache data_cache/bp4d --out runs/aus --protocol bp4d-au --frame-stride 10
  python -m train fit --config runs/first/config.toml --out runs/longer --epochs 40
  torchrun --nproc-per-node 8 -m train fit --cache data_cache/bp4d --out runs/bp4d --batch-size 512

No network? --pretrained FILE, --model local-dir:DIR, or --model facet-tiny --pretrained none (small, random weights).
"""
CROSSVAL_EXAMPLES = """Trains and tests every fold of a protocol, each in a folder of its own, and writes one report: text,
JSON, CSV, a LaTeX table, a picture. Interrupted? The same command goes on. Exit code 1: some folds failed; they are listed.

examples:
  python -m train crossval --cache data_cache/bu4dfe --protocol bu4dfe --out runs/bu4dfe
  python -m train crossval --cache data_cache/bu3dfe --protocol bu3dfe-p1 --rounds 2 --discard-weights --out runs/p1
  python -m train crossval --train-cache data_cache/bu4dfe --test-cache data_cache/bp4d --protocol bu4dfe-bp4d --out runs/cross
  python -m train crossval --cache data_cache/4dme --protocol 4dme-multilabel --reference onset --out runs/4dme
a cluster's array jobs, one fold each; the last to end writes the full report:
  python -m train crossval --cache data_cache/bu4dfe --protocol bu4dfe --out runs/bu4dfe --fold 7
where the time of a step goes, which is the same in every fold (--profile is an option of fit alone):
  python -m train fit --cache data_cache/bu4dfe --protocol bu4dfe --out runs/profiled --profile 20 --epochs 1
the same folds in another paper:
  python -m train crossval --cache data_cache/bu4dfe --protocol runs/bu4dfe/folds.json --out runs/again
"""
EMBED_EXAMPLES = """With --tune frozen, fit and crossval do this by themselves; do it before where many start at the same time.
All views of the cache are embedded: trainings take those of --views from there.
Interrupted? The same command computes only what is missing. What it wrote counts for this content of the cache, this tower,
these weights alone; anything else is computed anew in a folder of its own.

examples:
  python -m train embed --cache data_cache/bu3dfe
  python -m train embed --cache data_cache/bu3dfe --model ViT-B-16 --pretrained openai --out runs/embeddings
  python -m train crossval --cache data_cache/bu3dfe --protocol bu3dfe-p2 --tune frozen --discard-weights --out runs/p2
"""
EXPORT_EXAMPLES = """model.safetensors, config.json, split.json and a README.md that says how to load them, here or elsewhere.

examples:
  python -m train export runs/first --out facet-bu3dfe
  python -m train export runs/first --out facet-bu3dfe --program
  python -m train predict facet-bu3dfe --cache data_cache/my_scans
"""
REPORT_EXAMPLES = """One file with its pictures inside, for a browser without a network: scores, curves, confusion matrix,
classes, subjects, worst samples, settings and machine of each run; several side by side. It carries the faces' licence line.

examples:
  python -m train report runs/first --out first.html
  python -m train report runs/first --out first.html --cache /new/place/bu3dfe
  python -m train report runs/texture runs/normal runs/subset1 --out compared.html --no-faces
"""
COMPARE_EXAMPLES = """Runs that differ in the seed alone are one method. All must have been tested on the same samples after the
same split: give each training one --fold-seed. Writes compare.json, .csv, .tex, .png and .pdf.

examples:
  python -m train compare runs/full-s0 runs/full-s1 runs/mean-s0 runs/mean-s1
  python -m train compare runs/full-s* runs/mean-s* runs/cosine-s* --baseline runs/mean-s0 --out compared
  python -m train compare runs/full-s* runs/mean-s* --name FACET=runs/full-s0 --name "mean of views"=runs/mean-s0
"""
PROTOCOLS_EXAMPLES = """examples:
  python -m train protocols                                                  all of them
  python -m train protocols bu3dfe-p1                                        one in detail, with its source
  python -m train protocols bosphorus --cache data_cache/bosphorus --export folds.json
"""
FIT_ONLY = ("profile", "keep_checkpoints")
CROSSVAL_ONLY = ("jobs", "discard_weights")


def build_parser() -> argparse.ArgumentParser:
    parser, commands = start_parser("python -m train", DESCRIPTION, EXAMPLES)

    fit = add_command(commands, "fit", "train on some subjects, test on others", examples=FIT_EXAMPLES)
    crossval = add_command(
        commands, "crossval", "train and test every fold of a protocol, and report", examples=CROSSVAL_EXAMPLES
    )
    ablate = add_command(
        commands,
        "ablate",
        "cross-validate the model without one part or another, and compare",
        examples=ABLATE_EXAMPLES,
    )
    for command in (fit, crossval, ablate):
        command.add_argument(
            "--out",
            type=Path,
            required=True,
            metavar="RUN",
            help="folder of the results: a new one, or one to continue",
        )
        command.add_argument(
            "--config", type=Path, metavar="FILE.toml", help="read options from a file, such as config.toml of a run folder; "
            "options on the command line override it",
        )  # fmt: skip
        add_sections(command, leave_out=CROSSVAL_ONLY if command is fit else FIT_ONLY)
    ablate.add_argument(
        "--variants",
        metavar="LIST",
        help=f"which of those below, e.g. no-cvsa,no-mtgf, or obvious for all obvious networks; {FULL} always is "
        "(default: all, but those that are named alone)",
    )
    ablate.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="NAME='OPTIONS'",
        help="one of your own: options of fit that are added to those of the full model (may be repeated)",
    )
    ablate.add_argument(
        "--seeds",
        type=positive_number,
        default=1,
        metavar="N",
        help="train each variant with N seeds from --seed on, on the same folds (default 1)",
    )

    protocols = add_command(
        commands, "protocols", "who trains and who is tested: what --protocol takes", examples=PROTOCOLS_EXAMPLES
    )
    protocols.add_argument("name", nargs="?", metavar="NAME", help="show one in detail")
    protocols.add_argument(
        "--cache", type=open_path, metavar="DIR", help="with NAME: split this cache's subjects into its folds"
    )
    protocols.add_argument(
        "--export", type=Path, metavar="FILE.json", help="with --cache: write the folds, to share them"
    )
    protocols.add_argument(
        "--seed", type=int, default=0, metavar="N", help="decides which subjects are in which fold (default 0)"
    )

    embed = add_command(
        commands, "embed", "run a frozen image tower over a cache once, for repeated training", examples=EMBED_EXAMPLES
    )
    embed.add_argument("--cache", type=open_path, required=True, metavar="DIR", help="a finished cache")
    embed.add_argument(
        "--out", type=Path, default=Path("runs/embeddings"), metavar="DIR",
        help="folder of the embeddings (default runs/embeddings, where runs/NAME look for them)",
    )  # fmt: skip
    embed.add_argument(
        "--model", default="", metavar="NAME", help="open_clip model, or local-dir:DIR (default: that of the prompts)"
    )
    embed.add_argument(
        "--pretrained", default="", metavar="TAG|FILE|none", help="weights: an open_clip tag, a file, or none"
    )
    embed.add_argument("--modalities", default="", metavar="LIST", help="default: all that the cache holds")
    embed.add_argument("--seed", type=_seed, default=0, metavar="N", help="of random weights (--pretrained none)")
    embed.add_argument("--no-mirrored", action="store_true", help="leave out the mirrored images, which flips ask for")

    report = add_command(
        commands, "report", "write runs and cross-validations as one HTML file", examples=REPORT_EXAMPLES
    )
    report.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of fit or crossval")
    report.add_argument("--out", type=Path, required=True, metavar="FILE.html")
    report.add_argument(
        "--cache",
        type=open_path,
        action="append",
        default=[],
        metavar="DIR",
        help="where to find the pictures of samples if a cache was moved; may be given several times, once a cache "
        "(default: where each run was tested)",
    )
    report.add_argument("--no-faces", action="store_true", help="leave out the pictures of samples")
    report.add_argument(
        "--worst",
        type=positive_number,
        default=12,
        metavar="N",
        help="misclassified samples to show, the worst first (default 12)",
    )

    compare = add_command(
        commands, "compare", "methods side by side, with intervals and significance", examples=COMPARE_EXAMPLES
    )
    compare.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="finished folders of fit or crossval")
    compare.add_argument(
        "--baseline",
        metavar="RUN|NAME",
        help="the method that the others are compared with (default: that of the first RUN)",
    )
    compare.add_argument(
        "--name", type=_name_of_run, action="append", default=[], metavar="NAME=RUN",
        help="call RUN's method so; may be given again (default: the settings in which methods differ)",
    )  # fmt: skip
    compare.add_argument("--out", type=Path, metavar="DIR", help="default: compare-RUN beside the first RUN")

    evaluate = add_command(commands, "evaluate", "test a finished run again, or on another cache")
    evaluate.add_argument("trained", type=Path, metavar="RUN")
    evaluate.add_argument(
        "--cache",
        type=open_path,
        metavar="DIR",
        help="default: where it was tested; needed if that was moved",
    )

    predict = add_command(commands, "predict", "a probability per class for every scan of a cache, labelled or not")
    predict.add_argument("trained", type=Path, metavar="RUN")
    predict.add_argument(
        "--cache", type=open_path, required=True, metavar="DIR", help="with the views and view settings of the training"
    )
    predict.add_argument("--out", type=Path, metavar="FILE.csv", help="default: RUN/predictions-<cache>.csv")

    verify = add_command(
        commands,
        "verify",
        "check every file of a run against its recorded hash",
        "Weights, settings, predictions and scores of a run, a cross-validation or an ablation are compared with hashes.json,\n"
        "embeddings with their own checksums. Exit code 0: all well; 1: problems, listed.",
    )
    verify.add_argument("run", type=Path, metavar="RUN", help="a folder of fit, crossval, ablate, export or embed")

    export = add_command(
        commands, "export", "a trained model in a folder that needs nothing else", examples=EXPORT_EXAMPLES
    )
    export.add_argument("trained", type=Path, metavar="RUN")
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    export.add_argument(
        "--program",
        action="store_true",
        help="also write model.pt2: the whole model, from a cache's images to probabilities, for PyTorch alone. Such a "
        "file can run code when it is opened: open only one that you made",
    )
    for command in (embed, evaluate, predict):
        command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 … (default auto)")
    return parser


def _name_of_run(text: str) -> tuple[str, Path]:
    name, mark, run = text.partition("=")
    if not (name and mark and run):
        raise argparse.ArgumentTypeError(f"expected NAME=RUN, found {text!r}")
    return name, Path(run)


def _seed(text: str) -> int:
    number = whole_number(text)
    if not 0 <= number < 2**32:
        raise argparse.ArgumentTypeError(f"expected 0 to {2**32 - 1}, found {number}")
    return number
