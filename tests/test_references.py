"""Files that a scan names: found however their names are written, and never outside the scan's folder."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from preprocess.readers.references import find_below, find_beside, show_name

UMLAUTS = "Müller_lächeln.png"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (UMLAUTS, UMLAUTS.encode()),
        (UMLAUTS, UMLAUTS.encode("cp1252")),
        (UMLAUTS, UMLAUTS.encode("mac_roman")),
        (UMLAUTS, UMLAUTS.encode("cp850")),
        (UMLAUTS, unicodedata.normalize("NFD", UMLAUTS).encode()),
        (unicodedata.normalize("NFD", UMLAUTS), UMLAUTS.encode()),
        (unicodedata.normalize("NFD", UMLAUTS), UMLAUTS.upper().encode("cp1252")),
        ("面部.png", "面部.png".encode("gbk")),
        ("顔.png", "顔.png".encode("cp932")),
        ("얼굴.png", "얼굴.png".encode("cp949")),
        ("лицо.png", "лицо.png".encode("cp1251")),
        ("face scan ä.png", b"face%20scan%20%C3%A4.png"),
        ("face scan ä.png", b"face%20scan%20%E4.png"),  # percent-encoded cp1252
        ("100%.png", b"100%.png"),
        ("a%20b.png", b"a%20b.png"),  # the name as it stands comes first
        ("Face.PNG", b"face.png"),
        ("maps/Skin/face.png", b"MAPS\\skin\\face.png"),
        ("maps/face.png", b"./maps//face.png"),
        ("face.png", b"C:\\scans\\face.png"),
        ("face.png", b"../other/face.png"),
        ("face.png", b"file:///home/me/face.png"),
        ("face.png", b"maps/face.png"),
    ],
)
def test_names_as_programs_write_them(tmp_path: Path, file: str, name: bytes) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(b"x")
    assert find_beside(tmp_path / "a.obj", name) == tmp_path / file


def test_a_file_whose_name_is_no_utf8(tmp_path: Path) -> None:
    file = tmp_path / b"l\xe4cheln.png".decode("utf-8", "surrogateescape")
    file.write_bytes(b"x")
    assert find_beside(tmp_path / "a.obj", b"l\xe4cheln.png") == file


@pytest.mark.parametrize(
    "name",
    [
        *(b"../secret.png", b"%2e%2e/secret.png", b"..%2fsecret.png", b"..%5csecret.png", b"file:///secret.png"),
        *(
            b"http://here/face.png",
            b"\x81%41\xff.png",
            b"",
            b".",
            b"..",
            b"%00",
            b"face.png\0",
            b"a" * 5000,
            b"a/" * 3000 + b"face.txt",
        ),
    ],
)
def test_names_that_lead_nowhere(tmp_path: Path, name: bytes) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(b"x")
    (folder / "face.png").write_bytes(b"x")
    assert find_beside(folder / "a.obj", name) is None


def test_of_names_that_differ_in_case_the_exact_one_or_none(tmp_path: Path) -> None:
    for name in ("Face.png", "FACE.png"):
        (tmp_path / name).write_bytes(b"x")
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system does not tell them apart")
    assert find_below(tmp_path, "FACE.png") == tmp_path / "FACE.png"
    assert find_below(tmp_path, "face.png") is None


def test_a_file_that_comes_later_is_found(tmp_path: Path) -> None:
    assert find_below(tmp_path, "Ä/face.png") is None
    (tmp_path / "ä").mkdir()
    assert find_below(tmp_path, "Ä/face.png") is None
    (tmp_path / "ä" / "Face.png").write_bytes(b"x")
    assert find_below(tmp_path, "Ä/face.png") == tmp_path / "ä" / "Face.png"


def test_shown_names_are_one_short_line() -> None:
    assert show_name(b"l\xe4cheln\n\x1b.png") == "'lächeln??.png'"
    assert len(show_name(b"a" * 10_000)) < 100
