"""Calibration against loops over bins and models whose calibration is known; whose predictions a temperature is fitted on."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from crossval_results import ABOUT, CLASSES, fold_result
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.special import log_softmax, softmax
from sklearn.metrics import log_loss
from torch.nn import functional as F

from shared.runs import Prediction
from train.protocols.folds import Fold
from train.reporting.calibration import (
    NUM_BINS,
    TEMPERATURE_BOUNDS,
    Calibration,
    calibrate_folds,
    fit_temperature,
    measure_test,
    pool_calibration,
)
from train.reporting.crossval import list_folds, write_crossval_report
from train.reporting.figures import draw_reliability
from train.reporting.summary import CrossvalSummary, summarise_folds
from train.runs.results import FoldResult
from train.tasks.multi_label import ActionUnits
from train.tasks.single_label import SingleLabel

TASK = SingleLabel()


def draw_logits(seed: int, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits f64 (n, 4), and labels drawn from exactly their probabilities: a perfectly calibrated model."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (num, len(CLASSES)))
    labels = np.array([rng.choice(len(CLASSES), p=row) for row in softmax(logits, axis=1)])
    return logits, labels


def predict(logits: np.ndarray, labels: np.ndarray, subjects: list[str]) -> list[Prediction]:
    """Rows of predictions.csv, which holds f32 probabilities."""
    rows = zip(softmax(logits, axis=1).astype(np.float32), labels, subjects, strict=True)
    return [
        Prediction(f"s{n}", subject, (CLASSES[label],), (CLASSES[row.argmax()],), tuple(row.tolist()))
        for n, (row, label, subject) in enumerate(rows)
    ]


@given(seed=st.integers(0, 1000), num=st.integers(1, 60))
def test_scores_are_the_definitions(seed: int, num: int) -> None:
    logits, labels = draw_logits(seed, num)
    found = Calibration.measure(log_softmax(logits, axis=1), labels)
    probabilities = softmax(logits, axis=1)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    ece = 0.0
    for low in np.arange(NUM_BINS) / NUM_BINS:
        inside = (confidence > low) & (confidence <= low + 1 / NUM_BINS)
        if inside.any():
            ece += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert found.ece == pytest.approx(ece)
    assert found.nll == pytest.approx(log_loss(labels, probabilities, labels=range(len(CLASSES))))
    assert found.num.sum() == num and found.num_right.sum() == right.sum()


def test_the_temperature_undoes_a_factor_of_the_logits() -> None:
    logits, labels = draw_logits(0, 2500)
    for factor in (0.5, 1, 4):
        assert fit_temperature(log_softmax(factor * logits, axis=1), labels) == pytest.approx(factor, rel=0.08)
    certain = Calibration.measure(log_softmax(4 * logits, axis=1), labels)
    assert certain.ece > 0.1 and Calibration.measure(log_softmax(logits, axis=1), labels).ece < 0.02
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)  # the same minimum by another optimiser
    optimizer = torch.optim.LBFGS([log_t], max_iter=100, line_search_fn="strong_wolfe")
    scaled, truth = torch.from_numpy(4 * logits), torch.from_numpy(labels)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(scaled / log_t.exp(), truth)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[arg-type, no-untyped-call]
    assert fit_temperature(log_softmax(4 * logits, axis=1), labels) == pytest.approx(log_t.exp().item(), rel=1e-3)


def test_faultless_predictions_and_zeros_give_finite_numbers() -> None:
    rows = predict(np.eye(4) * 400, np.arange(4), ["A", "B", "C", "D"])
    assert min(min(row.probabilities) for row in rows) == 0
    found = measure_test(TASK, [*rows, dataclasses.replace(rows[0], labels=(CLASSES[1],))], CLASSES)
    assert found is not None and found.ece == pytest.approx(0.2) and 10 < found.nll < 20
    least, _ = TEMPERATURE_BOUNDS
    assert fit_temperature(log_softmax(np.eye(4), axis=1), np.arange(4)) == pytest.approx(least, rel=1e-3)


def make_folds(
    num_folds: int = 3, per_fold: int = 600, factor: float = 3
) -> tuple[list[Fold], dict[str, list[Prediction]]]:
    """Folds of an overconfident model; the first fold's people also have shuffled labels."""
    people = [[f"S{fold}{n}" for n in range(4)] for fold in range(num_folds)]
    folds = [
        Fold(f"fold-{k:02d}", tuple(s for other in people if other is not own for s in other), tuple(own))
        for k, own in enumerate(people)
    ]
    tests = {}
    for k, own in enumerate(people):
        logits, labels = draw_logits(k, per_fold)
        labels = np.random.default_rng(k).permutation(labels) if k == 0 else labels
        tests[folds[k].name] = predict(factor * logits, labels, [own[n % 4] for n in range(per_fold)])
    return folds, tests


def test_a_fold_is_scaled_by_what_other_folds_say_of_its_training_people() -> None:
    folds, tests = make_folds()
    found = calibrate_folds(TASK, folds, tests, CLASSES)
    assert [one.name for one in found] == [fold.name for fold in folds]
    first, *others = found
    assert first.temperature == pytest.approx(3, rel=0.1)  # its own people, of random labels, have no say
    assert all(one.temperature is not None and one.temperature > 4 for one in others)  # they saw them: less certain
    assert first.scaled is not None and first.scaled.num_right.sum() == first.plain.num_right.sum()
    changed = {**tests, "fold-01": predict(np.zeros((600, 4)), np.zeros(600, int), ["S10"] * 600)}
    assert calibrate_folds(TASK, folds, changed, CLASSES)[1].temperature == others[0].temperature
    assert calibrate_folds(TASK, folds, changed, CLASSES)[0].temperature != first.temperature


def test_without_other_folds_of_the_round_there_is_no_temperature() -> None:
    folds, tests = make_folds()
    (alone,) = calibrate_folds(TASK, folds, {"fold-01": tests["fold-01"]}, CLASSES)
    assert alone.temperature is None and alone.scaled is None and alone.plain.num.sum() == 600
    rounds = [dataclasses.replace(fold, name=f"round-{k}/{fold.name}") for k, fold in enumerate(folds)]
    renamed = {fold.name: tests[old.name] for fold, old in zip(rounds, folds, strict=True)}
    assert [one.temperature for one in calibrate_folds(TASK, rounds, renamed, CLASSES)] == [None] * 3
    strangers = [dataclasses.replace(fold, train_subjects=("T1", "T2")) for fold in folds]
    assert [one.temperature for one in calibrate_folds(TASK, strangers, tests, CLASSES)] == [None] * 3
    assert calibrate_folds(ActionUnits(), folds, tests, CLASSES) == ()
    assert measure_test(ActionUnits(), tests["fold-01"], CLASSES) is None


@pytest.fixture(scope="module")
def reported() -> tuple[CrossvalSummary, list[FoldResult]]:
    folds, tests = make_folds(per_fold=300)
    results = [fold_result(name, TASK, TASK.test(rows, CLASSES), CLASSES) for name, rows in tests.items()]
    return summarise_folds(results, calibrate_folds(TASK, folds, tests, CLASSES)), results


def test_every_file_of_a_report_says_the_same(
    reported: tuple[CrossvalSummary, list[FoldResult]], tmp_path: Path
) -> None:
    summary, results = reported
    write_crossval_report(tmp_path, summary, results, ABOUT)
    plain = pool_calibration([one.plain for one in summary.calibration])
    scaled = pool_calibration([one.scaled for one in summary.calibration if one.scaled])
    text = (tmp_path / "report.txt").read_text()
    lines = {line[:18]: line.split() for line in text.splitlines() if line.startswith(("as trained", "temperature"))}
    assert lines["as trained        "[:18]][2:4] == [f"{100 * plain.ece:.1f}", f"{plain.nll:.3f}"]
    assert lines["temperature scaled"][2:4] == [f"{100 * scaled.ece:.1f}", f"{scaled.nll:.3f}"]
    assert scaled.nll < plain.nll
    assert "Guo et al. 2017" in text and "on its training people" in text
    assert (tmp_path / "reliability.pdf").read_bytes().startswith(b"%PDF")
    value = json.loads((tmp_path / "report.json").read_bytes())["summary"]["calibration"]
    rows = list(csv.DictReader(io.StringIO(list_folds(summary, results).format_csv())))
    for row, one, fold in zip(rows, value, summary.calibration, strict=True):
        assert float(row["ece"]) == one["plain"]["ece"] == fold.plain.ece
        assert float(row["nll_scaled"]) == one["scaled"]["nll"]
        assert float(row["temperature"]) == one["temperature"]
        assert sum(one["plain"]["bins"]["num"]) == 300


def test_the_diagram_shows_both(reported: tuple[CrossvalSummary, list[FoldResult]]) -> None:
    """A line of each colour; of a fold without temperature blue alone."""
    summary, _ = reported
    alone = dataclasses.replace(summary.calibration[0], temperature=None, scaled=None)
    for folds, has_red in ((summary.calibration, True), ((alone,), False)):
        with Image.open(io.BytesIO(draw_reliability(folds, "png"))) as image:
            pixels = np.asarray(image.convert("RGB"))
        blue, red = ((pixels == colour).all(-1).sum() for colour in ((0x21, 0x66, 0xAC), (0xB2, 0x18, 0x2B)))
        assert blue > 500 and (red > 500 if has_red else red == 0)
