"""A texture that a scan names and its images do not show: in a build's output, failures.csv and --summary; --strict stops."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from command_lines import preprocess
from scan_folders import cache_bytes, write_scan, write_scan_folder

from preprocess.readers.surface import read_surface
from shared.cache import FAILURES_CSV, open_cache


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two scans; the first one's image is not there."""
    write_scan_folder(tmp_path / "scans", 2)
    (tmp_path / "scans" / "scan000.png").rename(tmp_path / "elsewhere.png")
    return tmp_path / "scans"


def build(root: Path, cache: Path, *more: str) -> int:
    return preprocess(
        "build", "folder", "--root", root, "--cache", cache, "--size", 32, "--workers", 1, "--views", "0", *more
    )


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
def test_it_is_said_every_time_until_it_is_there(
    root: Path, tmp_path: Path, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    for _ in range(2):  # the second build reads nothing anew
        assert build(root, cache, "--store", store) == 0
        said = capsys.readouterr()
        assert "scan000.png" in said.out + said.err
        rows = list(csv.DictReader((cache / FAILURES_CSV).read_text().splitlines()))
        assert [(row["source"], row["kind"]) for row in rows] == [("scan000.obj", "warning")]
        assert "'scan000.png'" in rows[0]["reason"]
        samples = open_cache(cache).samples
        assert [(sample.valid, sample.has("texture")) for sample in samples] == [(True, False), (True, True)]
        assert preprocess("inspect", "--cache", cache, "--summary") == 0
        assert "scan000.png" in capsys.readouterr().out
    (tmp_path / "elsewhere.png").rename(root / "scan000.png")
    assert build(root, cache, "--store", store) == 0
    assert "scan000.png" not in capsys.readouterr().out
    assert all(sample.has("texture") and not sample.reason for sample in open_cache(cache).samples)


def test_strict_stops_there(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = tmp_path / "cache"
    assert build(root, cache, "--strict") != 0
    assert "scan000.png" in capsys.readouterr().err
    (tmp_path / "elsewhere.png").rename(root / "scan000.png")
    assert build(root, cache, "--strict") == 0
    assert build(root, tmp_path / "once") == 0
    assert cache_bytes(cache) == cache_bytes(tmp_path / "once")


def test_an_image_that_no_file_names_is_named(tmp_path: Path) -> None:
    write_scan(tmp_path, "face", 0)
    assert read_surface(tmp_path / "face.obj").notes == ()
    (tmp_path / "face.png").rename(tmp_path / "FACE.PNG")
    text = (tmp_path / "face.obj").read_text().replace("mtllib face.mtl\nusemtl skin\n", "")
    (tmp_path / "face.obj").write_text(text)
    (note,) = read_surface(tmp_path / "face.obj").notes
    assert "FACE.PNG has its name" in note
    assert read_surface(tmp_path / "face.obj", texture=tmp_path / "FACE.PNG").notes == ()


def test_an_image_of_somebody_else_is_named(root: Path, tmp_path: Path) -> None:
    """As where each export of a program writes its image over the last one's."""
    (root / "scan000.mtl").write_text("newmtl skin\nmap_Kd scan001.png\n")
    assert build(root, tmp_path / "cache") == 0
    one, two = open_cache(tmp_path / "cache").samples
    assert one.subject != two.subject and two.reason == f"its texture is also that of scan000, of subject {one.subject}"
