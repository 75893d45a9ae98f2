"""The page of coverage: what there is, statistics of pictures, what stands out, copies and mirrored scans."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import pytest
from conftest import MakeCache
from viewer_pages import components_text, page_text, tiles

from preprocess.viewer.address import Address
from preprocess.viewer.app import build_app
from preprocess.viewer.coverage import show_findings
from preprocess.viewer.image_checks import (
    MEASURES,
    Outlier,
    find_mirrored,
    find_outliers,
    find_same_sources,
    measure,
    mirror_image,
)
from preprocess.viewer.live import LiveSite
from preprocess.viewer.site import Site, open_site
from shared.errors import FacetError, StorageError
from shared.likeness import hash_image
from shared.store.storage import open_arrays


@pytest.fixture
def site(tiny_cache: MakeCache) -> Site:
    """Two subjects, twelve scans, every other page of a viewer beside them; rows 2 and 9 are one file, row 5 is invalid."""
    return open_site(
        tiny_cache(num_subjects=2, modalities=("texture", "normal", "depth"), invalid=(5,), same_scan=(2, 9))
    )


def test_coverage_counts_and_leads_to_the_rows(site: Site) -> None:
    page = page_text(site, "/coverage")
    counts = Counter((s.subject, s.label) for s in site.cache.samples if s.valid)
    for (subject, label), number in counts.items():
        search = f"?subject={subject}&label={label}"
        assert f'"children": "{number}", "href": "/{search}"' in page
        assert len(tiles(site, search + "&validity=valid")) == number
    assert "S0/happiness1.obj" not in page.split("Failures")[0] and "no surface" in page
    assert "Identical files (1)" in page


def test_the_very_same_files_are_found_among_all_rows(site: Site) -> None:
    assert find_same_sources(site.cache.samples) == [[2, 9]]


def test_statistics_are_those_of_the_pixels(site: Site) -> None:
    texture, depth = (site.cache.arrays.read(name, [1])[0, 0] for name in ("texture", "depth"))
    found = measure({"texture": texture, "depth": depth})
    surface = texture.any(-1)
    assert found["covered"] == pytest.approx(surface.sum() / surface.size)
    assert found["brightness"] == pytest.approx(texture[surface].astype(float).mean(), rel=1e-5)
    assert found["depth_mm"] == pytest.approx((depth[surface].astype(float) - 32768).mean() * 0.02, abs=1e-3)
    assert "tilt" not in found
    assert measure({"texture": np.zeros((32, 32, 3), np.uint8)}) == {
        "covered": 0
    }  # a black frame is no error, but an outlier


def test_tilt_is_the_angle_of_a_plane() -> None:
    normal = np.full((8, 8, 3), np.round(127 * np.array([np.sin(0.5), 0, np.cos(0.5)])) + 128, np.uint8)
    assert measure({"normal": normal})["tilt"] == pytest.approx(np.degrees(0.5), abs=0.3)


def named(values: np.ndarray) -> list[dict[str, float]]:
    return [dict(zip(MEASURES, line, strict=True)) for line in values.tolist()]


def test_a_black_and_a_dark_frame_stand_out() -> None:
    values = np.random.default_rng(0).normal(100, 2, (40, len(MEASURES)))
    values[7, 0], values[11, 1] = 0, 6
    assert {(o.row, o.measure) for o in find_outliers(range(100, 140), named(values)) if o.score > 8} == {
        (107, "covered"),
        (111, "brightness"),
    }
    same = np.ones((20, len(MEASURES)))
    assert find_outliers(range(20), named(same)) == ()
    same[3, 2] = 50  # one apart from many that are equal
    assert [(o.row, o.measure) for o in find_outliers(range(20), named(same))] == [(3, "contrast")]


def test_only_what_matters_is_an_outlier() -> None:
    """Eight scans that differ by hundredths, and one by a tenth of a millimetre or by a few degrees: none is amiss."""
    values = np.tile([0.47, 120.0, 40.0, 5.0, -35.3], (9, 1)) + np.random.default_rng(0).normal(0, 0.01, (9, 5))
    values[0] = [0.475, 135.0, 48.0, 1.0, -35.2]
    assert find_outliers(range(9), named(values)) == ()
    values[0] = [0.2, 6.0, 5.0, 40.0, -60.0]
    assert {o.measure for o in find_outliers(range(9), named(values))} == {*MEASURES}


def test_a_face_under_two_subjects_is_shown_with_both(site: Site) -> None:
    found = dataclasses.replace(site.checker.findings(wait_seconds=60), alike=((0, 1, 0), (0, 9, 12)))
    page = components_text(show_findings(site, Address(), found))
    assert page.index("two subjects, 99% alike") < page.index("one subject, 100% alike") and r"S1 \u00b7 " in page


@pytest.mark.parametrize("modality", ["texture", "normal", "depth"])
def test_the_one_mirrored_scan_of_a_subject_is_found(site: Site, modality: str) -> None:
    rng = np.random.default_rng(3)
    values = {"texture": (256, 3), "normal": (256, 3), "depth": (65536, 0)}[modality]
    images = []
    for _ in range(2):  # two people, five scans each: what they have in common, and noise
        common = rng.integers(1, values[0], (32, 32, 3)[: 2 + bool(values[1])])
        scans = [np.clip(common + rng.integers(-9, 9, common.shape), 1, values[0] - 1) for _ in range(5)]
        images += [scan.astype(np.uint16 if modality == "depth" else np.uint8) for scan in scans]
    images[7] = mirror_image(modality, images[7])
    samples = [
        dataclasses.replace(site.cache.samples[0], subject=f"S{row // 5}", modalities=modality) for row in range(10)
    ]
    hashes = [hash_image(modality, image) for image in images]
    mirrored = [hash_image(modality, mirror_image(modality, image)) for image in images]
    assert [row for row, _, _ in find_mirrored(samples, range(10), hashes, mirrored)] == [7]
    assert find_mirrored(samples, [0, 1, 2], hashes[:3], mirrored[:3]) == ()  # too few to compare with


def test_normals_are_mirrored_as_directions() -> None:
    towards = np.array([[0.6, 0.0, 0.8], [-0.6, 0.0, 0.8], [0.0, 0.6, 0.8]])
    pixels = np.concatenate([np.round(127 * towards) + 128, np.zeros((1, 3))]).astype(np.uint8)[None]
    assert (mirror_image("normal", pixels)[0] == pixels[0, [3, 2, 0, 1]])[[0, 2, 3]].all()
    assert (mirror_image("normal", mirror_image("normal", pixels)) == pixels).all()


def test_many_subjects_come_in_pages(tiny_cache: MakeCache) -> None:
    site = open_site(tiny_cache(num_subjects=70, scans_per_class=1, size_px=16, unlabelled=(3,)))
    first, second = page_text(site, "/coverage"), page_text(site, "/coverage", "?page=1")
    assert "69 of 70 subjects have scans of every class." in first and '"/coverage?page=1"' in first
    names = sorted(f"S{number}" for number in range(70))
    table = '"/?subject={}"'.format
    assert table(names[59]) in first and table(names[60]) not in first
    assert table(names[60]) in second and table(names[59]) not in second and table(names[69]) in second
    assert table("S1") in second  # lacks a class


def test_statistics_come_after_the_page_and_are_kept(site: Site) -> None:
    found = site.checker.findings(wait_seconds=60)
    assert found.finished and sorted(found.rows) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert site.checker.findings(0) == found
    assert "11 of 11 valid samples checked" in components_text(show_findings(site, Address(), found))
    response = look_again(site)
    assert response.status_code == 200 and "Outliers" in response.text
    assert response.json["response"]["poll-findings"]["disabled"] is True  # the page asks no more


def look_again(site: Site) -> Any:
    """What the coverage page asks for every few seconds."""
    asked = {
        "output": "..findings.children...poll-findings.disabled..",
        "outputs": [
            {"id": "findings", "property": "children"},
            {"id": "poll-findings", "property": "disabled"},
        ],
        "inputs": [{"id": "poll-findings", "property": "n_intervals", "value": 1}],
        "state": [{"id": "url", "property": "search", "value": ""}],
        "changedPropIds": ["poll-findings.n_intervals"],
    }
    return build_app(LiveSite(lambda: site)).server.test_client().post("/_dash-update-component", json=asked)


def test_a_damaged_row_does_not_hide_the_others(site: Site) -> None:
    shard = next((site.cache.path / "views.zarr" / "normal").rglob("c/0/0/0/0/0"))
    data = bytearray(shard.read_bytes())
    data[100:110] = bytes(10)  # within the first image stored
    shard.write_bytes(data)
    found = site.checker.findings(wait_seconds=60)
    assert [row for row, _ in found.damaged] == [0] and len(found.rows) == 10
    assert "Damaged (1)" in components_text(show_findings(site, Address(), found))


class Blinking:
    """A cache's own reader, but for one read that ends in an error."""

    def __init__(self, site: Site, error: Exception, after: int) -> None:
        self._arrays = open_arrays(site.cache.path, site.cache.info)
        self._error, self._after = error, after
        self.rows: list[int] = []

    def start(self, name: str, rows: list[int]) -> Any:
        if len(self.rows) == self._after:
            self._after = -1
            raise self._error
        self.rows += rows
        return self._arrays.start(name, rows)


def test_statistics_go_on_where_an_object_store_was_gone(site: Site) -> None:
    whole = site.checker.findings(wait_seconds=60)
    site = open_site(site.cache.path)
    reader = Blinking(site, StorageError("s3://faces/cache: cannot be read"), after=3 * 4)
    site.checker._arrays = reader  # type: ignore[assignment]
    for _ in range(30):  # until the page was told, as it asks again and again
        response = look_again(site).json["response"]
        if "s3://faces/cache: cannot be read" in str(response):
            break
    assert "cannot be read" in str(response) and response["poll-findings"]["disabled"] is False  # the page asks again
    assert len(reader.rows) == 3 * 4
    found = site.checker.findings(wait_seconds=60)
    assert found == whole and len(reader.rows) == 3 * 11  # no row was looked at twice


def test_what_nobody_foresaw_is_told_and_not_taken_for_the_end(site: Site) -> None:
    site.checker._arrays = Blinking(site, ZeroDivisionError("of all things"), after=3 * 4)  # type: ignore[assignment]
    with pytest.raises(FacetError, match=r"cache: .* after 4 of 11 \(ZeroDivisionError: of all things\); run") as told:
        site.checker.findings(wait_seconds=60)
    assert isinstance(told.value.__cause__, ZeroDivisionError)
    found = site.checker.findings(wait_seconds=60)
    assert found.finished and len(found.rows) == 11


def test_a_row_without_a_picture_is_damaged(tiny_cache: MakeCache) -> None:
    site = open_site(tiny_cache(num_subjects=1, modalities=("texture",), without_texture=(3,)))
    found = site.checker.findings(wait_seconds=60)
    assert found.finished and found.damaged == ((3, "no picture"),) and sorted(found.rows) == [0, 1, 2, 4, 5]


def test_nothing_looks_on_when_the_pages_are_closed(tiny_cache: MakeCache) -> None:
    """A thread that outlives Python's own has none left to read with: Ctrl-C would end in its complaint."""
    site = open_site(tiny_cache(num_subjects=9, scans_per_class=5, size_px=64))
    site.close()  # nothing was asked for yet
    assert not site.checker.findings(wait_seconds=0).finished
    site.close()
    assert not any(thread.is_alive() for thread in site.checker._pool._threads)
    assert len(site.checker.findings(wait_seconds=0).rows) < len(site.cache.samples)


def test_neutral_alone_and_reasons_that_differ_in_numbers(site: Site) -> None:
    """S0 shows the classes, S1 neutral and nothing else; two failures differ in a number, one in its words."""
    neutral = [dataclasses.replace(s, label="neutral") if s.subject == "S1" else s for s in site.cache.samples]
    reasons = {7: "3.41 mm off", 8: "12 mm off", 5: "no surface"}
    samples = [dataclasses.replace(s, valid=n not in reasons, reason=reasons.get(n, "")) for n, s in enumerate(neutral)]
    info = dataclasses.replace(site.cache.info, class_names=(*site.cache.info.class_names, "neutral"))
    cache = dataclasses.replace(site.cache, samples=samples, info=info)
    page = page_text(dataclasses.replace(site, cache=cache), "/coverage")
    assert "1 of 1 subjects have scans of every class except neutral; 1 more has neutral scans only." in page
    assert "2 × 3.41 mm off" in page and "1 × no surface" in page


def test_what_stands_out_has_a_name(site: Site) -> None:
    far = dataclasses.replace(
        site.checker.findings(wait_seconds=60),
        outliers=(Outlier(4, "depth_mm", 1.0, 2.0, 9.0),),
        alike=((0, 9, 3),),
    )
    page = components_text(show_findings(site, Address(), far))
    assert "depth 1.0 mm, median 2.0 mm" in page
    for row in (4, 0, 9):
        assert f'"children": "{site.cache.samples[row].sample_id}"' in page
