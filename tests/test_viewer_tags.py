"""Tags of samples: kept in a file beside the cache, changed by its pages alone, downloaded as CSV."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from conftest import MakeCache
from test_viewer_pages import write_run
from viewer_pages import page_text, tiles

from preprocess.viewer.address import ANY
from preprocess.viewer.app import build_app
from preprocess.viewer.live import LiveSite
from preprocess.viewer.run_records import name_runs
from preprocess.viewer.site import Site, open_site
from preprocess.viewer.tags import Tags
from shared.errors import FacetError


@pytest.fixture
def site(tiny_cache: MakeCache, tmp_path: Path) -> Site:
    """Two subjects, twelve scans, and two runs; `second` is right about row 0 and less sure of row 1."""
    cache = tiny_cache(num_subjects=2, units="aus")
    third = "S0/happiness0,S0,happiness,surprise,0.1,0.2,0.7"
    rows = ["S0/anger0,S0,anger,surprise,0.05,0.05,0.9", "S0/anger1,S0,anger,anger,0.8,0.1,0.1", third]
    first = write_run(tmp_path / "a" / "first", rows)
    rows = ["S0/anger0,S0,anger,anger,0.9,0.05,0.05", "S0/anger1,S0,anger,anger,0.4,0.3,0.3", third]
    return open_site(cache, first, write_run(tmp_path / "b" / "second", rows))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_tags_are_a_file_beside_the_cache(site: Site, tmp_path: Path) -> None:
    before = snapshot(site.cache.path)
    client = build_app(LiveSite(lambda: site)).server.test_client()
    assert client.post("/tag/3", json={"tag": " wrong  label", "on": True}).json == {"tags": ["wrong label"]}
    assert client.post("/tag/3", json={"tag": "wrong label", "on": True}).json == {"tags": ["wrong label"]}
    file = tmp_path / "cache.tags.csv"
    assert file.read_text() == "sample_id,tag\nS0/happiness1,wrong label\n"
    file.write_text("sample_id,tag,note\nS0/happiness1,wrong label,ask Ana\ngone,check,\n")  # in a spreadsheet
    other = Tags(file, site.cache)  # another viewer
    assert other.change("S1/anger0", "mirrored", on=True) == ("mirrored",)
    assert client.post("/tag/3", json={"tag": "check", "on": True}).json == {"tags": ["wrong label", "check"]}
    assert client.post("/tag/3", json={"tag": "wrong label", "on": False}).json == {"tags": ["check"]}
    assert file.read_text() == "sample_id,tag,note\ngone,check,\nS1/anger0,mirrored,\nS0/happiness1,check,\n"
    assert tiles(site, "?tag=check") == [3] and tiles(site, f"?tag={ANY}") == [3, 6]
    assert site.tags.options() == ["check", "mirrored", ANY] and str(file) in page_text(site, "/")
    assert snapshot(site.cache.path) == before


def test_only_the_pages_change_tags(site: Site) -> None:
    client = build_app(LiveSite(lambda: site)).server.test_client()
    asked = {"tag": "check", "on": True}
    assert client.post("/tag/3", data=asked).status_code == 415  # a form, which another page could send
    assert [client.post(f"/tag/{row}", json=asked).status_code for row in (12, 999999)] == [400, 400]
    for wrong in ({"tag": 3}, [1], {}):
        assert client.post("/tag/3", json=wrong).status_code == 400
    for word in ("", "x" * 41, "\x1b[31m"):
        response = client.post("/tag/3", json={"tag": word, "on": True})
        assert response.status_code == 500 and "printable characters" in response.text
    guarded = build_app(LiveSite(lambda: site), token="t").server.test_client()
    assert guarded.post("/tag/3", json=asked).status_code == 403
    assert not site.tags.path.exists()


@pytest.mark.parametrize("data", [b"name,tag\nx,y\n", b"sample_id,tag\nx\n", b"sample_id,tag\n\xff,x\n", b""])
def test_a_file_that_holds_no_tags_is_left_alone(site: Site, tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "mine.csv"
    file.write_bytes(data)
    with pytest.raises(FacetError, match=r"mine\.csv: is no table with the columns sample_id,tag"):
        open_site(site.cache.path, tags_file=file)
    with pytest.raises(FacetError, match=r"give --tags FILE\.csv"):
        Tags(file, site.cache).change("S0/anger0", "check", on=True)
    assert file.read_bytes() == data


def test_a_list_is_downloaded_as_it_is_shown(site: Site) -> None:
    site.tags.change("S0/anger1", "a; b", on=True)
    client = build_app(LiveSite(lambda: site)).server.test_client()
    response = client.get("/samples.csv?subject=S0&sort=high&run=second")
    assert response.mimetype == "text/csv" and response.headers["Cache-Control"] == "no-store"
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [*rows[0]] == ["sample_id", "subject", "label", "predicted", "confidence", "tags"]
    told = [(row["sample_id"], row["predicted"], row["confidence"], row["tags"]) for row in rows]
    assert told[:3] == [
        ("S0/anger0", "anger", "0.9", ""),
        ("S0/happiness0", "surprise", "0.7", ""),
        ("S0/anger1", "anger", "0.4", "a; b"),
    ]
    assert len(told) == 6 and told[3][1:3] == ("", "")


def test_runs_are_chosen_by_the_address(site: Site) -> None:
    assert [run.name for run in site.runs] == ["first", "second"]
    assert tiles(site, "?error=wrong") == [0, 2] and tiles(site, "?error=wrong&run=second") == [2]
    assert tiles(site, "?error=right&run=nobody") == [1]
    assert tiles(site, "?sort=low")[:4] == [2, 1, 0, 3] and tiles(site, "?sort=low&run=second")[:3] == [1, 2, 0]
    page = page_text(site, "/sample/1", "?sort=low&error=wrong&run=second")
    assert '"/?error=wrong&sort=low&run=second"' in page
    page = page_text(site, "/sample/2", "?sort=low&run=second")
    assert page.index("/sample/1?sort=low&run=second") < page.index("/sample/0?sort=low&run=second")  # previous, next
    assert "2 of 3 scans are predicted correctly" in page_text(site, "/confusion", "?run=second")
    assert "/?label=happiness&predicted=surprise&run=second" in page_text(site, "/confusion", "?run=second")
    for shared in ("pictures", "tags", "labels"):
        assert getattr(site.choose("second"), shared) is getattr(site, shared)


def test_action_units_filter_rows(site: Site) -> None:
    shown = site.cache.arrays.read("aus", range(12))  # AU1, AU4, AU12, AU12_intensity
    for value, column, wanted in (("AU1 present", 0, 1), ("AU4 absent", 1, 0), ("AU12 intensity 3", 3, 3)):
        assert tiles(site, f"?au={value}") == [row for row in range(12) if shown[row, column] == wanted] != []
    assert site.labels.options()[:2] == ["AU1 present", "AU1 absent"] and len(site.labels.options()) == 11
    for nonsense in ("AU1", "AU9 present", "AU12 intensity -1", "AU12_intensity 3x", "٣ ٣"):
        assert tiles(site, f"?au={nonsense}") == []


def test_coverage_counts_action_units(site: Site) -> None:
    """Of twelve scans, row 0 is not known; AU4 is shown by happiness and surprise."""
    page = page_text(site, "/coverage").split("Action units")[1].split("Failures")[0]
    texts = [re.findall(r'"children": "([^"]*)"', line) for line in page.split('"type": "Tr"')]
    assert ["AU4", "8", "3", "1", "2"] in texts and '"/?au=AU4+present"' in page


def test_runs_of_one_name(tmp_path: Path) -> None:
    assert name_runs([tmp_path / "a" / "cv", tmp_path / "b" / "cv", tmp_path / "c"]) == ["a/cv", "b/cv", "c"]
    with pytest.raises(FacetError, match="is given twice"):
        name_runs([tmp_path / "a", tmp_path / "a" / "." / ""])
