"""Who trains and who is tested: folds in which no subject stands on both sides, and the file two papers can share.

A list of folds is a JSON file:

    {"format": "facet folds 1", "protocol": "bu3dfe-p1", "dataset": "bu3dfe", "seed": 0, "classes": ["anger", …],
     "folds": [{"name": "round-000/fold-00", "train_subjects": ["F0001", …], "test_subjects": ["F0007", …]}, …]}

A fold's name is also the folder of its run: letters, digits, dots, hyphens and underscores, and at most one slash, before
which stands the round. In a round no subject is tested twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import FacetError, first_line
from shared.runs import check_file
from shared.schema import canonical_json
from shared.store.storage import write_file

SPLIT_JSON = "split.json"
FOLDS_FORMAT = "facet folds 1"
_NAME = re.compile(r"\w[\w.-]{0,119}(/\w[\w.-]{0,119})?")


@dataclass(frozen=True)
class Fold:
    """One training and its test; split.json of a run. Subjects are kept sorted, each once.

    Raises:
        FacetError: a subject stands on both sides, a side is empty, or the name cannot be a folder's.
    """

    name: str  # fold-00, round-017/fold-03, subject-S07
    train_subjects: tuple[str, ...]
    test_subjects: tuple[str, ...]

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise FacetError(
                f"fold {self.name[:60]!r}: expected a name of letters, digits, dots, hyphens, such as fold-00"
            )
        for side in ("train_subjects", "test_subjects"):
            object.__setattr__(self, side, tuple(sorted(set(getattr(self, side)))))
        if both := set(self.train_subjects) & set(self.test_subjects):
            raise FacetError(f"{self.name}: subject {min(both)} stands in both train and test; give disjoint subjects")
        for side, subjects in (("train", self.train_subjects), ("test", self.test_subjects)):
            if not subjects:
                raise FacetError(
                    f"{self.name}: no subject is left to {side} on; choose another --folds or --test-subjects"
                )

    @property
    def round(self) -> str:
        """round-017 of round-017/fold-03; empty where there is one round."""
        return self.name.rpartition("/")[0]


@dataclass(frozen=True)
class FoldList:
    """The folds of a protocol on one data set, in their order.

    Raises:
        FacetError: no folds, two of one name, or a subject that is tested twice in a round.
    """

    protocol: str
    dataset: str
    seed: int
    classes: tuple[str, ...]
    folds: tuple[Fold, ...]

    def __post_init__(self) -> None:
        if not self.folds:
            raise FacetError("a list of folds without a fold; at least one is needed")
        names: set[str] = set()
        tested: dict[tuple[str, str], str] = {}
        for fold in self.folds:
            if fold.name.casefold() in names:  # some file systems take fold-A and fold-a for one folder
                raise FacetError(f"two folds are called {fold.name}; give each a name of its own")
            names.add(fold.name.casefold())
            for subject in fold.test_subjects:
                if (other := tested.setdefault((fold.round, subject), fold.name)) != fold.name:
                    raise FacetError(
                        f"subject {subject} is tested in both {other} and {fold.name}; once a round is right"
                    )

        if mixed := sorted({fold.round for fold in self.folds if fold.round.casefold() in names}):
            raise FacetError(f"{mixed[0]} is the name of a fold and of a round; give each a name of its own")

    @property
    def subjects(self) -> tuple[str, ...]:
        """Everyone who trains or is tested in some fold, sorted."""
        return tuple(sorted({s for fold in self.folds for s in (*fold.train_subjects, *fold.test_subjects)}))


def subject_folds(subjects: Iterable[str], num_folds: int, seed: int | Sequence[int]) -> list[tuple[str, ...]]:
    """Deals the subjects into folds: sorted, permuted by NumPy's PCG64 of `seed`, then every num_folds-th to a fold.

    The answer depends on the set of subjects and the seed alone, not on the order of rows; sizes differ by one at most.

    Returns:
        num_folds tuples of sorted names, disjoint, together all subjects.
    Raises:
        FacetError: fewer than two folds, or more folds than subjects.
    """
    names = sorted(set(subjects))
    if num_folds < 2:
        raise FacetError(f"--folds {num_folds}: at least 2 are needed, so that some subjects train and others test")
    if len(names) < 2:
        raise FacetError(f"--folds {num_folds}: there are only {len(names)} subjects, at least 2 are needed")
    if num_folds > len(names):
        raise FacetError(
            f"--folds {num_folds}: there are only {len(names)} subjects; choose --folds {len(names)} or less"
        )
    order = np.random.default_rng(seed).permutation(len(names))
    return [tuple(sorted(names[i] for i in order[fold::num_folds])) for fold in range(num_folds)]


def leave_out_each(groups: Sequence[tuple[str, ...]], names: Sequence[str]) -> list[Fold]:
    """Fold k of the given name tests on group k and trains on all others."""
    everyone = {subject for group in groups for subject in group}
    return [Fold(name, tuple(everyone.difference(group)), group) for name, group in zip(names, groups, strict=True)]


def fold_names(num_folds: int) -> list[str]:
    """fold-00, fold-01 …: they sort as they are numbered."""
    width = max(2, len(str(num_folds - 1)))
    return [f"fold-{index:0{width}d}" for index in range(num_folds)]


def name_for_folder(subject: str) -> str:
    """A subject's name with hyphens for what a fold's name may not hold."""
    return re.sub(r"[^\w.-]", "-", subject)[:80]


def split_by_subjects(subjects: Iterable[str], test_subjects: Sequence[str]) -> Fold:
    """Tests on the named subjects, trains on all others.

    Raises:
        FacetError: a name is not among the subjects.
    """
    known = set(subjects)
    if unknown := sorted(set(test_subjects) - known):
        raise FacetError(
            f"--test-subjects: {list_some(unknown)} not among the {len(known)} subjects with usable samples "
            f"({list_some(sorted(known), 3)})"
        )
    return Fold("test-subjects", tuple(known.difference(test_subjects)), tuple(test_subjects))


def read_subject_list(text: str) -> tuple[str, ...]:
    """`A,B,C`, or the name of a file with one subject a line (# begins a comment)."""
    path = Path(text)
    if path.is_file():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise FacetError(f"{path}: not a text file; give one subject a line") from error
        names = [line.split("#", 1)[0].strip() for line in lines]
    else:
        names = [name.strip() for name in text.split(",")]
    names = [name for name in names if name]
    if not names:
        raise FacetError(f"--test-subjects {text}: names no subject; give A,B,C or a file with one a line")
    return tuple(dict.fromkeys(names))


def check_folds_fit(folds: FoldList, subjects: Iterable[str], *, dataset: str | None = None) -> list[str]:
    """Whether folds from a file can be used on a cache's subjects.

    Returns:
        Notes: subjects of the cache that no fold uses.
    Raises:
        FacetError: folds of another data set, or subjects that the cache lacks.
    """
    known, named = set(subjects), set(folds.subjects)
    if dataset is not None and dataset != folds.dataset:
        raise FacetError(
            f"the folds were made for {folds.dataset}, the cache holds {dataset}; give the folds of {dataset}"
        )
    if lacking := sorted(named - known):
        raise FacetError(
            f"the folds name {len(lacking)} subjects that have no usable sample in the cache ({list_some(lacking)}); "
            "preprocess them too, or give other folds"
        )
    unused = sorted(known - named)
    return [f"{len(unused)} subjects of the cache are in no fold ({list_some(unused)})"] if unused else []


def list_some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")


# --- files ---


def write_split(run: Path, fold: Fold) -> None:
    write_file(run / SPLIT_JSON, canonical_json(asdict(fold)).encode())


def read_split(run: Path) -> Fold:
    """split.json of a run.

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
        return _parse_fold(json.loads(data))
    except (ValueError, RecursionError, FacetError) as error:
        raise FacetError(f"{path}: damaged ({first_line(error)}); fit again") from error


def write_folds(path: Path, folds: FoldList) -> None:
    """Writes the JSON file that the module's docstring describes."""
    write_file(path, canonical_json({"format": FOLDS_FORMAT, **asdict(folds)}).encode())


def read_folds(path: Path) -> FoldList:
    """The inverse of `write_folds`; order of keys and of subjects is free.

    Raises:
        FacetError: missing, damaged, of another format, or folds that no list may hold (see FoldList and Fold).
    """
    try:
        value = json.loads(path.read_bytes())
        found = value.get("format") if isinstance(value, dict) else None
        if found != FOLDS_FORMAT:
            raise ValueError(f"format {str(found)[:40]!r}, expected {FOLDS_FORMAT!r}")
        return FoldList(
            protocol=_take(value, "protocol", str),
            dataset=_take(value, "dataset", str),
            seed=_take(value, "seed", int),
            classes=_take_names(value, "classes"),
            folds=tuple(_parse_fold(fold) for fold in _take(value, "folds", list)),
        )
    except FileNotFoundError as error:
        raise FacetError(f"{path}: no such file; give a list of folds that was exported") from error
    except (ValueError, RecursionError, FacetError) as error:
        raise FacetError(f"{path}: no usable list of folds: {first_line(error)}") from error


def _parse_fold(value: Any) -> Fold:
    return Fold(_take(value, "name", str), _take_names(value, "train_subjects"), _take_names(value, "test_subjects"))


def _take(value: Any, key: str, kind: type) -> Any:
    if not isinstance(value, dict) or key not in value:
        raise ValueError(f"{key} is missing")
    if not isinstance(value[key], kind) or isinstance(value[key], bool):
        raise ValueError(f"{key}: expected {kind.__name__}, found {str(value[key])[:40]!r}")
    return value[key]


def _take_names(value: Any, key: str) -> tuple[str, ...]:
    names = _take(value, key, list)
    if odd := [name for name in names if not isinstance(name, str) or not name]:
        raise ValueError(f"{key}: expected names, found {str(odd[0])[:40]!r}")
    if len(set(names)) != len(names):
        raise ValueError(f"{key}: a name stands there twice")
    return tuple(names)
