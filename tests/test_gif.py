"""Animated GIFs: each frame is the cache's own picture, in order, at the recording's rate, with the licence line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from conftest import MakeCache
from PIL import Image, ImageSequence

from preprocess.inspection.gif import HEAD_PX, write_gif
from preprocess.inspection.sheet import GAP_PX, picture_of
from shared.cache import Cache, open_cache
from shared.errors import FacetError

SIZE_PX = 64


def make(tiny_cache: MakeCache, **options: object) -> Cache:
    options = {"num_subjects": 1, "scans_per_class": 1, "num_frames": 5, "size_px": SIZE_PX, **options}
    return open_cache(tiny_cache(**options))


def read_frames(path: Path) -> tuple[list[np.ndarray], list[float]]:
    with Image.open(path) as gif:
        found = [(np.asarray(f.convert("RGB")), float(f.info["duration"])) for f in ImageSequence.Iterator(gif)]
    return [frame for frame, _ in found], [duration for _, duration in found]


def tile(frame: np.ndarray, column: int) -> np.ndarray:
    left = GAP_PX + column * (SIZE_PX + GAP_PX)
    return frame[HEAD_PX : HEAD_PX + SIZE_PX, left : left + SIZE_PX]


def test_grey_frames_are_the_caches_pixels(tiny_cache: MakeCache, tmp_path: Path) -> None:
    cache = make(tiny_cache, modalities=("normal", "depth"), invalid=(7,))
    name = cache.sequences[1].sequence  # rows 5 to 9, of which 7 is not valid
    text = write_gif(cache, tmp_path / "a.gif", sequence=name)
    assert text == "4 frames, 25 a second"
    frames, durations = read_frames(tmp_path / "a.gif")
    assert durations == [40] * 4
    for frame, row in zip(frames, (5, 6, 8, 9), strict=True):
        for column, modality in enumerate(("normal", "depth")):
            expected = picture_of(cache, cache.samples[row], modality, 0)
            np.testing.assert_array_equal(tile(frame, column), expected)


def test_coloured_frames_are_near_and_in_order(tiny_cache: MakeCache, tmp_path: Path) -> None:
    cache = make(tiny_cache, modalities=("texture", "normal"))
    write_gif(cache, tmp_path / "a.gif", sequence=cache.sequences[0].sequence)
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
        write_gif(one, tmp_path / name, sequence=cache.sequences[0].sequence)
    foot = HEAD_PX + SIZE_PX
    for a, b in zip(read_frames(tmp_path / "a.gif")[0], read_frames(tmp_path / "b.gif")[0], strict=True):
        assert (np.abs(a[foot:].astype(int) - b[foot:]) > 60).any()
        assert (a[foot:] < 160).any()


def test_long_recordings_are_thinned(tiny_cache: MakeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preprocess.inspection.gif.MOST_FRAMES", 2)
    cache = make(tiny_cache)
    assert "2 frames, one in 3 of 5" in write_gif(cache, tmp_path / "a.gif", sequence=cache.sequences[0].sequence)
    assert read_frames(tmp_path / "a.gif")[1] == [120, 120]


def test_what_is_not_there_is_named(tiny_cache: MakeCache, tmp_path: Path) -> None:
    cache = make(tiny_cache, invalid=(0, 1, 2, 3))
    with pytest.raises(FacetError, match=r"ends in \.gif"):
        write_gif(cache, tmp_path / "a.png", sequence="x")
    with pytest.raises(FacetError, match=r"no such sequence in .*; there are S0/anger0, "):
        write_gif(cache, tmp_path / "a.gif", sequence="../x")
    with pytest.raises(FacetError, match="has 1 valid frames"):
        write_gif(cache, tmp_path / "a.gif", sequence="S0/anger0")
    scans = open_cache(tiny_cache(name="scans", num_subjects=1))
    with pytest.raises(FacetError, match="holds no sequences"):
        write_gif(scans, tmp_path / "a.gif", sequence="x")
