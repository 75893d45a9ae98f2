"""Pages of a cache that is built again while they are open: they say so, and show it once they are loaded anew."""

from __future__ import annotations

import dataclasses
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import write_tiny_cache

from preprocess.viewer.app import build_app
from preprocess.viewer.live import BUILDING, LiveSite
from preprocess.viewer.site import Site, open_site
from shared.cache import CACHE_JSON, read_info, write_info
from shared.errors import FacetError


@pytest.fixture
def path(tmp_path: Path, tiny_model: str) -> Path:
    write_tiny_cache(tmp_path / "cache", model=tiny_model, num_subjects=1, with_text=False)
    return tmp_path / "cache"


def build_again(path: Path, tiny_model: str) -> str:
    """Two subjects where there was one; returns the new content hash."""
    shutil.rmtree(path)
    write_tiny_cache(path, model=tiny_model, num_subjects=2, with_text=False)
    return read_info(path).content_hash


def ask(live: LiveSite, opened: str) -> str:
    """What an open page is told when it asks."""
    asked: dict[str, Any] = {
        "output": "changed.children",
        "outputs": {"id": "changed", "property": "children"},
        "inputs": [{"id": "poll-change", "property": "n_intervals", "value": 1}],
        "state": [{"id": "opened", "property": "data", "value": opened}],
        "changedPropIds": ["poll-change.n_intervals"],
    }
    response = build_app(live).server.test_client().post("/_dash-update-component", json=asked)
    assert response.status_code == 200
    return str(response.text)


def test_an_open_page_says_that_the_cache_has_changed(path: Path, tiny_model: str) -> None:
    live = LiveSite(partial(open_site, path))
    opened = live.site.cache.info.content_hash
    assert '"children":[]' in ask(live, opened)
    assert live.renew() is live.site
    (path / CACHE_JSON).touch()
    assert live.describe_change(opened) == ""  # what it holds counts
    found = build_again(path, tiny_model)
    assert "changed since this page was opened: reload" in ask(live, opened)
    layout = build_app(live).server.test_client().get("/_dash-layout").text
    assert found in layout and opened not in layout
    assert len(live.site.cache.samples) == 12
    assert live.describe_change(found) == ""
    assert "reload it" in live.describe_change(opened)  # another page, still open


def test_a_cache_that_is_being_built_stays_as_it_was(path: Path) -> None:
    live = LiveSite(partial(open_site, path))
    before, opened = live.site, live.site.cache.info.content_hash
    info = read_info(path)
    write_info(path, dataclasses.replace(info, complete=False))
    assert live.describe_change(opened) == BUILDING and live.renew() is before
    (path / CACHE_JSON).unlink()
    assert live.describe_change(opened) == BUILDING and live.renew() is before
    write_info(path, info)
    assert live.describe_change(opened) == "" and live.renew() is before


def test_a_cache_that_no_longer_fits_the_run_says_why(path: Path, tiny_model: str) -> None:
    calls: list[Site] = []

    def open_once() -> Site:
        if calls:
            raise FacetError("runs/a: is of another cache")
        calls.append(open_site(path))
        return calls[0]

    live = LiveSite(open_once)
    opened = live.site.cache.info.content_hash
    build_again(path, tiny_model)
    assert live.renew() is calls[0]
    assert live.describe_change(opened).endswith("cannot be shown: runs/a: is of another cache")
