"""STL dialects: text of any case and line end, several solids, binary files that begin with `solid`, colours, damage."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh

from preprocess.readers.surface import read_surface
from shared.errors import ScanError

CORNERS = np.array(
    [[[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[1, 0, 0], [1, 1, 0.5], [0, 1, 0]], [[0, 0, 0], [0, 1, 0], [-1, 0, 0.25]]],
    "<f4",
)


def binary(colors: list[int] | None = None, *, header: bytes = b"") -> bytes:
    rows = [
        struct.pack("<12fH", 0, 0, 1, *corners.ravel(), color)
        for corners, color in zip(CORNERS, colors or [0, 0, 0], strict=True)
    ]
    return header.ljust(80, b"\0") + struct.pack("<I", len(rows)) + b"".join(rows)


def text(number: str = "{:g}", *, normal: str = "0 0 1", solids: int = 1) -> str:
    """The triangles as text, in so many solids."""
    parts = []
    for k, group in enumerate(np.array_split(CORNERS, solids)):
        facets = []
        for corners in group:
            lines = ["vertex " + " ".join(number.format(float(v)) for v in corner) for corner in corners]
            facets.append("\n".join([f"facet normal {normal}", "outer loop", *lines, "endloop", "endfacet"]))
        parts.append("\n".join([f"solid part {k}", *facets, f"endsolid part {k}"]))
    return "\n".join(parts) + "\n"


DIALECTS = {
    "plain": text().encode(),
    "upper case": text().upper().encode(),
    "carriage returns": text().replace("\n", "\r").encode(),
    "windows": text().replace("\n", "\r\n").encode(),
    "one line": text().replace("\n", " ").encode(),
    "scientific": text("{:.8E}").encode(),
    "plus signs and tabs": text("+{:f}").replace("+-", "-").replace(" ", "\t").encode(),
    "several solids": text(solids=3).encode(),
    "no names": text().replace(" part 0", "").encode(),
    "names like numbers": text().replace("part 0", "facet 1 2 3 \xe9").encode("latin-1"),
    "normals that are none": text(normal="-nan(ind) nan 1.#QNAN").encode(),
    "byte order mark": b"\xef\xbb\xbf" + text().encode(),
    "end solid": text().replace("endsolid", "end solid").encode(),
    "binary": binary(),
    "binary that begins with solid": binary(header=b"solid face exported by some program"),
    "binary with bytes of colour that mean nothing": binary([0, 17, 0x7FFF]),
    "binary with a line end behind it": binary() + b"\r\n",
    "binary of one colour": binary([0xFFFF] * 3),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_dialects(tmp_path: Path, dialect: str) -> None:
    path = tmp_path / "a.stl"
    path.write_bytes(DIALECTS[dialect])
    mesh = read_surface(path)
    np.testing.assert_allclose(mesh.vertices_mm[mesh.triangles], CORNERS, atol=1e-7)
    assert len(mesh.vertices_mm) == 5  # corners at one place are one vertex
    assert mesh.colors is None and not mesh.notes


RED, GREEN, BLUE = 31 << 10, 31 << 5, 31  # of VisCAM; Magics has them the other way round


@pytest.mark.parametrize(
    ("colors", "header"),
    [
        ([0x8000 | RED, 0x8000 | GREEN, 0x8000 | BLUE], b""),
        ([BLUE, GREEN, RED], b"COLOR=\x80\x80\x80\xff"),
        ([BLUE, GREEN, 0x8000], b"face COLOR=\x00\x00\xff\xff,MATERIAL="),  # the last has the colour of the file
    ],
)
def test_colours_of_triangles(tmp_path: Path, colors: list[int], header: bytes) -> None:
    path = tmp_path / "a.stl"
    path.write_bytes(binary(colors, header=header))
    mesh = read_surface(path)
    assert mesh.colors is not None
    found = {tuple(v): c for v, c in zip(mesh.vertices_mm.tolist(), mesh.colors.tolist(), strict=True)}
    assert found[(1, 1, 0.5)] == [0, 255, 0]  # of one triangle alone
    assert found[(-1, 0, 0.25)] == [0, 0, 255]
    assert found[(1, 0, 0)] == [128, 128, 0]  # between the first two
    assert found[(0, 1, 0)] == [85, 85, 85]


def test_colours_of_some_triangles_are_said(tmp_path: Path) -> None:
    path = tmp_path / "a.stl"
    path.write_bytes(binary([0x8000 | RED, 0, 0]))
    mesh = read_surface(path)
    assert mesh.colors is None and "some" in mesh.notes[0]


@pytest.mark.parametrize("file_type", ["stl", "stl_ascii"])
def test_what_trimesh_writes(tmp_path: Path, file_type: str) -> None:
    ball = trimesh.creation.icosphere(subdivisions=3, radius=100)
    path = tmp_path / "a.stl"
    ball.export(path, file_type=file_type)
    mesh = read_surface(path)
    assert len(mesh.vertices_mm) == len(ball.vertices)
    np.testing.assert_allclose(mesh.vertices_mm[mesh.triangles], ball.triangles, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (binary()[:-1], "promises 3 triangles"),
        (binary(header=b"solid x")[:-60], "promises 3 triangles"),
        (binary()[:80] + b"\0\0\0\0" + binary()[84:], "counts 0 triangles, 3 follow"),
        (binary() + bytes(50), "promises 3 triangles"),
        (bytes(range(80)) + bytes(4), "promises 0 triangles"),
        (text()[:-16].encode(), "endsolid"),
        (text().replace("vertex 0 1 0\n", "", 1).encode(), "8 vertices"),
        (text().replace("0.5", "0,5").encode(), "0,5"),
        (text().replace("0.5", "nan").encode(), "not finite"),
        (text().replace("vertex 1 1 0.5", "vertex 1 1").encode(), "8 vertices"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "a.stl"
    path.write_bytes(data)
    with pytest.raises(ScanError, match=message) as error:
        read_surface(path)
    assert "a.stl" in str(error.value)


def test_a_copy_that_ends_in_zeros_is_noted(tmp_path: Path) -> None:
    sphere = trimesh.creation.icosphere(3)
    data = sphere.export(file_type="stl")
    (tmp_path / "a.stl").write_bytes(data)
    assert read_surface(tmp_path / "a.stl").notes == ()
    (tmp_path / "a.stl").write_bytes(data[: -50 * 128] + bytes(50 * 128))
    (note,) = read_surface(tmp_path / "a.stl").notes
    assert note == "128 of 1280 triangles have no area; perhaps the file was not copied to its end"
