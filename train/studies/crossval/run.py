"""`python -m train crossval`: every fold of a protocol, each a run of its own, then one report."""

from __future__ import annotations

import sys
from pathlib import Path

from tqdm import tqdm

from shared.cache import Cache
from shared.command_line import print_next
from shared.errors import FacetError
from shared.runs import CONFIG_JSON, CONFIG_TOML, CROSSVAL_JSON, FOLDS_JSON, TABLE_TEX, WEIGHTS, record_hashes
from shared.store.lock import hold_lock
from shared.store.storage import make_folder
from shared.weights.models import LOCAL_DIR
from train.config import read_config, without_folders, write_config
from train.experiment import Experiment, prepare_experiment, write_options
from train.inference.predict import print_next_predict
from train.option_values import format_value
from train.options import Options, RunOptions, describe_options
from train.protocols.folds import EVERYONE, Fold, read_folds, write_folds
from train.protocols.named import DEFAULT_PROTOCOL, PROTOCOLS, describe_title
from train.reporting.calibration import calibrate_folds
from train.reporting.crossval import format_crossval_report, write_crossval_report
from train.reporting.scores import format_score
from train.reporting.summary import CrossvalAbout, summarise_folds
from train.resolve import split_off_fold
from train.runs.out_folder import check_same_settings, check_unused
from train.runs.results import FoldResult, read_fold_result, read_tested
from train.studies.crossval.workers import Job, run_jobs
from train.tasks.task import find_task
from train.trackers.open import check_trackers, list_settings, show_crossval
from train.training.identity import describe_run
from train.training.optimizer import describe_rates


def crossval(out: Path, options: Options, run: RunOptions, *, brief: bool = False) -> int:
    """Run or resume all folds, or one, and write the report of those that are finished.

    Args:
        options: with the index of a fold, only this fold is trained. brief: print scores only, for one run of several.
    Returns:
        0; 1 where folds failed (they are listed); 128 + the signal's number after SIGINT or SIGTERM.
    Raises:
        FacetError, CacheError: anything the user can correct before training starts.
    """
    check_trackers(run.log)
    options, only = split_off_fold(options)
    experiment = prepare_experiment(options, run, out)
    folds = experiment.folds.folds
    if not all(fold.test_subjects for fold in folds):
        raise FacetError(f"{EVERYONE}: this fold tests nobody; use `python -m train fit`")
    experiment.check_folds(only)
    if not check_same_crossval(out, experiment):
        begin_folds(out, experiment)
    if not brief:
        announce_folds(experiment)
    todo = [n for n in range(len(folds)) if only in (None, n) and _read_result(out, folds[n]) is None]
    for number in todo:
        experiment.find_initial(folds[number])  # refuses a model that was trained on people whom the fold tests
    done = len(folds) - len(todo)
    if done and only is None:
        print(f"{done} of {len(folds)} folds are finished already")
    job = Job(out, experiment.options, experiment.run)
    failures: dict[str, str] = {}
    code = 0
    with tqdm(total=len(folds), initial=done, desc="folds", unit="fold", dynamic_ncols=True, disable=None) as bar:
        for number, outcome in run_jobs(job, experiment, todo):
            name = folds[number].name
            if outcome.code:
                code = outcome.code
                break
            if outcome.error:
                failures[name] = outcome.error
                bar.write(f"{name} failed: {outcome.error}", file=sys.stderr)
            else:
                result = _read_result(out, folds[number])
                assert result is not None
                bar.write(_describe_result(result), file=sys.stdout)
            bar.update()
    if code:
        print("stopped; the same command goes on with the folds that are left", file=sys.stderr)
        return code
    return _report(out, experiment, failures, run.name, brief=brief, is_changed=bool(todo))


def check_same_crossval(out: Path, experiment: Experiment, name: str = CROSSVAL_JSON) -> bool:
    """Return whether a folder holds folds of this experiment; False for a new folder.

    Args:
        name: the file with the settings.
    Raises:
        FacetError: it holds something else.
    """
    config = describe_run(experiment, None)
    if (out / name).is_file():
        names = config.differences(read_config(out, name))
        if not names and read_folds(out / FOLDS_JSON).folds != experiment.folds.folds:
            names = ["the subjects of the folds"]
        check_same_settings(out, "folds", names)
        return True
    for other, what in ((CONFIG_JSON, "is the run of one fold"), (CROSSVAL_JSON, "is a cross-validation")):
        if (out / other).is_file():
            raise FacetError(f"{out}: {what}; choose another --out")
    what = "cross-validation" if name == CROSSVAL_JSON else "ablation"
    check_unused(out, what, name, (FOLDS_JSON, CONFIG_TOML))
    return False


def begin_folds(out: Path, experiment: Experiment, name: str = CROSSVAL_JSON) -> None:
    """Make the folder of a cross-validation: the subjects of the folds, the options, and the settings, in file `name`."""
    make_folder(out, like=experiment.train.path)
    write_folds(out / FOLDS_JSON, experiment.folds)
    write_options(out, experiment, None)
    write_config(out, describe_run(experiment, None), name)
    record_hashes(out, (FOLDS_JSON, name))


def announce_folds(experiment: Experiment) -> None:
    """Print the protocol, the test data and the notes on it."""
    recipe, folds = experiment.recipe, experiment.folds
    protocol = PROTOCOLS.get(recipe.protocol)
    print(f"{recipe.protocol}: {_title(experiment) if protocol else 'folds from a file'}")
    items = {item.index for item in experiment.test_items}
    print(
        f"{folds.dataset}: {len(folds.folds)} folds, {len(folds.subjects)} subjects, {len(items)} {_unit(experiment)}s tested; "
        f"classes {', '.join(recipe.classes)}"
    )
    print(describe_rates(recipe))
    for line in experiment.describe():
        print(line)


def _read_result(out: Path, fold: Fold) -> FoldResult | None:
    return read_fold_result(out / fold.name, fold.name)


def _describe_result(result: FoldResult) -> str:
    known = ((score.short_title, result.metrics[score.name]) for score in result.task.scores)
    text = ", ".join(f"{title} {value:.3f}" for title, value in known if value is not None)
    seconds = "" if result.seconds is None else f" ({result.seconds:.0f} s)"
    return f"{result.name}: {text}, {result.metrics.num_samples} samples{seconds}"


def _report(
    out: Path, experiment: Experiment, failures: dict[str, str], name: str | None, *, brief: bool, is_changed: bool
) -> int:
    """Write and print the report of the finished folds. Array jobs that end together take turns.

    Args:
        is_changed: some of these folds were trained just now.
    """
    with hold_lock(out / ".lock"):
        found = {fold.name: _read_result(out, fold) for fold in experiment.folds.folds}
        results = [result for result in found.values() if result is not None]
        if results:
            tests = {result.name: read_tested(out / result.name, result) or [] for result in results}
            task, classes = results[0].task, results[0].class_names
            summary = summarise_folds(results, calibrate_folds(task, experiment.folds.folds, tests, classes))
            missing_folds = [fold for fold, result in found.items() if result is None]
            about = describe_crossval(experiment, missing_folds, failures, name)
            figures = write_crossval_report(out, summary, results, about)
            if not missing_folds:
                shown = {f"pooled/{score.name}": summary.pooled[score.name] for score in summary.task.scores}
                for score, spread in summary.over_folds.items():
                    shown |= {f"mean/{score}": spread.mean, f"std/{score}": spread.std}
                settings = list_settings(describe_run(experiment, None))
                show_crossval(out, experiment.run.log, settings, shown, is_changed=is_changed)
            if brief:
                scores = ", ".join(
                    f"{score.short_title} {format_score(score, summary.pooled[score.name])}"
                    for score in summary.task.scores
                )
                unit = ", in %" * (task.primary.kind == "percent")
                print(f"{len(results)} folds, pooled{unit}: {scores}; {out}/report.txt")
            else:
                print(format_crossval_report(summary, results, about))
                print(f"report    {out}/report.txt, .json")
                print(f"figures   {out}/{', '.join(figures)}, each .png and .pdf")
                print(f"tables    {out}/folds.csv, table.csv; for a paper {out / TABLE_TEX}")
    if missing := len(found) - len(results):
        print(f"{missing} of {len(found)} folds are left: the same command, without --fold, trains them")
    elif brief:
        pass
    elif (out / results[0].name / WEIGHTS).is_file():
        print_next_predict(out / results[0].name, experiment.train.path)
    else:
        print_next("train", "report", out, "--out", f"{out}.html", about="all about it in one file")
    for name, message in failures.items():
        print(f"failed: {name}: {message}", file=sys.stderr)
    return 1 if failures else 0


def describe_crossval(
    experiment: Experiment, missing: list[str], failures: dict[str, str], name: str | None
) -> CrossvalAbout:
    """Return what a report says besides the scores.

    Args:
        missing: folds without a result. failures: why, by fold. name: of the method in tables; None: that of the model.
    """
    recipe, folds = experiment.recipe, experiment.folds
    protocol = PROTOCOLS.get(recipe.protocol, PROTOCOLS[DEFAULT_PROTOCOL])
    shown = without_folders(describe_run(experiment, None)).recipe
    contents = [f"{cache.info.dataset}, content {cache.info.content_hash[:16]}" for cache in _caches(experiment)]
    return CrossvalAbout(
        protocol=recipe.protocol,
        title=_title(experiment),
        source=protocol.source,
        datasets=[cache.info.dataset for cache in _caches(experiment)],
        licence="; ".join(dict.fromkeys(cache.info.licence for cache in (experiment.train, experiment.test))),
        unit=_unit(experiment),
        model=shown.model.removeprefix(LOCAL_DIR),
        pretrained=shown.pretrained,
        modalities=list(recipe.modalities),
        views=experiment.train.info.settings.views_text(),
        seed=recipe.seed,
        epochs=recipe.epochs,
        num_folds=len(folds.folds),
        missing_folds=missing,
        num_rounds=len({fold.round for fold in folds.folds}),
        num_rounds_published=protocol.num_rounds,
        label_map=experiment.label_map,
        validate=format_value(recipe.validate),
        notes=[
            f"Options: {describe_options(shown)}",
            f"Data: {'; '.join(contents)} (content_hash of cache.json).",
            *experiment.notes,
            *(f"{fold} failed: {message}" for fold, message in failures.items()),
        ],
        method=name or "",
        f1_name=protocol.f1_name,
    )


def _caches(experiment: Experiment) -> list[Cache]:
    return [experiment.train] if experiment.label_map is None else [experiment.train, experiment.test]


def _title(experiment: Experiment) -> str:
    """Return the protocol's title with the data sets and the number of folds."""
    protocol = PROTOCOLS.get(experiment.recipe.protocol, PROTOCOLS[DEFAULT_PROTOCOL])
    folds = experiment.folds.folds
    num_rounds = len({fold.round for fold in folds})
    return describe_title(
        protocol,
        [cache.info.dataset for cache in _caches(experiment)],
        num_folds=len(folds) // num_rounds,
        num_rounds=num_rounds,
    )


def _unit(experiment: Experiment) -> str:
    cache = experiment.test
    if not (any(cache.samples[i.rows[0]].sequence for i in experiment.test_items) or cache.info.settings.dynamic):
        return "scan"
    return "frame" if find_task(experiment.recipe.task).every_frame else "sequence"
