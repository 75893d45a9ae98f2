"""What a kind of labels decides: labels of items, criterion, probabilities, decision, scores and their titles.

`train.parts.TASKS` names all tasks. A new one is one file with a subclass of `Task`, and one line there.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from shared.runs import Prediction
from train.parts import TASKS, find_part

if TYPE_CHECKING:
    from torch import Tensor

    from shared.schema import CacheInfo
    from train.tasks.criterion import Criterion
    from train.tasks.item import Item

Counts = Mapping[str, np.ndarray]  # name → what folds are pooled by: the sum of folds' counts is the count of all
LARGEST_COUNT = 1e12  # of a file that can be read
TINY = 1e-9  # counts are whole, or means of some: less is a sum of zeros


@dataclass(frozen=True)
class Score:
    """A number of a report.

    spread: a class's score is also given as mean ± std over folds. pooled: it is defined for folds taken together.
    """

    name: str  # in files
    title: str = ""  # on a console and in HTML; empty: in files alone
    latex: str = ""
    kind: Literal["percent", "count", "number"] = "percent"
    spread: bool = False
    pooled: bool = True

    @property
    def short_title(self) -> str:
        return self.title.split(" (")[0]


ACCURACY = Score("accuracy", "accuracy", "Acc.")
UAR = Score("uar", "UAR (balanced accuracy)", "UAR")
MACRO_F1 = Score("macro_f1", "macro-F1", "F1")
MICRO_F1 = Score("micro_f1", "micro-F1", "Micro-F1")
CHANCE = Score("chance", "chance")
MAJORITY = Score("majority", "always the most frequent class")
ALWAYS_YES = Score("always_yes", "always saying yes")
# Of a class. Recall is what tables of the field call the class's accuracy.
RECALL = Score("recall", "recall", "Recall (accuracy of each class)", spread=True)
PRECISION = Score("precision", "precision")
F1 = Score("f1", "F1", "F1", spread=True)
AUC = Score("auc", "AUC", "AUC", spread=True, pooled=False)  # models of different folds are on different scales


@dataclass(frozen=True)
class Metrics:
    """The scores of one test, or of several pooled; fractions are in 0…1, None where a score is not defined.

    per_class: at least `support`, the samples that show the class, and `num_known`, those of which it is known.
    """

    num_samples: int
    overall: dict[str, float | None]  # by the names of Task.scores and Task.references
    interval_95: tuple[float, float] | None  # of the first score; takes samples as independent
    per_class: dict[str, tuple[float | None, ...]]
    counts: dict[str, np.ndarray] = field(compare=False)

    def __getitem__(self, name: str) -> float | None:
        return self.overall[name]

    def to_json(self, task: Task) -> dict[str, Any]:
        """Return the fields of metrics.json."""
        return {
            "num_samples": self.num_samples,
            **self.overall,
            f"{task.primary.name}_95": self.interval_95,
            **{f"per_class_{name}": values for name, values in self.per_class.items()},
            **{name: table.tolist() for name, table in self.counts.items()},
        }


class Task(ABC):
    """One kind of labels. Class attributes describe it; methods are pure functions."""

    name: ClassVar[str]
    noun: ClassVar[str]  # what its classes are called in messages
    array: ClassVar[str] = ""  # array of the cache that holds targets; empty: the class names of samples.csv
    every_frame: ClassVar[bool] = False  # an item is a frame, not a sequence
    several: ClassVar[bool] = False  # several labels may hold for one item: each class has its own probability and bias
    has_thresholds: ClassVar[bool] = False  # decision thresholds are fitted on training subjects
    has_values: ClassVar[bool] = False  # labels and predictions are numbers, CLASS=VALUE, not decisions
    scores: ClassVar[tuple[Score, ...]]  # of a test; the first ranks folds and methods
    references: ClassVar[tuple[Score, ...]] = ()  # what a guess would have in the first score
    class_scores: ClassVar[tuple[Score, ...]]  # columns of the table of classes
    class_score: ClassVar[Score]  # the one that a paper's table shows
    count_dims: ClassVar[dict[str, int]]  # name of each count → its dimensions, each of one entry per class
    conventions: ClassVar[tuple[str, ...]] = ()  # how scores are defined, a sentence each

    @property
    def primary(self) -> Score:
        return self.scores[0]

    @property
    def compared(self) -> tuple[Score, ...]:
        """Return the scores in which methods are compared."""
        return self.scores

    # --- labels ---

    @abstractmethod
    def known_classes(self, info: CacheInfo) -> tuple[str, ...]:
        """Return the classes that a cache has labels of."""

    def column(self, class_name: str) -> str:
        """Return the column of the cache's array that holds a class's targets."""
        return class_name

    def default_classes(self, known: tuple[str, ...]) -> tuple[str, ...]:
        """Return the classes to predict where the user names none."""
        return known

    def is_labelled(self, item: Item, classes: Sequence[str]) -> bool:
        """Return whether an item can be trained or tested on."""
        return any(value >= 0 for value in item.targets)

    def shown_classes(self, item: Item, classes: Sequence[str]) -> tuple[str, ...]:
        """Return the classes that an item shows."""
        return tuple(name for name, value in zip(classes, item.targets, strict=False) if value > 0)

    def label_items(self, items: Sequence[Item], classes: Sequence[str]) -> np.ndarray:
        """Return training labels: i64 (n,) class indices, or i8 (n, C) targets, -1 = unknown."""
        return np.array([item.targets for item in items], np.int8)

    # --- model ---

    @abstractmethod
    def build_criterion(self, class_weight: Tensor | None) -> Criterion:
        """Return what logits are compared with labels by; class_weight: f32 (C,) of `balance_classes`."""

    @abstractmethod
    def balance_classes(self, labels: np.ndarray, num_classes: int) -> np.ndarray:
        """Return class weights f32 (C,) under which every class counts alike."""

    def start_rates(self, labels: np.ndarray) -> np.ndarray:
        """Return the probability (C,) of each class that an untrained model should predict; called where `several`."""
        raise NotImplementedError

    @abstractmethod
    def compute_probabilities(self, logits: Tensor) -> Tensor:
        """Return f32 (B, C) in 0…1 of logits (B, C)."""

    def choose_thresholds(self, labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Return decision thresholds f32 (C,) from training subjects; called where has_thresholds."""
        raise NotImplementedError

    # --- decision and scores ---

    @abstractmethod
    def predict(
        self, item: Item, probabilities: np.ndarray, thresholds: np.ndarray | None, classes: Sequence[str]
    ) -> Prediction:
        """Return the row of predictions.csv of one item; probabilities: f32 (C,)."""

    @abstractmethod
    def count(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> Counts:
        """Count labels and decisions; unknown labels count nowhere."""

    def rank(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> dict[str, tuple[float | None, ...]]:
        """Return class scores that need probabilities, and so cannot be pooled over folds."""
        return {}

    @abstractmethod
    def compute_overall(self, counts: Counts) -> dict[str, np.ndarray]:
        """Return every score and reference of counts with any leading dimensions (…, C); NaN where not defined."""

    @abstractmethod
    def compute_per_class(self, counts: Counts) -> dict[str, np.ndarray]:
        """Return every pooled class score (C,) of counts; NaN where not defined."""

    def compute_metrics(self, num_samples: int, counts: Counts, num_rounds: int = 1) -> Metrics:
        """Return all scores of counts.

        Args:
            num_rounds: how often each sample was tested; the interval counts it once.
        """
        overall = {name: _to_number(value) for name, value in self.compute_overall(counts).items()}
        per_class = {name: tuple(map(_to_number, values)) for name, values in self.compute_per_class(counts).items()}
        per_class |= {
            score.name: (None,) * len(per_class["support"]) for score in self.class_scores if not score.pooled
        }
        interval = self.find_interval(overall, num_samples / num_rounds)
        return Metrics(num_samples, overall, interval, per_class, dict(counts))

    def find_interval(self, overall: Mapping[str, float | None], num: float) -> tuple[float, float] | None:
        """Return the 95 % interval of the first score over `num` independent samples; None where it has none."""
        return None

    def test(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> Metrics:
        """Return all scores of one test."""
        metrics = self.compute_metrics(len(predictions), self.count(predictions, classes))
        metrics.per_class.update(self.rank(predictions, classes))
        return metrics

    def pool(self, tests: Sequence[Metrics], num_rounds: int = 1) -> Metrics:
        """Return the scores of several tests taken as one, from the sums of their counts."""
        counts = {name: np.sum([test.counts[name] for test in tests], 0) for name in self.count_dims}
        return self.compute_metrics(sum(test.num_samples for test in tests), counts, num_rounds)

    def read_metrics(self, value: Mapping[str, Any], num_classes: int) -> Metrics:
        """Return the inverse of `Metrics.to_json`: scores are computed from the counts, ranked ones are read.

        Raises:
            ValueError, KeyError: a count is missing or cannot be; names it.
        """
        counts = {name: read_count(value, name, (num_classes,) * dims) for name, dims in self.count_dims.items()}
        metrics = self.compute_metrics(int(read_count(value, "num_samples", ())), counts)
        for score in self.class_scores:
            if not score.pooled and (found := value.get(f"per_class_{score.name}")) is not None:
                numbers = [math.nan if number is None else number for number in found]
                read = read_count({score.name: numbers}, score.name, (num_classes,), nan=True)
                metrics.per_class[score.name] = tuple(map(_to_number, read))
        return metrics


@functools.cache  # a task has no state, and is asked for once per item
def find_task(name: str | None) -> Task:
    """Return the task of `--task NAME`; empty or None: one of several classes.

    Raises:
        FacetError: no task has this name.
    """
    task: Task = find_part(TASKS, name or "classes").load()()
    return task


def read_count(value: Mapping[str, Any], name: str, shape: tuple[int, ...], *, nan: bool = False) -> np.ndarray:
    """Return a count of a file.

    Raises:
        ValueError, KeyError: it is missing, of another shape, or not made of numbers of 0 to LARGEST_COUNT.
    """
    try:
        table = np.array(value[name])
    except (ValueError, OverflowError) as error:  # rows of different lengths
        raise ValueError(f"{name} is no table") from error
    if table.shape != shape or table.dtype.kind not in "if":
        raise ValueError(f"{name} holds no counts of shape {shape}")
    if not ((table >= 0) & (table <= LARGEST_COUNT) | (np.isnan(table) & nan)).all():
        raise ValueError(f"{name} must hold counts of 0 to {LARGEST_COUNT:g}")
    return table


def divide(above: np.ndarray, below: np.ndarray, defined: np.ndarray | bool = True) -> np.ndarray:
    """Return above / below, 0 where below is 0, NaN where not defined."""
    return np.where(defined, above / np.where(below < TINY, 1, below), np.nan)


def mean_known(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    return np.where(known, values, 0).sum(-1) / np.where(known.any(-1), known.sum(-1), np.nan)


def _to_number(value: np.ndarray | np.generic) -> Any:
    """Return int or float, None for NaN."""
    number = value.item()
    return None if number != number else number
