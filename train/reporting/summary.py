"""From the results of folds to what a paper reports: mean ± std over folds, and everything pooled."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.errors import FacetError, count
from shared.pairs import group_pairs
from train.reporting.calibration import FoldCalibration
from train.reporting.scores import list_classes
from train.reporting.spread import Spread, measure_spread
from train.reporting.table import Table
from train.runs.groups import GroupScore, pool_groups, write_groups
from train.runs.results import FoldResult
from train.tasks.task import MACRO_F1, Metrics, Score, Task


@dataclass(frozen=True)
class CrossvalAbout:
    """What a report says besides the scores."""

    protocol: str  # its name
    title: str
    source: str  # the publication that it follows
    datasets: list[str]
    licence: str
    unit: str  # of a sample: "scan", "sequence", "frame"
    model: str
    pretrained: str
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
    method: str = ""  # its name in tables; empty: that of the model
    validate: str = ""  # --validate: the best epoch is tested, not the last
    f1_name: str = "F1"  # what the protocol's papers call macro-F1

    def name_in_latex(self, score: Score) -> str:
        """Return the heading of a score in a paper's table."""
        return self.f1_name if score == MACRO_F1 else score.latex

    def describe_model(self) -> str:
        return (
            f"{self.model} ({self.pretrained}); {', '.join(self.modalities)}; views {self.views}; "
            f"{count(self.epochs, 'epoch')}; seed {self.seed}"
        )


@dataclass(frozen=True)
class CrossvalSummary:
    """The scores of a cross-validation, pooled and by fold, over all folds or those finished so far."""

    task: Task = field(compare=False)
    class_names: tuple[str, ...]
    num_folds: int
    num_rounds: int  # 1 where folds are not repeated
    pooled: Metrics  # over all folds and rounds; its interval is that of one round's samples
    over_folds: dict[str, Spread]  # by score
    over_rounds: dict[str, Spread]  # of each round's pooled scores; empty where folds are not repeated
    num_rounds_left_out: int  # rounds with folds missing: not in over_rounds
    classes_over_folds: dict[str, tuple[Spread, ...]]  # by class score; over the folds where the class occurs
    num_folds_lacking_a_class: int
    worst_fold: tuple[str, float]  # by the first score
    best_fold: tuple[str, float]
    seconds: Spread  # of one fold
    groups: tuple[GroupScore, ...] = ()  # of people or scans, if the cache has some; pooled over folds and rounds
    calibration: tuple[FoldCalibration, ...] = ()  # of the folds whose predictions are known
    frame_votes: tuple[GroupScore, ...] = ()  # sequences decided by their frames alone, pooled
    accuracy_uncentred: float | None = None  # pooled, with --centre-scores none, of scores that are centred

    def list_classes(self) -> Table:
        return list_classes(self.task, self.class_names, self.pooled, self.classes_over_folds)

    def to_json(self) -> dict[str, Any]:
        value = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        spreads = {
            name: {k: dataclasses.asdict(s) for k, s in value[name].items()} for name in ("over_folds", "over_rounds")
        }
        classes = {name: [dataclasses.asdict(s) for s in values] for name, values in self.classes_over_folds.items()}
        return {
            **value,
            **spreads,
            "task": self.task.name,
            "pooled": self.pooled.to_json(self.task),
            "classes_over_folds": classes,
            "seconds": dataclasses.asdict(self.seconds),
            "groups": write_groups(self.groups),
            "frame_votes": write_groups(self.frame_votes),
            "calibration": [one.to_json() for one in self.calibration],
        }


def summarise_folds(results: Sequence[FoldResult], calibration: tuple[FoldCalibration, ...] = ()) -> CrossvalSummary:
    """Pool all folds, in any order.

    Args:
        calibration: of these folds, where it is reported.
    Raises:
        FacetError: no fold, one fold twice, or folds of different classes or tasks.
    """
    results = sort_folds(results)
    first = results[0]
    task = first.task
    for result in results[1:]:
        if (result.info.task, result.class_names) != (first.info.task, first.class_names):
            raise FacetError(
                f"{first.name} and {result.name} are of different classes or tasks ({', '.join(first.class_names)} and "
                f"{', '.join(result.class_names)}); delete the folds of the other run, or choose another --out"
            )
    rounds = group_pairs((result.round_name, result) for result in results)
    most = max(len(folds) for folds in rounds.values())
    whole_rounds = [task.pool([f.metrics for f in folds]) for folds in rounds.values() if len(folds) == most]
    repeated = any(rounds)
    metrics = [result.metrics for result in results]
    primary = task.primary.name
    ranked = sorted((float(result.metrics[primary] or 0), result.name) for result in results)
    best = max(score for score, _ in ranked)
    names = [score.name for score in task.scores]
    return CrossvalSummary(
        task=task,
        class_names=first.class_names,
        num_folds=len(results),
        num_rounds=len(rounds),
        pooled=task.pool(metrics, num_rounds=len(rounds)),
        over_folds={name: measure_spread(one[name] for one in metrics) for name in names},
        over_rounds={name: measure_spread(one[name] for one in whole_rounds) for name in names} if repeated else {},
        num_rounds_left_out=len(rounds) - len(whole_rounds) if repeated else 0,
        classes_over_folds={s.name: _spread_classes(metrics, s.name) for s in task.class_scores if s.spread},
        num_folds_lacking_a_class=sum(0 in one.per_class["support"] for one in metrics),
        worst_fold=(ranked[0][1], ranked[0][0]),
        best_fold=min((name, score) for score, name in ranked if score == best),
        seconds=measure_spread(result.seconds for result in results),
        groups=pool_groups([[g for f in folds for g in f.groups] for folds in rounds.values()], task),
        frame_votes=pool_groups([[g for f in folds for g in f.frame_votes] for folds in rounds.values()], task),
        calibration=calibration,
        accuracy_uncentred=_pool_uncentred(results),
    )


def _pool_uncentred(results: Sequence[FoldResult]) -> float | None:
    """Return the accuracy of all folds' samples together, with --centre-scores none; None where a fold has none."""
    known = [result.info.accuracy_uncentred for result in results]
    nums = [result.metrics.num_samples for result in results]
    found = [one * num for one, num in zip(known, nums, strict=True) if one is not None]
    return sum(found) / sum(nums) if len(found) == len(nums) else None


def _spread_classes(tests: Sequence[Metrics], name: str) -> tuple[Spread, ...]:
    """Return a class score's spread over the tests in which the class occurs, for each class."""
    num_classes = len(tests[0].per_class["support"])
    return tuple(
        measure_spread(one.per_class[name][c] for one in tests if one.per_class["support"][c])
        for c in range(num_classes)
    )


def sort_folds(results: Sequence[FoldResult]) -> list[FoldResult]:
    """Sort folds by name.

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
