"""The evaluation protocols of the field, read from named.toml. selection.py applies them to a cache."""

from __future__ import annotations

import textwrap
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from shared.errors import FacetError, count, suggest
from shared.typed_json import make

DEFAULT_PROTOCOL = "kfold"
CROSS_PROTOCOL = "cross"  # the default where training and test come from two caches
KFOLD, LOSO, CROSS = "kfold", "loso", "cross"  # schemes: how subjects are split
_LINE_LENGTH = 110


@dataclass(frozen=True)
class Protocol:
    """Which samples are used, the classes, and who trains and who is tested. () = all that the data set has."""

    name: str  # the table's name in named.toml
    title: str  # {0}: the data set, or the training data set; {1}: the test data set
    source: str  # the paper it follows, and how sure that is
    datasets: tuple[str, ...] = ()  # the data sets it is for; in a cross protocol: for training
    task: str = "classes"  # of train.parts.TASKS
    classes: tuple[str, ...] = ()  # class names or action units; () = all of the data set's but neutral
    intensities: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()  # recording tasks, such as BP4D's T1…T8
    all_classes_needed: bool = False  # leave out subjects that lack a class at some intensity
    scheme: str = KFOLD
    num_folds: int = 10  # of a k-fold scheme; another number is allowed, and noted
    num_drawn: int | None = None  # number of subjects that are drawn; None: all take part
    num_rounds: int = 1
    redraw: bool = False  # draw other subjects in each round
    test_datasets: tuple[str, ...] = ()  # cross: the data sets for testing
    test_tasks: tuple[str, ...] = ()  # cross: the recording tasks for testing
    published_subjects: int | None = None  # None: differs or unknown
    published_samples: int | None = None
    f1_name: str = "F1"  # what its papers call macro-F1

    @property
    def is_repeated(self) -> bool:
        return self.num_rounds > 1


def _read_protocols() -> dict[str, Protocol]:
    tables = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return {name: make(Protocol, {"name": name, **table}) for name, table in tables.items()}


PROTOCOLS = _read_protocols()


def find_protocol(name: str) -> Protocol:
    """Return the protocol of a name.

    Raises:
        FacetError: there is none.
    """
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    hint = suggest(name.lower(), PROTOCOLS, "choose another")
    raise FacetError(f"--protocol {name}: no such protocol; {hint} (there are {', '.join(PROTOCOLS)})")


def check_datasets(protocol: Protocol, dataset: str, test_dataset: str | None = None) -> None:
    """Check that a protocol is for these data sets.

    Args:
        test_dataset: the data set of the test cache, if there is one.
    Raises:
        FacetError: it is for others, or for another number of caches; names the protocols that fit.
    """
    if _fits(protocol, dataset, test_dataset):
        return
    caches = "two caches (--train-cache A --test-cache B)" if protocol.scheme == CROSS else "one cache (--cache)"
    given = " → ".join(name for name in (dataset, test_dataset) if name is not None)
    fit = ", ".join(other.name for other in PROTOCOLS.values() if _fits(other, dataset, test_dataset))
    raise FacetError(
        f"--protocol {protocol.name} needs {caches} of {_name_datasets(protocol)}, not {given}; choose one of {fit}"
    )


def _fits(protocol: Protocol, dataset: str, test_dataset: str | None) -> bool:
    return (
        (protocol.scheme == CROSS) == (test_dataset is not None)
        and (not protocol.datasets or dataset in protocol.datasets)
        and (not protocol.test_datasets or test_dataset in protocol.test_datasets)
    )


def _name_datasets(protocol: Protocol) -> str:
    sides = [protocol.datasets, protocol.test_datasets][: 2 if protocol.scheme == CROSS else 1]
    return " → ".join(" or ".join(names) or "any data set" for names in sides)


# --- descriptions ---


def describe_protocols() -> str:
    """Return the name and title of each protocol. Ends with a line feed."""
    width = max(map(len, PROTOCOLS)) + 2
    return "".join(_wrap(f"{name:{width}}{describe_title(one)}", indent=width) for name, one in PROTOCOLS.items())


def describe_protocol(protocol: Protocol) -> str:
    """Return one protocol in detail: its fields in named.toml. Ends with a line feed."""
    text = _wrap(f"{protocol.name}: {describe_title(protocol)}", indent=0)
    for field in fields(protocol)[2:]:
        value = getattr(protocol, field.name)
        if value != field.default:
            shown = ", ".join(value) if isinstance(value, tuple) else "yes" if value is True else str(value)
            text += _wrap(f"  {field.name.replace('_', ' ') + ':':20}{shown}", indent=22)
    return text


def _wrap(text: str, *, indent: int) -> str:
    return textwrap.fill(text, _LINE_LENGTH, subsequent_indent=" " * indent, break_on_hyphens=False) + "\n"


def describe_title(
    protocol: Protocol, datasets: Sequence[str] = (), *, num_folds: int | None = None, num_rounds: int | None = None
) -> str:
    """Return the title with the data sets and the numbers of folds and rounds.

    Args:
        datasets: names of the data sets of a run: one, or training and test.
        num_folds: in each round. num_folds, num_rounds: of a run; None: as published.
    """
    unnamed = ("one data set", "another") if protocol.scheme == CROSS else ("any data set",)
    parts = [protocol.title.format(*(datasets or unnamed))]
    if protocol.scheme == KFOLD:
        parts.append(count(num_folds or protocol.num_folds, "fold"))
    if protocol.is_repeated:
        parts.append(count(num_rounds or protocol.num_rounds, "round"))
    return ", ".join(parts)
