"""The map of a test's face vectors: each seen from where they differ most, by principal components."""

from __future__ import annotations

import json
import threading

import numpy as np

from preprocess.viewer.address import KINDS
from preprocess.viewer.attention_records import AttentionRecords, Fold
from preprocess.viewer.catalogue import FALSE_NEGATIVE, TRUE_POSITIVE, Catalogue, Prediction
from preprocess.viewer.pictures import shown_kind

MAX_POINTS = 50_000  # that a browser draws and searches without a wait
STEPS = 20_000  # places along an axis, which is stretched to its points: the second is often much shorter


class Maps:
    """Computes a fold's map when it is asked for. Folds have models of their own: no two maps are alike."""

    def __init__(self, catalogue: Catalogue, looks: AttentionRecords) -> None:
        self._catalogue, self._looks = catalogue, looks
        self._lock = threading.Lock()
        self._found: dict[int, bytes] = {}

    def points(self, fold: int) -> bytes | None:
        """What map.js draws, as JSON; None where there is no such fold."""
        if not 0 <= fold < len(self._looks.tests):
            return None
        with self._lock:
            if fold not in self._found:
                told = describe_points(self._catalogue, self._looks.tests[fold])
                self._found = {fold: json.dumps(told, separators=(",", ":")).encode()}  # the last one alone
            return self._found[fold]


def project(faces: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Principal components (Pearson 1901): faces (n, d) → places f64 (n, 2), and each axis's share of the variance.

    Signs are such that the largest weight of an axis is positive: the same faces give the same map.
    """
    centred = faces.astype(np.float64)
    centred -= centred.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    axes = np.zeros((faces.shape[1], 2))
    found = vectors[:, ::-1][:, :2]
    axes[:, : found.shape[1]] = found * np.sign(found[np.abs(found).argmax(0), np.arange(found.shape[1])])
    total = max(float(values.sum()), 1e-12)
    shares = [max(float(value), 0.0) / total for value in values[::-1][:2]] + [0.0, 0.0]
    return centred @ axes, (shares[0], shares[1])


def choose_items(fold: Fold) -> list[int]:
    """The items on a map: all, or MAX_POINTS of them, evenly spread."""
    num = min(len(fold.items), MAX_POINTS)
    return [fold.items[place * len(fold.items) // num] for place in range(num)]


def describe_points(catalogue: Catalogue, fold: Fold) -> dict[str, object]:
    """x, y (0…STEPS) and row of each point; words to tell points by, and which of them is each point's."""
    items = choose_items(fold)
    told: dict[str, object] = {"num": len(fold.items)}
    if not items:
        return told | {"x": [], "y": [], "rows": [], "shares": [0, 0], "words": {}, "codes": {}}
    places, shares = project(fold.attention.faces[items])
    places -= places.min(0)
    places *= STEPS / np.maximum(places.max(0), 1e-12)
    x, y = places.round().astype(int).T.tolist()
    rows = [fold.row_of(item) for item in items]
    words: dict[str, list[str]] = {}
    codes: dict[str, list[int]] = {}
    said = [fold.predictions.get(fold.attention.names[item]) for item in items]
    for name, values in _fields(catalogue, rows, said).items():
        words[name] = sorted(set(values))
        index = {word: code for code, word in enumerate(words[name])}
        codes[name] = [index[value] for value in values]
    sure = [round(one.probability, 3) if one else 0 for one in said]
    return told | {
        "x": x, "y": y, "rows": rows, "shares": shares, "words": words, "codes": codes, "sure": sure,
    }  # fmt: skip


def _fields(catalogue: Catalogue, rows: list[int], said: list[Prediction | None]) -> dict[str, list[str]]:
    samples = catalogue.cache.samples
    labels = [samples[row].label for row in rows]
    if any(one is not None and one.several for one in said):  # the label is the set of what truly holds
        labels = [
            "+".join(n for n, d in one.decisions if d in (TRUE_POSITIVE, FALSE_NEGATIVE)) or "none"
            if one and one.decisions
            else ""
            for one in said
        ]
    wrong = [one.num_wrong(samples[row].label) if one else 0 for row, one in zip(rows, said, strict=True)]
    known = [bool(label) and one is not None for label, one in zip(labels, said, strict=True)]
    return {
        "label": [label or "no label" for label in labels],
        "predicted": [one.class_name if one else "no prediction" for one in said],
        "subject": [samples[row].subject for row in rows],
        "picture": [shown_kind(samples[row], KINDS[0]) or "" for row in rows],
        "error": [_tell_wrong(n, k, one is not None and one.several)
                  for n, k, one in zip(wrong, known, said, strict=True)],
    }  # fmt: skip


def _tell_wrong(num: int, known: bool, several: bool) -> str:
    if not known:
        return "not known"
    if not several:
        return "wrong" if num else "right"
    return f"{num} wrong" if num < 4 else "4 wrong or more"
