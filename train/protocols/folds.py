"""Folds, in which no subject both trains and is tested, and the file that two papers can share.

A list of folds is a JSON file:

    {"format": "facet folds 1", "protocol": "bu3dfe-p1", "dataset": "bu3dfe", "seed": 0, "classes": ["anger", …],
     "folds": [{"name": "round-000/fold-00", "train_subjects": ["F0001", …], "test_subjects": ["F0007", …]}, …]}

A fold's name is also the folder of its run: letters, digits, dots, hyphens and underscores, after the name of the round and a
slash if there are rounds. A fold may also have `validation_subjects`, and `train_classes` or `test_classes` if not all classes
train or are tested. No subject is tested twice in a round on the same class.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import FacetError, first_line, name_some
from shared.runs import SPLIT_JSON, check_file
from shared.schema import canonical_json
from shared.store.storage import write_file
from shared.typed_json import make

FOLDS_FORMAT = "facet folds 1"
EVERYONE = "everyone"  # the fold that trains on all subjects and tests nobody
NOBODY = "none"  # --test-subjects none
_NAME = re.compile(r"\w[\w.-]{0,119}(/\w[\w.-]{0,119})?")


@dataclass(frozen=True)
class Fold:
    """One training and its test, as in a run's split.json. Subjects are sorted, each once.

    Raises:
        FacetError: a subject is on both sides, a side is empty (but for EVERYONE), or the name cannot be a folder's.
    """

    name: str  # fold-00, round-017/fold-03, subject-S07
    train_subjects: tuple[str, ...]
    test_subjects: tuple[str, ...]
    validation_subjects: tuple[str, ...] = ()  # among the training subjects; no weight is trained on them
    train_classes: tuple[str, ...] = ()  # only their samples train (and validate); (): of all classes
    test_classes: tuple[str, ...] = ()  # only their samples are tested; (): of all classes

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise FacetError(f"fold {self.name[:60]!r}: expected a name of letters, digits, dots, hyphens: fold-00")
        for side in ("train", "test"):
            subjects = sorted(set(getattr(self, f"{side}_subjects")))
            if not subjects and (side, self.name) != ("test", EVERYONE):
                raise FacetError(f"{self.name}: no subject to {side} on; choose another --folds or --test-subjects")
            if "" in subjects:
                raise FacetError(f"{self.name}: a subject of the {side} side has no name")
            object.__setattr__(self, f"{side}_subjects", tuple(subjects))
        object.__setattr__(self, "validation_subjects", tuple(sorted(set(self.validation_subjects))))
        if strange := set(self.validation_subjects) - set(self.train_subjects):
            raise FacetError(f"{self.name}: subject {min(strange)} validates, but is not in training")
        if self.validation_subjects == self.train_subjects:
            raise FacetError(
                f"{self.name}: all training subjects validate, so nobody is left; "
                "validate on fewer, or train on more (--folds)"
            )
        if both := set(self.train_subjects) & set(self.test_subjects):
            raise FacetError(f"{self.name}: subject {min(both)} is in both train and test; give disjoint subjects")

    @property
    def trained_subjects(self) -> set[str]:
        """Return the training subjects but those who validate."""
        return set(self.train_subjects).difference(self.validation_subjects)

    @property
    def round(self) -> str:
        """Return the round of a fold's name: round-017 of round-017/fold-03; empty if there is one round."""
        return self.name.rpartition("/")[0]


@dataclass(frozen=True)
class FoldList:
    """The folds of a protocol on one data set, in their order.

    Raises:
        FacetError: no folds, two of one name, a class twice or unknown, or a subject that is tested twice in a round.
    """

    protocol: str
    dataset: str
    seed: int
    classes: tuple[str, ...]
    folds: tuple[Fold, ...]

    def __post_init__(self) -> None:
        if not self.folds:
            raise FacetError("a list of folds without a fold; at least one is needed")
        if len(set(self.classes)) != len(self.classes):
            raise FacetError(f"a class is named twice ({', '.join(self.classes)[:60]})")
        names: set[str] = set()
        tested: dict[tuple[str, str, str], str] = {}
        for fold in self.folds:
            if fold.name.casefold() in names:  # some file systems take fold-A and fold-a for one folder
                raise FacetError(f"two folds have the name {fold.name}; give each its own")
            names.add(fold.name.casefold())
            if unknown := {*fold.train_classes, *fold.test_classes} - {*self.classes}:
                raise FacetError(f"{fold.name}: names the class {min(unknown)}, which is not in the list of classes")
            for subject, name in itertools.product(fold.test_subjects, fold.test_classes or self.classes or ("",)):
                if (other := tested.setdefault((fold.round, subject, name), fold.name)) != fold.name:
                    raise FacetError(f"subject {subject} is tested in {other} and in {fold.name}, not once a round")
        if mixed := sorted({fold.round for fold in self.folds if fold.round.casefold() in names}):
            raise FacetError(f"{mixed[0]} is the name of a fold and of a round; give each its own")

    @property
    def subjects(self) -> tuple[str, ...]:
        """Return all subjects who train or are tested in some fold, sorted."""
        return tuple(sorted({s for fold in self.folds for s in (*fold.train_subjects, *fold.test_subjects)}))


def subject_folds(subjects: Iterable[str], num_folds: int, seed: int | Sequence[int]) -> list[tuple[str, ...]]:
    """Split subjects into test groups: sort, permute by NumPy's PCG64 of `seed`, take every num_folds-th.

    The result depends on the set of subjects and the seed alone; sizes differ by one at most.

    Returns:
        num_folds tuples of sorted names, disjoint, together all subjects.
    Raises:
        FacetError: fewer than two folds, or more folds than subjects.
    """
    names = sorted(set(subjects))
    if num_folds < 2:
        raise FacetError(f"--folds {num_folds}: at least 2 are needed, so that some subjects train and others test")
    if num_folds > len(names):
        advice = f"choose --folds {len(names)} or less" if len(names) > 1 else "at least 2 are needed"
        raise FacetError(f"{num_folds} folds: there are only {len(names)} subjects; {advice}")
    order = np.random.default_rng(seed).permutation(len(names))
    return [tuple(sorted(names[i] for i in order[fold::num_folds])) for fold in range(num_folds)]


def leave_out_each(groups: Sequence[tuple[str, ...]], names: Sequence[str]) -> list[Fold]:
    """Return a fold per group, which tests on this group and trains on all others."""
    everyone = {subject for group in groups for subject in group}
    return [Fold(name, tuple(everyone.difference(group)), group) for name, group in zip(names, groups, strict=True)]


def fold_names(num_folds: int) -> list[str]:
    """Return fold-00, fold-01 …, which sort in their order."""
    width = max(2, len(str(num_folds - 1)))
    return [f"fold-{index:0{width}d}" for index in range(num_folds)]


def name_for_folder(subject: str) -> str:
    """Return a subject's name with hyphens for the characters that a fold's name may not have."""
    return re.sub(r"[^\w.-]", "-", subject)[:80]


def split_by_subjects(subjects: Iterable[str], test_subjects: Sequence[str]) -> Fold:
    """Return a fold that tests on the named subjects, or on NOBODY, and trains on all others.

    Raises:
        FacetError: a name is not among the subjects.
    """
    known = set(subjects)
    if tuple(test_subjects) == (NOBODY,) and NOBODY not in known:
        return Fold(EVERYONE, tuple(known), ())
    if unknown := sorted(set(test_subjects) - known):
        raise FacetError(
            f"--test-subjects: {name_some(unknown)} not among the {len(known)} subjects with usable samples "
            f"({name_some(sorted(known), 3)})"
        )
    return Fold("test-subjects", tuple(known.difference(test_subjects)), tuple(test_subjects))


def hold_out(fold: Fold, chosen: Sequence[str], seed: int) -> Fold:
    """Return a fold with some of its training subjects held out for validation.

    Args:
        chosen: a fraction alone, as ("0.1",), of which subjects are drawn; or names, of which those in training are taken.
    Raises:
        FacetError: nobody validates, or nobody is left to train on.
    """
    names = fold.train_subjects
    try:
        (fraction,) = map(float, chosen)
    except (ValueError, TypeError):
        held_out = tuple(name for name in names if name in chosen)
        if not held_out:
            raise FacetError(
                f"--validate {name_some(chosen)}: none of them is a training subject of {fold.name}"
            ) from None
    else:
        if not 0 < fraction < 1:
            raise FacetError(f"--validate {fraction:g}: expected a fraction of 0 to 1, or names of subjects")
        order = np.random.default_rng([seed, 3]).permutation(len(names))
        held_out = tuple(names[index] for index in order[: max(round(fraction * len(names)), 1)])
    return replace(fold, validation_subjects=held_out)


def read_subject_list(text: str, option: str = "--test-subjects") -> tuple[str, ...]:
    """Read `A,B,C`, or a file with one subject per line (# begins a comment), if there is one of that name."""
    path = Path(text)
    if path.is_file():
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise FacetError(f"{path}: not a text file; give one subject per line") from error
        names = [line.partition("#")[0].strip() for line in lines]
    else:
        names = [name.strip() for name in text.split(",")]
    if not any(names):
        raise FacetError(f"{option} {text}: names no subject; give A,B,C or a file with one per line")
    return tuple(dict.fromkeys(filter(None, names)))


def check_folds_fit(folds: FoldList, subjects: Iterable[str], *, dataset: str | None = None) -> list[str]:
    """Check that folds from a file fit a cache.

    Returns:
        Notes: subjects of the cache that no fold uses.
    Raises:
        FacetError: folds of another data set, or subjects that the cache lacks.
    """
    known, named = set(subjects), set(folds.subjects)
    if dataset not in (None, folds.dataset):
        raise FacetError(f"the folds are of {folds.dataset}, the cache holds {dataset}; give the folds of {dataset}")
    if lacking := sorted(named - known):
        raise FacetError(
            f"the folds name {len(lacking)} subjects that have no usable sample in the cache ({name_some(lacking)}); "
            "preprocess them too, or give other folds"
        )
    unused = sorted(known - named)
    return [f"{len(unused)} subjects of the cache are in no fold ({name_some(unused)})"] if unused else []


# --- files ---


def write_split(run: Path, fold: Fold) -> None:
    """Write the fold of a run to its split.json."""
    write_file(run / SPLIT_JSON, canonical_json(_describe_fold(fold)).encode())


def _describe_fold(fold: Fold) -> dict[str, Any]:
    """Return a fold for a file; fields that it makes no use of are left out."""
    defaults = {field.name: field.default for field in fields(Fold)}
    return {name: value for name, value in asdict(fold).items() if value != defaults[name]}


def read_split(run: Path) -> Fold:
    """Read split.json of a run.

    Raises:
        FacetError: missing or damaged.
    """
    path = run / SPLIT_JSON
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise FacetError(f"{path}: missing; fit again") from error
    check_file(run, SPLIT_JSON, data)
    try:
        return make(Fold, _keep_fields(Fold, json.loads(data)))
    except (ValueError, RecursionError, FacetError) as error:
        raise FacetError(f"{path}: damaged ({first_line(error)}); fit again") from error


def write_folds(path: Path, folds: FoldList) -> None:
    """Write the JSON file that the module's docstring describes."""
    described = asdict(folds) | {"folds": [_describe_fold(fold) for fold in folds.folds]}
    write_file(path, canonical_json({"format": FOLDS_FORMAT, **described}).encode())


def read_folds(path: Path) -> FoldList:
    """Read the file of `write_folds`; keys and subjects may be in any order, other keys are ignored.

    Raises:
        FacetError: missing, damaged, of another format, or not accepted by FoldList or Fold.
    """
    try:
        value = json.loads(path.read_bytes())
        found = value.get("format") if isinstance(value, dict) else None
        if found != FOLDS_FORMAT:
            raise ValueError(f"format {str(found)[:40]!r}, expected {FOLDS_FORMAT!r}")
        if isinstance(value.get("folds"), list):
            value["folds"] = [_keep_fields(Fold, fold) for fold in value["folds"]]
        return make(FoldList, _keep_fields(FoldList, value))
    except FileNotFoundError as error:
        raise FacetError(f"{path}: no such file; give a list of folds that was exported") from error
    except (ValueError, RecursionError, FacetError) as error:
        raise FacetError(f"{path}: no usable list of folds: {first_line(error)}") from error


def _keep_fields(kind: type, value: object) -> object:
    """Drop the keys of a JSON object that are not fields of a dataclass."""
    names = {field.name for field in fields(kind)}
    return {k: v for k, v in value.items() if k in names} if isinstance(value, dict) else value
