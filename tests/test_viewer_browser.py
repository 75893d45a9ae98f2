"""The viewer in a real browser, as a visitor uses it: filter, open, play, keys, back, narrow, dark; no word of complaint."""

from __future__ import annotations

import time

import numpy as np
import pytest
from browser import Watched
from conftest import write_tiny_cache

from preprocess.viewer.prompts import class_similarity
from preprocess.viewer.run_records import RunRecords
from preprocess.viewer.site import Site
from shared.cache import open_cache
from shared.modalities import MODALITIES
from shared.runs import Prediction

PICTURES_SHOWN = "[...document.querySelectorAll('.tile img')].every(i => i.complete && i.naturalWidth > 0)"
PIXELS = "Array.from(document.querySelector('canvas').getContext('2d').getImageData(0, 0, 32, 32).data)"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_model: str) -> Site:
    path = tmp_path_factory.mktemp("browser") / "cache"
    modalities = ("texture", "normal", "depth")
    write_tiny_cache(
        path,
        model=tiny_model,
        num_subjects=3,
        num_frames=6,
        modalities=modalities,
        invalid=(8,),
        units="aus",
        turn_deg=2,
    )
    classes = ("anger", "happiness", "surprise")
    cache = open_cache(path)
    predictions = {}
    for row in range(6):
        predicted, probabilities = ("surprise", (0.1, 0.0, 0.9)) if row in (1, 4) else ("anger", (0.9, 0.1, 0.0))
        name = cache.samples[row].sample_id
        predictions[row] = Prediction(name, "S0", ("anger",), (predicted,), probabilities)
    run = RunRecords("a-run", classes, predictions=predictions, tested=tuple(predictions.values()))
    return Site(
        cache, run, runs=(run, RunRecords("b-run", classes, predictions={4: predictions[4]}, tested=(predictions[4],)))
    )


@pytest.fixture
def visit(visit: Watched, address: str) -> Watched:
    """The wall, freshly opened."""
    visit.page.goto(address)
    visit.until("document.querySelectorAll('.tile').length === 60")
    return visit


def test_filter_open_and_back(visit: Watched) -> None:
    visit.until(PICTURES_SHOWN)
    assert visit.page.locator(".tile .failed").inner_text() == "no surface"
    visit.page.click("#filter-label")
    visit.page.get_by_role("option", name="happiness").click()
    visit.until("location.search === '?label=happiness' && document.querySelectorAll('.tile').length === 36")
    labels = visit.page.locator(".tile .label").all_inner_texts()
    assert set(labels) == {"happiness"}
    visit.page.locator(".tile").nth(2).click()
    visit.until("document.querySelectorAll('.views canvas').length === 3")
    assert visit.page.url.endswith("/sample/14?label=happiness")
    assert visit.page.title().startswith("S0/happiness0/002")
    visit.page.go_back()
    visit.until("document.querySelectorAll('.tile').length === 36")
    assert visit.page.locator("#filter-label").inner_text().strip() == "happiness"
    visit.page.go_back()
    visit.until("location.search === '' && document.querySelectorAll('.tile').length === 60")


def test_keys_lead_through_the_wall_and_samples(visit: Watched) -> None:
    press = visit.page.keyboard.press
    press("PageDown")
    visit.until("document.querySelector('.where').textContent.startsWith('page 2')")
    press("PageUp")
    visit.until("document.querySelector('.where').textContent.startsWith('page 1')")
    press("ArrowRight")
    press("ArrowRight")
    press("ArrowDown")
    focused = visit.until("document.activeElement.getAttribute('href')")
    columns = visit.page.evaluate(
        "getComputedStyle(document.querySelector('.wall')).gridTemplateColumns.split(' ').length"
    )
    assert focused == f"/sample/{1 + columns}"
    press("Enter")
    visit.until(f"location.pathname === '/sample/{1 + columns}' && document.querySelector('.key-Escape')")
    press("ArrowRight")
    visit.until(f"location.pathname === '/sample/{2 + columns}'")
    visit.until(f"document.querySelector('.key-ArrowLeft').getAttribute('href') === '/sample/{1 + columns}'")
    press("ArrowLeft")
    visit.until(f"location.pathname === '/sample/{1 + columns}'")
    press("Escape")
    visit.until("location.pathname === '/' && document.querySelectorAll('.tile').length === 60")


def test_the_light_moves_over_the_relief(visit: Watched, site: Site) -> None:
    visit.page.locator(".tile").nth(2).click()
    visit.until("document.querySelector('.views canvas')")
    shown = np.array(visit.page.evaluate(PIXELS)).reshape(32, 32, 4)[..., :3]
    normals = site.cache.arrays.read("normal", [2])[0, 2]  # yaw -20 stands first
    drawn, surface = MODALITIES["normal"].draw(normals, dynamic=False), normals.any(-1)
    assert np.abs(shown.astype(int) - drawn)[surface].max() <= 3  # at first lit as contact sheets are, to a degree
    for light in (-90, 90):
        visit.page.locator("#light-from").fill(str(light))
        visit.until(f"document.querySelector('canvas').dataset.lit.startsWith('{light},')")
        shown = np.array(visit.page.evaluate(PIXELS)).reshape(32, 32, 4)[..., 0]
        normals = (site.cache.arrays.read("normal", [2])[0, 2].astype(float) - 128) / 127
        towards = np.array([np.sin(np.radians(light)) * np.cos(np.radians(30)), 0.5, 0])
        truth = 40 + 205 * np.clip(normals @ towards, 0, 1)
        assert np.abs(shown - truth)[surface].max() <= 1


def test_the_player_plays_scrubs_and_goes_back(visit: Watched) -> None:
    visit.page.locator(".tile").nth(7).click()
    visit.until("document.querySelector('.key-p')")
    visit.page.keyboard.press("p")
    frame = "document.querySelector('#frame')?.textContent"
    visit.until(f"{frame}?.startsWith('frame 1 (2 of 5)')")
    visit.page.keyboard.press("ArrowRight")
    visit.until(f"{frame}.startsWith('frame 3 (3 of 5)')")  # frame 2 is not valid
    visit.page.locator("#scrubber").fill("0")
    visit.until(f"{frame}.startsWith('frame 0 ') && document.querySelector('.screen img').src.includes('/image/6/')")
    names = "[...document.querySelectorAll('.curves .name')].map(e => e.textContent).join()"
    assert visit.page.evaluate(names).split(",")[0] == "AU1"  # what anger shows
    visit.page.locator(".curves svg").first.click(position={"x": 300, "y": 10})
    at = visit.until(f"!{frame}.startsWith('frame 0 ') && document.querySelector('#scrubber').value")
    assert visit.page.locator(".curves .cursor").first.get_attribute("x1") == f"{int(at)}.5"
    visit.page.keyboard.press("t")
    visit.until("document.querySelector('.player .chip')?.textContent === 'check ×'")
    visit.page.keyboard.press("ArrowLeft")
    visit.until("!document.querySelector('.player .chip')")
    visit.page.keyboard.press("ArrowRight")
    visit.until("document.querySelector('.player .chip')")
    visit.page.locator(".player .chip").click()
    visit.until("!document.querySelector('.player .chip')")
    visit.page.locator("#scrubber").fill("0")
    visit.page.locator("#player-kind").select_option("depth")
    visit.until("document.querySelector('.screen img').src.endsWith('/image/6/depth/0.png')")
    visit.page.keyboard.press("b")
    sources = "[...document.querySelectorAll('.screen img')].map(i => i.naturalWidth && i.getAttribute('src')).join()"
    visit.until(f"{sources} === '/unstabilised/6/depth/0.png,/image/6/depth/0.png'")
    assert "yaw 0.0" in visit.page.locator(".curves").inner_text()
    visit.page.locator("#scrubber").fill("3")
    visit.until("document.querySelector('.curves').innerText.includes('yaw +8.0')")  # frame 4
    visit.page.locator("#scrubber").fill("0")
    visit.page.locator("#player-before").uncheck()
    visit.page.locator("#player-rate").select_option("10")
    began = time.monotonic()
    visit.page.click("#play")
    visit.until(f"{frame}.startsWith('frame 5 ')")
    assert time.monotonic() - began > 0.25  # four frames later, at ten a second
    visit.until(f"{frame}.startsWith('frame 0 ')")  # and round
    visit.page.click("#play")
    visit.until("document.querySelector('#play').textContent.includes('play')")
    visit.page.evaluate("document.activeElement.blur()")
    visit.page.keyboard.press("Escape")
    visit.until("location.pathname === '/sample/7'")


def test_every_page_opens_from_the_head(visit: Watched) -> None:
    for page, mark in (
        ("coverage", "One face twice"),
        ("prompts", "Cosines"),
        ("confusion", "Confusion matrix of a-run"),
        ("label noise", "Labels that a-run doubts"),
    ):
        visit.page.locator("header").get_by_text(page).click()
        visit.until(f"document.querySelector('main').textContent.includes('{mark}')")
        assert visit.page.url.endswith("/" + page.removeprefix("label "))


def test_similarities_are_coloured(visit: Watched, address: str, site: Site) -> None:
    visit.page.goto(address + "/prompts")
    visit.until("document.querySelectorAll('.matrix td').length === 36")  # three classes, three units
    truth = class_similarity(site.cache.read_text())
    cells = visit.page.locator(".matrix td")
    assert cells.nth(1).get_attribute("title") == f"anger, happiness: {truth[0, 1]:.3f}"
    assert cells.nth(8).inner_text() == f"{truth[1, 2]:.2f}".replace("0.", ".") and cells.nth(7).inner_text() == ""
    strongest = visit.page.evaluate(
        "[...document.querySelectorAll('.matrix td')].map(c => Number(c.style.background.match(/([0-9]+)%/)?.[1] ?? -1))"
    )
    np.fill_diagonal(truth, -1)
    assert np.argmax(strongest) == truth.argmax() and max(strongest) == 70 and sorted(strongest)[6] == 0


def test_from_a_confusion_to_its_sample(visit: Watched) -> None:
    visit.page.locator("header").get_by_text("confusion").click()
    visit.until("document.querySelector('.counts')")
    visit.page.locator(".counts .wrong").click()
    visit.until(
        "location.search === '?label=anger&predicted=surprise' && document.querySelectorAll('.tile').length === 2"
    )
    assert visit.page.locator(".tile .wrong").all_inner_texts() == ["→ surprise"] * 2
    visit.page.locator(".tile").nth(1).click()
    visit.until("location.pathname === '/sample/4' && document.querySelector('.facts')")
    said = visit.page.locator(".predictions").inner_text()
    assert "anger (label)" in said and "0.900\npredicted" in said and "b-run" in said


def test_tags_by_keys_and_buttons(visit: Watched, site: Site) -> None:
    tags = site.tags.by_sample
    visit.page.keyboard.press("ArrowRight")
    visit.page.keyboard.press("t")
    visit.until("document.querySelector('.chip')?.textContent === 'check ×'")
    assert tags() == {"S0/anger0/000": ("check",)}
    visit.page.keyboard.press("Enter")
    visit.until("document.querySelector('#tag-word') && document.querySelector('.chip')")
    visit.page.locator("#tag-word").fill("wrong label")
    visit.page.locator("#tag-word").press("Enter")
    visit.until("document.querySelectorAll('.tagger')[0].querySelectorAll('.chip').length === 2")
    visit.page.keyboard.press("t")  # the same word again: removed
    visit.until("document.querySelectorAll('.tagger')[0].querySelectorAll('.chip').length === 1")
    visit.page.keyboard.press("t")
    visit.until("document.querySelectorAll('.tagger')[0].querySelectorAll('.chip').length === 2")
    visit.page.locator(".tagger").first.get_by_text("check ×").click()
    visit.until("document.querySelectorAll('.tagger')[0].querySelectorAll('.chip').length === 1")
    assert tags() == {"S0/anger0/000": ("wrong label",)}
    visit.page.evaluate("localStorage.clear()")
    visit.page.keyboard.press("Escape")
    visit.until("document.querySelector('.wall .chip')?.textContent === 'wrong label ×'")
    with visit.page.expect_download() as download:
        visit.page.get_by_text("download this list as CSV").click()
    assert "S0/anger0/000,S0,anger,anger,0.9,wrong label" in download.value.path().read_text()


def test_another_run_on_every_page(visit: Watched) -> None:
    visit.page.keyboard.press("r")
    visit.until("location.search === '?run=b-run' && document.querySelector('.runs b').textContent === 'b-run'")
    visit.until("document.querySelectorAll('.tile .wrong').length === 1")
    visit.page.locator("header").get_by_text("confusion").click()
    visit.until("document.querySelector('h1').textContent === 'Confusion matrix of b-run'")
    visit.page.keyboard.press("r")
    visit.until("location.search === '' && document.querySelector('h1').textContent === 'Confusion matrix of a-run'")
    visit.page.locator("header").get_by_text("samples").click()
    visit.until("document.querySelector('#filter-error')")
    visit.page.get_by_text("only the wrong ones").click()
    visit.until("location.search === '?error=wrong&sort=high' && document.querySelectorAll('.tile').length === 2")
    visit.page.click("#filter-sort")
    visit.page.get_by_role("option", name="low confidence first").click()
    visit.until("location.search === '?error=wrong&sort=low'")


def test_narrow_and_dark(visit: Watched, address: str) -> None:
    light = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    visit.page.emulate_media(color_scheme="dark")
    visit.page.set_viewport_size({"width": 360, "height": 700})
    try:
        last = {"/": "#filter-view", "/sample/2": ".views canvas", "/play/2": "#player-view"}
        for path, part in last.items():
            visit.page.goto(address + path)
            visit.until(f"document.querySelector('{part}')")
            visit.until("document.documentElement.scrollWidth <= 360")
            assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    finally:
        visit.page.emulate_media(color_scheme="light")
        visit.page.set_viewport_size({"width": 1280, "height": 900})
