"""A protocol applied to a cache: which items it takes, what is missing, and who trains and who is tested."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from shared.errors import FacetError
from shared.labels import NEUTRAL, map_class_names
from train.data.items import Item
from train.protocols.folds import Fold, FoldList, fold_names, leave_out_each, list_some, name_for_folder, subject_folds
from train.protocols.named import CROSS, KFOLD, LOSO, Protocol

MOST_ROUNDS = 10_000


def select_items(protocol: Protocol, items: Sequence[Item], class_names: Sequence[str]) -> list[Item]:
    """The items that a protocol takes, in their order: by class, intensity, task and, where wanted, complete subjects.

    Args:
        class_names: the classes to tell apart. Only the task "classes" filters by them: with several targets an item the caller
            wants out (all targets unknown) has to be left out before.
    Raises:
        FacetError: a wanted class, intensity or task is shown by no item, or no subject is complete.
    """
    classes = class_names if protocol.task == "classes" else ()
    chosen = _filter(protocol.name, items, classes, protocol.intensities, protocol.tasks)
    if protocol.all_classes_needed:
        incomplete = set(find_incomplete(protocol, chosen, class_names))
        complete = [item for item in chosen if item.subject not in incomplete]
        if not complete:
            raise FacetError(
                f"{protocol.name} wants subjects with {_wanted(protocol, class_names)}; none of the {len(incomplete)} subjects "
                f"of this cache has them all (such as {list_some(sorted(incomplete), 3)}); use --protocol kfold"
            )
        chosen = complete
    return chosen


def select_test_items(protocol: Protocol, items: Sequence[Item], class_names: Sequence[str]) -> list[Item]:
    """The items of the other data set that a cross protocol tests: by class (those there are) and recording task.

    Raises:
        FacetError: a wanted task, or every class, is shown by no item.
    """
    there = [name for name in class_names if any(item.class_name == name for item in items)]
    return _filter(protocol.name, items, there or class_names, (), protocol.test_tasks)


def _filter(
    name: str, items: Sequence[Item], classes: Sequence[str], intensities: Sequence[str], tasks: Sequence[str]
) -> list[Item]:
    """Items that show one of each kind of value; () = any. Errors name the first kind of which some value is nowhere."""
    chosen = list(items)
    for what, wanted, found, advice in (
        ("classes", classes, [item.class_name for item in items], "choose with --classes (--protocol kfold or loso)"),
        ("intensities", intensities, [item.intensity for item in items], "use --protocol kfold"),
        ("tasks", tasks, [item.task for item in items], "use another --protocol"),
    ):
        if wanted and (absent := [value for value in wanted if value not in set(found)]):
            there = list_some(sorted(set(found) - {""})) or "none"
            raise FacetError(
                f"{name} wants the {what} {', '.join(wanted)}; no usable sample of this cache shows {', '.join(absent)} "
                f"(found: {there}); preprocess more of the data set, or {advice}"
            )
    for keep in (
        lambda item: not classes or item.class_name in classes,
        lambda item: not intensities or item.intensity in intensities,
        lambda item: not tasks or item.task in tasks,
    ):
        chosen = [item for item in chosen if keep(item)]
    if not chosen:
        raise FacetError(f"{name}: no usable sample of this cache is of the wanted classes, intensities and tasks")
    return chosen


def find_incomplete(protocol: Protocol, items: Iterable[Item], class_names: Sequence[str]) -> list[str]:
    """Subjects that lack some class, at some of the protocol's intensities; sorted."""
    wanted = {(name, intensity) for name in class_names for intensity in protocol.intensities or ("",)}
    shown: dict[str, set[tuple[str, str]]] = {}
    for item in items:
        intensity = item.intensity if protocol.intensities else ""
        shown.setdefault(item.subject, set()).add((item.class_name, intensity))
    return sorted(subject for subject, pairs in shown.items() if not wanted <= pairs)


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
    """Deals the subjects of the items that the protocol selects; the answer depends on their set and the seed alone.

    Each round has its own draw: asking for more rounds later leaves the first ones as they were.

    Args:
        items: those the cache has, or what select_items took of them: the answer is the same.
        num_folds, num_rounds: other numbers than the protocol's.
    Raises:
        FacetError: too few subjects, a number that the protocol has no use for, or nothing to select (see select_items).
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
    if protocol.num_drawn and len(subjects) < protocol.num_drawn:
        raise FacetError(
            f"{protocol.name} wants {protocol.num_drawn} subjects with {_wanted(protocol, classes)}; this cache has "
            f"{len(subjects)}; preprocess more of the data set, or use another --protocol (kfold takes any number)"
        )
    folds: list[Fold] = []
    if protocol.scheme == LOSO:
        if len(subjects) < 2:
            raise FacetError(f"{protocol.name} wants at least 2 subjects; this cache has {len(subjects)}")
        folds = leave_out_each([(subject,) for subject in subjects], _name_subject_folds(subjects))
    else:
        number = protocol.num_folds if num_folds is None else num_folds
        if num_folds is None and len(subjects) < number:  # an error must not name an option that nobody gave
            if len(subjects) < 2:
                raise FacetError(f"{protocol.name} wants at least 2 subjects; this cache has {len(subjects)}")
            raise FacetError(
                f"{protocol.name} makes {number} folds, and only {len(subjects)} subjects can be used; give --folds "
                f"{len(subjects)} or less, or --protocol loso for a fold a subject"
            )
        names = fold_names(number)
        if not protocol.is_repeated:
            folds = leave_out_each(subject_folds(subjects, number, seed), names)
        for index in range(rounds if protocol.is_repeated else 0):
            # SeedSequence takes [7, 0] for 7: numbers above zero keep the draws apart from each other and from plain seeds.
            drawn = _draw(subjects, protocol.num_drawn, [seed, 1 + (index if protocol.redraw else 0), 1])
            groups = subject_folds(drawn, number, [seed, 1 + index, 2])
            folds += leave_out_each(groups, [f"round-{index:03d}/{name}" for name in names])
    return FoldList(protocol.name, dataset, seed, tuple(classes), tuple(folds))


def _draw(subjects: Sequence[str], number: int | None, seed: Sequence[int]) -> list[str]:
    if number is None:
        return list(subjects)
    order = np.random.default_rng(seed).permutation(len(subjects))
    return sorted(subjects[i] for i in order[:number])


def _name_subject_folds(subjects: Sequence[str]) -> list[str]:
    """subject-S07 …, made fit for folders and different from each other."""
    names: list[str] = []
    taken: set[str] = set()
    for subject in subjects:
        plain = f"subject-{name_for_folder(subject)}"
        name, number = plain, 1
        while name.casefold() in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def describe_gaps(
    protocol: Protocol,
    items: Sequence[Item],
    class_names: Sequence[str],
    *,
    num_folds: int | None = None,
    num_rounds: int | None = None,
) -> list[str]:
    """In what a run differs from the protocol as published, a line each; none: in nothing that can be seen.

    Args:
        items: all that the cache has for the task, before select_items.
    """
    chosen = select_items(protocol, items, class_names)
    notes = []
    if protocol.classes and set(class_names) != set(protocol.classes):
        notes.append(f"{protocol.name} tells {', '.join(protocol.classes)} apart; here {', '.join(class_names)}")
    if protocol.all_classes_needed:
        rest = _filter(protocol.name, items, class_names, protocol.intensities, protocol.tasks)
        if left_out := find_incomplete(protocol, rest, class_names):
            wanted = _wanted(protocol, class_names)
            notes.append(f"{len(left_out)} subjects without {wanted} are left out ({list_some(left_out)})")
    for number, published, what in (
        (len({item.subject for item in chosen}), protocol.num_subjects, "subjects"),
        (len(chosen), protocol.num_samples, "samples"),
    ):
        if published is not None and number != published:
            notes.append(f"{protocol.name} is published on {published:,} {what}; this cache gives {number:,}")
    if num_folds is not None and protocol.datasets and num_folds != protocol.num_folds:
        notes.append(f"{protocol.name} has {protocol.num_folds} folds; here {num_folds} were asked for")
    if num_rounds is not None and num_rounds != protocol.num_rounds:
        notes.append(f"{protocol.name} has {protocol.num_rounds} rounds; here {num_rounds} were asked for")
    subjects = {item.subject for item in chosen}
    if protocol.redraw and len(subjects) == protocol.num_drawn:
        notes.append(f"there are just {protocol.num_drawn} subjects, so that every round draws the same")
    return notes


def _wanted(protocol: Protocol, classes: Sequence[str]) -> str:
    text = f"all {len(classes)} classes"
    return text + (f" at intensities {' and '.join(protocol.intensities)}" if protocol.intensities else "")


# --- two data sets ---


def build_label_map(
    protocol: Protocol, train_names: Sequence[str], test_names: Sequence[str], wanted: Sequence[str] = ()
) -> tuple[tuple[str, ...], dict[str, str]]:
    """What is told apart when one data set trains and another is tested.

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
    classes = tuple(wanted) or common
    if len(classes) < 2:
        raise FacetError(
            f"{protocol.name}: classes {', '.join(train_names)} and {', '.join(test_names)} have {len(classes)} in common; "
            "at least 2 are needed (the map goes from the training data set's words to the other's: try the other way round)"
        )
    return classes, {name: word for name, word in mapped.items() if word in classes}


def map_items(items: Sequence[Item], label_map: dict[str, str]) -> list[Item]:
    """The items whose class the map knows, in the new words."""
    return [replace(i, class_name=label_map[i.class_name]) for i in items if i.class_name in label_map]


def prefix_subjects(items: Sequence[Item], dataset: str) -> list[Item]:
    """Subjects as `bu4dfe:F001`: BU-4DFE's F001 and BP4D's are two people."""
    return [replace(item, subject=prefix_subject(dataset, item.subject)) for item in items]


def prefix_subject(dataset: str, subject: str) -> str:
    return f"{dataset}:{subject}"


def build_cross_fold(protocol: Protocol, train_items: Sequence[Item], test_items: Sequence[Item]) -> Fold:
    """All of one data set trains, the selected items of the other are tested.

    Subjects of different data sets are prefixed (prefix_subjects); in two caches of one data set, equal names are one person.

    Raises:
        FacetError: a subject stands in both.
    """
    return Fold(
        protocol.name,
        tuple({item.subject for item in train_items}),
        tuple({item.subject for item in test_items}),
    )
