"""The pages of runs on several classes at once: misses and false alarms, what was looked at for each."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import CLASSES, UNITS, MakeCache, show_units
from test_train_cli import QUICK, call
from viewer_pages import page_text, tiles

from preprocess.viewer.address import NONE
from preprocess.viewer.app import build_app
from preprocess.viewer.catalogue import Column
from preprocess.viewer.confusion import count_decisions
from preprocess.viewer.live import LiveSite
from preprocess.viewer.player import _curves
from preprocess.viewer.run_records import DECISIONS, FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_NEGATIVE, TRUE_POSITIVE
from preprocess.viewer.site import open_site
from shared.attention_file import ATTENTION_FILE
from shared.cache import open_cache
from shared.runs import Prediction, Predictions, write_predictions


@pytest.mark.parametrize("task", ["aus", "targets", "au-intensity"])
def test_several_classes_at_once(tiny_cache: MakeCache, tmp_path: Path, task: str) -> None:
    cache = tiny_cache(units="targets" if task == "targets" else "aus", num_subjects=4)
    run, units = tmp_path / "run", UNITS[2:] if task == "au-intensity" else UNITS
    assert call("fit", "--cache", cache, "--out", run, *QUICK, "--task", task) == 0
    site = open_site(cache, run)
    run_records, predictions = site.run, site.run.predictions
    names = {(1, True): TRUE_POSITIVE, (1, False): FALSE_NEGATIVE, (0, True): FALSE_POSITIVE, (0, False): TRUE_NEGATIVE}
    for row, one in predictions.items():
        shown = dict(zip(UNITS, show_units(CLASSES.index(site.cache.samples[row].label)), strict=False))
        predicted = {
            name for name, _, value in (text.partition("=") for text in one.predicted) if float(value or 1) > 0.5
        }
        decided = {name: names[shown[name], name in predicted] for name in units}
        assert row == 0 or run_records.decide(one) == decided
    counts = count_decisions(site.run)
    assert sum(counts.values()) == len(units) * (len(predictions) - (0 in predictions))
    page = page_text(site, "/confusion")
    for name in units:
        for decision in (TRUE_POSITIVE, FALSE_NEGATIVE, FALSE_POSITIVE):
            rows = [row for row, one in predictions.items() if run_records.decide(one).get(name) == decision]
            assert tiles(site, f"?predicted={name} {decision}") == sorted(rows)
            assert (f"predicted={name}+{decision.replace(' ', '+')}" in page) == bool(rows)
    column = site.catalogue.filters["predicted"]
    assert isinstance(column, Column)
    assert column.rows(NONE).tolist() == sorted(
        {*range(len(site.cache.samples))} - {row for rows in column.members.values() for row in rows.tolist()}
    )
    assert list(column.members) == [
        v for n in units for d in (TRUE_POSITIVE, FALSE_NEGATIVE, FALSE_POSITIVE) if (v := f"{n} {d}") in column.members
    ]
    row = max(predictions)
    wrong = [d for d in run_records.decide(predictions[row]).values() if d in (FALSE_NEGATIVE, FALSE_POSITIVE)]
    assert run_records.count_errors(predictions[row]) == len(
        wrong
    ) and f"→ {run_records.summarise(predictions[row])}" in page_text(
        site, "/", "?subject=" + site.cache.samples[row].subject
    )
    assert [str(wrong.count(d)) in run_records.summarise(predictions[row]) for d in {*wrong}] == [True] * len({*wrong})
    sample = page_text(site, f"/sample/{row}")
    assert "Predictions" in sample and "Attention of each class to each image" in sample
    assert {d for d in DECISIONS if f'"{d}"' in sample} == {*run_records.decide(predictions[row]).values()}
    points = build_app(LiveSite(lambda: site)).server.test_client().get("/points/0.json?layout=pca").json
    assert len(points["rows"]) == len(predictions) and all(
        "wrong" in word or word == "not known" for word in points["words"]["error"]
    )
    (name, *_), client = units, build_app(LiveSite(lambda: site)).server.test_client()
    points = client.get(f"/points/0.json?colour={name}&layout=pca").json
    told = [points["words"][name][code] for code in points["codes"][name]]
    assert told == [run_records.decide(predictions[row]).get(name, "not known") for row in points["rows"]]
    assert name in page_text(site, "/map")
    assert ("present from intensity 1" in page) == (task == "au-intensity")
    if task == "targets":
        return
    # where nothing is known nothing is right
    assert call("predict", run, "--cache", tiny_cache(name="unknown")) == 0
    for name in (ATTENTION_FILE, "predictions.csv"):
        (run / name).unlink()
    points = (
        build_app(LiveSite(lambda: open_site(tmp_path / "unknown", run)))
        .server.test_client()
        .get("/points/0.json?layout=pca")
        .json
    )
    assert (points["words"]["error"], points["words"]["label"]) == (["not known"], ["no label"])


def test_curves_are_labels_and_probabilities(tiny_cache: MakeCache, tmp_path: Path) -> None:
    """Beside the player: labels of every frame, probabilities of the frames of one run, and the answer of another run."""
    cache = open_cache(tiny_cache(num_subjects=1, num_frames=5, units="aus", invalid=(11,), with_text=False))
    frames = cache.samples[20:25]  # S0/surprise0 shows AU4 and AU12, the latter with intensity 3
    rows = [
        Prediction(one.sample_id, "S0", ("AU4",), ("AU1",), (0.5 + 0.1 * i, 0.2, 0.1))
        for i, one in enumerate(frames[:4])
    ]
    write_predictions(tmp_path / "frames" / "predictions.csv", Predictions(UNITS, True, tuple(rows)))
    whole = Prediction("S0/surprise0", "S0", ("surprise",), ("anger",), (0.7, 0.2, 0.1))
    write_predictions(tmp_path / "whole" / "predictions.csv", Predictions(CLASSES, False, (whole,)))
    site = open_site(cache.path, tmp_path / "frames", tmp_path / "whole")
    curves = _curves(site, [20, 21, 22, 23, 24])
    assert (curves["runs"], curves["quiet"]) == (["frames"], [])
    assert curves["tracks"] == [
        {"name": "AU1", "bars": [0] * 5, "lines": [[0.5, 0.6, 0.7, 0.8, None]]},
        {"name": "AU4", "bars": [1] * 5, "lines": [[0.2] * 4 + [None]]},
        {"name": "AU12", "bars": [0.6] * 5, "lines": [[0.1] * 4 + [None]]},
    ]
    page = page_text(site, "/play/20")
    assert "→ anger" in page and "whole" in page and "data-player" in page
    unknown = _curves(site, [0, 1, 2])  # row 0 is not known; AU1 alone is shown by anger
    assert [(track["name"], track["bars"]) for track in unknown["tracks"]] == [("AU1", [None, 1, 1])]
    assert unknown["quiet"] == ["AU4", "AU12"]
