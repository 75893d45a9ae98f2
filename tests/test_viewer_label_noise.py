"""The page of doubted labels: confident learning by its definition, and wrong labels that it finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from conftest import CLASSES, UNITS, MakeCache
from test_viewer_pages import write_run
from viewer_pages import page_text, tiles

from preprocess.viewer.label_noise import find_confident, find_doubts
from preprocess.viewer.site import open_site
from shared.cache import open_cache
from shared.runs import Prediction, Predictions, write_predictions


def test_confident_classes_follow_the_definition() -> None:
    """Northcutt et al. 2021, equations 1 and 2, item by item."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)  # of four classes: nothing is labelled with the last
    probabilities = rng.dirichlet(np.ones(4), 60)
    mean = {c: np.mean([p[c] for p, y in zip(probabilities, labels, strict=True) if y == c]) for c in range(3)}
    for p, y, found in zip(probabilities, labels, find_confident(probabilities, labels), strict=True):
        reached = [c for c in mean if p[c] >= mean[c]]
        assert found == (max(reached, key=lambda c: p[c]) if reached else y)


def test_wrong_labels_are_found() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 600)
    probabilities = np.array([rng.dirichlet(np.where(np.arange(3) == c, 30.0, 1.0)) for c in truth])
    labels, wrong = truth.copy(), rng.choice(600, 40, replace=False)
    labels[wrong] = (truth[wrong] + 1) % 3
    doubted = {*np.flatnonzero(find_confident(probabilities, labels) != labels).tolist()}
    assert len(doubted & {*wrong.tolist()}) >= 36 and len(doubted - {*wrong.tolist()}) <= 10


def test_doubts_lead_to_their_samples(tiny_cache: MakeCache, tmp_path: Path) -> None:
    """Two rounds tested everything; the label of row 0 is wrong in both, that of row 2 in one, less than in the other."""
    cache = open_cache(tiny_cache(num_subjects=2))
    for number in range(2):
        rows = []
        for row, sample in enumerate(cache.samples):
            p = [0.9 if name == sample.label else 0.05 for name in CLASSES]
            p = [0.04, 0.06, 0.9] if row == 0 else [0.6, 0.4, 0.0] if row == 2 and number else p
            told = CLASSES[int(np.argmax(p))]
            rows.append(f"{sample.sample_id},{sample.subject},{sample.label},{told},{','.join(map(str, p))}")
        write_run(tmp_path / "cv" / f"round-00{number}" / "fold-0", rows)
    site = open_site(cache.path, tmp_path / "cv")
    (doubt,) = find_doubts(site.run, cache)
    assert (doubt.name, doubt.label, doubt.suggested, doubt.num) == ("S0/anger0", "anger", "surprise", 1)
    page = page_text(site, "/noise")
    assert '"/sample/0"' in page and "anger 0.04, surprise 0.90" in page and "It agrees with 21 of 24 labels" in page
    assert "data-tag" in page and "were trained" not in page and tiles(site, "?error=wrong") == [0, 2]
    (tmp_path / "predictions-cache.csv").write_bytes((tmp_path / "cv/round-000/fold-0/predictions.csv").read_bytes())
    for page in ("/noise", "/confusion"):  # maybe of people that the model was trained on
        assert "These are predictions of `predict`" in page_text(open_site(cache.path, tmp_path), page)


def test_frames_of_a_sequence_are_one_doubt(tiny_cache: MakeCache, tmp_path: Path) -> None:
    """AU1 is labelled absent in two frames of one sequence where the model is sure of it; AU4 is not known there."""
    cache = open_cache(tiny_cache(num_subjects=2, num_frames=3, units="aus"))
    rows = []
    for row, sample in enumerate(cache.samples):
        doubted, labels = row in (30, 31), ("AU1",) if sample.label == "anger" else ("AU12",)
        p = [0.97 if doubted else 0.95 - row / 1000 if "AU1" in labels else 0.1, 0.5, 0.9 if "AU12" in labels else 0.1]
        said = tuple(name for name, value in zip(UNITS, p, strict=True) if value > 0.5)
        rows.append(Prediction(sample.sample_id, sample.subject, labels, said, tuple(p), ("AU4",)))
    write_predictions(tmp_path / "run" / "predictions.csv", Predictions(UNITS, True, tuple(rows)))
    site = open_site(cache.path, tmp_path / "run")
    (doubt,) = find_doubts(site.run, cache)
    assert (doubt.name, doubt.class_name, doubt.label, doubt.num) == (cache.samples[30].sample_id, "AU1", "absent", 2)
    assert "AU1 absent 0.03, present 0.97; 2 frames" in page_text(site, "/noise")


def test_intensities_are_read_as_presence(tiny_cache: MakeCache, tmp_path: Path) -> None:
    cache = open_cache(tiny_cache(num_subjects=2, units="aus"))
    truth, said = ("AU1=1", "AU4=0"), ("AU1=0.20", "AU4=0.71", "AU12=2.00")
    one = Prediction("S0/anger1", "S0", truth, said, (0.04, 0.142, 0.4), ("AU12",))
    write_predictions(tmp_path / "run" / "predictions.csv", Predictions(UNITS, True, (one,)))
    site = open_site(cache.path, tmp_path / "run")
    assert site.run.levels and site.run.decide(site.run.predictions[1]) == {"AU1": "FN", "AU4": "FP"}
    assert '"0.71"' in page_text(site, "/sample/1") and "from intensity 1" in page_text(site, "/confusion")
