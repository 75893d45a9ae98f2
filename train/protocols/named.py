"""How the field evaluates: named protocols, as data. selection.py applies them to a cache.

Where a source could not be checked against the papers themselves the protocol says so.
"""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace

from shared.errors import FacetError
from shared.labels import BASIC_EXPRESSIONS, BP4D_EMOTIONS, FOURDME_EMOTIONS

DEFAULT_PROTOCOL = "kfold"
CROSS_PROTOCOL = "cross"  # the default where training and test come from two caches
# How subjects are dealt.
KFOLD, LOSO, CROSS = "kfold", "loso", "cross"
_HIGHEST_TWO = ("03", "04")


@dataclass(frozen=True)
class Protocol:
    """Which samples count, what is told apart, and who trains and who is tested. () = whatever the data set has."""

    name: str
    title: str
    source: str  # whom it follows, and how sure that is
    datasets: tuple[str, ...] = ()  # what it is for; in a cross protocol: what it trains on
    task: str = "classes"  # classes, targets or aus
    classes: tuple[str, ...] = ()  # class names or action units; () = all of the data set's but neutral
    intensities: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()  # recording tasks, such as BP4D's T1…T8
    all_classes_needed: bool = False  # subjects that lack a class, at one of the intensities, are left out
    scheme: str = KFOLD
    num_folds: int = 10  # of a k-fold scheme; the user may choose another number, which is noted
    num_drawn: int | None = None  # subjects drawn from all; None: all take part
    num_rounds: int = 1
    redraw: bool = False  # draw other subjects for each round; otherwise one draw serves all
    test_datasets: tuple[str, ...] = ()  # cross: what is tested
    test_tasks: tuple[str, ...] = ()  # cross: the recording tasks that are tested
    num_subjects: int | None = None  # in the literature; None: differs or unknown
    num_samples: int | None = None

    @property
    def is_repeated(self) -> bool:
        return self.num_rounds > 1


_UNCONFIRMED = "general knowledge of the field, not checked against the papers"
_MEGC = "UF1 and UAR as in MEGC 2019 (See et al. 2019)"
_CLASSIC = Protocol(
    "bu3dfe-p1",
    "BU-3DFE, rule P1: 60 subjects chosen once, 10 folds (54 train, 6 test), 100 rounds, two highest intensities",
    f"Gong et al. 2009, 'Automatic facial expression recognition on a single 3D face by exploring shape deformation', and "
    f"those who compare with it; {_UNCONFIRMED}; which 60 subjects others drew is not published",
    datasets=("bu3dfe",),
    classes=BASIC_EXPRESSIONS,
    intensities=_HIGHEST_TWO,
    all_classes_needed=True,
    num_drawn=60,
    num_rounds=100,
    num_subjects=100,
)
_SUBSET_1 = Protocol(
    "bu3dfe-subset1",
    "BU-3DFE, Subset I: the two highest intensities of the six expressions, 10 folds",
    f"Li et al. 2017, 'Multimodal 2D+3D facial expression recognition with deep fusion CNN'; {_UNCONFIRMED}",
    datasets=("bu3dfe",),
    classes=BASIC_EXPRESSIONS,
    intensities=_HIGHEST_TWO,
    num_subjects=100,
    num_samples=1200,
)
_BU4DFE_BP4D = Protocol(
    "bu4dfe-bp4d",
    "trained on BU-4DFE, tested on BP4D's happiness (T1) and disgust (T8), the decision among all six",
    f"cross-data-set test of 4D expression papers; {_UNCONFIRMED}",
    datasets=("bu4dfe",),
    classes=BASIC_EXPRESSIONS,
    scheme=CROSS,
    test_datasets=("bp4d",),
    test_tasks=("T1", "T8"),
)
_FOURDME = Protocol(
    "4dme",
    "4DME, leave one subject out: clips that show one emotion alone",
    f"Li et al. 2022, '4DME'; {_MEGC}; one fold a subject is confirmed, the choice of clips is ours",
    datasets=("4dme",),
    classes=FOURDME_EMOTIONS,
    scheme=LOSO,
    num_subjects=24,
)

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            DEFAULT_PROTOCOL,
            "any data set: all labelled samples, folds without common subjects",
            "common practice: subject-independent k-fold cross-validation",
        ),
        Protocol(
            "loso",
            "any data set: leave one subject out, a fold a subject",
            "common practice: leave-one-subject-out cross-validation",
            scheme=LOSO,
        ),
        _SUBSET_1,
        replace(
            _SUBSET_1,
            name="bu3dfe-subset2",
            title="BU-3DFE, Subset II: all four intensities of the six expressions, 10 folds",
            intensities=("01", "02", "03", "04"),
            num_samples=2400,
        ),
        _CLASSIC,
        replace(
            _CLASSIC,
            name="bu3dfe-p2",
            title="BU-3DFE, rule P2: as P1, but the 60 subjects drawn anew in each round",
            redraw=True,
        ),
        Protocol(
            "bosphorus",
            "Bosphorus: subjects who show all six expressions, 10 folds",
            f"Li et al. 2017, 'Multimodal 2D+3D facial expression recognition with deep fusion CNN'; {_UNCONFIRMED}",
            datasets=("bosphorus",),
            classes=BASIC_EXPRESSIONS,
            all_classes_needed=True,
            num_subjects=65,
            num_samples=390,
        ),
        Protocol(
            "bu4dfe",
            "BU-4DFE: the six expressions, whole sequences, 10 folds",
            "papers on 4D expression recognition; number of subjects and folds confirmed",
            datasets=("bu4dfe",),
            classes=BASIC_EXPRESSIONS,
            num_subjects=101,
            num_samples=606,
        ),
        Protocol(
            "bp4d",
            "BP4D-Spontaneous: the emotions that the eight tasks were made to evoke, whole sequences, 10 folds",
            f"tasks: the data set's user guide; folds: {_UNCONFIRMED}",
            datasets=("bp4d",),
            classes=BP4D_EMOTIONS,
            num_subjects=41,
            num_samples=328,
        ),
        Protocol(
            "bp4d-au",
            "BP4D-Spontaneous: occurrence of 12 action units, frame by frame, 3 folds without common subjects",
            "Zhao et al. 2016, 'Deep region and multi-label learning for facial action unit detection', and those who compare "
            "with it; 12 units and 3 folds seen in public code (AUNets, Romero et al. 2018), the rest is general knowledge; "
            "which subjects stand in which fold differs between papers",
            datasets=("bp4d",),
            task="aus",
            classes=tuple(f"AU{unit}" for unit in (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)),
            num_folds=3,
            num_subjects=41,
        ),
        _FOURDME,
        replace(
            _FOURDME,
            name="4dme-multilabel",
            title="4DME, leave one subject out: all clips, several emotions at once",
            source=f"the 4DME challenge of 2025 (multi-label, thresholds for each class); {_MEGC}; thresholds are ours",
            task="targets",
            num_samples=267,
        ),
        _BU4DFE_BP4D,
        replace(
            _BU4DFE_BP4D,
            name="bu4dfe-bp4d-all",
            title="trained on BU-4DFE, tested on all six classes that BP4D shares with it",
            source="ours: bu4dfe-bp4d without the restriction to two tasks",
            test_tasks=(),
        ),
        Protocol(
            CROSS_PROTOCOL,
            "trained on one data set, tested on another, on the classes that both know",
            "ours: class names are matched by shared/labels.py, and the map is printed",
            scheme=CROSS,
        ),
    )
}


def find_protocol(name: str) -> Protocol:
    """The protocol of a name.

    Raises:
        FacetError: there is none.
    """
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    near = difflib.get_close_matches(name.lower(), PROTOCOLS, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise FacetError(f"--protocol {name}: no such protocol{hint} (there are {', '.join(PROTOCOLS)})")


def check_datasets(protocol: Protocol, dataset: str, test_dataset: str | None = None) -> None:
    """Whether a protocol is for the data set(s) at hand.

    Args:
        test_dataset: the data set that is tested, where it has a cache of its own.
    Raises:
        FacetError: it is for others, or needs one cache and is given two, or the other way round. Names those that fit.
    """
    if (protocol.scheme == CROSS) != (test_dataset is not None):
        needs = (
            "needs two caches (--train-cache A --test-cache B)" if test_dataset is None else "takes one cache (--cache)"
        )
        fit = [p.name for p in PROTOCOLS.values() if _fits(p, dataset, test_dataset)]
        raise FacetError(f"--protocol {protocol.name} {needs}; choose one of {', '.join(fit)}")
    if not _fits(protocol, dataset, test_dataset):
        meant = " or ".join(protocol.datasets)
        given = dataset
        if test_dataset is not None:
            meant += f" → {' or '.join(protocol.test_datasets)}"
            given += f" → {test_dataset}"
        fit = [p.name for p in PROTOCOLS.values() if _fits(p, dataset, test_dataset)]
        raise FacetError(f"--protocol {protocol.name} is for {meant}, not for {given}; choose one of {', '.join(fit)}")


def _fits(protocol: Protocol, dataset: str, test_dataset: str | None) -> bool:
    return (
        (protocol.scheme == CROSS) == (test_dataset is not None)
        and (not protocol.datasets or dataset in protocol.datasets)
        and (not protocol.test_datasets or test_dataset in protocol.test_datasets)
    )


# --- for people ---


def describe_protocols() -> str:
    """Every protocol: name, what for, title. Ends with a line feed."""
    width = max(map(len, PROTOCOLS))
    lines = []
    for protocol in PROTOCOLS.values():
        lines += textwrap.wrap(
            f"{protocol.name:{width}}  {protocol.title}",
            110,
            subsequent_indent=" " * (width + 2),
            break_on_hyphens=False,
        )
    return "\n".join(lines) + "\n"


def describe_protocol(protocol: Protocol) -> str:
    """One protocol in detail. Ends with a line feed."""
    fields = {
        "data set": (", ".join(protocol.datasets) or "any")
        + (f" → {', '.join(protocol.test_datasets) or 'any other'}" if protocol.scheme == CROSS else ""),
        "classes": ", ".join(protocol.classes) or "all of the data set's but neutral",
        "intensities": ", ".join(protocol.intensities),
        "tested tasks": ", ".join(protocol.test_tasks),
        "subjects": _describe_subjects(protocol),
        "folds": describe_folds(protocol),
        "literature": " and ".join(
            f"{number:,} {what}"
            for number, what in ((protocol.num_subjects, "subjects"), (protocol.num_samples, "samples"))
            if number
        ),
        "source": protocol.source,
    }
    lines = textwrap.wrap(f"{protocol.name}: {protocol.title}", 110, break_on_hyphens=False)
    for name, text in fields.items():
        if text:
            lines += textwrap.wrap(f"  {name + ':':14}{text}", 110, subsequent_indent=" " * 16, break_on_hyphens=False)
    return "\n".join(lines) + "\n"


def _describe_subjects(protocol: Protocol) -> str:
    who = "those with samples of every class" if protocol.all_classes_needed else "all"
    if protocol.all_classes_needed and protocol.intensities:
        who += " at every intensity"
    if protocol.num_drawn:
        who = f"{protocol.num_drawn} drawn {'anew in each round' if protocol.redraw else 'once'} from {who}"
    return who


def title_run(protocol: Protocol, datasets: Sequence[str], *, num_folds: int, num_rounds: int) -> str:
    """A protocol's title as it was run: with the data set's name, and the folds and rounds there are, not those published.

    Args:
        num_folds: in each round.
    """
    title = protocol.title.replace("any data set", " to ".join(datasets))
    if protocol.scheme == CROSS and not protocol.datasets:
        title = title.replace("one data set", datasets[0]).replace("another", datasets[-1])
    if protocol.scheme == KFOLD and num_folds != protocol.num_folds:
        folds = f"{num_folds} fold{'s' * (num_folds != 1)}"
        title = re.sub(r"\b\d+ folds( \([^)]*\))?", folds, title)
    if num_rounds != protocol.num_rounds:
        title = re.sub(r"\b\d+ rounds", f"{num_rounds} round{'s' * (num_rounds != 1)}", title)
    return title


def describe_folds(protocol: Protocol) -> str:
    if protocol.scheme == CROSS:
        return "one: all of the training data set, then the other"
    folds = "one a subject" if protocol.scheme == LOSO else str(protocol.num_folds)
    return folds + (f", in each of {protocol.num_rounds} rounds" if protocol.is_repeated else "")
