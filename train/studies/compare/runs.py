"""The runs to compare: read, refused where they cannot be paired, pooled over seeds into methods."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import FacetError
from shared.runs import FOLDS_JSON, Prediction
from train.config import Recipe, RunConfig, option_name
from train.model.image_tower import LOCAL_DIR
from train.protocols.folds import Fold, list_some, read_folds, read_split
from train.runs.export import without_folders
from train.runs.recorded import RecordedFold, read_recorded_run
from train.studies.compare.scores import PairWins, SubjectResults

# What says who is tested: compared as folds, whatever words asked for them. And the seed, over which methods are pooled.
_NOT_THE_METHOD = ("seed", "fold_seed", "protocol", "folds", "rounds", "fold", "test_subjects")
_MOST_SETTINGS_IN_A_NAME = 3

Sample = tuple[str, str, str]  # round, subject, name
Truth = tuple[tuple[str, ...], tuple[str, ...]]  # what holds, what is unknown


@dataclass(frozen=True)
class FinishedRun:
    """A finished run and its test, as pairing needs it."""

    path: Path
    name: str
    config: RunConfig
    class_names: tuple[str, ...]
    subjects: tuple[str, ...]  # who is tested, in the order of the results
    folds: frozenset[tuple[str, tuple[str, ...], tuple[str, ...]]]  # round, who trains, who is tested
    samples: dict[Sample, Truth]
    results: SubjectResults
    licences: tuple[str, ...]


@dataclass(frozen=True)
class Method:
    """Runs that differ in the seed alone, in the order of their seeds."""

    name: str
    runs: tuple[FinishedRun, ...]

    @property
    def results(self) -> list[SubjectResults]:
        return [run.results for run in self.runs]


def read_methods(paths: Sequence[Path], names: Sequence[tuple[str, Path]] = ()) -> list[Method]:
    """Methods in the order in which their first runs are given.

    Args:
        names: of methods, each with one of its runs. The others are named by the settings in which they differ.
    Raises:
        FacetError: a folder holds no finished run, is named twice, cannot be paired with the first (says why), or a name is
            not that of one method.
    """
    places = [path.resolve() for path in paths]
    folders = [place.name for place in places]
    runs: list[FinishedRun] = []
    for path, place, folder in zip(paths, places, folders, strict=True):
        if places.count(place) > 1:
            raise FacetError(f"{path}: is named twice; name each run once")
        run = read_finished_run(path, folder if folders.count(folder) == 1 else str(path))
        if runs:
            check_paired(runs[0], run)
            run = dataclasses.replace(run, samples=runs[0].samples)  # the same: held once
        runs.append(run)
    groups: list[list[FinishedRun]] = []
    for run in runs:
        same = next((group for group in groups if _identify(group[0]) == _identify(run)), None)
        if same is None:
            groups.append([run])
            continue
        for other in same:
            if other.config.recipe.seed == run.config.recipe.seed:
                raise FacetError(
                    f"{run.path}: the same settings and seed as {other.path}, so that it tells nothing new; leave one out"
                )
        same.append(run)
    named = zip(_name_groups(groups, names), groups, strict=True)
    return [Method(name, tuple(sorted(group, key=lambda run: run.config.recipe.seed))) for name, group in named]


def read_finished_run(path: Path, name: str) -> FinishedRun:
    """
    Args:
        name: by which it is told from the others.
    Raises:
        FacetError: no run here, a file is damaged, folds are missing, or predictions are.
    """
    run = read_recorded_run(path, name)
    if lacking := [fold.name for fold in run.folds if fold.result is None]:
        which = f"{len(lacking)} of {len(run.folds)} folds are not tested yet ({list_some(lacking)})"
        raise FacetError(f"{path}: {which}; end the training with the command that began it")
    if lacking := [fold.name for fold in run.folds if not fold.predictions]:
        raise FacetError(
            f"{path}: {list_some(lacking)}: no predictions.csv of this test; `python -m train evaluate` on the fold writes it"
        )
    folds = read_folds(path / FOLDS_JSON).folds if run.is_crossval else (read_split(path),)
    first = run.folds[0].result
    assert first is not None
    if any(fold.result and fold.result.class_names != first.class_names for fold in run.folds):
        raise FacetError(f"{path}: its folds are of different classes; run crossval again in a new folder")
    subjects = tuple(sorted({one.subject for fold in run.folds for one in fold.predictions}))
    samples: dict[Sample, Truth] = {}
    for fold, tested in zip(folds, run.folds, strict=True):
        for one in tested.predictions:
            samples[fold.round, one.subject, one.name] = (one.labels, one.unknown)
    return FinishedRun(
        path=path,
        name=run.name,
        config=run.config,
        class_names=first.class_names,
        subjects=subjects,
        folds=frozenset((fold.round, fold.train_subjects, fold.test_subjects) for fold in folds),
        samples=samples,
        results=count_subjects(folds, run.folds, subjects, first.class_names, multilabel=first.is_multilabel),
        licences=tuple(run.licences),
    )


def count_subjects(
    folds: Sequence[Fold],
    tested: Sequence[RecordedFold],
    subjects: Sequence[str],
    class_names: Sequence[str],
    *,
    multilabel: bool,
) -> SubjectResults:
    """Sums predictions up, subject by subject."""
    rounds = sorted({fold.round for fold in folds})
    places = {subject: place for place, subject in enumerate(subjects)}
    labels = {name: label for label, name in enumerate(class_names)}
    num = len(class_names)
    counts = np.zeros((len(rounds), len(subjects), 4, num) if multilabel else (len(rounds), len(subjects), num, num))
    wins = []
    for fold, one_fold in zip(folds, tested, strict=True):
        table = counts[rounds.index(fold.round)]
        for one in one_fold.predictions:
            mine = table[places[one.subject]]
            if not multilabel:
                mine[labels[one.labels[0]], labels[one.predicted[0]]] += 1
                continue
            for name, label in labels.items():
                if name not in one.unknown:
                    there, said = name in one.labels, name in one.predicted
                    mine[(0 if said else 2) if there else (1 if said else 3), label] += 1
        if multilabel:
            wins.append(_count_wins(one_fold.predictions, places, class_names))
    return SubjectResults(num, multilabel, counts.reshape(len(rounds), len(subjects), -1), tuple(wins))


def _count_wins(predictions: Sequence[Prediction], places: dict[str, int], class_names: Sequence[str]) -> PairWins:
    owners = np.array([places[one.subject] for one in predictions])
    subjects, rows = np.unique(owners, return_inverse=True)
    num = len(subjects)
    scores = np.array([one.probabilities for one in predictions])
    wins, pairs = np.zeros((2, len(class_names), num, num))
    for label, name in enumerate(class_names):
        there = np.array([name in one.labels for one in predictions])
        absent = ~there & np.array([name not in one.unknown for one in predictions])
        for column in range(num):
            negatives = np.sort(scores[absent & (rows == column), label])
            below, not_above = (np.searchsorted(negatives, scores[there, label], side) for side in ("left", "right"))
            wins[label, :, column] = np.bincount(rows[there], (below + not_above) / 2, num)
            pairs[label, :, column] = np.bincount(rows[there], minlength=num) * len(negatives)
    return PairWins(subjects, wins, pairs)


def check_paired(first: FinishedRun, other: FinishedRun) -> None:
    """
    Raises:
        FacetError: the runs were not tested on the same samples after the same split; says in what they differ.
    """
    here = f"{other.path}: cannot be paired with {first.path}:"
    if other.results.multilabel != first.results.multilabel:
        tasks = [run.config.recipe.task or "classes" for run in (other, first)]
        raise FacetError(f"{here} its --task is {tasks[0]}, not {tasks[1]}; train both with the same")
    if other.class_names != first.class_names:
        theirs, ours = ", ".join(other.class_names), ", ".join(first.class_names)
        raise FacetError(f"{here} its classes are {theirs}, not {ours}; train both with the same --classes")
    for name, what in (("content_hash", "cache"), ("test_content_hash", "test cache")):
        if getattr(other.config, name) != getattr(first.config, name):
            raise FacetError(f"{here} its {what} holds other content; train both on one cache")
    if other.folds != first.folds:
        tested, wanted = ({(fold[0], fold[2]) for fold in run.folds} for run in (other, first))
        what = (
            "the same people are tested, but others train" if tested == wanted else "other people are tested together"
        )
        same = f", or with --protocol {first.path / FOLDS_JSON}" * (first.path / FOLDS_JSON).is_file()
        raise FacetError(
            f"{here} its folds differ ({what}); --seed deals them too: train all with one --fold-seed{same}"
        )
    if other.samples != first.samples:
        alone = sorted(other.samples.keys() ^ first.samples.keys())
        named = alone or sorted(key for key, truth in first.samples.items() if other.samples[key] != truth)
        how = "tested in one of them alone" if alone else "labelled otherwise"
        raise FacetError(f"{here} {len(named)} samples are {how} ({list_some([key[2] for key in named], 3)})")


def _identify(run: FinishedRun) -> tuple[object, ...]:
    """What makes a method: equal in runs that differ in the seed alone."""
    config = run.config
    recipe = tuple(getattr(config.recipe, field.name) for field in _fields() if field.name not in _NOT_THE_METHOD)
    weights = "" if config.tower.random_weights else config.tower.weights_hash  # the seed draws random ones
    return recipe, config.text_hash, weights


def _fields() -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(Recipe)


# --- names ---


def _name_groups(groups: Sequence[Sequence[FinishedRun]], names: Sequence[tuple[str, Path]]) -> list[str]:
    chosen: dict[int, str] = {}
    for name, path in names:
        place = path.resolve()
        number = next((n for n, group in enumerate(groups) if place in [run.path.resolve() for run in group]), None)
        if number is None:
            raise FacetError(f"--name {name}={path}: is none of the runs that are compared; name one of them")
        if not name.strip() or not name.isprintable():
            raise FacetError(f"--name {name!r}={path}: expected a name that can be printed")
        if chosen.setdefault(number, name) != name:
            raise FacetError(f"--name {name}={path}: this method is called {chosen[number]} already; give it one name")
    found = [chosen.get(number, text) for number, text in enumerate(_describe_groups(groups))]
    if twice := sorted({name for name in chosen.values() if list(chosen.values()).count(name) > 1}):
        raise FacetError(f"--name {twice[0]}: names two methods, which differ in more than the seed; give each its own")
    return [
        name if found.count(name) == 1 or number in chosen else f"{name} ({groups[number][0].name})"
        for number, name in enumerate(found)
    ]


def _describe_groups(groups: Sequence[Sequence[FinishedRun]]) -> list[str]:
    """The first by its values of the settings that differ at all, the others by those in which they differ from it."""
    shown = [_shown_settings(group[0].config) for group in groups]
    varying = [name for name in shown[0] if len({one[name] for one in shown}) > 1]
    texts = []
    for one in shown:
        differing = [name for name in varying if one[name] != shown[0][name]] or varying
        if one is shown[0] and not 0 < len(varying) <= _MOST_SETTINGS_IN_A_NAME:
            differing = []
        texts.append(", ".join(one[name] for name in differing))
    return [text or group[0].name for text, group in zip(texts, groups, strict=True)]


def _shown_settings(config: RunConfig) -> dict[str, str]:
    """Each setting as it would be typed, without the hyphens before it."""
    recipe = without_folders(config).recipe
    shown = {}
    for field in _fields():
        if field.name in _NOT_THE_METHOD:
            continue
        option, value = option_name(field.name)[2:], getattr(recipe, field.name)
        if isinstance(value, bool):
            shown[field.name] = option if value else f"no {option}"
        elif isinstance(value, tuple):
            shown[field.name] = f"{option} {'+'.join(value)}"
        else:
            text = f"{value:g}" if isinstance(value, float) else str(value)
            shown[field.name] = f"{option} {text.removeprefix(LOCAL_DIR)}"
    return shown
