"""Samples and folds: from one cache or two and the options, resolved and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from shared.cache import Cache
from shared.errors import FacetError, name_some
from train.data.items import (
    check_neutral,
    choose_classes,
    choose_frames,
    choose_modalities,
    describe_short_sequences,
    describe_stabilising,
    describe_unlabelled,
    find_neutral,
    find_rows_in_use,
    gather_items,
    is_labelled,
)
from train.options import Options
from train.protocols.folds import (
    Fold,
    FoldList,
    check_folds_fit,
    hold_out,
    read_folds,
    read_subject_list,
    split_by_subjects,
)
from train.protocols.leakage import (
    check_experiment,
    check_labels,
    describe_compared,
    describe_doubles,
    describe_uncompared,
    find_shared_scans,
)
from train.protocols.named import CROSS_PROTOCOL, DEFAULT_PROTOCOL, PROTOCOLS, Protocol, check_datasets, find_protocol
from train.protocols.selection import (
    OWN_SCANS,
    build_cross_fold,
    build_folds,
    build_label_map,
    describe_gaps,
    describe_unshared,
    map_items,
    name_tested,
    prefix_subjects,
    select_items,
    select_test_items,
)
from train.protocols.trained_subjects import describe_namesakes
from train.protocols.where import keep_where, report_columns
from train.resolve import check_options, check_reference, check_sequences, resolve_task, resolve_views, take_views
from train.tasks.item import Item
from train.tasks.task import find_task


@dataclass(frozen=True)
class Split:
    """Samples and folds.

    options: with the defaults that depend on the data filled in. test: the training cache itself unless another data set is
    tested. label_map: class of the training data set → class, if another data set is tested. notes: for the user.
    """

    options: Options
    train: Cache
    test: Cache
    train_items: tuple[Item, ...]
    test_items: tuple[Item, ...]
    folds: FoldList
    label_map: dict[str, str] | None
    notes: tuple[str, ...]


def split_folds(train: Cache, options: Options, test: Cache | None = None) -> Split:
    """Apply the protocol, or the file of folds, to a cache.

    Args:
        test: the cache of another data set to test on.
    Raises:
        FacetError: options exclude each other, the protocol does not fit the data set or needs more than there is, or a
            subject would be in both training and test.
    """
    check_options(options)
    train = resolve_views(train, options.views)
    for cache in (train,) if test is None else (train, test):
        check_labels(cache)
    imported = read_folds(Path(options.protocol)) if options.protocol and options.protocol.endswith(".json") else None
    if test is not None and (imported or options.test_subjects):
        raise FacetError("--test-cache: all of its subjects are tested; leave --test-subjects and files of folds out")
    default = DEFAULT_PROTOCOL if test is None else CROSS_PROTOCOL
    name = imported.protocol if imported else options.protocol or default
    # Folds made by hand may have any name; like k-fold they use all labelled samples.
    protocol = PROTOCOLS[DEFAULT_PROTOCOL] if imported and name not in PROTOCOLS else find_protocol(name)
    check_datasets(protocol, train.info.dataset, None if test is None else test.info.dataset)
    check_sequences(train, options)
    task = resolve_task(protocol, options)
    views = tuple(map(str, train.info.settings.views))
    options = dataclasses.replace(options, protocol=name, task=task, views=views, fold=options.fold or 0)
    protocol = dataclasses.replace(protocol, task=task)
    if test is None:
        split = _split_within(train, options, protocol, imported)
    else:
        split = _split_across(train, test, options, protocol)
    options, folds = split.options, split.folds
    classes = options.classes or ()
    check_reference(options, classes)
    check_neutral(split.test, options, find_neutral(split.test, options))
    rounds = [fold.round for fold in folds.folds]
    options = dataclasses.replace(
        options,
        folds=rounds.count(rounds[0]),
        rounds=len(set(rounds)),
        fold_seed=folds.seed,
        frames=choose_frames(split.train_items, options.frames or 0),
    )
    tested = () if split.test is split.train else split.test_items
    notes = [*split.notes, *_describe_references((*split.train_items, *tested), options)]
    caches = (train,) if test is None else (train, split.test)
    shared = find_shared_scans(*caches, trained=() if test is None else folds.folds[0].train_subjects)
    if options.validate:
        validate = _read_validation(options.validate, split.train_items)
        options = dataclasses.replace(options, validate=validate)
        folds = dataclasses.replace(folds, folds=tuple(_hold_out(fold, validate, folds.seed) for fold in folds.folds))
    notes += check_experiment(folds, split.train_items, split.test_items, classes, task, shared)
    if test is not None:
        notes.append(describe_compared(train, split.test))
        notes += describe_stabilising(split.test, train.info.settings, whose=str(train.path))
    notes += describe_uncompared(*caches)
    notes += describe_doubles(train, split.train_items)
    if not find_task(task).every_frame:
        notes += describe_short_sequences(train, split.train_items, options.frames or 1)
    return dataclasses.replace(split, options=options, notes=tuple(notes))


def _split_within(cache: Cache, options: Options, protocol: Protocol, imported: FoldList | None) -> Split:
    """Train on some subjects of a cache and test on others. options: with protocol and task filled in."""
    task = protocol.task
    wanted = options.classes or (imported.classes if imported else ()) or protocol.classes
    classes = choose_classes(cache, wanted, task)
    members = None if imported is None else set(imported.subjects)

    def keep_labelled(gathered: Sequence[Item]) -> list[Item]:
        labelled = [item for item in gathered if is_labelled(item, task, classes)]
        if not labelled:
            what = "labelled" if task == "classes" else "known to show or not to show"
            raise FacetError(f"{cache.path}: no valid sample is {what} {', '.join(classes)}; see --classes")
        return labelled

    def find_in_use(gathered: Sequence[Item]) -> list[Item]:
        chosen = select_items(protocol, keep_labelled(gathered), classes)
        return [item for item in chosen if members is None or item.subject in members]

    options = dataclasses.replace(options, classes=classes)
    modalities, notes = _choose_modalities(cache, options, find_in_use)
    options = dataclasses.replace(options, modalities=modalities)
    gathered = _gather(cache, options)
    labelled = keep_labelled(gathered)
    items = tuple(select_items(protocol, labelled, classes))
    subjects = {item.subject for item in items}
    notes += [*_describe_groups(cache, options), *describe_unlabelled(cache, gathered, task, classes)]
    dataset, seed = cache.info.dataset, _fold_seed(options)
    if options.test_subjects:
        options = dataclasses.replace(options, test_subjects=read_subject_list(",".join(options.test_subjects)))
        fold = split_by_subjects(subjects, options.test_subjects)
        folds = FoldList(options.protocol or "", dataset, seed, classes, (fold,))
    elif imported is not None:
        if options.folds or options.rounds:
            raise FacetError("--folds and --rounds: are decided by the file of folds; leave them out")
        folds = dataclasses.replace(imported, classes=classes)
        if find_task(task).several and any(fold.train_classes or fold.test_classes for fold in folds.folds):
            raise FacetError(f"{options.protocol}: train_classes, test_classes: are for --task classes, not for {task}")
        notes += check_folds_fit(folds, subjects, dataset=dataset)
    else:
        numbers = {"num_folds": options.folds, "num_rounds": options.rounds}
        folds = build_folds(protocol, items, dataset=dataset, classes=classes, seed=seed, **numbers)
        notes += describe_gaps(protocol, labelled, classes, **numbers)
    return Split(options, cache, cache, items, items, folds, None, tuple(notes))


def _split_across(train: Cache, test: Cache, options: Options, protocol: Protocol) -> Split:
    """Train on one data set and test on another. options: with protocol and task filled in."""
    if protocol.task != "classes":
        raise FacetError(f"--task {protocol.task}: across data sets only classes are supported")
    names = (train.info.class_names, test.info.class_names)
    wanted = options.classes or protocol.classes
    classes, label_map = build_label_map(protocol, *names, wanted)

    def find_training(gathered: Sequence[Item]) -> list[Item]:
        return [item for item in map_items(gathered, label_map) if item.class_name in classes]

    def find_tested(gathered: Sequence[Item]) -> list[Item]:
        return select_test_items(protocol, gathered, classes)

    options = dataclasses.replace(options, classes=classes)
    modalities, notes = _choose_modalities(train, options, find_training)
    available, more = _choose_modalities(test, options, find_tested)
    modalities = tuple(m for m in modalities if m in available)
    if not modalities:
        raise FacetError(f"{train.path}, {test.path}: no modality is in nine of ten rows of both; use --modalities")
    options = dataclasses.replace(options, modalities=modalities)
    test = take_views(test, train.info.settings, modalities, whose=str(train.path))
    gathered = _gather(train, options), _gather(test, options)
    train_items, test_items = find_training(gathered[0]), find_tested(gathered[1])
    if not wanted:
        for cache, items, known in ((train, gathered[0], label_map), (test, gathered[1], classes)):
            notes += describe_unshared(items, known, whose=str(cache.path))
    if train.info.dataset != test.info.dataset:
        train_items = prefix_subjects(train_items, train.info.dataset)
        test_items = prefix_subjects(test_items, test.info.dataset)
    elif train.info.dataset == OWN_SCANS:  # of others, equal names are the same people
        trained = {item.subject for item in train_items}
        notes += describe_namesakes(trained & {item.subject for item in test_items})
        test_items = [dataclasses.replace(item, subject=name_tested(item.subject, trained)) for item in test_items]
    fold = build_cross_fold(protocol, train_items, test_items)
    title = f"{train.info.dataset} to {test.info.dataset}"
    folds = FoldList(protocol.name, title, _fold_seed(options), classes, (fold,))
    notes += [*more, *_describe_groups(test, options)]
    return Split(options, train, test, tuple(train_items), tuple(test_items), folds, label_map, tuple(notes))


def _read_validation(validate: tuple[str, ...], items: Sequence[Item]) -> tuple[str, ...]:
    """Return --validate, a fraction or names, with the names of a file read.

    Raises:
        FacetError: a name is none of the subjects.
    """
    names = read_subject_list(",".join(validate), "--validate")
    with suppress(ValueError, TypeError):
        return (str(float(*names)),)
    known = {item.subject for item in items}
    if unknown := [name for name in names if name not in known]:
        raise FacetError(f"--validate: {name_some(unknown)} not among the {len(known)} subjects with usable samples")
    return names


def _hold_out(fold: Fold, chosen: tuple[str, ...], seed: int) -> Fold:
    """Call `hold_out`; return a fold that cannot be so validated as it is: `Experiment.fold` refuses it, if it is trained."""
    with suppress(FacetError):
        return hold_out(fold, chosen, seed)
    return fold


def _fold_seed(options: Options) -> int:
    return options.seed if options.fold_seed is None else options.fold_seed


def _choose_modalities(
    cache: Cache, options: Options, find_in_use: Callable[[Sequence[Item]], list[Item]]
) -> tuple[tuple[str, ...], list[str]]:
    """Call `choose_modalities` with the rows in use if every modality were enabled."""
    with_all = dataclasses.replace(options, modalities=cache.info.settings.modalities)
    rows = find_rows_in_use(find_in_use(_gather(cache, with_all)))
    modalities, notes = choose_modalities(cache, options.modalities or (), rows)
    return modalities, list(notes)


def _gather(cache: Cache, options: Options) -> list[Item]:
    return keep_where(cache, gather_items(cache, options), options.where)


def _describe_groups(cache: Cache, options: Options) -> list[str]:
    notes = [f"of {cache.path.name}, only samples with {' and '.join(options.where)}"] if options.where else []
    return notes + report_columns(cache)[1]


def _describe_references(items: Sequence[Item], options: Options) -> list[str]:
    if options.reference == "none":
        return []
    note = "--reference neutral: test subjects' own neutral scans are used, as for a person known beforehand"
    notes = [note] if options.reference == "neutral" else []
    if lacking := sorted({item.subject for item in items if item.reference is None}):
        notes.append(f"{len(lacking)} subjects have no reference, and are used as they are: {name_some(lacking)}")
    return notes
