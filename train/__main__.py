"""The command line of stage 2: python -m train COMMAND; train/arguments.py says what each takes."""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from shared.command_line import join_angles, print_next
from shared.errors import FacetError, run_command_line
from train.arguments import ZERO_SHOT_OPTIONS, build_parser
from train.option_parser import read_options
from train.option_values import option_name
from train.options import Options, RunOptions
from train.pretraining.options import PretrainOptions
from train.training.signals import Terminated, raise_on_sigterm

RESUMABLE = ("fit", "crossval", "ablate", "embed", "pretrain")  # stop after SIGTERM and continue later


def main(arguments: list[str] | None = None) -> int:
    words = join_angles(sys.argv[1:] if arguments is None else arguments)
    chosen = build_parser().parse_args(words)
    if hasattr(sys.stdout, "reconfigure"):  # so that lines reach a log file as they are printed
        sys.stdout.reconfigure(line_buffering=True)
    if os.environ.get("WORLD_SIZE", "1") != "1":
        if chosen.command != "fit":
            raise FacetError("torchrun: is for `python -m train fit` alone; call this command without it")
        # before torch is imported: each process would warn that weights of the tower are unused
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if getattr(chosen, "sweep", None):
        from train.studies.sweep import choose_run

        run = choose_run(chosen, words, _parse)
        if run is None:
            return 0
        chosen = run
    elif getattr(chosen, "sweep_index", None) is not None:
        raise FacetError("--sweep-index: is the number of a run of a grid; add --sweep GRID.toml")
    if chosen.command not in RESUMABLE:
        return _run(chosen)
    try:
        with raise_on_sigterm():
            code = _run(chosen)
    except Terminated:
        if os.environ.get("RANK", "0") == "0":
            print("\nstopped by SIGTERM; run the same command again to continue", file=sys.stderr)
        return 0
    return 0 if code == 128 + signal.SIGTERM else code  # SIGTERM was obeyed, and nothing is lost


def _parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse a command of fit or crossval, and check its options."""
    chosen = build_parser().parse_args(words)
    read_options(chosen)
    return chosen


def _run(chosen: argparse.Namespace) -> int:
    """Run a command. torch is imported only by the commands that need it: --help answers at once."""
    values = vars(chosen)
    match values.pop("command"):
        case "fit":
            return _fit(chosen)
        case "crossval":
            return _crossval(chosen)
        case "ablate":
            return _ablate(chosen)
        case "protocols":
            return _protocols(**values)
        case "embed":
            from train.training.build_embeddings import embed

            return embed(**values)
        case "pretrain":
            return _pretrain(chosen)
        case "evaluate":
            from train.inference.evaluate import evaluate

            return evaluate(**values)
        case "predict":
            return _predict(chosen)
        case "export":
            from train.inference.export import export

            return export(**values)
        case "report":
            from train.reporting.html.report import write_html_report

            return write_html_report(**values)
        case "diff":
            from train.reporting.diff import diff

            return diff(**values)
        case "compare":
            from train.studies.compare.command import compare

            return compare(**values)
        case _:
            return _verify(**values)


def _fit(chosen: argparse.Namespace) -> int:
    options, run = read_options(chosen)
    from train.experiment import prepare_experiment
    from train.inference.predict import print_next_predict
    from train.training.distributed import open_ranks
    from train.training.fit import fit

    with open_ranks(run.device) as ranks:
        experiment = prepare_experiment(options, run, chosen.out)
        for line in experiment.describe():
            print(line)
        code = fit(chosen.out, experiment, experiment.recipe.fold, device=run.device, ranks=ranks)
        if code == 0 and experiment.folds.folds[0].test_subjects:
            print_next_predict(chosen.out, experiment.train.path)
        elif code == 0:
            print_next("train", "export", chosen.out, "--out", f"{chosen.out}-export", about="a model to pass on")
    return code


def _crossval(chosen: argparse.Namespace) -> int:
    options, run = read_options(chosen, all_folds=True)
    from train.studies.crossval.run import crossval

    return crossval(chosen.out, options, run)


def _ablate(chosen: argparse.Namespace) -> int:
    options, run = read_options(chosen, all_folds=True)
    from train.studies.ablation.variants import read_chosen

    variants = read_chosen(chosen.variants, chosen.variant)
    from train.studies.ablation.run import ablate

    return ablate(chosen.out, options, run, variants, chosen.seeds)


def _predict(chosen: argparse.Namespace) -> int:
    values = vars(chosen)
    zero_shot = values.pop("zero_shot")
    if zero_shot == (chosen.run is not None):
        raise FacetError("predict: give a RUN, or --zero-shot without one")
    adapt = values.pop("adapt")
    given = {option.name: values.pop(option.name) for option in ZERO_SHOT_OPTIONS if option.name in values}
    form = values.pop("form")
    if form and chosen.explained is None:
        raise FacetError("--format: is for the pictures of --explain; give it too")
    if not zero_shot:
        if given or not adapt:
            raise FacetError(f"{option_name(next(iter((*given, 'no_adapt'))))}: is for --zero-shot; a RUN has its own")
        from train.inference.predict import predict

        return predict(**values, form=form or "png")
    if chosen.explained is not None:
        raise FacetError("--explain: is for a RUN, not for --zero-shot")
    if chosen.out is None:
        raise FacetError("--out: give the folder that the predictions are written to")
    run = RunOptions(cache=chosen.cache_path, prompts=given.pop("prompts", None), device=chosen.device)
    from train.studies.zero_shot import predict_zero_shot

    return predict_zero_shot(Options(**given), run, chosen.out, adapt=adapt, centre=chosen.centre)


def _pretrain(chosen: argparse.Namespace) -> int:
    names = {option.name for option in dataclasses.fields(PretrainOptions)}
    values = vars(chosen)
    del values["config"]
    options = PretrainOptions(**{name: values.pop(name) for name in names & values.keys()})
    from train.pretraining.pretrain import pretrain

    return pretrain(options=options, **values)


def _protocols(name: str | None, cache: Path | None, folds: int | None, export: Path | None, seed: int) -> int:
    """List the protocols, describe one, or split the subjects of a cache by it."""
    from train.protocols.named import DEFAULT_PROTOCOL, describe_protocol, describe_protocols, find_protocol

    if (cache and name is None) or ((export or folds) and cache is None):
        raise FacetError(
            "--folds, --export: need --cache, the cache whose subjects are split; --cache: needs a protocol's name"
        )
    if name is None:
        print(describe_protocols(), end="")
        print_next("train", "protocols", DEFAULT_PROTOCOL, about="one in detail")
        return 0
    print(describe_protocol(find_protocol(name)), end="")
    if cache is None:
        return 0
    from shared.cache import open_cache
    from train.protocols.folds import write_folds
    from train.split import split_folds

    split = split_folds(open_cache(cache), Options(protocol=name, folds=folds, seed=seed))
    for note in split.notes:
        print(f"note: {note}")
    if export is None:
        for fold in split.folds.folds[:20]:
            print(f"  {fold.name}: tests {', '.join(fold.test_subjects)}")
        return 0
    write_folds(export, split.folds)
    print(f"{len(split.folds.folds)} folds: {export}")
    print_next("train", "crossval", "--cache", cache, "--protocol", export, "--out", f"runs/{name}")
    return 0


def _verify(run: Path) -> int:
    from train.runs.verify import verify_run

    problems, num_files = verify_run(run)
    for problem in problems:
        print(problem)
    if problems:
        print(f"{run}: {len(problems)} problems; copy the run again, or fit again")
        return 1
    print(f"{run}: {num_files} files, all equal to what was written")
    return 0


def run() -> int:
    """Run the command line: `python -m train`, or `facet-train` where it is installed."""
    return run_command_line(main)


if __name__ == "__main__":
    sys.exit(run())
