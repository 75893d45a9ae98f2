"""The command line of stage 2: python -m train fit | evaluate | predict."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from shared.errors import FacetError, run_command_line
from train.config import Recipe, option_name

DESCRIPTION = """Trains FACET-VLM on a cache of multiview face images and tests it on people it has never seen."""
EXAMPLES = """the way of an experiment:
  python -m train fit --cache data_cache/bu3dfe --out runs/first            fold 0 of 10
  python -m train evaluate runs/first                                       the same test again
  python -m train predict runs/first --cache data_cache/my_scans            a probability per class per scan

--help after a command explains its options. A run is a folder: config.json, split.json, log.jsonl, checkpoint.pt,
model.safetensors, metrics.json, predictions.csv, confusion.png.
"""
FIT_EXAMPLES = """Interrupted? The same command goes on from the last checkpoint.

examples:
  python -m train fit --cache data_cache/bu3dfe --out runs/fold3 --fold 3
  python -m train fit --cache data_cache/bu3dfe --out runs/texture --modalities texture --tune frozen
  python -m train fit --cache data_cache/bu3dfe --out runs/plain --fusion mean --head cosine --lambda-con 0 --lambda-vt 0
  python -m train fit --cache data_cache/bu3dfe --out runs/control --shuffle-labels 1

No network? --pretrained FILE, --model local-dir:DIR, or --pretrained none (random weights).
"""


def main(arguments: list[str] | None = None) -> int:
    chosen = _parser().parse_args(arguments)
    result: int = chosen.run(chosen)
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    fit = _command(commands, "fit", "train on some subjects, test on others", FIT_EXAMPLES)
    fit.add_argument("--cache", type=Path, required=True, metavar="DIR", help="a cache with prompt embeddings")
    fit.add_argument(
        "--out", type=Path, required=True, metavar="RUN", help="the run's folder; new, or a run to go on with"
    )
    for option in dataclasses.fields(Recipe):
        _add_option(fit, option)
    fit.add_argument("--checkpoint-every", type=_positive, default=200, metavar="STEPS", help="default 200")
    fit.set_defaults(run=_fit)

    evaluate = _command(commands, "evaluate", "test a finished run again, or on another cache", "")
    evaluate.add_argument("trained", type=Path, metavar="RUN")
    evaluate.add_argument("--cache", type=Path, metavar="DIR", help="default: the cache it was trained on")
    evaluate.set_defaults(run=_evaluate)

    predict = _command(commands, "predict", "a probability per class for every scan of a cache, labelled or not", "")
    predict.add_argument("trained", type=Path, metavar="RUN")
    predict.add_argument("--cache", type=Path, required=True, metavar="DIR", help="same view settings as in training")
    predict.add_argument("--out", type=Path, metavar="FILE.csv", help="default: RUN/predictions-<cache>.csv")
    predict.set_defaults(run=_predict)
    for command in (fit, evaluate, predict):
        command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 … (default auto)")
    return parser


def _command(commands: Any, name: str, summary: str, epilog: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def _add_option(parser: argparse.ArgumentParser, option: dataclasses.Field[Any]) -> None:
    """One command line option from a field of Recipe."""
    choices = option.metadata["choices"]
    text = option.metadata["help"]
    if "default" not in text and option.name != "shuffle_labels" and option.default != ():
        text += f" (default {option.default})"
    kind = {"int": int, "float": float}.get(str(option.type), str)
    parser.add_argument(
        option_name(option.name),
        type=kind,
        choices=choices or None,
        metavar=None if choices else {int: "N", float: "X"}.get(kind, "LIST" if option.default == () else "NAME"),
        help=text,
        default=",".join(option.default) if option.default == () else option.default,
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, found {value}")
    return value


def _read_recipe(chosen: argparse.Namespace) -> Recipe:
    from train.protocols import read_subject_list

    values = {option.name: getattr(chosen, option.name) for option in dataclasses.fields(Recipe)}
    for name in ("classes", "modalities"):
        values[name] = tuple(part.strip() for part in values[name].split(",")) if values[name] else ()
    values["test_subjects"] = read_subject_list(values["test_subjects"]) if values["test_subjects"] else ()
    return Recipe(**values)


# torch is imported only once a command is known to be meant: --help answers at once.


def _fit(chosen: argparse.Namespace) -> int:
    recipe = _read_recipe(chosen)
    from train.evaluate import print_next
    from train.fit import fit

    code = fit(chosen.out, chosen.cache, recipe, device=chosen.device, checkpoint_every=chosen.checkpoint_every)
    if code == 0:
        print_next(chosen.out)
    return code


def _evaluate(chosen: argparse.Namespace) -> int:
    from train.evaluate import evaluate

    return evaluate(chosen.trained, chosen.cache, device=chosen.device)


def _predict(chosen: argparse.Namespace) -> int:
    if chosen.out is not None and chosen.out.is_dir():
        raise FacetError(f"--out {chosen.out}: is a folder; give the name of a CSV file")
    from train.evaluate import predict

    return predict(chosen.trained, chosen.cache, chosen.out, device=chosen.device)


if __name__ == "__main__":
    sys.exit(run_command_line(main))
