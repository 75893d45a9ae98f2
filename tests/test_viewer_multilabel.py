"""The pages of runs on several classes at once: misses and false alarms, what was looked at for each."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import CLASSES, UNITS, MakeCache, show_units
from test_train_cli import QUICK, call
from viewer_pages import page_text, tiles

from preprocess.viewer.address import NONE
from preprocess.viewer.app import build_app
from preprocess.viewer.confusion import count_decisions
from preprocess.viewer.live import LiveSite
from preprocess.viewer.run_records import DECISIONS, FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_NEGATIVE, TRUE_POSITIVE
from preprocess.viewer.site import open_site
from shared.attention_file import ATTENTION_FILE


@pytest.mark.parametrize("units", ["aus", "targets"])
def test_several_classes_at_once(tiny_cache: MakeCache, tmp_path: Path, units: str) -> None:
    cache, run = tiny_cache(units=units, num_subjects=4), tmp_path / "run"
    assert call("fit", "--cache", cache, "--out", run, *QUICK, "--task", units) == 0
    site = open_site(cache, run)
    run_records, predictions = site.run, site.run.predictions
    names = {(1, True): TRUE_POSITIVE, (1, False): FALSE_NEGATIVE, (0, True): FALSE_POSITIVE, (0, False): TRUE_NEGATIVE}
    for row, one in predictions.items():
        shown = show_units(CLASSES.index(site.cache.samples[row].label))
        decided = {n: names[v, n in one.predicted] for n, v in zip(UNITS, shown, strict=False)}
        assert row == 0 or run_records.decide(one) == decided
    counts = count_decisions(site.run)
    assert sum(counts.values()) == 3 * (len(predictions) - (0 in predictions))
    page = page_text(site, "/confusion")
    for name in UNITS:
        for decision in (TRUE_POSITIVE, FALSE_NEGATIVE, FALSE_POSITIVE):
            rows = [row for row, one in predictions.items() if run_records.decide(one).get(name) == decision]
            assert tiles(site, f"?predicted={name} {decision}") == sorted(rows)
            assert (f"predicted={name}+{decision.replace(' ', '+')}" in page) == bool(rows)
    column = site.catalogue.columns["predicted"]
    assert column.rows(NONE).tolist() == sorted(
        {*range(len(site.cache.samples))} - {row for rows in column.members.values() for row in rows.tolist()}
    )
    assert list(column.members) == [
        v for n in UNITS for d in (TRUE_POSITIVE, FALSE_NEGATIVE, FALSE_POSITIVE) if (v := f"{n} {d}") in column.members
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
    points = build_app(LiveSite(lambda: site)).server.test_client().get("/points/0.json").json
    assert len(points["rows"]) == len(predictions) and all(
        "wrong" in word or word == "not known" for word in points["words"]["error"]
    )
    if units == "targets":
        return
    # where nothing is known nothing is right
    assert call("predict", run, "--cache", tiny_cache(name="unknown")) == 0
    for name in (ATTENTION_FILE, "predictions.csv"):
        (run / name).unlink()
    points = (
        build_app(LiveSite(lambda: open_site(tmp_path / "unknown", run)))
        .server.test_client()
        .get("/points/0.json")
        .json
    )
    assert (points["words"]["error"], points["words"]["label"]) == (["not known"], ["no label"])
