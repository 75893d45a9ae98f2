"""What would make a result worthless, found and named before training starts. Notes are for the user to judge; errors stop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shared.cache import SAMPLES_CSV, SEQUENCES_CSV, Cache
from shared.errors import FacetError
from shared.labels import plain_subject
from shared.likeness import Place, count_compared, find_same_faces
from train.data.items import Item
from train.protocols.folds import FoldList, list_some
from train.protocols.selection import prefix_subject

MOST_NOTES = 5  # on scans under several subjects


@dataclass(frozen=True)
class SharedScan:
    """One scan that stands under several subjects: a sample of each, sorted by subject.

    same_bytes: its files are the same byte for byte; False: they differ, as after saving it anew, and the pictures do not.
    """

    subjects: tuple[str, ...]
    sample_ids: tuple[str, ...]
    same_bytes: bool = True

    def __str__(self) -> str:
        pairs = [f"{sample} of {subject}" for sample, subject in zip(self.sample_ids, self.subjects, strict=True)]
        return list_some(pairs, 3) + ("" if self.same_bytes else "; other files, the same pictures")


def check_experiment(
    folds: FoldList,
    train_items: Sequence[Item],
    test_items: Sequence[Item],
    classes: Sequence[str],
    task: str,
    shared: Sequence[SharedScan],
) -> list[str]:
    """All that can be checked before training, once the folds are known.

    Args:
        test_items: train_items again, unless another data set is tested.
        task: classes, targets or aus; several-label items show the classes whose targets are 1.
        shared: what find_shared_scans returned.
    Returns:
        Notes.
    Raises:
        FacetError: a leak, or a class without a training sample.
    """
    subjects = {item.subject for items in (train_items, test_items) for item in items}
    notes = check_folds_are_disjoint(folds, shared)
    return notes + check_classes(folds, train_items, classes, test_items, task=task) + check_subject_names(subjects)


def check_labels(cache: Cache) -> None:
    """Every label is empty or in the cache's vocabulary.

    Raises:
        FacetError: one is not; names the table, the row and the label.
    """
    known = {"", *cache.info.class_names}
    rows = ((SAMPLES_CSV, s.sample_id, s.label) for s in cache.samples)
    more = ((SEQUENCES_CSV, s.sequence, s.label) for s in cache.sequences)
    for table in (rows, more):
        for file, name, label in table:
            if label not in known:
                raise FacetError(
                    f"{cache.path / file}: {name} is labelled {label!r}, which is not in the vocabulary "
                    f"({', '.join(cache.info.class_names)}); run `python -m preprocess build` again"
                )


def find_shared_scans(*caches: Cache) -> list[SharedScan]:
    """Scans that stand under more than one subject, by the hash of their files or by their pictures (shared/likeness.py).

    Rows that are not valid do not count; of sequences the pictures of three frames are compared. Of several data sets,
    subjects are named as in a cross protocol, `bu4dfe:F001`. Scans that the same subjects share are reported once, by their
    first samples.
    """
    several = len({cache.info.dataset for cache in caches}) > 1
    subjects = [
        [prefix_subject(cache.info.dataset, s.subject) if several else s.subject for s in cache.samples]
        for cache in caches
    ]
    first: dict[str, dict[str, str]] = {}  # hash → subject → sample
    for cache, names in zip(caches, subjects, strict=True):
        for sample, subject in zip(cache.samples, names, strict=True):
            if sample.valid and sample.source_hash:
                first.setdefault(sample.source_hash, {}).setdefault(subject, sample.sample_id)
    shared: dict[tuple[str, ...], SharedScan] = {}
    for owners in first.values():
        if len(owners) > 1:
            _keep(shared, owners, same_bytes=True)
    known = [set(scan.subjects) for scan in shared.values()]
    for group in _join_pairs(find_same_faces(caches, subjects)):
        owners = {}
        for number, row in group:
            owners.setdefault(subjects[number][row], caches[number].samples[row].sample_id)
        if not any(owners.keys() <= subjects_of_one for subjects_of_one in known):
            _keep(shared, owners, same_bytes=False)
    return list(shared.values())


def _join_pairs(pairs: Sequence[tuple[Place, Place]]) -> list[list[Place]]:
    """Groups of places that pairs connect, each sorted."""
    group_of: dict[Place, list[Place]] = {}
    for a, b in pairs:
        one, other = group_of.setdefault(a, [a]), group_of.setdefault(b, [b])
        if one is not other:
            one += other
            group_of.update(dict.fromkeys(other, one))
    return [sorted(group) for group in {id(group): group for group in group_of.values()}.values()]


def _keep(shared: dict[tuple[str, ...], SharedScan], owners: dict[str, str], *, same_bytes: bool) -> None:
    subjects = tuple(sorted(owners))
    shared.setdefault(subjects, SharedScan(subjects, tuple(owners[subject] for subject in subjects), same_bytes))


def describe_uncompared(*caches: Cache) -> list[str]:
    """Notes: of a large cache, not every picture was compared by `find_shared_scans`."""
    return [
        f"{cache.path}: looked for one face under two subjects among {num:,} pictures, evenly over it; {left:,} more were not "
        "compared"
        for cache in caches
        for num, left in [count_compared(cache)]
        if left
    ]


def check_folds_are_disjoint(folds: FoldList, shared: Sequence[SharedScan]) -> list[str]:
    """Check that no scan is seen in training under one name and tested under another.

    Returns:
        Notes: scans that stand under several subjects, on the same side of every fold.
    Raises:
        FacetError: a scan stands on both sides of a fold.
    """
    if not shared:
        return []
    for fold in folds.folds:
        train, test = set(fold.train_subjects), set(fold.test_subjects)
        leaks = [s for s in shared if not train.isdisjoint(s.subjects) and not test.isdisjoint(s.subjects)]
        if leaks:
            more = (
                f"; and so do {len(leaks) - 1:,} more, which `python -m preprocess inspect` shows on the page coverage"
            )
            raise FacetError(
                f"{fold.name}: one scan stands in both train and test, under different subjects ({leaks[0]})"
                f"{more * (len(leaks) > 1)}; correct the subjects' names, or remove one of the copies, and build the cache "
                "again"
            )
    notes = [f"one scan stands under {len(scan.subjects)} subjects ({scan})" for scan in shared[:MOST_NOTES]]
    left = len(shared) - MOST_NOTES
    if left > 0:
        notes.append(f"and so do {left:,} more; `python -m preprocess inspect` shows them on the page coverage")
    return notes


def check_classes(
    folds: FoldList,
    items: Sequence[Item],
    classes: Sequence[str],
    test_items: Sequence[Item] | None = None,
    *,
    task: str = "classes",
) -> list[str]:
    """A class nobody shows cannot be learned; one that only the test subjects lack is no error (leave one subject out).

    Args:
        items: selected ones; with another task than "classes", their targets are those of `classes`, in this order.
        test_items: the other data set's, where the folds go across data sets.
    Returns:
        Notes: classes without test samples, by how many folds; classes that one subject alone shows.
    Raises:
        FacetError: no training sample of a fold shows a class.
    """
    shown = _classes_by_subject(items, classes, task)
    tested = shown if test_items is None or test_items is items else _classes_by_subject(test_items, classes, task)
    owners = {name: sorted(subject for subject, names in shown.items() if name in names) for name in classes}
    untested: dict[str, list[str]] = {}
    for fold in folds.folds:
        trained = set().union(*(shown.get(subject, set()) for subject in fold.train_subjects))
        if absent := [name for name in classes if name not in trained]:
            who = owners[absent[0]]
            why = f" ({who[0]} alone shows {absent[0]})" if len(who) == 1 else ""
            raise FacetError(
                f"{fold.name}: no training sample shows {', '.join(absent)}{why}; leave the class out with --classes, or "
                "choose other folds"
            )
        present = set().union(*(tested.get(subject, set()) for subject in fold.test_subjects))
        for name in classes:
            if name not in present:
                untested.setdefault(name, []).append(fold.name)
    notes = [
        f"no test sample shows {name} in {len(names)} of {len(folds.folds)} folds ({list_some(names, 3)}); "
        "their balanced scores leave it out"
        for name, names in untested.items()
    ]
    return notes + [f"{who[0]} alone shows {name}" for name, who in owners.items() if len(who) == 1]


def _classes_by_subject(items: Iterable[Item], classes: Sequence[str], task: str) -> dict[str, set[str]]:
    shown: dict[str, set[str]] = {}
    for item in items:
        names = shown.setdefault(item.subject, set())
        if task == "classes":
            names.add(item.class_name)
        elif len(names) < len(classes):  # there may be 150,000 frames
            names.update(name for name, value in zip(classes, item.targets, strict=True) if value == 1)
    return shown


def check_subject_names(subjects: Iterable[str]) -> list[str]:
    """Notes: names that differ in case, white space or leading zeros alone, such as F1 and `f001 `: one person twice?"""
    groups: dict[str, list[str]] = {}
    for subject in sorted(set(subjects)):
        groups.setdefault(plain_subject(subject), []).append(subject)
    return [
        f"subjects {', '.join(map(repr, names))} may be one person in different folds; if so, give them one name"
        for names in groups.values()
        if len(names) > 1
    ]
