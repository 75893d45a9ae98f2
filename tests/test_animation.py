"""Animations: each frame is the cache's own picture, in order, at the recording's rate or another, with the licence line."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MakeCache
from PIL import Image, ImageSequence

from preprocess.inspection.animation import GAP_PX, LINE_PX, write_animation
from preprocess.inspection.sheet import choose_shown, draw_tile, picture_of
from shared.cache import Cache, open_cache
from shared.errors import FacetError
from shared.schema import parse_views

SIZE_PX = 64
TOP_PX = GAP_PX // 2 + 3 * LINE_PX  # of the pictures: two lines about the frame, and their names


def make(tiny_cache: MakeCache, **options: object) -> Cache:
    options = {"num_subjects": 1, "scans_per_class": 1, "num_frames": 5, "size_px": SIZE_PX, **options}
    return open_cache(tiny_cache(**options))


def read_frames(path: Path) -> tuple[list[np.ndarray], list[float]]:
    with Image.open(path) as gif:
        found = [(np.asarray(f.convert("RGB")), float(f.info["duration"])) for f in ImageSequence.Iterator(gif)]
    return [frame for frame, _ in found], [duration for _, duration in found]


def write(
    cache: Cache, path: Path, sequence: str, *, show: Sequence[str] = (), views: str = "0", **options: Any
) -> str:
    shown = choose_shown(cache, show, parse_views(views))
    return write_animation(cache, path, sequence=sequence, shown=shown, **options)


def tile(frame: np.ndarray, column: int) -> np.ndarray:
    left = GAP_PX + column * (SIZE_PX + GAP_PX)
    return frame[TOP_PX : TOP_PX + SIZE_PX, left : left + SIZE_PX]


def test_grey_frames_are_the_caches_pixels(tiny_cache: MakeCache, tmp_path: Path) -> None:
    cache = make(tiny_cache, modalities=("normal", "depth"), invalid=(7,))
    name = cache.sequences[1].sequence  # rows 5 to 9, of which 7 is not valid
    text = write(cache, tmp_path / "a.gif", name, show=["relief", "depth"])
    assert text == "4 frames, 25 a second; it is short: --fps 5 shows it slower"
    frames, durations = read_frames(tmp_path / "a.gif")
    assert durations == [40] * 4
    for frame, row in zip(frames, (5, 6, 8, 9), strict=True):
        for column, modality in enumerate(("relief", "depth")):
            expected = picture_of(cache, cache.samples[row], modality, 0)
            np.testing.assert_array_equal(tile(frame, column), expected)


def test_coloured_frames_are_near_and_in_order(tiny_cache: MakeCache, tmp_path: Path) -> None:
    cache = make(tiny_cache, modalities=("texture", "normal"))
    write(cache, tmp_path / "a.gif", cache.sequences[0].sequence)
    frames, _ = read_frames(tmp_path / "a.gif")
    expected = [picture_of(cache, sample, "texture", 0).astype(int) for sample in cache.samples[:5]]
    for number, frame in enumerate(frames):
        distances = [np.abs(tile(frame, 0) - one).mean() for one in expected]
        assert int(np.argmin(distances)) == number
        assert distances[number] < 6


def test_the_licence_is_drawn_into_every_frame(tiny_cache: MakeCache, tmp_path: Path) -> None:
    cache = make(tiny_cache)
    other = dataclasses.replace(cache, info=dataclasses.replace(cache.info, licence="LICENSED, show no face; free"))
    for name, one in (("a.gif", cache), ("b.gif", other)):
        write(one, tmp_path / name, cache.sequences[0].sequence)
    foot = TOP_PX + SIZE_PX
    for a, b in zip(read_frames(tmp_path / "a.gif")[0], read_frames(tmp_path / "b.gif")[0], strict=True):
        assert (np.abs(a[foot:].astype(int) - b[foot:]) > 60).any()
        assert (a[foot:] < 160).any()


def test_long_recordings_are_thinned(tiny_cache: MakeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preprocess.inspection.animation.MOST_FRAMES", {".gif": 2})
    cache = make(tiny_cache)
    assert "2 frames, one in 3 of 5" in write(cache, tmp_path / "a.gif", cache.sequences[0].sequence)
    assert read_frames(tmp_path / "a.gif")[1] == [120, 120]


def test_what_is_not_there_is_named(tiny_cache: MakeCache, tmp_path: Path) -> None:
    cache = make(tiny_cache, invalid=(0, 1, 2, 3))
    with pytest.raises(FacetError, match=r"ends in \.gif or \.mp4"):
        write(cache, tmp_path / "a.png", "x")
    with pytest.raises(FacetError, match=r"no such sequence in .*; there are S0/anger0, "):
        write(cache, tmp_path / "a.gif", "../x")
    with pytest.raises(FacetError, match="has 1 valid frames"):
        write(cache, tmp_path / "a.gif", "S0/anger0")
    scans = open_cache(tiny_cache(name="scans", num_subjects=1))
    with pytest.raises(FacetError, match="holds no sequences"):
        write(scans, tmp_path / "a.gif", "x")


def test_before_and_after_stabilising_stand_side_by_side(tiny_cache: MakeCache, tmp_path: Path) -> None:
    cache = make(tiny_cache, modalities=("normal", "depth"), turn_deg=5)
    name, path = cache.sequences[0].sequence, tmp_path / "a.gif"
    assert write(cache, path, name, show=["depth"], before_after=True).endswith(
        "turned by up to 20.0°, its nose tip moved by up to 0.0 mm"
    )
    frames, _ = read_frames(path)
    for number, frame in enumerate(frames):
        np.testing.assert_array_equal(tile(frame, 1), picture_of(cache, cache.samples[number], "depth", 0))
        changed = np.abs(tile(frame, 0).astype(int) - tile(frame, 1))[16:48, 16:48].max()
        assert changed <= 1 if number == 0 else changed > 5
    with pytest.raises(
        FacetError, match=r"--before-after: .* was not stabilised: all frames have the pose of the first"
    ):
        write(make(tiny_cache, name="plain"), path, name, before_after=True)
    with pytest.raises(FacetError, match=r"takes depth, and .* holds texture,normal alone"):
        write(make(tiny_cache, name="flat", turn_deg=5), path, name, before_after=True)


def test_rate_size_views_and_pictures_are_chosen(tiny_cache: MakeCache, tmp_path: Path) -> None:
    cache = make(tiny_cache, modalities=("texture", "normal"))
    name, path = cache.sequences[0].sequence, tmp_path / "a.gif"
    about = write(cache, path, name, show=["relief"], views="20,0", size_px=40, frames_per_second=4.0)
    assert about == "5 frames, 4 a second"
    frames, durations = read_frames(path)
    assert durations == [250] * 5
    for number, view in enumerate((0, 1)):  # yaw 0 above +20
        top = TOP_PX + number * (40 + LINE_PX + 2)
        drawn = Image.fromarray(draw_tile(cache, cache.samples[3], "relief", view))
        expected = np.asarray(drawn.resize((40, 40), Image.Resampling.LANCZOS)).astype(int)
        assert np.abs(frames[3][top : top + 40, GAP_PX : GAP_PX + 40] - expected).max() <= 4
    with pytest.raises(FacetError, match=r"--fps 60: expected 0.1 to 50 for \.gif"):
        write(cache, path, name, frames_per_second=60.0)


def test_a_video_has_the_frames_in_order_at_their_rate(
    tiny_cache: MakeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, path = make(tiny_cache, modalities=("texture", "normal")), tmp_path / "a.mp4"
    name = cache.sequences[0].sequence
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "av", None)
        with pytest.raises(FacetError, match="pip install av"):
            write(cache, path, name)
    av = pytest.importorskip("av")
    assert write(cache, path, name, frames_per_second=12.5) == "5 frames, 12.5 a second"
    with av.open(str(path)) as video:
        assert float(video.streams.video[0].average_rate) == 12.5
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    expected = [picture_of(cache, sample, "texture", 0).astype(int) for sample in cache.samples[:5]]
    distances = np.array([[np.abs(tile(frame, 0) - one).mean() for one in expected] for frame in frames])
    assert distances.argmin(1).tolist() == [0, 1, 2, 3, 4] and np.diag(distances).max() < 8
