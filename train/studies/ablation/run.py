"""`python -m train ablate`: a cross-validation of each variant and seed, all on the same folds, then one table."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.command_line import print_next
from shared.errors import FacetError
from shared.runs import ABLATION_CSV, ABLATION_JSON, ABLATION_TEX, FOLDS_JSON, REPORT_JSON
from train.experiment import Experiment, prepare_experiment
from train.options import Options, RunOptions
from train.protocols.folds import FoldList, write_folds
from train.resolve import split_off_fold
from train.runs.results import FoldResult, read_fold_result
from train.studies.ablation.report import Cost, format_ablation, measure_cost, summarise_ablation, write_ablation
from train.studies.ablation.variants import FULL, Chosen, Variant, change_options, list_variants, run_name
from train.studies.compare.comparison import Comparison, compare_methods
from train.studies.compare.runs import read_methods
from train.studies.crossval.run import announce_folds, begin_folds, check_same_crossval, crossval, describe_crossval


@dataclass(frozen=True)
class _Planned:
    """A variant, ready to train with any seed."""

    variant: Variant
    options: Options  # as chosen, but for the folds
    prepared: Experiment  # with the first seed; without its items, which would stand in memory once a variant


def ablate(out: Path, options: Options, run: RunOptions, chosen: Chosen, num_seeds: int) -> int:
    """Run or resume a cross-validation of every variant and seed, and write the table of what is finished.

    Subjects are split once, by the first seed, into OUT/folds.json, which is the protocol of every run.

    Args:
        options: the full model's; its seed is the first of num_seeds. With the index of a fold, only this fold is trained.
    Returns:
        0; 1 where folds failed (they are listed); 128 + the signal's number after SIGINT or SIGTERM.
    Raises:
        FacetError, CacheError: anything the user can correct, before training starts.
    """
    options, only = split_off_fold(options)
    experiment = prepare_experiment(options, run, out)
    experiment.check_folds(only)
    begun = check_same_crossval(out, experiment, ABLATION_JSON)
    full, *others = list_variants(chosen, experiment.recipe.modalities)
    variants = [dataclasses.replace(full, label=run.name or full.label), *others]
    options = dataclasses.replace(options, fold_seed=experiment.recipe.fold_seed)  # for all seeds
    planned, notes = _plan(out, options, run, variants, experiment)
    seeds = [options.seed + number for number in range(num_seeds)]
    _check_runs(out, planned, seeds)
    if not begun:
        begin_folds(out, experiment, ABLATION_JSON)
    announce_folds(experiment)
    for note in notes:
        print(f"note: {note}")
    code = _train(out, planned, seeds, only)
    if code >= 128:
        return code
    _report(out, experiment, planned, seeds)
    return code


def _plan(
    out: Path, options: Options, run: RunOptions, variants: Sequence[Variant], experiment: Experiment
) -> tuple[list[_Planned], list[str]]:
    """Return the variants that differ, each checked as far as possible without training, and notes on those that do not."""
    planned: list[_Planned] = []
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as folder:  # OUT is made only once everything is known to be right
        write_folds(Path(folder) / FOLDS_JSON, experiment.folds)
        for variant in variants:
            changed = change_options(options, variant)
            is_tuned = options.tune == "frozen" and changed.tune != "frozen"
            how = dataclasses.replace(run, embeddings="auto") if is_tuned else run  # --embeddings is for the others
            try:
                prepared = prepare_experiment(_use_folds(changed, run, Path(folder) / FOLDS_JSON), how, out)
            except FacetError as error:
                if variant.name == FULL:
                    raise
                raise type(error)(f"variant {variant.name} ({variant.options}): {error}") from error
            same = [one.variant.name for one in planned if one.prepared.recipe == prepared.recipe]
            if same:
                notes.append(f"{variant.name} ({variant.options}) is left out: the settings are those of {same[0]}")
                continue
            if lost := _describe_lost(experiment, prepared):
                notes.append(f"{variant.name}: {lost}")
            slim = dataclasses.replace(
                prepared, train=experiment.train, test=experiment.test, train_items=(), test_items=()
            )
            planned.append(_Planned(variant, _use_folds(prepared.options, run, out / FOLDS_JSON), slim))
    if len(planned) < 2:
        raise FacetError(
            "--variants: there is nothing to compare the full model with; name others, or make one of your own with "
            "--variant NAME='OPTIONS'" + "".join(f"; {note}" for note in notes)
        )
    return planned, notes


def _use_folds(options: Options, run: RunOptions, folds: Path) -> Options:
    if run.test_cache is not None:  # all of another data set is tested: no subjects are split
        return options
    return dataclasses.replace(options, protocol=str(folds), folds=None, rounds=None)


def _describe_lost(full: Experiment, variant: Experiment) -> str:
    """Return how the variant's samples differ from the full model's; empty if they do not."""
    lost = []
    for number, what in enumerate(("trained on", "tested")):
        ours, fulls = (sum(len(one.items_of(f)[number]) for f in full.folds.folds) for one in (variant, full))
        if ours != fulls:
            lost.append(f"{ours:,} samples are {what} over all folds, with the full model {fulls:,}")
    return "; ".join(lost)


def _check_runs(out: Path, planned: Sequence[_Planned], seeds: Sequence[int]) -> None:
    """Check that every run's folder is empty or holds the same run.

    Raises:
        FacetError: a run's folder holds something else.
    """
    for one in planned:
        for seed in seeds:
            recipe = dataclasses.replace(one.prepared.recipe, seed=seed)
            experiment = dataclasses.replace(one.prepared, recipe=recipe)
            check_same_crossval(out / run_name(one.variant.name, seed, seeds[0]), experiment)


def _train(out: Path, planned: Sequence[_Planned], seeds: Sequence[int], only: int | None) -> int:
    """Train all variants with the first seed, then with the next, so that a comparison is possible early."""
    runs = [(one, seed) for seed in seeds for one in planned]
    failed = 0
    for number, (one, seed) in enumerate(runs, 1):
        folder = out / run_name(one.variant.name, seed, seeds[0])
        head = f"[{number}/{len(runs)}] {folder.name}: {one.variant.options or 'all parts'}; seed {seed}"
        if _is_finished(folder, one.prepared.folds):
            print(f"{head}: finished already")
            continue
        print(head)
        options = dataclasses.replace(one.options, seed=seed, fold=only)
        code = crossval(folder, options, dataclasses.replace(one.prepared.run, name=one.variant.title), brief=True)
        if code >= 128:
            return code
        failed |= code
    return failed


def _is_finished(run: Path, folds: FoldList) -> bool:
    """Return whether every fold is tested and in the report."""
    try:
        reported = json.loads((run / REPORT_JSON).read_bytes())["summary"]["num_folds"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    return reported == len(folds.folds) == len(_read_results(run, folds))


def _read_results(run: Path, folds: FoldList) -> list[FoldResult]:
    found = (read_fold_result(run / fold.name, fold.name) for fold in folds.folds)
    return [result for result in found if result is not None]


def _report(out: Path, experiment: Experiment, planned: Sequence[_Planned], seeds: Sequence[int]) -> None:
    """Write and print the table of the finished runs."""
    results = {
        (one.variant.name, seed): _read_results(out / run_name(one.variant.name, seed, seeds[0]), one.prepared.folds)
        for seed in seeds
        for one in planned
    }
    about = describe_crossval(experiment, [], {}, None)
    paired = _find_paired(results, planned, len(experiment.folds.folds))
    folders = [out / run_name(variant, seed, seeds[0]) for variant, seed in paired]
    several = len({variant for variant, _ in paired}) > 1
    comparison = _compare(folders, paired) if several else None
    costs = {one.variant.name: _measure_cost(out, one, results, seeds) for one in planned}
    ablation = summarise_ablation([one.variant for one in planned], results, about, costs, comparison)
    write_ablation(out, ablation, about)
    print()
    print(format_ablation(ablation))
    print(f"table     {out / ABLATION_CSV}; for a paper {out / ABLATION_TEX}")
    if several:  # compare pairs the samples of its runs
        names = {one.variant.name: one.variant.title for one in planned}
        named = [f"{names[variant]}={out / variant}" for variant, seed in paired if seed == seeds[0]]
        words = (*folders, *(word for name in named for word in ("--name", name)))
        print_next("train", "compare", *words, about="are the differences more than chance? With intervals")


def _find_paired(
    results: Mapping[tuple[str, int], list[FoldResult]], planned: Sequence[_Planned], num_folds: int
) -> list[tuple[str, int]]:
    """Return the finished runs that were tested on the full model's samples, variant by variant."""
    names = [one.variant.name for one in planned]
    full = {seed: _tested(folds) for (name, seed), folds in results.items() if name == FULL}
    return [
        (variant, seed)
        for variant, seed in sorted(results, key=lambda key: names.index(key[0]))
        if full[seed] == _tested(results[variant, seed]) and len(results[variant, seed]) == num_folds
    ]


def _compare(folders: Sequence[Path], paired: Sequence[tuple[str, int]]) -> Comparison | None:
    """Return the paired test against the full model; None if a run's files are no longer those of its test."""
    names = {variant: folder for (variant, _), folder in reversed(list(zip(paired, folders, strict=True)))}
    try:
        return compare_methods(read_methods(folders, list(names.items())))
    except FacetError as error:
        print(f"note: no paired test: {error}")
        return None


def _measure_cost(
    out: Path, one: _Planned, results: Mapping[tuple[str, int], list[FoldResult]], seeds: Sequence[int]
) -> Cost:
    name = one.variant.name
    folders = {seed: out / run_name(name, seed, seeds[0]) for seed in seeds}
    return measure_cost([(folders[seed] / fold.name, fold) for seed in seeds for fold in results[name, seed]])


def _tested(results: Sequence[FoldResult]) -> list[tuple[str, int]]:
    return sorted((result.name, result.metrics.num_samples) for result in results)
