"""The pages of runs on several classes at once: misses and false alarms, what was looked at for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browser import open_site
from conftest import CLASSES, UNITS, MakeCache, show_units
from test_train_cli import QUICK, call
from viewer_pages import page_text, tiles

from preprocess.viewer.address import NONE
from preprocess.viewer.attention_records import read_attention_records
from preprocess.viewer.catalogue import FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_NEGATIVE, TRUE_POSITIVE, SetColumn
from preprocess.viewer.confusion import count_decisions
from preprocess.viewer.live import LiveSite
from preprocess.viewer.predictions import read_predictions
from preprocess.viewer.server import build_app
from preprocess.viewer.site import Site
from shared.attention import ATTENTION_FILE
from shared.cache import open_cache


def open_run(cache: Path, run: Path, **options: Any) -> Site:
    opened = open_cache(cache)
    return open_site(
        cache,
        predictions=read_predictions(run, opened),
        looks=read_attention_records(run, opened),
        run=run.name,
        **options,
    )


@pytest.mark.parametrize("units", ["aus", "targets"])
def test_several_classes_at_once(tiny_cache: MakeCache, tmp_path: Path, units: str) -> None:
    cache, run = tiny_cache(units=units, num_subjects=4), tmp_path / "run"
    assert call("fit", "--cache", cache, "--out", run, *QUICK, "--task", units) == 0
    site = open_run(cache, run)
    said = site.catalogue.predictions
    names = {(1, True): TRUE_POSITIVE, (1, False): FALSE_NEGATIVE, (0, True): FALSE_POSITIVE, (0, False): TRUE_NEGATIVE}
    for row, one in said.items():
        shown = show_units(CLASSES.index(site.cache.samples[row].label))
        spoken = one.class_name.split("+")
        assert row == 0 or dict(one.decisions) == {n: names[v, n in spoken] for n, v in zip(UNITS, shown, strict=False)}
    counts = count_decisions(site)
    assert sum(counts.values()) == 3 * (len(said) - (0 in said))
    page = page_text(site, "/confusion")
    for name in UNITS:
        for decision in (TRUE_POSITIVE, FALSE_NEGATIVE, FALSE_POSITIVE):
            rows = [row for row, one in said.items() if (name, decision) in one.decisions]
            assert tiles(site, f"?predicted={name} {decision}") == sorted(rows)
            assert (f"predicted={name}+{decision.replace(' ', '+')}" in page) == bool(rows)
    column = site.catalogue.columns["predicted"]
    assert isinstance(column, SetColumn) and column.rows(NONE).tolist() == sorted(
        {*range(len(site.cache.samples))} - {row for rows in column.members for row in rows.tolist()}
    )
    assert list(column.values) == [
        v for n in UNITS for d in (TRUE_POSITIVE, FALSE_NEGATIVE, FALSE_POSITIVE) if (v := f"{n} {d}") in column.values
    ]
    row = max(said)
    wrong = [d for _, d in said[row].decisions if d in (FALSE_NEGATIVE, FALSE_POSITIVE)]
    assert said[row].num_wrong("") == len(wrong) and f"→ {said[row].summary()}" in page_text(
        site, "/", "?subject=" + site.cache.samples[row].subject
    )
    assert [str(wrong.count(d)) in said[row].summary() for d in {*wrong}] == [True] * len({*wrong})
    sample = page_text(site, f"/sample/{row}")
    assert "of what is known" in sample and "Which picture each class" in sample
    points = build_app(LiveSite(lambda: site)).server.test_client().get("/points/0.json").json
    assert len(points["rows"]) == len(said) and all(
        "wrong" in word or word == "not known" for word in points["words"]["error"]
    )
    if units == "targets":
        return
    # where nothing is known nothing is right
    assert call("predict", run, "--cache", tiny_cache(name="unknown")) == 0
    for name in (ATTENTION_FILE, "predictions.csv"):
        (run / name).unlink()
    points = (
        build_app(LiveSite(lambda: open_run(tmp_path / "unknown", run))).server.test_client().get("/points/0.json").json
    )
    assert (points["words"]["error"], points["words"]["label"]) == (["not known"], ["no label"])
