"""The command line of stage 2: python -m train COMMAND; train/arguments.py says what each takes."""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from shared.command_line import join_angles, print_next
from shared.errors import FacetError, run_command_line
from train.arguments import build_parser
from train.config import Options, RunOptions
from train.option_parser import read_options
from train.resolve import resolve_embeddings
from train.training.signals import Terminated, raise_on_sigterm

if TYPE_CHECKING:
    from train.studies.crossval.run import CrossvalOptions


def main(arguments: list[str] | None = None) -> int:
    chosen = build_parser().parse_args(join_angles(sys.argv[1:] if arguments is None else arguments))
    if hasattr(sys.stdout, "reconfigure"):  # in a log file lines stand when they are said, not when all is over
        sys.stdout.reconfigure(line_buffering=True)
    if os.environ.get("WORLD_SIZE", "1") != "1":
        if chosen.command != "fit":
            raise FacetError("torchrun: is for `python -m train fit` alone; call this command without it")
        # before torch is imported: each process would say that none of this tower's weights is unused
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    run = {
        "fit": _fit,
        "crossval": _crossval,
        "ablate": _ablate,
        "embed": _embed,
        "protocols": _protocols,
        "evaluate": _evaluate,
        "predict": _predict,
        "export": _export,
        "report": _report,
        "verify": _verify,
        "compare": _compare,
    }
    if chosen.command not in ("fit", "crossval", "ablate", "embed"):
        return run[chosen.command](chosen)
    try:
        with raise_on_sigterm():
            code = run[chosen.command](chosen)
    except Terminated:
        if os.environ.get("RANK", "0") == "0":
            print(
                "\nstopped by SIGTERM: what is finished is kept; run the same command again to go on", file=sys.stderr
            )
        return 0
    return 0 if code == 128 + signal.SIGTERM else code  # whoever asked it to stop was obeyed, and nothing is lost


def _read_training(chosen: argparse.Namespace) -> tuple[Options, RunOptions]:
    """
    Raises:
        FacetError: an option is out of its range, or there is no cache.
    """
    options, run = read_options(chosen)
    if run.cache is None:
        raise FacetError("--cache: give the folder of a finished cache")
    return options, run


# torch is imported only once the options are known to be valid: --help answers at once.


def _fit(chosen: argparse.Namespace) -> int:
    options, run = _read_training(chosen)
    from train.experiment import prepare_experiment
    from train.runs.evaluate import print_next_predict
    from train.training.distributed import open_ranks
    from train.training.fit import fit
    from train.training.loop import Monitoring

    with open_ranks(run.device) as ranks:
        options, embeddings, notes = resolve_embeddings(options, run.embeddings, chosen.out)
        assert run.cache is not None
        experiment = prepare_experiment(run.cache, run.test_cache, options, run.prompts)
        for line in (*(f"note: {note}" for note in notes), *experiment.describe()):
            print(line)
        code = fit(
            chosen.out,
            experiment,
            experiment.recipe.fold,
            device=run.device,
            checkpoint_every=run.checkpoint_every,
            keep_checkpoints=run.keep_checkpoints,
            ranks=ranks,
            watch=Monitoring(run.tensorboard, run.profile),
            embeddings=embeddings,
            preload=run.preload,
        )
        if code == 0:
            print_next_predict(chosen.out, experiment.train.path)
    return code


def _crossval(chosen: argparse.Namespace) -> int:
    options, run, only = _read_crossval(chosen)
    options, embeddings, notes = resolve_embeddings(options, run.embeddings, chosen.out)
    for note in notes:
        print(f"note: {note}")
    from train.studies.crossval.run import crossval

    assert run.cache is not None
    how = _crossval_options(run, only, embeddings)
    return crossval(chosen.out, run.cache, run.test_cache, options, how, run.prompts)


def _ablate(chosen: argparse.Namespace) -> int:
    options, run, only = _read_crossval(chosen)
    from train.studies.ablation.variants import read_chosen

    variants = read_chosen(chosen.variants, chosen.variant)
    for note in resolve_embeddings(options, run.embeddings, chosen.out)[2]:
        print(f"note: {note}")

    def choose_embeddings(variant: Options) -> tuple[Options, Path | None]:
        if variant.tune != "frozen" and options.tune == "frozen":  # --embeddings is meant for the others
            return variant, None
        return resolve_embeddings(variant, run.embeddings, chosen.out)[:2]

    from train.studies.ablation.run import ablate

    assert run.cache is not None
    caches, how = (run.cache, run.test_cache), _crossval_options(run, only, None)
    return ablate(chosen.out, caches, options, variants, chosen.seeds, how, choose_embeddings, run.prompts)


def _read_crossval(chosen: argparse.Namespace) -> tuple[Options, RunOptions, int | None]:
    """Read the options that all folds have in common, and the index of the only fold to train; None: all."""
    options, run = _read_training(chosen)
    if options.test_subjects:
        raise FacetError("--test-subjects: is one test; use `python -m train fit`, or a file of folds as --protocol")
    return dataclasses.replace(options, fold=None), run, options.fold


def _crossval_options(run: RunOptions, only: int | None, embeddings: Path | None) -> CrossvalOptions:
    from train.studies.crossval.run import CrossvalOptions

    return CrossvalOptions(
        run.device,
        run.jobs,
        only,
        run.checkpoint_every,
        not run.discard_weights,
        embeddings,
        run.preload,
        run.tensorboard,
    )


def _embed(chosen: argparse.Namespace) -> int:
    from train.training.build_embeddings import embed

    return embed(
        chosen.cache,
        chosen.out,
        model=chosen.model,
        pretrained=chosen.pretrained,
        modalities=tuple(part.strip() for part in chosen.modalities.split(",")) if chosen.modalities else (),
        seed=chosen.seed,
        device=chosen.device,
        mirrored=not chosen.no_mirrored,
    )


def _protocols(chosen: argparse.Namespace) -> int:
    from train.protocols.named import DEFAULT_PROTOCOL, describe_protocol, describe_protocols, find_protocol

    if chosen.name is None:
        if chosen.cache or chosen.export:
            raise FacetError("--cache and --export: name the protocol too")
        print(describe_protocols(), end="")
        print_next("train", "protocols", DEFAULT_PROTOCOL, about="one in detail")
        return 0
    print(describe_protocol(find_protocol(chosen.name)), end="")
    if (chosen.cache is None) and chosen.export:
        raise FacetError("--export: give the --cache whose subjects are to be dealt into folds")
    if chosen.cache is not None:
        from shared.cache import open_cache
        from train.experiment import split_folds
        from train.protocols.folds import write_folds

        dealt = split_folds(open_cache(chosen.cache), Options(protocol=chosen.name, seed=chosen.seed))
        for note in dealt.notes:
            print(f"note: {note}")
        for fold in dealt.folds.folds[: 20 if chosen.export is None else 0]:
            print(f"  {fold.name}: tests {', '.join(fold.test_subjects)}")
        if chosen.export is not None:
            write_folds(chosen.export, dealt.folds)
            print(f"{len(dealt.folds.folds)} folds: {chosen.export}")
            cache, folds = chosen.cache, chosen.export
            print_next("train", "crossval", "--cache", cache, "--protocol", folds, "--out", f"runs/{chosen.name}")
    return 0


def _evaluate(chosen: argparse.Namespace) -> int:
    from train.runs.evaluate import evaluate

    return evaluate(chosen.trained, chosen.cache, device=chosen.device)


def _predict(chosen: argparse.Namespace) -> int:
    if chosen.out is not None and chosen.out.is_dir():
        raise FacetError(f"--out {chosen.out}: is a folder; give the name of a CSV file")
    from train.runs.evaluate import predict

    return predict(chosen.trained, chosen.cache, chosen.out, device=chosen.device)


def _export(chosen: argparse.Namespace) -> int:
    from train.runs.export import export

    return export(chosen.trained, chosen.out, program=chosen.program)


def _report(chosen: argparse.Namespace) -> int:
    from train.reporting.html.report import write_html_report

    return write_html_report(
        chosen.runs, chosen.out, faces=not chosen.no_faces, num_worst=chosen.worst, caches=chosen.cache
    )


def _verify(chosen: argparse.Namespace) -> int:
    from train.runs.verify import verify_run

    problems, num_files = verify_run(chosen.run)
    for problem in problems:
        print(problem)
    if problems:
        print(f"{chosen.run}: {len(problems)} problems; copy the run again, or fit again")
        return 1
    print(f"{chosen.run}: {num_files} files, every byte as it was written")
    return 0


def _compare(chosen: argparse.Namespace) -> int:
    from train.studies.compare.command import compare

    return compare(chosen.runs, chosen.out, names=chosen.name, baseline=chosen.baseline)


if __name__ == "__main__":
    sys.exit(run_command_line(main))
