"""Who trains and who is tested: splits in which no subject stands on both sides."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from shared.errors import FacetError
from shared.schema import canonical_json
from shared.storage import first_line, write_file

SPLIT_JSON = "split.json"


@dataclass(frozen=True)
class Split:
    """split.json: the subjects of each side, sorted."""

    train_subjects: tuple[str, ...]
    test_subjects: tuple[str, ...]

    def __post_init__(self) -> None:
        if both := set(self.train_subjects) & set(self.test_subjects):
            raise FacetError(f"subject {sorted(both)[0]} stands in both train and test; give disjoint subjects")
        for name, subjects in (("train", self.train_subjects), ("test", self.test_subjects)):
            if not subjects:
                raise FacetError(f"no subject is left to {name} on; choose another --folds or --test-subjects")


def subject_folds(subjects: Sequence[str], num_folds: int, seed: int) -> list[tuple[str, ...]]:
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
    if num_folds > len(names):
        raise FacetError(
            f"--folds {num_folds}: there are only {len(names)} subjects; choose --folds {len(names)} or less"
        )
    order = np.random.default_rng(seed).permutation(len(names))
    return [tuple(sorted(names[i] for i in order[fold::num_folds])) for fold in range(num_folds)]


def split_by_fold(subjects: Sequence[str], num_folds: int, fold: int, seed: int) -> Split:
    """Tests on one fold, trains on the others.

    Raises:
        FacetError: there is no such fold.
    """
    folds = subject_folds(subjects, num_folds, seed)
    if not 0 <= fold < num_folds:
        raise FacetError(f"--fold {fold}: there is no such fold; {num_folds} folds are numbered 0 to {num_folds - 1}")
    train = [name for index, names in enumerate(folds) if index != fold for name in names]
    return Split(tuple(sorted(train)), folds[fold])


def split_by_subjects(subjects: Sequence[str], test_subjects: Sequence[str]) -> Split:
    """Tests on the named subjects, trains on all others.

    Raises:
        FacetError: a name is not among the subjects.
    """
    known = set(subjects)
    if unknown := sorted(set(test_subjects) - known):
        shown = ", ".join(unknown[:5]) + (" …" if len(unknown) > 5 else "")
        raise FacetError(
            f"--test-subjects: {shown} not among the {len(known)} subjects with usable samples "
            f"({', '.join(sorted(known)[:3])} …)"
        )
    return Split(tuple(sorted(known - set(test_subjects))), tuple(sorted(set(test_subjects))))


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


def write_split(run: Path, split: Split) -> None:
    write_file(run / SPLIT_JSON, canonical_json(asdict(split)).encode())


def read_split(run: Path) -> Split:
    """split.json of a run.

    Raises:
        FacetError: missing or damaged.
    """
    path = run / SPLIT_JSON
    try:
        value = json.loads(path.read_bytes())
        return Split(tuple(map(str, value["train_subjects"])), tuple(map(str, value["test_subjects"])))
    except FileNotFoundError as error:
        raise FacetError(f"{path}: missing; fit again") from error
    except (ValueError, KeyError, TypeError) as error:
        raise FacetError(f"{path}: damaged ({first_line(error)}); fit again") from error
