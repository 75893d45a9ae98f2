"""Predictions looked at one by one: how well each subject is told, and which samples are told worst."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shared.runs import Prediction
from train.tasks.metrics import wilson_interval


@dataclass(frozen=True)
class SubjectScore:
    """num: predictions of a subject; for several classes at once, decisions of which the truth is known."""

    subject: str
    num: int
    num_right: int
    most_frequent_mistake: str  # "fear → surprise (3)"; empty where there is none

    @property
    def accuracy(self) -> float:
        return self.num_right / self.num

    @property
    def accuracy_95(self) -> tuple[float, float]:
        """Wilson interval; takes the predictions as independent."""
        return wilson_interval(self.num_right, self.num)


@dataclass(frozen=True)
class JudgedSample:
    """A sample that was told wrong: over all rounds in which it was tested, with the mean of its probabilities.

    belief: the mean probability given to what is true (1 = certain and right), the measure samples are ranked by.
    """

    name: str
    subject: str
    labels: tuple[str, ...]
    predicted: tuple[str, ...]
    belief: float
    probabilities: tuple[float, ...]


def score_subjects(
    predictions: Iterable[Prediction], class_names: Sequence[str], *, multilabel: bool
) -> list[SubjectScore]:
    """Every subject of which something is known, the worst first."""
    num: Counter[str] = Counter()
    num_wrong: Counter[str] = Counter()
    mistakes: dict[str, Counter[str]] = {}
    for one in predictions:
        kinds = _list_mistakes(one, class_names, multilabel=multilabel)
        num[one.subject] += len(class_names) - len(one.unknown) if multilabel else 1
        num_wrong[one.subject] += len(kinds)
        mistakes.setdefault(one.subject, Counter()).update(kinds)
    scores = []
    for subject, count in num.items():
        if count:
            worst = min(mistakes[subject].items(), key=lambda kind: (-kind[1], kind[0]), default=None)
            text = f"{worst[0]} ({worst[1]})" if worst else ""
            scores.append(SubjectScore(subject, count, count - num_wrong[subject], text))
    return sorted(scores, key=lambda score: (score.accuracy, -score.num, score.subject))


def _list_mistakes(one: Prediction, class_names: Sequence[str], *, multilabel: bool) -> list[str]:
    if not multilabel:
        return [f"{one.labels[0]} → {one.predicted[0]}"] if one.labels != one.predicted else []
    return [
        f"{name} {'missed' if name in one.labels else 'seen where it is not'}"
        for name in class_names
        if name not in one.unknown and (name in one.labels) != (name in one.predicted)
    ]


def find_worst(
    predictions: Iterable[Prediction], class_names: Sequence[str], most: int, *, multilabel: bool
) -> list[JudgedSample]:
    """Samples told wrong, the least belief in the truth first. What was tested in several rounds is judged by its mean."""
    tests: dict[tuple[str, str], list[Prediction]] = {}
    for one in predictions:
        tests.setdefault((one.subject, one.name), []).append(one)
    found = []
    for (subject, name), several in tests.items():
        mean = [sum(column) / len(several) for column in zip(*(one.probabilities for one in several), strict=True)]
        first = several[0]
        known = [i for i, c in enumerate(class_names) if c not in first.unknown]
        if multilabel:
            said: tuple[str, ...] = first.predicted  # thresholds are each fold's own
            wrong = any(_list_mistakes(one, class_names, multilabel=True) for one in several)
            beliefs = [mean[i] if class_names[i] in first.labels else 1 - mean[i] for i in known]
            belief = sum(beliefs) / len(beliefs) if beliefs else 1.0
        else:
            said = (class_names[mean.index(max(mean))],)
            wrong = said != first.labels
            belief = mean[class_names.index(first.labels[0])]
        if wrong:
            found.append(JudgedSample(name, subject, first.labels, said, belief, tuple(mean)))
    return sorted(found, key=lambda one: (one.belief, one.name))[:most]
