"""The runs to compare: read, checked that they can be paired, grouped into methods of several seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared.errors import FacetError, name_some
from shared.pairs import group_pairs
from shared.runs import FOLDS_JSON, Prediction
from shared.weights.models import LOCAL_DIR
from train.config import RunConfig, without_folders
from train.option_values import format_value, option_name
from train.options import Recipe
from train.protocols.folds import NOBODY, Fold, read_folds, read_split
from train.runs.results import RecordedFold, name_runs, read_recorded_run
from train.studies.compare.other_predictions import read_decisions, replace_decisions
from train.studies.compare.scores import PairWins, SubjectResults
from train.tasks.task import AUC, Task

# Not part of a method: the seed, over which runs are pooled, and what decides the folds, which are compared themselves.
_NOT_THE_METHOD = ("seed", "fold_seed", "protocol", "folds", "rounds", "fold", "test_subjects")
_FIELDS = tuple(field.name for field in dataclasses.fields(Recipe) if field.name not in _NOT_THE_METHOD)
_MOST_SETTINGS_IN_A_NAME = 3

Sample = tuple[str, str, str]  # round, subject, name
Truth = tuple[tuple[str, ...], tuple[str, ...]]  # true classes, classes of unknown truth


@dataclass(frozen=True)
class FinishedRun:
    """A finished run and its test."""

    path: Path
    name: str
    config: RunConfig
    class_names: tuple[str, ...]
    subjects: tuple[str, ...]  # of the test, in the order of the results
    folds: frozenset[Fold]  # of any names, but with their rounds
    samples: dict[Sample, Truth]
    results: SubjectResults
    licences: tuple[str, ...]
    is_file: bool = False  # predictions from a CSV file, on the samples of the first run, whose config stands here


@dataclass(frozen=True)
class Method:
    """Runs that differ in the seed alone, in the order of their seeds."""

    name: str
    runs: tuple[FinishedRun, ...]

    @property
    def results(self) -> list[SubjectResults]:
        return [run.results for run in self.runs]


def read_methods(paths: Sequence[Path], names: Sequence[tuple[str, Path]] = ()) -> list[Method]:
    """Read runs and group them into methods, in the order of their first runs.

    Args:
        names: of methods, each with one of its runs. Other methods are named by the settings in which they differ.
    Raises:
        FacetError: a folder holds no finished run or is given twice, a run cannot be paired with the first, or a name fits no
            single method.
    """
    runs: list[FinishedRun] = []
    groups: dict[tuple[object, ...], list[FinishedRun]] = {}
    if paths[0].is_file():
        raise FacetError(f"{paths[0]}: the first RUN must be a folder, whose test samples a file of predictions is for")
    for path, folder in zip(paths, name_runs(paths), strict=True):
        run = read_other_method(path, folder, runs[0]) if path.is_file() else read_finished_run(path, folder)
        if runs:
            check_paired(runs[0], run)
            run = dataclasses.replace(run, samples=runs[0].samples)  # equal: hold them once
        runs.append(run)
        group = groups.setdefault(_identify(run), [])
        if same := [other.path for other in group if other.config.recipe.seed == run.config.recipe.seed]:
            raise FacetError(f"{run.path}: has the same settings and seed as {same[0]}; leave one out")
        group.append(run)
    named = zip(_name_groups(list(groups.values()), names), groups.values(), strict=True)
    return [Method(name, tuple(sorted(group, key=lambda run: run.config.recipe.seed))) for name, group in named]


def _identify(run: FinishedRun) -> tuple[object, ...]:
    """Return a value that is equal for runs that differ in the seed alone."""
    if run.is_file:
        return (run.path,)
    tower = run.config.tower
    settings = tuple(getattr(run.config.recipe, name) for name in _FIELDS)
    return settings, run.config.text_hash, "" if tower.random_weights else tower.weights_hash  # random: from the seed


def read_finished_run(path: Path, name: str) -> FinishedRun:
    """Read a run of fit or crossval, and count its predictions.

    Raises:
        FacetError: no run here, a file is damaged, or folds or predictions are missing.
    """
    run = read_recorded_run(path, name)
    if run.split and not run.split[1]:
        raise FacetError(f"{path}: was trained on everyone (--test-subjects {NOBODY}), so it has no test to compare")
    if lacking := [fold.name for fold in run.folds if fold.result is None]:
        raise FacetError(
            f"{path}: {len(lacking)} of {len(run.folds)} folds are not tested yet ({name_some(lacking)}); finish the training "
            "with its first command"
        )
    if lacking := [fold.name for fold in run.folds if not fold.predictions]:
        raise FacetError(
            f"{path}: {name_some(lacking)}: no predictions.csv of this test; `python -m train evaluate` on the fold writes it"
        )
    first = run.results[0]
    if any(result.class_names != first.class_names for result in run.results):
        raise FacetError(f"{path}: its folds are of different classes; run crossval again in a new folder")
    folds = read_folds(path / FOLDS_JSON).folds if run.is_crossval else (read_split(path),)
    subjects = tuple(sorted({one.subject for fold in run.folds for one in fold.predictions}))
    return FinishedRun(
        path=path,
        name=run.name,
        config=run.config,
        class_names=first.class_names,
        subjects=subjects,
        folds=frozenset(
            dataclasses.replace(fold, name=f"{fold.round}/fold".lstrip("/"), validation_subjects=()) for fold in folds
        ),
        samples={
            (fold.round, one.subject, one.name): (one.labels, one.unknown)
            for fold, tested in zip(folds, run.folds, strict=True)
            for one in tested.predictions
        },
        results=count_subjects(folds, run.folds, subjects, first.class_names, first.task),
        licences=tuple(run.licences),
    )


def read_other_method(path: Path, name: str, first: FinishedRun) -> FinishedRun:
    """Read predictions that another program made of the test samples of a run; labels are those of the run.

    Raises:
        FacetError: as read_decisions and replace_decisions.
    """
    task, run = first.results.task, read_recorded_run(first.path, first.name)
    decisions = read_decisions(path, first.class_names, task)
    folds = read_folds(first.path / FOLDS_JSON).folds if run.is_crossval else (read_split(first.path),)
    tested = [
        dataclasses.replace(fold, predictions=replace_decisions(path, fold.predictions, decisions))
        for fold in run.folds
    ]
    results = count_subjects(folds, tested, first.subjects, first.class_names, task)
    if any(probabilities is None for _, probabilities in decisions.values()):  # no AUC then, of any method
        unknown = [dataclasses.replace(one, pairs=np.zeros_like(one.pairs)) for one in results.folds]
        results = dataclasses.replace(results, folds=tuple(unknown))
    return dataclasses.replace(first, path=path, name=name, results=results, is_file=True)


def count_subjects(
    folds: Sequence[Fold],
    tested: Sequence[RecordedFold],
    subjects: Sequence[str],
    class_names: Sequence[str],
    task: Task,
) -> SubjectResults:
    """Count the predictions of each subject, as SubjectResults describes."""
    rounds = sorted({fold.round for fold in folds})
    index = {subject: number for number, subject in enumerate(subjects)}
    num = len(class_names)
    shape = (len(rounds), len(subjects))
    counts = {name: np.zeros((*shape, *(num,) * num_dims)) for name, num_dims in task.count_dims.items()}
    wins = []
    for fold, tested_fold in zip(folds, tested, strict=True):
        for subject, predictions in group_pairs((one.subject, one) for one in tested_fold.predictions).items():
            for name, table in task.count(predictions, class_names).items():
                counts[name][rounds.index(fold.round), index[subject]] += table
        if AUC in task.compared:
            wins.append(_count_wins(tested_fold.predictions, index, class_names))
    return SubjectResults(task, counts, tuple(wins))


def _count_wins(predictions: Sequence[Prediction], index: dict[str, int], class_names: Sequence[str]) -> PairWins:
    subjects, rows = np.unique([index[one.subject] for one in predictions], return_inverse=True)
    num = len(subjects)
    scores = np.array([one.probabilities for one in predictions])
    wins, pairs = np.zeros((2, len(class_names), num, num))
    for label, name in enumerate(class_names):
        positive = np.array([name in one.labels for one in predictions])
        negative = ~positive & np.array([name not in one.unknown for one in predictions])
        for column in range(num):
            others = np.sort(scores[negative & (rows == column), label])
            below, not_above = (np.searchsorted(others, scores[positive, label], side) for side in ("left", "right"))
            wins[label, :, column] = np.bincount(rows[positive], (below + not_above) / 2, num)
            pairs[label, :, column] = np.bincount(rows[positive], minlength=num) * len(others)
    return PairWins(subjects, wins, pairs)


def check_paired(first: FinishedRun, other: FinishedRun) -> None:
    """Check that two runs were tested on the same samples after the same split.

    Raises:
        FacetError: they were not; names the difference.
    """

    def refuse(problem: str) -> FacetError:
        return FacetError(f"{other.path}: cannot be paired with {first.path}: {problem}")

    tasks = [run.results.task.name for run in (other, first)]
    if tasks[0] != tasks[1]:
        raise refuse(f"its --task is {tasks[0]}, not {tasks[1]}; train both with the same")
    if other.class_names != first.class_names:
        names = [", ".join(run.class_names) for run in (other, first)]
        raise refuse(f"its classes are {names[0]}, not {names[1]}; train both with the same --classes")
    for name, what in (("content_hash", "cache"), ("test_content_hash", "test cache")):
        if getattr(other.config, name) != getattr(first.config, name):
            raise refuse(f"its {what} holds other content; train both on one cache")
    if other.folds != first.folds:
        tested, wanted = ({(fold.round, fold.test_subjects) for fold in run.folds} for run in (other, first))
        what = (
            "the same people are tested, but others train" if tested == wanted else "other people are tested together"
        )
        folds = first.path / FOLDS_JSON
        same = f", or with --protocol {folds}" if folds.is_file() else ""
        raise refuse(f"its folds differ ({what}); --seed splits them too: train all with one --fold-seed{same}")
    if other.samples != first.samples:
        alone = sorted(other.samples.keys() ^ first.samples.keys())
        named = alone or sorted(key for key, truth in first.samples.items() if other.samples[key] != truth)
        how = "tested in only one of them" if alone else "labelled differently"
        raise refuse(f"{len(named)} samples are {how} ({name_some([name for _, _, name in named], 3)})")


# --- names of methods ---


def _name_groups(groups: Sequence[Sequence[FinishedRun]], names: Sequence[tuple[str, Path]]) -> list[str]:
    """Return the chosen names, and for other groups the settings in which they differ; each once."""
    chosen: dict[int, str] = {}
    for name, path in names:
        found = [n for n, group in enumerate(groups) if path.resolve() in [run.path.resolve() for run in group]]
        if not found:
            raise FacetError(f"--name {name}={path}: is none of the runs that are compared; name one of them")
        if not name.strip() or not name.isprintable():
            raise FacetError(f"--name {name!r}={path}: expected a name that can be printed")
        if chosen.setdefault(found[0], name) != name:
            raise FacetError(
                f"--name {name}={path}: this method has the name {chosen[found[0]]} already; give it one name"
            )
        if list(chosen.values()).count(name) > 1:
            raise FacetError(f"--name {name}: names two methods, which differ in more than the seed; give each its own")
    texts = [chosen.get(number, text) for number, text in enumerate(_describe_groups(groups))]
    return [
        text if texts.count(text) == 1 or number in chosen else f"{text} ({groups[number][0].name})"
        for number, text in enumerate(texts)
    ]


def _describe_groups(groups: Sequence[Sequence[FinishedRun]]) -> list[str]:
    """Describe the first group by the settings that vary, the others by those in which they differ from the first."""
    shown = [_shown_settings(group[0].config) for group in groups]
    varying = [name for name in _FIELDS if len({one[name] for one in shown}) > 1]
    texts = [", ".join(shown[0][name] for name in varying) if len(varying) <= _MOST_SETTINGS_IN_A_NAME else ""]
    texts += [", ".join(one[name] for name in varying if one[name] != shown[0][name]) for one in shown[1:]]
    return [text or group[0].name for text, group in zip(texts, groups, strict=True)]


def _shown_settings(config: RunConfig) -> dict[str, str]:
    """Return each setting as it is typed, without the hyphens before it."""
    recipe = without_folders(config).recipe
    shown = {}
    for name in _FIELDS:
        option, value = option_name(name)[2:], getattr(recipe, name)
        if isinstance(value, bool):
            shown[name] = option if value else f"no {option}"
        else:
            shown[name] = f"{option} {format_value(value).removeprefix(LOCAL_DIR).replace(',', '+')}"
    return shown
