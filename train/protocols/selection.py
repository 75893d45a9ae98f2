"""Apply a protocol to a cache: its items, the differences from the published protocol, and its folds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np

from shared.errors import FacetError, name_some
from shared.labels import NEUTRAL, map_class_names
from shared.pairs import group_pairs
from train.protocols.folds import Fold, FoldList, fold_names, leave_out_each, name_for_folder, subject_folds
from train.protocols.named import CROSS, KFOLD, LOSO, Protocol
from train.tasks.item import Item

MOST_ROUNDS = 10_000
OWN_SCANS = "folder"  # every data set of one's own scans has this name, so equal names may be two people
_TESTED = "test:"


def select_items(protocol: Protocol, items: Sequence[Item], class_names: Sequence[str]) -> list[Item]:
    """Return the items of a protocol, in their order: by class, intensity, task and, if needed, complete subjects.

    Args:
        class_names: the classes. Only the task "classes" filters by them; of other tasks, leave out items without a known
            target before.
    Raises:
        FacetError: no item has a wanted class, intensity or task, or no subject is complete.
    """
    chosen, incomplete = _select(protocol, items, class_names)
    if not chosen:
        raise FacetError(
            f"{protocol.name} wants subjects with {_wanted(protocol, class_names)}; none of the {len(incomplete)} subjects "
            f"of this cache has them all (such as {name_some(incomplete, 3)}); use --protocol kfold"
        )
    return chosen


def keep_classes(items: Sequence[Item], classes: Sequence[str]) -> list[Item]:
    """Return the items of some classes; () = all."""
    return [item for item in items if not classes or item.class_name in classes]


def select_test_items(protocol: Protocol, items: Sequence[Item], class_names: Sequence[str]) -> list[Item]:
    """Return the items of the other data set that a cross protocol tests, by recording task and the classes that it has.

    Raises:
        FacetError: no item has a wanted task, or any class.
    """
    found = {item.class_name for item in items}
    classes = [name for name in class_names if name in found] or class_names
    return _filter(protocol.name, items, classes, (), protocol.test_tasks)


def _select(protocol: Protocol, items: Sequence[Item], class_names: Sequence[str]) -> tuple[list[Item], list[str]]:
    """Return the items of a protocol, and the subjects that are left out as incomplete, sorted."""
    classes = class_names if protocol.task == "classes" else ()
    chosen = _filter(protocol.name, items, classes, protocol.intensities, protocol.tasks)
    if not protocol.all_classes_needed:
        return chosen, []
    wanted = {(name, intensity) for name in class_names for intensity in protocol.intensities or ("",)}
    shown = group_pairs((i.subject, (i.class_name, i.intensity if protocol.intensities else "")) for i in chosen)
    incomplete = {subject for subject, pairs in shown.items() if not wanted <= {*pairs}}
    return [item for item in chosen if item.subject not in incomplete], sorted(incomplete)


def _filter(
    name: str, items: Sequence[Item], classes: Sequence[str], intensities: Sequence[str], tasks: Sequence[str]
) -> list[Item]:
    """Return the items of these classes, intensities and tasks; () = any. Each wanted value must occur in some item."""
    for what, wanted, found, advice in (
        ("classes", classes, {i.class_name for i in items}, "choose with --classes (--protocol kfold or loso)"),
        ("intensities", intensities, {i.intensity for i in items}, "use --protocol kfold"),
        ("tasks", tasks, {i.task for i in items}, "use another --protocol"),
    ):
        if absent := [value for value in wanted if value not in found]:
            raise FacetError(
                f"{name} wants the {what} {', '.join(wanted)}; no usable sample of this cache shows {', '.join(absent)} "
                f"(found: {name_some(sorted(found - {''})) or 'none'}); preprocess more of the data set, or {advice}"
            )
    chosen = [
        item
        for item in items
        if (not classes or item.class_name in classes)
        and (not intensities or item.intensity in intensities)
        and (not tasks or item.task in tasks)
    ]
    if not chosen:
        raise FacetError(f"{name}: no usable sample of this cache is of the wanted classes, intensities and tasks")
    return chosen


def build_folds(
    protocol: Protocol,
    items: Sequence[Item],
    *,
    dataset: str,
    classes: Sequence[str],
    seed: int,
    num_folds: int | None = None,
    num_rounds: int | None = None,
) -> FoldList:
    """Split the subjects of the selected items; the result depends on the set of subjects and the seed alone.

    Each round has its own random numbers: more rounds leave the first ones unchanged.

    Args:
        items: of a cache, before or after select_items.
        num_folds, num_rounds: other numbers than the protocol's.
    Raises:
        FacetError: too few subjects, a number that the protocol does not use, or nothing to select (see select_items).
    """
    if protocol.scheme == CROSS:
        raise FacetError(f"--protocol {protocol.name} needs two caches (--train-cache A --test-cache B)")
    if num_folds is not None and protocol.scheme != KFOLD:
        raise FacetError(f"--folds {num_folds}: {protocol.name} makes a fold of each subject; leave --folds out")
    if num_rounds is not None and not protocol.is_repeated:
        raise FacetError(f"--rounds {num_rounds}: {protocol.name} does not repeat its folds; leave --rounds out")
    rounds = num_rounds if num_rounds is not None else protocol.num_rounds
    if not 1 <= rounds <= MOST_ROUNDS:
        raise FacetError(f"--rounds {rounds}: expected 1 to {MOST_ROUNDS}")
    subjects = sorted({item.subject for item in select_items(protocol, items, classes)})
    if len(subjects) < 2:
        raise FacetError(f"{protocol.name} wants at least 2 subjects; this cache has {len(subjects)}")
    if protocol.num_drawn and len(subjects) < protocol.num_drawn:
        raise FacetError(
            f"{protocol.name} wants {protocol.num_drawn} subjects with {_wanted(protocol, classes)}; this cache has "
            f"{len(subjects)}; preprocess more of the data set, or use another --protocol (kfold takes any number)"
        )
    if protocol.scheme == LOSO:
        folds = leave_out_each([(subject,) for subject in subjects], _name_subject_folds(subjects))
        return FoldList(protocol.name, dataset, seed, tuple(classes), tuple(folds))
    if num_folds is None:
        num_folds = protocol.num_folds
        if len(subjects) < num_folds:  # not the error of subject_folds, which names an option that nobody gave
            raise FacetError(
                f"{protocol.name} makes {num_folds} folds, and only {len(subjects)} subjects can be used; give --folds "
                f"{len(subjects)} or less, or --protocol loso for a fold per subject"
            )
    names = fold_names(num_folds)
    if not protocol.is_repeated:
        folds = leave_out_each(subject_folds(subjects, num_folds, seed), names)
        return FoldList(protocol.name, dataset, seed, tuple(classes), tuple(folds))
    folds = []
    for index in range(rounds):
        # SeedSequence takes [7, 0] for 7: numbers above zero keep the draws apart from each other and from plain seeds.
        drawn = _draw(subjects, protocol.num_drawn, [seed, 1 + (index if protocol.redraw else 0), 1])
        groups = subject_folds(drawn, num_folds, [seed, 1 + index, 2])
        folds += leave_out_each(groups, [f"round-{index:03d}/{name}" for name in names])
    return FoldList(protocol.name, dataset, seed, tuple(classes), tuple(folds))


def _draw(subjects: Sequence[str], number: int | None, seed: Sequence[int]) -> Sequence[str]:
    if number is None:
        return subjects
    order = np.random.default_rng(seed).permutation(len(subjects))
    return [subjects[i] for i in order[:number]]


def _name_subject_folds(subjects: Iterable[str]) -> list[str]:
    """Return subject-S07 …, valid as folder names and different from each other, also in other case."""
    names: dict[str, str] = {}
    for subject in subjects:
        plain = name = f"subject-{name_for_folder(subject)}"
        number = 1
        while name.casefold() in names:
            number += 1
            name = f"{plain}-{number}"
        names[name.casefold()] = name
    return list(names.values())


def describe_gaps(
    protocol: Protocol,
    items: Sequence[Item],
    class_names: Sequence[str],
    *,
    num_folds: int | None = None,
    num_rounds: int | None = None,
) -> list[str]:
    """Return the visible differences of a run from the published protocol, a line each.

    Args:
        items: all of the cache for the task, before select_items.
    """
    chosen, incomplete = _select(protocol, items, class_names)
    num_subjects = len({item.subject for item in chosen})
    name = protocol.name
    notes = []
    if protocol.classes and set(class_names) != set(protocol.classes):
        notes.append(f"{name} has the classes {', '.join(protocol.classes)}; here {', '.join(class_names)}")
    if incomplete:
        wanted = _wanted(protocol, class_names)
        notes.append(f"{len(incomplete)} subjects without {wanted} are left out ({name_some(incomplete)})")
    for number, published, what in (
        (num_subjects, protocol.published_subjects, "subjects"),
        (len(chosen), protocol.published_samples, "samples"),
    ):
        if published is not None and number != published:
            notes.append(f"{name} is published on {published:,} {what}; this cache gives {number:,}")
    if num_folds is not None and protocol.datasets and num_folds != protocol.num_folds:
        notes.append(f"{name} has {protocol.num_folds} folds; here {num_folds} were asked for")
    if num_rounds is not None and num_rounds != protocol.num_rounds:
        notes.append(f"{name} has {protocol.num_rounds} rounds; here {num_rounds} were asked for")
    if protocol.redraw and num_subjects == protocol.num_drawn:
        notes.append(f"there are just {num_subjects} subjects, so every round draws the same")
    return notes


def _wanted(protocol: Protocol, classes: Sequence[str]) -> str:
    text = f"all {len(classes)} classes"
    return text + (f" at intensities {' and '.join(protocol.intensities)}" if protocol.intensities else "")


# --- two data sets ---


def build_label_map(
    protocol: Protocol, train_names: Sequence[str], test_names: Sequence[str], wanted: Sequence[str] = ()
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Find the classes for training on one data set and testing on another.

    Args:
        train_names, test_names: the class names of the two caches.
        wanted: the user's choice among the common classes, in the words of the test data set.
    Returns:
        The classes; class of the training data set → class. Neutral is left out unless wanted.
    Raises:
        FacetError: fewer than two common classes, or a wanted one is none of them.
    """
    wanted = tuple(wanted) or protocol.classes
    mapped = map_class_names(train_names, test_names)
    common = tuple(dict.fromkeys(word for word in mapped.values() if word != NEUTRAL or word in wanted))
    if absent := [name for name in wanted if name not in common]:
        raise FacetError(f"{protocol.name}: the data sets have no {', '.join(absent)} in common ({', '.join(common)})")
    classes = wanted or common
    if len(classes) < 2:
        raise FacetError(
            f"{protocol.name}: classes {', '.join(train_names)} and {', '.join(test_names)} have {len(classes)} in common; "
            "at least 2 are needed (the map goes from the training data set's words to the other's: try the other way round)"
        )
    return classes, {name: word for name, word in mapped.items() if word in classes}


def map_items(items: Sequence[Item], label_map: dict[str, str]) -> list[Item]:
    """Return the items whose class is in the map, with the mapped class."""
    return [replace(i, class_name=label_map[i.class_name]) for i in items if i.class_name in label_map]


def describe_unshared(items: Sequence[Item], classes: Collection[str], *, whose: str) -> list[str]:
    """Return a note on samples whose class is none of those that both data sets have; neutral is left out without a word."""
    counts = Counter(item.class_name for item in items if item.class_name not in (*classes, NEUTRAL, ""))
    words = ", ".join(f"{num:,} labelled {name}" for name, num in sorted(counts.items()))
    return [f"left out of {whose}: {words} (no class of both)"] if counts else []


def prefix_subjects(items: Sequence[Item], dataset: str) -> list[Item]:
    """Name subjects as in `bu4dfe:F001`: BU-4DFE's F001 and BP4D's are two people."""
    return [replace(item, subject=prefix_subject(dataset, item.subject)) for item in items]


def prefix_subject(dataset: str, subject: str) -> str:
    """Return bu4dfe:F001."""
    return f"{dataset}:{subject}"


def name_tested(subject: str, trained: Collection[str]) -> str:
    """Return test:S01 for a tested S01, if a training subject has this name, too; else the name.

    Two data sets of one's own scans may both have an S01 who are not the same person.
    """
    return f"{_TESTED}{subject}" if subject in trained else subject


def name_in_cache(subject: str, trained: Collection[str]) -> str:
    """Undo `name_tested`."""
    name = subject.removeprefix(_TESTED)
    return name if name in trained else subject


def build_cross_fold(protocol: Protocol, train_items: Sequence[Item], test_items: Sequence[Item]) -> Fold:
    """Return the fold that trains on all of one data set and tests the selected items of the other.

    Subjects of different data sets are prefixed (prefix_subjects). In two caches of one data set, equal names are one person,
    but for data sets of one's own scans (name_tested).

    Raises:
        FacetError: a subject is in both.
    """
    return Fold(protocol.name, tuple(i.subject for i in train_items), tuple(i.subject for i in test_items))
