"""Checks before training for errors that would make a result worthless. Errors stop; notes are for the user to judge."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from shared.cache import SAMPLES_CSV, SEQUENCES_CSV, Cache
from shared.errors import FacetError, name_some
from shared.labels import plain_person
from shared.likeness import CacheRow, count_compared, find_common_image, find_same_faces
from shared.pairs import group_pairs
from train.protocols.folds import FoldList
from train.protocols.selection import name_tested, prefix_subject
from train.tasks.item import Item
from train.tasks.task import Task, find_task

MOST_NOTES = 5  # on scans under several subjects


@dataclass(frozen=True)
class SharedScan:
    """One scan under several subjects: a sample of each, sorted by subject.

    same_bytes: its files are equal; False: its pictures are, as after saving the file anew.
    """

    subjects: tuple[str, ...]
    sample_ids: tuple[str, ...]
    same_bytes: bool = True

    def __str__(self) -> str:
        pairs = [f"{sample} of {subject}" for sample, subject in zip(self.sample_ids, self.subjects, strict=True)]
        return name_some(pairs, 3) + ("" if self.same_bytes else "; other files, the same pictures")


def check_experiment(
    folds: FoldList,
    train_items: Sequence[Item],
    test_items: Sequence[Item],
    classes: Sequence[str],
    task: str,
    shared: Sequence[SharedScan],
) -> list[str]:
    """Run all checks that need the folds.

    Args:
        test_items: train_items again, unless another data set is tested.
        task: classes, targets or aus; see check_classes.
        shared: the result of find_shared_scans.
    Returns:
        Notes.
    Raises:
        FacetError: a leak, or a class without a training sample.
    """
    subjects = {item.subject for item in (*train_items, *test_items)}
    notes = check_folds_are_disjoint(folds, shared)
    return notes + check_classes(folds, train_items, classes, test_items, task=task) + check_subject_names(subjects)


def check_labels(cache: Cache) -> None:
    """Check that every label is empty or in the cache's vocabulary.

    Raises:
        FacetError: one is not; names the table, the row and the label.
    """
    tables = {
        SAMPLES_CSV: ((sample.sample_id, sample.label) for sample in cache.samples),
        SEQUENCES_CSV: ((sequence.sequence, sequence.label) for sequence in cache.sequences),
    }
    known = {"", *cache.info.class_names}
    for file, rows in tables.items():
        for name, label in rows:
            if label not in known:
                raise FacetError(
                    f"{cache.path / file}: {name} is labelled {label!r}, which is not in the vocabulary "
                    f"({', '.join(cache.info.class_names)}); run `python -m preprocess build` again"
                )


def find_shared_scans(*caches: Cache, trained: Collection[str] = ()) -> list[SharedScan]:
    """Find scans under more than one subject, by the hashes of their files and by their pictures (shared/likeness.py).

    Only valid rows are compared, and of sequences the pictures of three frames. With several data sets, subjects are named as
    in a cross protocol, `bu4dfe:F001`. Scans under the same subjects are reported once, by their first samples.

    Args:
        trained: subjects of the first of two caches who are not, by their names alone, those of the second (`name_tested`).
    """
    several = len({cache.info.dataset for cache in caches}) > 1

    def name(cache: Cache, subject: str) -> str:
        if several:
            return prefix_subject(cache.info.dataset, subject)
        return subject if cache is caches[0] else name_tested(subject, trained)

    subjects = [[name(cache, sample.subject) for sample in cache.samples] for cache in caches]
    by_hash: dict[str, dict[str, str]] = {}  # hash → subject → first sample
    for cache, names in zip(caches, subjects, strict=True):
        for sample, subject in zip(cache.samples, names, strict=True):
            if sample.valid and sample.source_hash:
                by_hash.setdefault(sample.source_hash, {}).setdefault(subject, sample.sample_id)
    shared: dict[tuple[str, ...], SharedScan] = {}
    for samples in by_hash.values():
        if len(samples) > 1:
            scan = _make_shared(samples, same_bytes=True)
            shared.setdefault(scan.subjects, scan)
    known = [set(subjects_of_one) for subjects_of_one in shared]
    for group in _join_pairs(find_same_faces(caches, subjects)):
        samples = {}
        for number, row in group:
            samples.setdefault(subjects[number][row], caches[number].samples[row].sample_id)
        if not any(samples.keys() <= one for one in known):
            scan = _make_shared(samples, same_bytes=False)
            shared.setdefault(scan.subjects, scan)
    return list(shared.values())


def _make_shared(samples: dict[str, str], *, same_bytes: bool) -> SharedScan:
    return SharedScan(tuple(sorted(samples)), tuple(samples[subject] for subject in sorted(samples)), same_bytes)


def _join_pairs(pairs: Sequence[tuple[CacheRow, CacheRow]]) -> list[list[CacheRow]]:
    """Return the connected groups of rows, each sorted."""
    group_of: dict[CacheRow, list[CacheRow]] = {}
    for a, b in pairs:
        one, other = group_of.setdefault(a, [a]), group_of.setdefault(b, [b])
        if one is not other:
            one += other
            group_of.update(dict.fromkeys(other, one))
    return [sorted(group) for group in {id(group): group for group in group_of.values()}.values()]


def describe_compared(train: Cache, test: Cache) -> str:
    """Return how scans of two caches were compared, when none was found in both."""
    counts = " and ".join(f"{count_compared(cache)[0]:,}" for cache in (train, test))
    images = f"images of {counts} scans" if find_common_image([train, test]) else "no images, for want of a common kind"
    return f"no scan of {test.path} is in training: compared were the hashes of all files, and {images}"


def describe_uncompared(*caches: Cache) -> list[str]:
    """Return a note for each cache that is too large for `find_shared_scans` to compare all pictures."""
    counts = [(cache.path, *count_compared(cache)) for cache in caches]
    return [
        f"{path}: searched for one face under two subjects in {num:,} pictures, evenly over the cache; {left:,} more were not "
        "compared"
        for path, num, left in counts
        if left
    ]


def check_folds_are_disjoint(folds: FoldList, shared: Sequence[SharedScan]) -> list[str]:
    """Check that no scan is in training under one subject and in the test under another.

    Returns:
        Notes: scans under several subjects that are on the same side of every fold.
    Raises:
        FacetError: a scan is on both sides of a fold.
    """
    for fold in folds.folds if shared else ():
        train, test = set(fold.train_subjects), set(fold.test_subjects)
        leaks = [s for s in shared if not train.isdisjoint(s.subjects) and not test.isdisjoint(s.subjects)]
        if leaks:
            more = f", and {len(leaks) - 1:,} more (see `python -m preprocess inspect`, coverage)" * (len(leaks) > 1)
            raise FacetError(
                f"{fold.name}: one scan is in both train and test, under different subjects ({leaks[0]}){more}; give one "
                "person one name, or remove one of the copies, and build the cache again"
            )
    notes = [f"one scan is under {len(scan.subjects)} subjects ({scan})" for scan in shared[:MOST_NOTES]]
    if len(shared) > MOST_NOTES:
        left = len(shared) - MOST_NOTES
        notes.append(f"and {left:,} more scans are, which `python -m preprocess inspect` shows on the page coverage")
    return notes


def check_classes(
    folds: FoldList,
    items: Sequence[Item],
    classes: Sequence[str],
    test_items: Sequence[Item] | None = None,
    *,
    task: str = "classes",
) -> list[str]:
    """Check that every fold trains on every class, or on its `train_classes`.

    Test subjects may lack a class, as in leave-one-subject-out.

    Args:
        items: the selected items. If the task is not "classes", the targets of each item are in the order of `classes`.
        test_items: items of the other data set, if the test is on another one.
    Returns:
        Notes: classes without test samples, with the number of folds; classes that only one subject shows.
    Raises:
        FacetError: no training sample of a fold shows a class.
    """
    shown = tested = _classes_by_subject(items, classes, find_task(task))
    if test_items is not None and test_items is not items:
        tested = _classes_by_subject(test_items, classes, find_task(task))
    owners = {name: sorted(subject for subject, names in shown.items() if name in names) for name in classes}
    untested: dict[str, list[str]] = {}
    for fold in folds.folds:
        trained = set().union(*(shown.get(subject, set()) for subject in fold.trained_subjects))
        if absent := [name for name in fold.train_classes or classes if name not in trained]:
            who = owners[absent[0]]
            why = f" (only {who[0]} shows {absent[0]})" if len(who) == 1 else ""
            raise FacetError(
                f"{fold.name}: no training sample shows {', '.join(absent)}{why}; leave the class out with --classes, or "
                "choose other folds"
            )
        present = set().union(*(tested.get(subject, set()) for subject in fold.test_subjects))
        for name in (fold.test_classes or classes) if fold.test_subjects else ():
            if name not in present:
                untested.setdefault(name, []).append(fold.name)
    notes = [
        f"no test sample shows {name} in {len(names)} of {len(folds.folds)} folds ({name_some(names, 3)}); "
        "their balanced scores leave it out"
        for name, names in untested.items()
    ]
    if partial := [fold.name for fold in folds.folds if fold.train_classes]:
        notes.append(
            f"{len(partial)} of {len(folds.folds)} folds do not train on every class ({name_some(partial, 3)}); a class "
            "without training samples is known by its prompts alone"
        )
    return notes + [f"only {who[0]} shows {name}" for name, who in owners.items() if len(who) == 1]


def _classes_by_subject(items: Iterable[Item], classes: Sequence[str], task: Task) -> dict[str, set[str]]:
    shown: dict[str, set[str]] = {}
    for item in items:
        names = shown.setdefault(item.subject, set())
        if len(names) < len(classes):  # there may be 150,000 frames
            names.update(task.shown_classes(item, classes))
    return shown


def describe_doubles(cache: Cache, items: Sequence[Item]) -> list[str]:
    """Return notes on samples with equal files: those with two labels, and those that count twice."""
    hashed = [(tuple(cache.samples[row].source_hash for row in item.rows), item) for item in items]
    groups = group_pairs(((*hashes, *map(str, item.targets)), item) for hashes, item in hashed if all(hashes))
    doubles = [group for group in groups.values() if len(group) > 1]
    odd = [group for group in doubles if len({item.class_name for item in group}) > 1]
    notes = []
    if odd:
        shown = " and ".join(f"{item.name} is {item.class_name or 'unlabelled'}" for item in odd[0][:2])
        notes.append(f"{len(odd):,} samples have two labels, by their files ({shown}); one of the labels is wrong")
    if same := [group for group in doubles if group not in odd]:
        num, (one, other, *_) = sum(map(len, same)) - len(same), same[0]
        notes.append(f"{num:,} samples are copies of others by their files, and count twice ({one.name}, {other.name})")
    return notes


def check_subject_names(subjects: Iterable[str]) -> list[str]:
    """Return notes on names that are perhaps one, such as F1 and `f001 `, or two spellings of a full name."""
    groups = group_pairs((plain_person(subject), subject) for subject in sorted(set(subjects)))
    return [
        f"subjects {', '.join(map(repr, names))} may be one person in different folds; if so, give them one name"
        for names in groups.values()
        if len(names) > 1
    ]
