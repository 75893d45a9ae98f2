"""Contact sheets and summaries: what they show is what the cache holds."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import MakeCache
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scan_folders import write_scan_folder

from preprocess.build.build import build_cache
from preprocess.datasets import DATASETS
from preprocess.inspection.lettering import load_font, shorten_text
from preprocess.inspection.sheet import (
    MAX_SUBJECTS,
    _choose_subjects,
    choose_shown,
    draw_tile,
    picture_of,
    write_sheet,
)
from preprocess.inspection.summary import describe_cache
from preprocess.rendering.cameras import build_cameras
from shared.cache import Cache, open_cache
from shared.errors import FacetError
from shared.labels import BASIC_EXPRESSIONS
from shared.pictures import FACE_CENTRE_MM, PICTURES, centre_face
from shared.schema import FIELD_OF_VIEW_MM, RenderSettings, parse_views

SHEETS: dict[str, dict[str, Any]] = {"all": {}, "subject": {"subject": "S01"}, "sample": {"sample_id": "scan001"}}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    folder = tmp_path_factory.mktemp("sheet")
    write_scan_folder(folder / "scans", 13, num_subjects=2, without_texture=(4,))
    (folder / "scans" / "scan012.obj").write_text("garbled")
    settings = RenderSettings(size_px=64)
    build_cache(DATASETS["folder"], folder / "scans", folder / "c", settings, num_workers=1)
    return open_cache(folder / "c")


def read_svg(path: Path) -> list[tuple[float, float, np.ndarray]]:
    """Return the images of an SVG, with their own pixels: place from the left and from the top, picture."""
    found = []
    for image in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}image"):
        data = base64.b64decode(image.attrib["{http://www.w3.org/1999/xlink}href"].split(",")[1])
        place = [float(number) for number in re.findall(r"-?[\d.]+", image.attrib["transform"])][-2:]
        found.append((place[0], place[1], np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))))
    return found


def test_sample_sheet_shows_every_view_and_modality(cache: Cache, tmp_path: Path) -> None:
    """In the order of yaw, pixel for pixel; a scan without texture has no row for it."""
    shown = choose_shown(cache, ["texture", "normal", "relief", "depth"])
    write_sheet(cache, tmp_path / "a.svg", sample_id="scan001", shown=shown)
    images = [one for one in read_svg(tmp_path / "a.svg") if one[2].shape == (64, 64, 3)]
    rows = sorted({round(top) for _, top, _ in images})
    assert len(images) == 12 and len(rows) == 4
    for top, name in zip(rows, ("texture", "normal", "relief", "depth"), strict=True):
        row = [pixels for _, _, pixels in sorted((i for i in images if round(i[1]) == top), key=lambda one: one[0])]
        for pixels, view in zip(row, (2, 0, 1), strict=True):  # of 0, 20, -20
            np.testing.assert_array_equal(pixels, draw_tile(cache, cache.samples[1], name, view))
    write_sheet(cache, tmp_path / "b.svg", sample_id="scan004", shown=shown)
    assert len([one for one in read_svg(tmp_path / "b.svg") if one[2].shape == (64, 64, 3)]) == 9


def test_normals_are_shown_as_the_network_sees_them(cache: Cache) -> None:
    stored = cache.arrays.read("normal", [0])[0, 0]
    surface = stored.any(-1)
    picture = picture_of(cache, cache.samples[0], "normal", 0)
    np.testing.assert_array_equal(picture[surface], stored[surface])
    assert (picture[~surface] == 255).all()


def test_a_face_is_in_one_place_in_all_views() -> None:
    """The point about which heads turn is in the middle of every picture, wherever the camera stands."""
    views = parse_views("0,20,-20,35:25,-40:-10")
    for view, camera in zip(views, build_cameras(views).world_to_view, strict=True):
        x, y, _ = camera @ (0, 0, -FACE_CENTRE_MM) * 200 / FIELD_OF_VIEW_MM
        picture = np.full((200, 200, 3), 255, np.uint8)
        picture[round(100 - y), round(100 + x)] = 0
        row, column, _ = np.argwhere(centre_face(picture, view) == 0)[0]
        assert abs(row - 100) <= 1 and abs(column - 100) <= 1


def test_keys_are_drawn_as_the_pictures_are() -> None:
    """A surface of a known depth, or that faces a known way, has the colour that its key says."""
    bar, key = PICTURES["depth"].draw_key(dynamic=False)  # type: ignore[misc]
    assert key.ticks == {1.0: "0 mm", 0.0: "−90 mm"}
    assert bar[0, 0, 0] > 250 and bar[-1, 0, 0] < 40
    half = np.full((1, 1), 32768 - 45 / 0.02, np.uint16)
    assert abs(int(PICTURES["depth"].draw(half, dynamic=False)[0, 0, 0]) - int(bar[len(bar) // 2, 0, 0])) <= 2
    for name in ("normal", "relief"):
        ball, _ = PICTURES[name].draw_key(dynamic=False)  # type: ignore[misc]
        toward = np.full((1, 1, 3), (128, 128, 255), np.uint8)  # the camera
        middle = ball[len(ball) // 2, len(ball) // 2].astype(int)
        assert np.abs(middle - PICTURES[name].draw(toward, dynamic=False)[0, 0]).max() <= 3


def test_overview_and_subject_sheets_are_written(cache: Cache, tmp_path: Path) -> None:
    for name, options in SHEETS.items():
        path = tmp_path / f"{name}.png"
        write_sheet(cache, path, **options)
        image = np.asarray(Image.open(path).convert("RGB"))
        assert image.shape[1] > 300
        assert (image != 255).any(-1).mean() > 0.1
    write_sheet(cache, tmp_path / "all.pdf")
    assert (tmp_path / "all.pdf").read_bytes().startswith(b"%PDF")


def test_scans_of_one_label_a_subject_make_no_staircase(cache: Cache, tmp_path: Path) -> None:
    """A row a class from the left, and no cells between."""
    names = cache.info.class_names
    samples = [
        dataclasses.replace(sample, subject=f"P{row:02d}", label=names[row % 3])
        for row, sample in enumerate(cache.samples)
    ]
    own = dataclasses.replace(cache, samples=samples)
    write_sheet(own, tmp_path / "a.svg", shown=choose_shown(own, ["depth"]))
    tiles = [one for one in read_svg(tmp_path / "a.svg") if one[2].shape == (64, 64, 3)]
    rows = [
        [left for left, top, _ in tiles if round(top) == row] for row in sorted({round(top) for _, top, _ in tiles})
    ]
    assert [len(row) for row in rows] == [4, 4, 4, 3]  # 12 scans of 12 people; then one scan from three sides
    for row in rows[:3]:
        np.testing.assert_allclose(sorted(row), sorted(rows[0]))


def test_normals_are_shown_lit_and_depth_brighter_when_nearer(cache: Cache) -> None:
    depth = picture_of(cache, cache.samples[0], "depth", 0)
    assert depth[32, 32, 0] > depth[32, 15, 0]  # the nose tip against a cheek
    relief = picture_of(cache, cache.samples[0], "relief", 0)
    assert np.ptp(relief[20:44, 20:44, 0]) > 40


def test_what_is_not_there_is_named(cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(FacetError, match="no such sample"):
        write_sheet(cache, tmp_path / "x.png", sample_id="nobody")
    with pytest.raises(FacetError, match="is not valid"):
        write_sheet(cache, tmp_path / "x.png", sample_id="scan012")
    with pytest.raises(FacetError, match="there are S00, S01"):
        write_sheet(cache, tmp_path / "x.png", subject="S99")
    with pytest.raises(FacetError, match=r"ends in \.png, \.pdf, \.svg"):
        write_sheet(cache, tmp_path / "x.jpg")


def test_summary_counts_what_is_there(cache: Cache) -> None:
    text = describe_cache(cache)
    assert "12 scans of 2 subjects; 1 failed" in text
    assert "texture: 11 scans (1 without)" in text
    for name in BASIC_EXPRESSIONS:
        assert any(line.split()[:3] == [name, "2", "2"] for line in text.splitlines()), text
    assert "scan012.obj" in text
    assert "no prompt embeddings yet" in text
    renamed = dataclasses.replace(cache, info=dataclasses.replace(cache.info, dataset="elsewhere"))
    assert "elsewhere" in describe_cache(renamed)


def test_summary_counts_subjects_sequences_failures_and_bytes(tiny_cache: MakeCache) -> None:
    path = tiny_cache(num_subjects=6, num_frames=4, scans_per_class=1, invalid=(3, 24, 25, 26, 27))
    text = describe_cache(open_cache(path))
    lines = [line.split() for line in text.splitlines()]
    assert ["subjects", "(sequences", "of", "each)", "anger", "happiness", "surprise", "failed"] in lines
    assert ["S1,", "S3,", "S4", "and", "1", "more", "1", "1", "1", "0"] in lines
    assert ["S2", "0", "1", "1", "4"] in lines  # all four frames of its first sequence failed
    assert ["S0", "1", "1", "1", "1"] in lines
    assert "sequences (18): 72 frames, 3 s" in text
    assert "2 lack frames that failed" in text
    assert "no surface (and 4 alike)" in text
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    assert f"on disk {size / 1000:.3g} kB" in text or f"on disk {size / 1e6:.3g} MB" in text


@pytest.mark.parametrize(("units", "unit"), [("aus", 4), ("targets", 1)])  # frames; sequences of four
def test_summary_counts_what_several_classes_at_once_show(tiny_cache: MakeCache, units: str, unit: int) -> None:
    """AU1 is in anger and happiness, AU4 in happiness and surprise, AU12 in surprise; nothing is known of the first row."""
    path = tiny_cache(num_subjects=3, num_frames=4, scans_per_class=1, units=units)
    lines = [line.split() for line in describe_cache(open_cache(path)).splitlines()]
    known, first = str(9 * unit - (units == "aus")), int(units == "aus")
    assert ["AU1", known, str(6 * unit - first), "3"] in lines
    assert ["AU4", known, str(6 * unit), "3"] in lines
    assert ["AU12", known, str(3 * unit), "3"] in lines
    heading = (
        "action unit frames known shown by subjects" if units == "aus" else "emotion sequences known shown by subjects"
    )
    assert heading.split() in lines


def test_frames_of_no_sequence_are_no_sequences(tiny_cache: MakeCache) -> None:
    cache = open_cache(tiny_cache(num_subjects=2, num_frames=4, scans_per_class=1))
    loose = [dataclasses.replace(sample, sequence="") if sample.frame == 0 else sample for sample in cache.samples]
    lines = [line.split() for line in describe_cache(dataclasses.replace(cache, samples=loose)).splitlines()]
    assert ["S0,", "S1", "1", "1", "1", "3", "0"] in lines  # three sequences, and three single frames


def test_every_sheet_carries_the_licence_line(cache: Cache, tmp_path: Path) -> None:
    """Two licences of one length: the sheets differ at the foot, and nowhere else."""
    for licence in ("AAAA AAAA", "BBBB BBBB"):
        other = dataclasses.replace(cache, info=dataclasses.replace(cache.info, licence=licence))
        for name, options in SHEETS.items():
            write_sheet(other, tmp_path / f"{name}-{licence[0]}.png", **options)
    for name in ("all", "subject", "sample"):
        a, b = (np.asarray(Image.open(tmp_path / f"{name}-{letter}.png").convert("L")).astype(int) for letter in "AB")
        rows = np.flatnonzero((np.abs(a - b) > 60).any(1))
        assert len(rows) > 3
        assert rows.min() >= len(a) - 40


def test_the_font_has_the_letters_of_names() -> None:
    font = load_font(14)
    missing = bytes(font.getmask("\ue123"))
    assert all(bytes(font.getmask(letter)) != missing for letter in "äöüßéøłñçşΩжё–—…·")


@given(
    text=st.text(st.characters(max_codepoint=0x17F, categories=["L", "N", "P"]), max_size=60),
    width=st.integers(20, 200),
)
def test_long_names_are_cut_in_their_middle(text: str, width: int) -> None:
    font = load_font(12)
    short = shorten_text(text, font, width)
    assert font.getlength(short) <= width
    ahead, cut, behind = short.partition("…") if short != text else (text, "", "")
    assert text.startswith(ahead) and text.endswith(behind)
    assert bool(cut) == (font.getlength(text) > width)


def test_the_overview_has_a_subject_for_every_class(cache: Cache) -> None:
    """Twelve show two classes, one shows nothing but neutral, one nothing at all."""
    whole = dataclasses.replace(cache.samples[0], valid=True)
    shown = [(f"P{n:02d}", label) for n in range(12) for label in ("anger", "happiness")]
    shown += [("P05b", "neutral"), ("P99", "")]
    samples = [dataclasses.replace(whole, subject=subject, label=label) for subject, label in shown]
    info = dataclasses.replace(cache.info, class_names=("anger", "happiness", "neutral"))
    chosen = _choose_subjects(dataclasses.replace(cache, info=info, samples=samples))
    assert len(chosen) == MAX_SUBJECTS + 1 and chosen == sorted(chosen)
    assert "P05b" in chosen and "P99" not in chosen
