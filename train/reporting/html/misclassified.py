"""Rank predictions: how well each subject is recognised, and which samples are misclassified worst."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shared.pairs import group_pairs
from shared.runs import Prediction
from train.tasks.single_label import wilson_interval


@dataclass(frozen=True)
class SubjectScore:
    """num: predictions of a subject; multi-label: decisions of known truth."""

    subject: str
    num: int
    num_right: int
    most_frequent_mistake: str  # "fear → surprise (3)"; empty if there is none

    @property
    def accuracy(self) -> float:
        return self.num_right / self.num

    @property
    def accuracy_95(self) -> tuple[float, float]:
        """Return the Wilson interval of the accuracy, as if predictions were independent."""
        return wilson_interval(self.num_right, self.num)


@dataclass(frozen=True)
class Misclassified:
    """A misclassified sample, with the mean of its probabilities over all rounds in which it was tested.

    true_probability: mean probability of the true decisions (1 = certain and right); samples are ranked by it.
    """

    name: str
    subject: str
    labels: tuple[str, ...]
    predicted: tuple[str, ...]
    true_probability: float
    likeliest: tuple[tuple[str, float], ...]  # (class, probability), at most 3


def score_subjects(
    predictions: Iterable[Prediction], class_names: Sequence[str], *, multilabel: bool
) -> list[SubjectScore]:
    """Return the scores of every subject with a known truth, the worst first."""
    num: Counter[str] = Counter()
    mistakes: dict[str, Counter[str]] = {}
    for one in predictions:
        num[one.subject] += len(class_names) - len(one.unknown) if multilabel else 1
        mistakes.setdefault(one.subject, Counter()).update(_list_mistakes(one, class_names, multilabel=multilabel))
    scores = []
    for subject, count in num.items():
        if count:
            wrong = mistakes[subject]
            worst = min(wrong.items(), key=lambda kind: (-kind[1], kind[0]), default=None)
            text = f"{worst[0]} ({worst[1]})" if worst else ""
            scores.append(SubjectScore(subject, count, count - wrong.total(), text))
    return sorted(scores, key=lambda score: (score.accuracy, -score.num, score.subject))


def _list_mistakes(one: Prediction, class_names: Sequence[str], *, multilabel: bool) -> list[str]:
    if not multilabel:
        return [f"{one.labels[0]} → {one.predicted[0]}"] if one.labels != one.predicted else []
    return [
        f"{name} {'missed' if name in one.labels else 'predicted wrongly'}"
        for name in class_names
        if name not in one.unknown and (name in one.labels) != (name in one.predicted)
    ]


def find_misclassified(
    predictions: Iterable[Prediction], class_names: Sequence[str], most: int, *, multilabel: bool
) -> list[Misclassified]:
    """Return misclassified samples, the least true_probability first. Samples of several rounds are judged by their mean."""
    tests = group_pairs(((one.subject, one.name), one) for one in predictions)
    found = []
    for (subject, name), several in tests.items():
        first = several[0]
        columns = zip(*(one.probabilities for one in several), strict=True)
        mean = {c: sum(column) / len(several) for c, column in zip(class_names, columns, strict=True)}
        if multilabel:
            predicted = first.predicted  # thresholds are each fold's own
            wrong = any(_list_mistakes(one, class_names, multilabel=True) for one in several)
            known = [c for c in class_names if c not in first.unknown]
            true = [mean[c] if c in first.labels else 1 - mean[c] for c in known] or [1.0]
        else:
            predicted = (max(mean, key=mean.__getitem__),)
            wrong = predicted != first.labels
            true = [mean[first.labels[0]]]
        if wrong:
            likeliest = sorted(mean.items(), key=lambda item: (item[1], item[0]), reverse=True)[:3]
            score = sum(true) / len(true)
            found.append(Misclassified(name, subject, first.labels, predicted, score, tuple(likeliest)))
    return sorted(found, key=lambda one: (one.true_probability, one.name))[:most]
