"""What a run looked at, on the pages: the numbers of its file, on the pictures it saw; the map; runs on several classes."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Watched
from conftest import CLASSES, MakeCache, write_tiny_cache
from PIL import Image
from test_train_cli import QUICK, call
from viewer_pages import page_text

from preprocess.rendering.cameras import build_cameras
from preprocess.viewer.address import Address
from preprocess.viewer.app import build_app
from preprocess.viewer.attention import HEAT_PX, draw_heat
from preprocess.viewer.landmarks import project_landmarks
from preprocess.viewer.live import LiveSite
from preprocess.viewer.map import (
    MAX_POINTS,
    STEPS,
    describe_points,
    place_neighbours,
    project,
    share_of_nearest,
    subtract_means,
)
from preprocess.viewer.run_records import Fold, read_run
from preprocess.viewer.site import Site, open_site
from shared.attention_file import ATTENTION_FILE, Attention, read_attention, read_class_patches, read_patches
from shared.cache import open_cache
from shared.errors import FacetError
from shared.schema import View


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: str) -> Path:
    """A cache of sequences with a run that saw three frames of each of S0's and S1's; S2 trained it."""
    folder = tmp_path_factory.mktemp("looks")
    modalities = ("texture", "normal", "depth")
    shape = {"num_subjects": 3, "num_frames": 5, "num_landmarks": 4}
    write_tiny_cache(folder / "cache", model=tiny_model, modalities=modalities, **shape)  # type: ignore[arg-type]
    options = ["--test-subjects", "S0,S1", "--modalities", "texture,normal", "--frames", "3"]
    assert call("fit", "--cache", folder / "cache", "--out", folder / "a-run", *QUICK, *options) == 0
    return folder


@pytest.fixture(scope="module")
def site(folder: Path) -> Site:
    return open_site(folder / "cache", folder / "a-run")


def test_a_samples_page_has_the_numbers_of_the_file(site: Site, folder: Path) -> None:
    attention = read_attention(folder / "a-run" / ATTENTION_FILE)
    item = attention.names.index("S0/anger1")
    assert attention.rows[item].tolist() == [5, 7, 9]
    page = page_text(site, "/sample/7")
    assert "Attention of a-run" in page and "not why a class was chosen" in page
    for weight in attention.view_weights[item, 1].tolist():
        assert f'"{weight:.1%}"' in page
    assert "“anger 0”" in page and f'"{attention.prompt_cosines[item, 0, 0]:.3f}"' in page  # type: ignore[index]
    assert '"/attention/7/5.png"' in page and '"/attention/7/6.png"' not in page  # depth was not looked at
    other = page_text(site, "/sample/6")  # a frame that was not looked at
    assert "This frame was not tested, but" in other and '"/sample/5"' in other and "/attention/" not in other
    assert "Attention of" not in page_text(site, "/sample/89")  # trained on


def test_heat_is_where_the_file_says(site: Site, folder: Path) -> None:
    attention = read_attention(folder / "a-run" / ATTENTION_FILE)
    maps = read_patches(folder / "a-run" / ATTENTION_FILE, attention, attention.names.index("S0/anger1"))
    assert maps is not None
    response = build_app(LiveSite(lambda: site)).server.test_client().get("/attention/7/2.png")
    assert response.status_code == 200 and response.headers["Cache-Control"] == "no-store"
    drawn = np.asarray(Image.open(io.BytesIO(response.data)))[..., 3].astype(int)  # how opaque
    centres = drawn[HEAT_PX // 8 :: HEAT_PX // 4, HEAT_PX // 8 :: HEAT_PX // 4]
    assert centres.argmax() == maps[1, 2].argmax() and centres.argmin() == maps[1, 2].argmin()
    corner = np.zeros((4, 4), np.float16)
    corner[0, 3] = 1  # row 0 is on top
    shown = np.asarray(Image.open(io.BytesIO(draw_heat(corner, 1.0))))[..., 3]
    assert shown[:40, -40:].mean() > 10 * shown[-40:, :40].mean()
    even = maps.astype(float).sum((1, 2, 3), keepdims=True) / maps[0].size
    most = float(maps[1, 2].max() / maps.max())  # of this picture, relative to all pictures of the sample
    assert drawn.max() < 255 * 0.5 if maps.max() < even.max() * 2 else drawn.max() > 100 * most


@pytest.mark.parametrize(
    "path",
    ["/attention/6/0.png", "/attention/7/6.png", "/attention/-1/0.png", "/attention/900/0.png", "/points/1.json"],
)
def test_what_was_not_recorded_is_not_found(site: Site, path: str) -> None:
    response = build_app(LiveSite(lambda: site)).server.test_client().get(path)
    assert response.status_code == 404 or b"react-entry-point" in response.data


def test_where_each_classs_words_looked(tmp_path: Path, tiny_model: str) -> None:
    """A run that looked at patches, its tower without attention of its own; what the page shows is what the file says."""
    write_tiny_cache(tmp_path / "cache", model=tiny_model, num_subjects=2, scans_per_class=1, without_texture=(0,))
    options = ["--test-subjects", "S0", "--mtgf-tokens", "patches", "--modalities", "texture,normal", "--epochs", "1"]
    assert call("fit", "--cache", tmp_path / "cache", "--out", tmp_path / "run", *QUICK, *options) == 0
    path = tmp_path / "run" / ATTENTION_FILE
    attention = read_attention(path)
    maps = read_class_patches(path, attention, attention.names.index("S0/anger0"))
    assert maps is not None
    opened = open_site(tmp_path / "cache", tmp_path / "run")
    page = page_text(opened, "/sample/0")
    assert [f'"/attention/0/2/{place}.png"' in page for place in range(7)] == [False] * 3 + [True] * 3 + [False]
    client = build_app(LiveSite(lambda: opened)).server.test_client()
    drawn = np.asarray(Image.open(io.BytesIO(client.get("/attention/0/2/4.png").data)))[..., 3].astype(int)
    centres = drawn[HEAT_PX // 8 :: HEAT_PX // 4, HEAT_PX // 8 :: HEAT_PX // 4]
    drawn = maps[2, 4].astype(float)
    assert centres.max() > 0 and np.corrcoef(centres.flat, drawn.flat)[0, 1] > 0.95
    assert [client.get(f"/attention/0/{end}.png").status_code for end in ("3/0", "0/6")] == [404, 404]
    hidden = page_text(dataclasses.replace(opened, faces=False), "/sample/0")
    assert "/attention/" not in hidden and "Attention of each class to each image" in hidden


def test_landmarks_lie_on_the_picture(site: Site) -> None:
    """Orthographic: 201.6 mm across; from the subject's left, what lies behind the nose moves to the right of the picture."""
    points = np.array([[0, 0, 0], [50.4, 25.2, 0], [0, 0, -100], 3 * [np.nan]])
    front, left = build_cameras((View(0), View(20))).world_to_view
    np.testing.assert_allclose(project_landmarks(points, front), np.array([[50, 50], [75, 37.5], [50, 50]]))
    moved = 100 * np.sin(np.radians(20)) / 2.016
    np.testing.assert_allclose(project_landmarks(points, left)[2], np.array([50 + moved, 50]))
    client = build_app(LiveSite(lambda: site)).server.test_client()
    drawn = client.get("/landmarks/7/1.svg")
    assert drawn.mimetype == "image/svg+xml" and drawn.headers["Cache-Control"] == "no-store"
    stored = site.cache.arrays.read("landmarks", [7])[0]
    assert len(stored) == 4 and drawn.text.count("<circle") == 3  # the last one is not known
    x, y = project_landmarks(stored, left)[1]
    assert f'cx="{x:.2f}" cy="{y:.2f}"' in drawn.text
    assert [client.get(f"/landmarks/{end}.svg").status_code for end in ("7/3", "90/0")] == [404, 404]
    hidden = dataclasses.replace(site, faces=False)
    assert build_app(LiveSite(lambda: hidden)).server.test_client().get("/landmarks/7/1.svg").status_code == 404


def test_without_faces_there_are_numbers_alone(site: Site) -> None:
    hidden = dataclasses.replace(site, faces=False)
    assert build_app(LiveSite(lambda: hidden)).server.test_client().get("/attention/7/2.png").status_code == 404
    page = page_text(hidden, "/sample/7")
    assert "/attention/" not in page and "/image/" not in page and "“anger 0”" in page and "%" in page
    assert '\\"picture\\": \\"\\"' in page_text(hidden, "/map")
    assert '\\"picture\\": \\"/0.png\\"' in page_text(site, "/map")


def test_a_file_that_is_damaged_or_of_another_cache(site: Site, folder: Path, tmp_path: Path, tiny_model: str) -> None:
    run = tmp_path / "copy"
    shutil.copytree(folder / "a-run", run)
    (run / ATTENTION_FILE).write_bytes(b"x" * 100)
    with pytest.raises(FacetError, match=r"attention\.safetensors: cannot be read"):
        read_run(run, site.cache)
    (run / ATTENTION_FILE).unlink()
    without = open_site(folder / "cache", run)
    assert f"`python -m train evaluate {run}` writes it" in page_text(without, "/sample/7") + page_text(without, "/map")
    write_tiny_cache(
        tmp_path / "other", model=tiny_model, num_subjects=2, num_frames=4, modalities=("texture", "normal")
    )
    cache = open_cache(tmp_path / "other")
    found = read_run(folder / "a-run", cache)
    assert len(found.folds[0].items) < 12 and "that are not in this cache" in found.notes[0]
    for item in found.folds[0].items:  # rows have the names they had
        row = found.folds[0].row_of(item)
        assert cache.samples[row].sequence == found.folds[0].attention.names[item]


def test_pictures_from_elsewhere_have_no_weights(folder: Path, tmp_path: Path, tiny_model: str) -> None:
    """The same faces, as many views, but two cameras stand where the run's did not."""
    turned = (View(0), View(60), View(-60))
    write_tiny_cache(
        tmp_path / "turned",
        model=tiny_model,
        num_subjects=3,
        num_frames=5,
        modalities=("texture", "normal"),
        views=turned,
    )
    found = read_run(folder / "a-run", open_cache(tmp_path / "turned"))
    assert found.folds == () and found.notes == ("a-run used other views or modalities than those of this cache",)


def test_what_predict_wrote_is_found_from_within_the_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / "a-run", run)
    monkeypatch.chdir(folder / "cache")
    assert call("predict", run, "--cache", ".") == 0
    for name in (ATTENTION_FILE, "predictions.csv"):
        (run / name).unlink()
    site = open_site(Path(), run)
    assert len(site.run.folds) == 1 and site.run.find_attention(7, site.cache.samples[7]) is not None


def test_folds_each_have_a_map(tiny_cache: MakeCache, tmp_path: Path) -> None:
    cache, out = tiny_cache(), tmp_path / "folds"
    assert call("crossval", "--cache", cache, "--out", out, *QUICK, "--tune", "frozen", "--jobs", 1) == 0
    site = open_site(cache, out)
    client = build_app(LiveSite(lambda: site)).server.test_client()
    points = [client.get(f"/points/{fold}.json?layout=pca").json for fold in range(3)]
    assert sorted(row for one in points for row in one["rows"]) == list(range(24))
    page = page_text(site, "/map", "?fold=1&colour=subject")
    assert "faces of two folds cannot be on one map" in page
    assert (
        "fold-01 (2 of 3)" in page
        and '"/map?colour=subject&fold=2"' in page
        and "/points/1.json?colour=subject" in page
    )
    sample = page_text(site, f"/sample/{points[1]['rows'][0]}")
    assert "No heat map" in sample and "“surprise 1”" in sample and "/attention/" not in sample


def test_principal_components_are_those_of_the_singular_values() -> None:
    rng = np.random.default_rng(0)
    faces = rng.normal(size=(50, 8)) * np.array([9, 1, 4, 1, 1, 1, 1, 1])
    places, shares = project(faces)
    u, s, vt = np.linalg.svd(faces - faces.mean(0), full_matrices=False)
    for axis in range(2):
        sign = np.sign(vt[axis][np.abs(vt[axis]).argmax()])
        np.testing.assert_allclose(places[:, axis], u[:, axis] * s[axis] * sign, atol=1e-9)
    np.testing.assert_allclose(shares, s[:2] ** 2 / (s**2).sum())
    for few in (faces[:1], np.ones((3, 1)), faces[:2]):
        assert np.isfinite(project(few)[0]).all() and project(few)[0].shape == (len(few), 2)


def test_a_subjects_mean_hides_expressions() -> None:
    """Six people, five expressions, people ten times as far apart; one more person with a single face."""
    rng = np.random.default_rng(0)
    people, expressions = 10 * rng.normal(size=(7, 16)), rng.normal(size=(5, 16))
    who = [person for person in range(6) for _ in range(5)] + [6]
    what = [*range(5)] * 6 + [0]
    faces = people[who] + expressions[what] + rng.normal(0, 0.05, (31, 16))
    words = [[f"S{person}" for person in who], [f"E{expression}" for expression in what]]
    assert share_of_nearest(faces[:30], words[0][:30]) == 1 and share_of_nearest(faces[:30], words[1][:30]) == 0
    centred = subtract_means(faces, words[0])
    assert np.abs(centred[:30].reshape(6, 5, 16).mean(1)).max() < 1e-9
    np.testing.assert_allclose(centred[30], faces[30] - faces.mean(0))
    assert share_of_nearest(centred[:30], words[0][:30]) == 0 and share_of_nearest(centred[:30], words[1][:30]) == 1
    assert share_of_nearest(faces, ["S0"] * 31) is None
    places = place_neighbours(centred[:30])
    assert places.shape == (30, 2) and share_of_nearest(places, words[1][:30]) == 1
    np.testing.assert_array_equal(places, place_neighbours(centred[:30]))


def test_points_are_told_by_the_tables(site: Site, folder: Path) -> None:
    points: Any = json.loads(build_app(LiveSite(lambda: site)).server.test_client().get("/points/0.json").data)
    assert len(points["rows"]) == 12 and max(max(points["x"]), max(points["y"])) == STEPS
    for name, of in (("subject", "subject"), ("label", "label")):
        said = [points["words"][name][code] for code in points["codes"][name]]
        assert said == [getattr(site.cache.samples[row], of) for row in points["rows"]]
    errors = [points["words"]["error"][code] for code in points["codes"]["error"]]
    predictions = [site.run.predictions[row] for row in points["rows"]]
    wrong = [p.predicted != (site.cache.samples[r].label,) for p, r in zip(predictions, points["rows"], strict=True)]
    assert errors == ["wrong" if one else "right" for one in wrong]


def big_fold(num_rows: int, num: int) -> Fold:
    """Any number of faces with random vectors, of a cache's first rows."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, num_rows, (num, 1)).astype(np.int32)
    names, views = tuple(str(i) for i in range(num)), ("0", "20", "-20")
    faces = rng.normal(size=(num, 512)).astype(np.float16)
    weights = np.ones((num, 1), np.float16), np.full((num, 1, 3), 1 / 3, np.float16)
    attention = Attention(names, CLASSES, ("texture",), views, rows, faces, *weights)
    return Fold("large", Path("nowhere"), attention, tuple(range(num)), {}, (0, 1, 2))


def test_large_maps_show_some_and_say_so(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MAX_POINTS, "pca", 100)
    fold = big_fold(30, 250)
    points: Any = describe_points(site, fold, Address(layout="pca"))
    assert points["num"] == 250 and len(points["rows"]) == 100
    large = dataclasses.replace(site, run=dataclasses.replace(site.run, folds=(fold,)))
    assert "100 of them are shown" in page_text(large, "/map", "?layout=pca")


def test_the_overlay_is_switched_and_stays_so(visit: Watched, address: str) -> None:
    visit.page.goto(address + "/sample/7")
    heat = "[...document.querySelectorAll('.heat')]"
    visit.until(f"{heat}.length === 6 && {heat}.every(i => i.complete && i.naturalWidth === {HEAT_PX})")
    opacity = f"getComputedStyle({heat}[0]).opacity"
    assert visit.page.evaluate(opacity) == "0.55"
    visit.page.locator("#overlay-strength").fill("80")
    visit.until(f"{opacity} === '0.8'")
    visit.page.evaluate("document.activeElement.blur()")
    visit.page.keyboard.press("a")
    visit.until(f"{opacity} === '0' && !document.querySelector('#show-attention').checked")
    visit.page.locator("#tested-frames a").first.click()
    visit.until(f"location.pathname === '/sample/5' && {heat}.length === 6 && {opacity} === '0'")
    visit.page.locator("#show-attention").check()
    visit.until(f"{opacity} === '0.8'")
    dots = "[...document.querySelectorAll('.landmarks')]"
    visit.until(f"{dots}.length === 9 && {dots}.every(i => i.complete && i.naturalWidth)")
    visit.page.keyboard.press("l")
    visit.until(f"getComputedStyle({dots}[0]).opacity === '0'")
    visit.page.keyboard.press("l")
    assert visit.page.evaluate("document.documentElement.scrollHeight") < 1700


def test_a_point_opens_its_sample(visit: Watched, address: str, site: Site) -> None:
    visit.page.goto(address + "/map")
    visit.until("document.querySelector('#map-canvas')?.dataset.drawn === '12 label 1.00'")
    place = visit.page.evaluate("document.querySelector('[data-map]').own.toScreen(4)")
    row = visit.page.evaluate("document.querySelector('[data-map]').own.data.rows[4]")
    visit.page.locator("#map-canvas").hover(position={"x": place[0], "y": place[1]})
    visit.until(f"document.querySelector('#map-card').textContent.includes('row {row}')")
    sample = site.cache.samples[row]
    points = visit.page.locator("#map-card").inner_text()
    assert f"{sample.subject} · {sample.label} → {site.run.predictions[row].predicted[0]}" in points
    visit.page.locator("#map-canvas").click(position={"x": place[0], "y": place[1]})
    visit.until(f"location.pathname === '/sample/{row}' && document.querySelector('.attended-views')")
    visit.page.go_back()
    visit.until("location.pathname === '/map' && document.querySelector('#map-canvas')?.dataset.drawn")


def test_the_map_by_keys_and_legend(visit: Watched, address: str) -> None:
    visit.page.goto(address + "/map")
    drawn = "document.querySelector('#map-canvas')?.dataset.drawn"
    visit.until(f"{drawn} === '12 label 1.00'")
    visit.page.keyboard.press("+")
    visit.until(f"{drawn} === '12 label 1.50'")
    visit.page.keyboard.press("0")
    visit.until(f"{drawn} === '12 label 1.00'")
    own = "document.querySelector('[data-map]').own"
    visit.page.keyboard.press("ArrowRight")
    first = visit.until(f"{own}.at >= 0 && String({own}.at)")
    visit.page.keyboard.press("ArrowRight")
    visit.page.keyboard.press("ArrowLeft")
    visit.page.keyboard.press("ArrowUp")
    assert visit.page.evaluate(f"{own}.at") >= 0 and first
    row = visit.page.evaluate(f"{own}.data.rows[{own}.at]")
    visit.page.keyboard.press("Enter")
    visit.until(f"location.pathname === '/sample/{row}'")
    visit.page.goto(address + "/map")
    visit.until(f"{drawn} === '12 label 1.00'")
    visit.page.locator(".legend button").first.click()
    assert visit.page.evaluate(
        f"{own}.nearest(...{own}.toScreen({own}.data.codes.label.indexOf(0)))"
    ) != visit.page.evaluate(f"{own}.data.codes.label.indexOf(0)")
    visit.page.keyboard.press("u")
    visit.until(f"location.search === '?layout=pca' && {drawn} && {own}.data?.fractions")
    visit.page.keyboard.press("m")
    visit.until("location.search === '?layout=pca&people=kept'")
    visit.page.goto(address + "/map")
    visit.until(f"{drawn} === '12 label 1.00'")
    visit.page.keyboard.press("3")
    visit.until(f"location.search === '?colour=subject' && {drawn} === '12 subject 1.00'")
    assert {text.split()[0] for text in visit.page.locator(".legend button").all_inner_texts()} == {"S0", "S1"}


def test_looks_and_map_on_a_narrow_dark_page(visit: Watched, address: str) -> None:
    visit.page.emulate_media(color_scheme="dark")
    visit.page.set_viewport_size({"width": 360, "height": 700})
    try:
        for path, part in {"/sample/7": ".heat", "/map": "#map-canvas[data-drawn]"}.items():
            visit.page.goto(address + path)
            visit.until(f"document.querySelector('{part}')")
            visit.until("document.documentElement.scrollWidth <= 360")
    finally:
        visit.page.emulate_media(color_scheme="light")
        visit.page.set_viewport_size({"width": 1280, "height": 900})
