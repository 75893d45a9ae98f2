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
from train.config import Recipe
from train.training.signals import Terminated, raise_on_sigterm
from train.training_options import read_lists

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


def _read_recipe(chosen: argparse.Namespace) -> Recipe:
    from train.protocols.folds import read_subject_list

    values = {option.name: getattr(chosen, option.name) for option in dataclasses.fields(Recipe)}
    values = read_lists(values)
    values["test_subjects"] = read_subject_list(values["test_subjects"]) if values["test_subjects"] else ()
    return Recipe(**values)


def _read_caches(chosen: argparse.Namespace) -> tuple[Path, Path | None]:
    if (chosen.train_cache is None) != (chosen.test_cache is None):
        raise FacetError("--train-cache A --test-cache B: are given together, or --cache DIR alone")
    return chosen.cache or chosen.train_cache, chosen.test_cache


def _choose_embeddings(
    chosen: argparse.Namespace, recipe: Recipe, *, quiet: bool = False
) -> tuple[Recipe, Path | None]:
    """The recipe as it is with embeddings, and their folder; None where images are read."""
    if not chosen.embeddings:
        raise FacetError("--embeddings: expected auto, off or a folder, found an empty name")
    if recipe.tune != "frozen":
        if chosen.embeddings not in ("auto", "off"):
            raise FacetError("--embeddings: are those of a tower that is not trained; add --tune frozen")
        return recipe, None
    if chosen.embeddings == "off":
        return recipe, None
    if recipe.mtgf_tokens == "patches":
        raise FacetError(
            "--mtgf-tokens patches: the embeddings that are kept of a frozen tower hold no patches; add --embeddings off to "
            "run it in every step, or train some of it (--tune lora)"
        )
    if recipe.augment == "standard":
        if not quiet:
            print("note: training from embeddings of images and their mirror images: --augment flip; see --embeddings")
        recipe = dataclasses.replace(recipe, augment="flip")
    if chosen.embeddings == "auto":
        return recipe, chosen.out.absolute().parent / "embeddings"
    return recipe, Path(chosen.embeddings)


# torch is imported only once a command is known to be meant: --help answers at once.


def _fit(chosen: argparse.Namespace) -> int:
    recipe = _read_recipe(chosen)
    caches = _read_caches(chosen)
    from train.experiment import prepare_experiment
    from train.runs.evaluate import print_next_predict
    from train.training.distributed import open_ranks
    from train.training.fit import fit
    from train.training.loop import Monitoring

    with open_ranks(chosen.device) as ranks:
        recipe, embeddings = _choose_embeddings(chosen, recipe)
        experiment = prepare_experiment(*caches, recipe, chosen.prompts)
        for line in experiment.describe():
            print(line)
        code = fit(
            chosen.out,
            experiment,
            recipe.fold,
            device=chosen.device,
            checkpoint_every=chosen.checkpoint_every,
            keep_checkpoints=chosen.keep_checkpoints,
            ranks=ranks,
            watch=Monitoring(chosen.tensorboard, chosen.profile),
            embeddings=embeddings,
            preload=chosen.preload,
        )
        if code == 0:
            print_next_predict(chosen.out, experiment.train.path)
    return code


def _crossval(chosen: argparse.Namespace) -> int:
    only, chosen.fold = chosen.fold, 0
    recipe = _read_crossval_recipe(chosen)
    caches = _read_caches(chosen)
    recipe, embeddings = _choose_embeddings(chosen, recipe)
    from train.studies.crossval.run import crossval

    return crossval(chosen.out, *caches, recipe, _read_crossval_options(chosen, only, embeddings), chosen.prompts)


def _ablate(chosen: argparse.Namespace) -> int:
    only, chosen.fold = chosen.fold, 0
    recipe = _read_crossval_recipe(chosen)
    caches = _read_caches(chosen)
    from train.studies.ablation.variants import read_chosen

    variants = read_chosen(chosen.variants, chosen.variant)
    _choose_embeddings(chosen, recipe)  # tells of it, once

    def choose_embeddings(variant: Recipe) -> tuple[Recipe, Path | None]:
        if variant.tune != "frozen" and recipe.tune == "frozen":  # --embeddings is meant for the others
            return variant, None
        return _choose_embeddings(chosen, variant, quiet=True)

    from train.studies.ablation.run import ablate

    options = _read_crossval_options(chosen, only, None)
    return ablate(chosen.out, caches, recipe, variants, chosen.seeds, options, choose_embeddings, chosen.prompts)


def _read_crossval_recipe(chosen: argparse.Namespace) -> Recipe:
    recipe = _read_recipe(chosen)
    if recipe.test_subjects:
        raise FacetError("--test-subjects: is one test; use `python -m train fit`, or a file of folds as --protocol")
    return recipe


def _read_crossval_options(chosen: argparse.Namespace, only: int | None, embeddings: Path | None) -> CrossvalOptions:
    from train.studies.crossval.run import CrossvalOptions

    return CrossvalOptions(
        chosen.device,
        chosen.jobs,
        only,
        chosen.checkpoint_every,
        not chosen.discard_weights,
        embeddings,
        chosen.preload,
        chosen.tensorboard,
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

        dealt = split_folds(open_cache(chosen.cache), Recipe(protocol=chosen.name, seed=chosen.seed))
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
