"""Calibration: how well predicted probabilities agree with how often predictions are right; temperature scaling.

A test is described by its expected calibration error (ECE), over 15 bins of equal width of the confidence, and by its mean
negative log likelihood (NLL), in nats. Temperature scaling divides the logits by one number T, which keeps every decision
(Guo et al. 2017, "On calibration of modern neural networks").

T is never fitted on people whose scores it changes. A model's own predictions of its training people are of no use: it has
seen them, and is too certain. So T of a fold is cross-fitted: on its training people, by the predictions of the other folds
of the same round, each of which tested some of them as unseen people. Those other models were trained on this fold's test
people, but only this one number T can pass from them. A single training has no such predictions, and so no T.

Tasks with several labels at once are left out. Most labels are rare, so a model that always says no is well calibrated, and
one temperature moves every probability toward 0.5, not toward how often the label occurs.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from shared.pairs import group_pairs
from shared.runs import Prediction
from train.protocols.folds import Fold
from train.reporting.spread import measure_spread
from train.reporting.table import PERCENT, SPREAD, TEXT, Column, Table, decimals
from train.tasks.task import Task

NUM_BINS = 15
TEMPERATURE_BOUNDS = 0.1, 10.0  # of the search; without a single mistake, the best T would be 0
SMALLEST_PROBABILITY = float(np.finfo(np.float32).tiny)  # a stored 0 is a rounded f32: its logarithm stays finite
NUMBER = decimals(3)


@dataclass(frozen=True, eq=False)
class Calibration:
    """Sums over predictions, by bins of their confidence, the probability of the predicted class. Bin k: (k/15, (k+1)/15]."""

    num: np.ndarray  # i64 (15,): predictions
    num_right: np.ndarray  # i64 (15,)
    confidence: np.ndarray  # f64 (15,): sum of the confidences
    log_loss: float  # sum of −log p of the true class, nats

    @classmethod
    def measure(cls, log_probabilities: np.ndarray, labels: np.ndarray) -> Self:
        """Measure predictions.

        Args:
            log_probabilities: f64 (n, C). labels: class indices i64 (n,).
        """
        confidence = np.exp(log_probabilities.max(1))
        right = log_probabilities.argmax(1) == labels
        bins = (np.ceil(confidence * NUM_BINS).astype(int) - 1).clip(0, NUM_BINS - 1)
        num, num_right, total = (
            np.bincount(bins, weights, NUM_BINS) for weights in (None, right.astype(float), confidence)
        )
        loss = -log_probabilities[np.arange(len(labels)), labels].sum()
        return cls(num, num_right.astype(int), total, float(loss))

    def __add__(self, other: Calibration) -> Calibration:
        return Calibration(*(getattr(self, name) + getattr(other, name) for name in vars(self)))

    @property
    def ece(self) -> float:
        """Return the mean over predictions of |accuracy − mean confidence| of their bin, 0…1."""
        return float(np.abs(self.num_right - self.confidence).sum() / self.num.sum())

    @property
    def nll(self) -> float:
        """Return the mean negative log likelihood, nats."""
        return self.log_loss / int(self.num.sum())

    def to_json(self) -> dict[str, Any]:
        bins = {"num": self.num.tolist(), "num_right": self.num_right.tolist(), "confidence": self.confidence.tolist()}
        return {"ece": self.ece, "nll": self.nll, "bins": bins}


@dataclass(frozen=True)
class FoldCalibration:
    """Calibration of one fold's test; temperature and scaled are None where no T can be fitted."""

    name: str
    plain: Calibration
    temperature: float | None = None
    scaled: Calibration | None = None

    def to_json(self) -> dict[str, Any]:
        scaled = None if self.scaled is None else self.scaled.to_json()
        return {"name": self.name, "temperature": self.temperature, "plain": self.plain.to_json(), "scaled": scaled}


def measure_test(task: Task, predictions: Sequence[Prediction], class_names: Sequence[str]) -> Calibration | None:
    """Return the calibration of the predictions with a label among the classes; None without any, or if labels are several."""
    labelled = [one for one in predictions if one.labels and one.labels[0] in class_names]
    if task.several or not labelled:
        return None
    return Calibration.measure(*_to_arrays(labelled, class_names))


def calibrate_folds(
    task: Task, folds: Sequence[Fold], tests: Mapping[str, Sequence[Prediction]], class_names: Sequence[str]
) -> tuple[FoldCalibration, ...]:
    """Measure each tested fold, before and after scaling by its cross-fitted temperature.

    Args:
        tests: name of a fold → its predictions; folds without any are left out.
    """
    found: list[FoldCalibration] = []
    rounds = group_pairs((fold.round, fold) for fold in folds if tests.get(fold.name) and not task.several)
    for tested in rounds.values():
        everyone = [one for fold in tested for one in tests[fold.name]]
        log_probabilities, labels = _to_arrays(everyone, class_names)
        subjects = np.array([one.subject for one in everyone])
        for fold in tested:
            own, own_labels = _to_arrays(tests[fold.name], class_names)
            plain = Calibration.measure(own, own_labels)
            trained = np.isin(subjects, fold.train_subjects)  # none of its test people, see Fold
            if trained.any():
                temperature = fit_temperature(log_probabilities[trained], labels[trained])
                scaled = Calibration.measure(log_softmax(own / temperature, axis=1), own_labels)
                found.append(FoldCalibration(fold.name, plain, temperature, scaled))
            else:
                found.append(FoldCalibration(fold.name, plain))
    return tuple(found)


def fit_temperature(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the T in TEMPERATURE_BOUNDS with the least negative log likelihood. Arguments as `Calibration.measure`."""

    def loss(log_t: float) -> float:  # convex in 1 / T, so it has one minimum
        scaled = log_softmax(log_probabilities / np.exp(log_t), axis=1)
        return float(-scaled[np.arange(len(labels)), labels].mean())

    bounds = tuple(np.log(TEMPERATURE_BOUNDS))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def pool_calibration(tests: Sequence[Calibration]) -> Calibration:
    """Return the calibration of several tests taken together."""
    return functools.reduce(operator.add, tests)


# --- tables ---


@dataclass(frozen=True)
class _Row:
    title: str
    tests: Sequence[Calibration]
    temperatures: Sequence[float | None]


def list_calibration(folds: Sequence[FoldCalibration]) -> Table:
    """Return a row as trained, and one after temperature scaling, over the folds that have a temperature."""
    rows = [_Row("as trained", [one.plain for one in folds], [])]
    if scaled := [one.scaled for one in folds if one.scaled is not None]:
        rows.append(_Row("temperature scaled", scaled, [one.temperature for one in folds]))
    columns = [
        Column(lambda row: row.title, TEXT, title="calibration"),
        Column(lambda row: pool_calibration(row.tests).ece, PERCENT, title="ECE in %"),
        Column(lambda row: pool_calibration(row.tests).nll, NUMBER, title="NLL"),
    ]
    if len(folds) > 1:
        spread = Column(lambda row: measure_spread(test.ece for test in row.tests), SPREAD, title="ECE over folds")
        mean = Column(lambda row: measure_spread(row.temperatures).mean, NUMBER, title="mean temperature")
        columns += [spread, mean]
    return Table(columns, rows)


def calibration_columns(folds: Sequence[FoldCalibration]) -> list[Column]:
    """Return columns of folds.csv; rows are folds with a name."""
    found = {one.name: one for one in folds}

    def column(key: str, value: Callable[[FoldCalibration], float | None]) -> Column:
        return Column(lambda fold: value(found[fold.name]) if fold.name in found else None, NUMBER, key)

    columns = [
        column("ece", lambda one: one.plain.ece),
        column("nll", lambda one: one.plain.nll),
        column("temperature", lambda one: one.temperature),
        column("ece_scaled", lambda one: None if one.scaled is None else one.scaled.ece),
        column("nll_scaled", lambda one: None if one.scaled is None else one.scaled.nll),
    ]
    return columns if found else []


def describe_calibration(folds: Sequence[FoldCalibration]) -> list[str]:
    """Return how calibration was measured, a sentence each."""
    if not folds:
        return []
    lines = [
        f"ECE is the expected calibration error of {NUM_BINS} equal bins of the confidence (Guo et al. 2017); few samples make "
        "it larger, so quote the pooled value. NLL is the mean negative log likelihood in nats."
    ]
    if any(one.scaled for one in folds):
        lines.append(
            "The temperature of each fold is fitted on its training people, by the predictions of the folds that tested "
            "them; decisions do not change."
        )
    return lines


def _to_arrays(predictions: Sequence[Prediction], class_names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return log probabilities f64 (n, C) and true class indices i64 (n,)."""
    index = {name: number for number, name in enumerate(class_names)}
    probabilities = np.array([one.probabilities for one in predictions], np.float32)  # as computed; exact in the file
    labels = np.array([index[one.labels[0]] for one in predictions])
    return np.log(probabilities.astype(np.float64).clip(SMALLEST_PROBABILITY)), labels
