"""The viewer's pages and pictures without a browser: what they show is the cache, and nothing leads out of it."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import CLASSES, MakeCache
from hypothesis import given
from hypothesis import strategies as st
from large_cache import write_large_cache
from PIL import Image
from viewer_pages import page_text, tiles

from preprocess.viewer.address import COLOURS, FILTERS, KINDS, NONE, VALIDITIES, Address, parse_query, parse_row
from preprocess.viewer.app import build_app
from preprocess.viewer.live import LiveSite
from preprocess.viewer.pages import build_page
from preprocess.viewer.pictures import PNG_BYTES, Pictures
from preprocess.viewer.site import Site, open_site
from preprocess.viewer.wall import PAGE_ROWS
from shared.cache import open_cache
from shared.modalities import MODALITIES


@pytest.fixture
def site(tiny_cache: MakeCache) -> Site:
    """Twelve sequences of five frames; row 3 is invalid, row 7 has no texture, rows 10 to 14 no label."""
    return open_site(
        tiny_cache(
            num_subjects=2,
            num_frames=5,
            modalities=("texture", "normal", "depth"),
            invalid=(3,),
            without_texture=(7,),
            unlabelled=tuple(range(10, 15)),
            apex=2,
        )
    )


def test_pictures_are_the_caches_own(site: Site) -> None:
    client = build_app(LiveSite(lambda: site)).server.test_client()
    for row, kind, modality, view in (
        (0, "texture", "texture", 2),
        (7, "relief", "normal", 1),
        (9, "depth", "depth", 0),
    ):
        response = client.get(f"/image/{row}/{kind}/{view}.png")
        assert response.status_code == 200
        shown = np.asarray(Image.open(io.BytesIO(response.data)))
        pixels = site.cache.arrays.read(modality, [row])[0, view]
        assert np.array_equal(shown, MODALITIES[modality].draw(pixels, dynamic=False))
        assert response.headers["Cache-Control"] == "no-store"
    stored = np.asarray(Image.open(io.BytesIO(client.get("/image/4/normal/1.png").data)))
    assert np.array_equal(stored, site.cache.arrays.read("normal", [4])[0, 1])


@pytest.mark.parametrize(
    "path",
    [
        "/image/3/texture/0.png",  # not valid
        "/image/7/texture/0.png",  # no such modality
        "/image/60/texture/0.png",
        "/image/-1/texture/0.png",
        "/image/0/texture/3.png",
        "/image/0/scan_to_face/0.png",
        "/image/0/../../cache.json",
        "/image/..%2f..%2fcache.json/texture/0.png",
        "/assets/../server.py",
        "/assets/..%2fserver.py",
        "/assets/%2e%2e/%2e%2e/sheet.py",
        "/assets//etc/passwd",
    ],
)
def test_what_is_not_a_picture_is_not_found(site: Site, path: str) -> None:
    response = build_app(LiveSite(lambda: site)).server.test_client().get(path)
    # Dash answers every other address with its empty frame, which then says: no such page
    assert response.status_code == 404 or b"react-entry-point" in response.data
    for inside in (b"checksum", b"import annotations", b"root:"):
        assert inside not in response.data


@pytest.mark.parametrize(
    "path", ["/sample/60", "/sample/-1", "/sample/../cache.json", "/play/x", "/nowhere", "/sample/", "/sample/٣"]
)
def test_addresses_that_are_no_page(site: Site, path: str) -> None:
    assert "No such page" in page_text(site, path)


@pytest.mark.parametrize("host", ["127.0.0.1:8050", "localhost", "[::1]:8050", "evil.example:8050"])
def test_nobody_sees_anything_without_the_token(site: Site, host: str) -> None:
    """Other users of the machine; and pages elsewhere that let their own name point here (DNS rebinding)."""
    client = build_app(LiveSite(lambda: site), token="secret-é").server.test_client()
    headers = {"Host": host}
    for path in ("/", "/image/0/texture/0.png", "/_dash-layout", "/assets/viewer.js", "/?token=wrong", "/?token="):
        assert client.get(path, headers=headers).status_code == 403, path
    assert client.post("/_dash-update-component", json={}, headers=headers).status_code == 403
    first = client.get("/sample/3?token=secret-%C3%A9&view=1", headers=headers)
    assert first.status_code == 302 and first.headers["Location"] == "/sample/3?view=1"
    cookie = first.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie


def test_the_first_visit_leads_to_no_other_place(site: Site) -> None:
    client = build_app(LiveSite(lambda: site), token="t").server.test_client()
    for path in ("//evil.example/?token=t", "///evil.example?token=t"):
        assert not client.get(path).headers["Location"].startswith(("//", "http"))


def test_nothing_is_fetched_from_elsewhere(site: Site) -> None:
    client = build_app(LiveSite(lambda: site)).server.test_client()
    index = client.get("/")
    assert not re.findall(rb"https?:(?://|\\u002f)", index.data)
    policy = index.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy and "http" not in policy
    named = re.findall(r'(?:src|href)="([^"]+)"', index.text)
    assert len(named) > 8 and all(name.startswith("/") and not name.startswith("//") for name in named)
    for name in (name for name in named if name.startswith("/assets/")):
        assert not re.findall(r"https?://|@import|url\(", client.get(name).text), name
    for path in ("/", "/sample/0", "/play/0"):
        assert not re.findall(r"https?://", page_text(site, path))


def test_every_page_carries_the_licence(site: Site) -> None:
    layout = build_app(LiveSite(lambda: site)).server.test_client().get("/_dash-layout").text
    assert "drawn by the tests; free" in layout  # the frame around all pages


def test_without_faces_no_picture_leaves(site: Site) -> None:
    hidden = dataclasses.replace(site, faces=False)
    assert build_app(LiveSite(lambda: hidden)).server.test_client().get("/image/0/texture/0.png").status_code == 404
    for path in ("/", "/sample/0", "/play/0"):
        assert "/image/" in page_text(site, path) or "data-player" in page_text(site, path)
        assert "/image/" not in page_text(hidden, path) and "data-player" not in page_text(hidden, path)


def test_filters_keep_what_a_plain_search_keeps(site: Site) -> None:
    samples = site.cache.samples
    wanted = {
        "?label=anger&subject=S1": [r for r, s in enumerate(samples) if (s.label, s.subject) == ("anger", "S1")],
        f"?label={NONE}": [10, 11, 12, 13, 14],
        "?validity=invalid": [3],
        "?sequence=S0/anger1&validity=valid": [5, 6, 7, 8, 9],
        "?intensity=01": list(range(60)),
        "?subject=nobody": [],
    }
    assert {search: tiles(site, search) for search in wanted} == wanted


def test_ten_thousand_rows_are_paged_without_reading_them(tmp_path: Path) -> None:
    write_large_cache(tmp_path / "cache", 10_000, size_px=16)
    site = open_site(tmp_path / "cache")
    assert tiles(site, "") == list(range(PAGE_ROWS))
    assert tiles(site, "?page=166") == list(range(9960, 10_000))
    assert tiles(site, "?page=100000000") == tiles(site, "?page=166")
    assert "arrays" not in vars(site.cache)  # its store was never opened
    every = [row for page in range(16) for row in tiles(site, f"?subject=S003&page={page}")]
    assert every == [row for row, s in enumerate(site.cache.samples) if s.subject == "S003"]
    assert build_app(LiveSite(lambda: site)).server.test_client().get("/image/9999/texture/0.png").status_code == 200


def test_a_samples_page_tells_what_is_known(site: Site) -> None:
    page = page_text(site, "/sample/6", "?label=anger")
    for told in ("S0/anger1/001", "S0/anger1.obj", "geometry", '"/image/6/texture/2.png"', '"/image/6/normal/0.png"'):
        assert told in page
    assert '"/sample/5?label=anger"' in page and '"/sample/7?label=anger"' in page and '"/?label=anger"' in page
    assert [f"/sample/{row}?label=anger" in page for row in (4, 9)] == [
        False,
        True,
    ]  # neighbours: of the sequence alone
    shown = re.findall(r'"/image/6/texture/(\d).png".*?"style": ({.*?})', page)[:3]
    assert [view for view, _ in shown] == ["2", "0", "1"]  # yaw -20, 0 and +20
    places = [json.loads(style)["--right"] for _, style in shown]
    assert places == ["11.88%", "0.00%", "-11.88%"]  # 70 mm behind the nose tip, of 201.6 mm: 70 sin 20° / 201.6
    assert "Not valid: no surface" in page_text(site, "/sample/3")
    assert "no texture" in page_text(site, "/sample/7")


def test_a_scan_stands_among_its_subjects_others(tiny_cache: MakeCache) -> None:
    site = open_site(tiny_cache(num_subjects=2))
    page = page_text(site, "/sample/7", "?view=1")
    head, others = page.split("Others of ")
    assert '"anger"' in head and "intensity 01" in head and "subject S1" in head
    assert re.findall(r'"/sample/(\d+)\?view=1"', others) == [str(row) for row in range(6, 12)]
    assert '"href": "/?subject=S1&view=1"' in others
    for title in ("0°, front", "20°, subject's left", "-20°, subject's right"):
        assert title in head and title in page_text(site, "/")
    assert '"/sample/7"' in page_text(site, "/play/7")  # nothing to play, but a way back


def test_the_player_shows_the_valid_frames_in_time_order(site: Site) -> None:
    page = build_page(site, "/play/4", "?show=depth&view=2")
    film = json.loads(
        next(p for p in page if "data-player" in p.to_plotly_json()["props"]).to_plotly_json()["props"]["data-player"]
    )
    assert film["rows"] == [0, 1, 2, 4] and film["frames"] == [0, 1, 2, 4] and film["start"] == 3
    assert [view for view, _ in film["views"]] == [2, 0, 1] and film["shifts"][1] == ["-11.88%", "0.00%"]
    assert (film["rate"], film["marks"], film["kind"], film["view"]) == (25.0, {"2": "apex"}, "depth", 2)


def test_the_player_shows_what_stabilising_changed(tiny_cache: MakeCache, site: Site) -> None:
    turning = open_site(
        tiny_cache(name="turning", num_frames=5, modalities=("normal", "depth"), turn_deg=4, invalid=(0,))
    )
    page = build_page(turning, "/play/2", "")
    film = json.loads(
        next(p for p in page if "data-player" in str(p.to_plotly_json())).to_plotly_json()["props"]["data-player"]
    )
    turned, moved, changed = film["motion"]
    assert film["before"] and turned["keys"] == ["yaw", "pitch", "roll"] and changed["keys"] == ["before", "stabilised"]
    assert turned["lines"] == [[0, 4, 8, 12], [0, 0, 0, 0], [0, 0, 0, 0]]  # against the first valid frame
    assert moved["lines"] == [[0, 0, 0, 0]] * 3 and turned["high"] == 12
    assert "turned by up to 12.0°" in page_text(turning, "/play/2")
    client = build_app(LiveSite(lambda: turning)).server.test_client()
    shown, stored = (
        np.asarray(Image.open(io.BytesIO(client.get(f"/{name}/1/depth/0.png").data)))
        for name in ("unstabilised", "image")
    )
    inner = slice(8, 24)
    assert np.abs(shown[inner, inner].astype(int) - stored[inner, inner]).max() <= 1  # the first frame is as it was
    other = np.asarray(Image.open(io.BytesIO(client.get("/unstabilised/4/depth/0.png").data)))
    assert np.abs(other[inner, inner].astype(int) - stored[inner, inner]).max() > 10
    assert "Not stabilised: all frames have the pose of the first" in page_text(site, "/play/2")
    assert build_app(LiveSite(lambda: site)).server.test_client().get("/unstabilised/1/depth/0.png").status_code == 404
    for path in ("0/depth/0", "1/texture/0", "1/depth/3", "999/depth/0", "1/scan_to_face/0"):
        assert client.get(f"/unstabilised/{path}.png").status_code == 404
    hidden = dataclasses.replace(turning, faces=False)
    assert (
        build_app(LiveSite(lambda: hidden)).server.test_client().get("/unstabilised/1/depth/0.png").status_code == 404
    )


def test_a_damaged_shard_is_one_line(site: Site) -> None:
    shard = next((site.cache.path / "views.zarr" / "texture").rglob("c/0/0/0/0/0"))
    shard.write_bytes(shard.read_bytes()[:100])
    response = build_app(LiveSite(lambda: site)).server.test_client().get("/image/0/texture/0.png")
    assert response.status_code == 500
    assert len(response.text.splitlines()) == 1 and "Traceback" not in response.text


@given(
    st.builds(
        Address,
        **{name: st.text(max_size=8) for name in FILTERS if name != "validity"},
        validity=st.sampled_from(("", *VALIDITIES)),
        show=st.sampled_from(KINDS),
        view=st.integers(-1, 4),
        page=st.integers(0, 10**6),
        colour=st.sampled_from(COLOURS),
        fold=st.integers(0, 2000),
    )
)
def test_an_address_comes_back_from_its_query(address: Address) -> None:
    assert parse_query(address.query(), num_views=5) == address


@given(st.text(max_size=60))
def test_any_query_is_understood_or_ignored(search: str) -> None:
    address = parse_query(search, num_views=3)
    assert address.view in (-1, 0, 1, 2) and address.page >= 0 and address.show in KINDS
    assert (parse_row(search, 5) or 0) in range(5)


def test_drawn_pictures_stay_within_their_bytes(site: Site, tiny_cache: MakeCache) -> None:
    for pictures, size in ((site.pictures, 32), (Pictures(open_cache(tiny_cache(name="large", size_px=96))), 96)):
        assert pictures._draw.cache_parameters()["maxsize"] * 3 * size**2 <= PNG_BYTES
        assert pictures.png(0, "texture", 0) is pictures.png(0, "texture", 0)


def test_columns_are_the_tables(site: Site) -> None:
    column = site.catalogue.filters["label"]
    for label in {sample.label for sample in site.cache.samples}:
        expected = [row for row, sample in enumerate(site.cache.samples) if sample.label == label]
        assert column.rows(label or NONE).tolist() == expected
    assert column.options() == [*sorted(CLASSES), NONE]
