"""From the results of folds to what a paper says of them: mean ± std over folds, and everything pooled."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from shared.errors import FacetError
from train.reporting.groups import GroupScore, pool_groups
from train.runs.results import FoldResult, pool_folds
from train.tasks.metrics import Metrics, wilson_interval
from train.tasks.multilabel import MultiLabelMetrics

# The scores that are given as mean ± std over folds; the first one ranks folds.
SCORES = ("accuracy", "uar", "macro_f1")
MULTILABEL_SCORES = ("macro_f1", "micro_f1", "uar")


class CrossvalAbout(TypedDict):
    """What the report says beside the scores."""

    protocol: str  # its name
    title: str
    source: str  # whom it follows
    datasets: list[str]
    licence: str
    unit: str  # what one sample is: "scan", "sequence", "frame"
    model: str
    pretrained: str
    random_weights: bool
    modalities: list[str]
    views: str
    seed: int
    epochs: int
    num_folds: int  # of the whole protocol as run, over all rounds
    missing_folds: list[str]  # not finished yet
    num_rounds: int  # 1 where folds are not repeated
    num_rounds_published: int
    label_map: dict[str, str] | None  # class of the training data → class of the test data
    notes: list[str]


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n − 1) of `num` values; None where there are too few."""

    mean: float | None
    std: float | None
    num: int


@dataclass(frozen=True)
class ClassSummary:
    """One class over all folds; fractions in 0…1, None where not defined."""

    class_name: str
    num_known: int  # samples of which it is known whether they belong to the class
    support: int  # samples that belong to it
    prevalence: float | None
    recall: float | None  # pooled; tables of the field call it the class's accuracy
    precision: float | None  # pooled
    f1: float | None  # pooled
    always_yes_f1: float | None  # F1 of naming the class every time: 2p / (1 + p), the chance level of an F1
    recall_over_folds: Spread  # over the folds where the class occurs, as are the next two
    f1_over_folds: Spread
    auc_over_folds: Spread  # multi-label only


@dataclass(frozen=True)
class CrossvalSummary:
    """All folds of a protocol, or those that are finished."""

    multilabel: bool
    class_names: tuple[str, ...]
    num_folds: int
    num_rounds: int  # 1 where folds are not repeated
    pooled: Metrics | MultiLabelMetrics  # over all folds and rounds; accuracy_95 is that of one round's samples
    over_folds: dict[str, Spread]
    over_rounds: dict[str, Spread]  # of each round's pooled scores; empty where folds are not repeated
    num_rounds_left_out: int  # rounds with folds missing: not in over_rounds
    classes: tuple[ClassSummary, ...]
    num_folds_lacking_a_class: int
    worst_fold: tuple[str, float]  # by the first of the scores
    best_fold: tuple[str, float]
    seconds: Spread  # of one fold
    groups: tuple[GroupScore, ...] = ()  # of people or scans, where the cache knows some; pooled over folds and rounds

    @property
    def score_names(self) -> tuple[str, ...]:
        return MULTILABEL_SCORES if self.multilabel else SCORES


def summarise_folds(results: Sequence[FoldResult]) -> CrossvalSummary:
    """Takes all folds together; their order plays no part.

    Pooled UAR and UF1 (macro_f1) come from counts summed over all folds, as See et al. 2019 define them ("MEGC 2019 – the
    second facial micro-expressions grand challenge").

    Raises:
        FacetError: no fold, one fold twice, or folds of different classes or tasks.
    """
    results = sort_folds(results)
    first = results[0]
    for result in results[1:]:
        if (result.is_multilabel, result.class_names) != (first.is_multilabel, first.class_names):
            raise FacetError(
                f"{first.name} and {result.name} are of different classes or tasks ({', '.join(first.class_names)} and "
                f"{', '.join(result.class_names)}); delete the folds of the other run, or choose another --out"
            )
    rounds: dict[str, list[FoldResult]] = {}
    for result in results:
        rounds.setdefault(result.round_name, []).append(result)
    most = max(len(folds) for folds in rounds.values())
    whole_rounds = [pool_folds(folds) for folds in rounds.values() if len(folds) == most]
    repeated = any(rounds)

    pooled = pool_folds(results)
    if isinstance(pooled, Metrics):  # a sample tested in a hundred rounds is one sample
        one_round = pooled.num_samples / len(rounds)
        pooled = dataclasses.replace(pooled, accuracy_95=wilson_interval(pooled.accuracy * one_round, one_round))
    scores = MULTILABEL_SCORES if first.is_multilabel else SCORES
    ranked = sorted((float(result.metrics[scores[0]]), result.name) for result in results)
    best = max(score for score, _ in ranked)
    return CrossvalSummary(
        multilabel=first.is_multilabel,
        class_names=first.class_names,
        num_folds=len(results),
        num_rounds=len(rounds),
        pooled=pooled,
        over_folds={name: measure_spread(result.metrics[name] for result in results) for name in scores},
        over_rounds=(
            {name: measure_spread(getattr(one, name) for one in whole_rounds) for name in scores} if repeated else {}
        ),
        num_rounds_left_out=len(rounds) - len(whole_rounds) if repeated else 0,
        classes=_summarise_classes(results, pooled),
        num_folds_lacking_a_class=sum(None in result.metrics["per_class_recall"] for result in results),
        worst_fold=(ranked[0][1], ranked[0][0]),
        best_fold=min((name, score) for score, name in ranked if score == best),
        seconds=measure_spread(result.seconds for result in results),
        groups=tuple(pool_groups([[result.metrics for result in folds] for folds in rounds.values()])),
    )


def sort_folds(results: Sequence[FoldResult]) -> list[FoldResult]:
    """By name, whatever order they finished in.

    Raises:
        FacetError: no fold, or one fold twice.
    """
    if not results:
        raise FacetError("no fold is finished yet, so there is nothing to report; run crossval first")
    results = sorted(results, key=lambda result: result.name)
    for one, other in itertools.pairwise(results):
        if one.name == other.name:
            raise FacetError(f"fold {one.name} is given twice; report each fold once")
    return results


def measure_spread(values: Iterable[float | None]) -> Spread:
    """Of the values that are there: mean, and standard deviation with n − 1, which takes two values."""
    there = np.array([value for value in values if value is not None], np.float64)
    return Spread(
        mean=float(there.mean()) if len(there) else None,
        std=float(there.std(ddof=1)) if len(there) > 1 else None,
        num=len(there),
    )


def _summarise_classes(results: Sequence[FoldResult], pooled: Metrics | MultiLabelMetrics) -> tuple[ClassSummary, ...]:
    precision: Sequence[float | None]
    if isinstance(pooled, Metrics):
        counts = np.array(pooled.confusion)
        support, named = counts.sum(1).tolist(), counts.sum(0).tolist()
        known = [pooled.num_samples] * len(counts)
        precision = [counts[c, c] / named[c] if named[c] else 0.0 for c in range(len(counts))]
    else:
        support, known = list(pooled.support), list(pooled.num_known)
        precision = pooled.per_class_precision
    classes = []
    for c, class_name in enumerate(results[0].class_names):
        shown = [result.metrics for result in results if result.metrics["per_class_recall"][c] is not None]
        prevalence = support[c] / known[c] if known[c] else None
        value = precision[c]
        classes.append(
            ClassSummary(
                class_name=class_name,
                num_known=known[c],
                support=support[c],
                prevalence=prevalence,
                recall=pooled.per_class_recall[c],
                precision=None if value is None else float(value),
                f1=pooled.per_class_f1[c],
                always_yes_f1=None if prevalence is None else 2 * prevalence / (1 + prevalence),
                recall_over_folds=measure_spread(metrics["per_class_recall"][c] for metrics in shown),
                f1_over_folds=measure_spread(metrics["per_class_f1"][c] for metrics in shown),
                auc_over_folds=measure_spread(
                    metrics["per_class_auc"][c] for metrics in shown if "per_class_auc" in metrics
                ),
            )
        )
    return tuple(classes)
