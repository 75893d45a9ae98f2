"""VRML: every layout that face scanners write reads back alike; every damage is a ScanError that names the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preprocess.geometry.mesh import Mesh
from preprocess.readers.surface import read_surface
from preprocess.readers.vrml import read_vrml
from shared.errors import ScanError

VERTICES = np.array([[-50.5, 0, 1e-3], [50, -1.25, 0], [0, 60, 0], [0, 20, 33.125]], np.float32)
TRIANGLES = np.array([[0, 1, 3], [1, 2, 3], [2, 0, 3]])
UV_POINTS = np.array([[0, 0], [1, 0], [0.5, 1], [0.5, 0.25], [0.125, 0.75]], np.float32)
UV_INDEX = np.array([[0, 1, 3], [1, 2, 3], [4, 0, 3]])


def write_wrl(
    path: Path,
    *,
    commas: bool = False,
    inline: bool = False,
    newline: str = "\n",
    comments: bool = False,
    uv: str = "index",  # "none", "points": without texCoordIndex
    last_mark: bool = True,
    polygons: list[list[int]] | None = None,
    uv_polygons: list[list[int]] | None = None,
    uv_points: np.ndarray = UV_POINTS,
    vertices: np.ndarray = VERTICES,
) -> Path:
    """The styles of BU-3DFE (blanks, `point [` on a line of its own) and BU-4DFE (commas, inline), freely mixed."""
    polygons = polygons if polygons is not None else TRIANGLES.tolist()
    uv_polygons = uv_polygons if uv_polygons is not None else UV_INDEX.tolist()

    def block(head: str, name: str, rows: list[str]) -> str:
        opening = f"{head} {{{' ' if inline else chr(10)}{name} [" if head else f"{name} ["
        note = " # a ] in a comment\n" if comments else "\n"
        return f"{opening}{note}" + "\n".join(rows) + ("] }\n" if head and inline else "\n]\n" + "}\n" * bool(head))

    def points(table: np.ndarray) -> list[str]:
        rows = [" ".join(repr(float(x)) for x in row) for row in table]
        return [row + "," for row in rows[:-1]] + rows[-1:]

    def indices(faces: list[list[int]]) -> list[str]:
        rows = [(",".join(map(str, f)) + ",-1," if commas else " ".join(map(str, f)) + " -1,") for f in faces]
        if not last_mark:
            rows[-1] = rows[-1].replace(",-1,", "").replace(" -1,", "")
        return rows

    text = "#VRML V2.0 utf8\n# written by a test\nShape {\nappearance Appearance {\n"
    text += 'texture ImageTexture { url "face.bmp" repeatS FALSE }\n}\ngeometry IndexedFaceSet {\nsolid FALSE\n'
    text += block("coord Coordinate", "point", points(vertices))
    text += block("", "coordIndex", indices(polygons))
    if uv != "none":
        text += block("texCoord TextureCoordinate", "point", points(uv_points))
    if uv == "index":
        text += block("", "texCoordIndex", indices(uv_polygons))
    text += "}\n}\n"
    path.write_bytes(text.replace("\n", newline).encode())
    return path


def check_default(mesh: Mesh) -> None:
    assert mesh.notes == ("names the texture 'face.bmp', which is not in its folder or below",)
    np.testing.assert_array_equal(mesh.vertices_mm, VERTICES)
    np.testing.assert_array_equal(mesh.triangles, TRIANGLES)


@given(
    commas=st.booleans(),
    inline=st.booleans(),
    newline=st.sampled_from(["\n", "\r\n"]),
    comments=st.booleans(),
    last_mark=st.booleans(),
    uv=st.sampled_from(["none", "index"]),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_style_reads_alike(
    tmp_path: Path, commas: bool, inline: bool, newline: str, comments: bool, last_mark: bool, uv: str
) -> None:
    path = write_wrl(
        tmp_path / "a.wrl", commas=commas, inline=inline, newline=newline, comments=comments, last_mark=last_mark, uv=uv
    )
    mesh = read_vrml(path)
    check_default(mesh)
    if uv == "none":
        assert mesh.uv is None
    else:
        np.testing.assert_array_equal(mesh.uv, UV_POINTS[UV_INDEX])


@given(
    vertices=st.lists(st.tuples(*[st.floats(-1e6, 1e6, width=32)] * 3), min_size=3, max_size=30),
    data=st.data(),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip_of_any_mesh(tmp_path: Path, vertices: list[tuple[float, ...]], data: st.DataObject) -> None:
    index = st.integers(0, len(vertices) - 1)
    polygons = data.draw(st.lists(st.lists(index, min_size=3, max_size=6), min_size=1, max_size=20))
    table = np.array(vertices, np.float32)
    path = write_wrl(tmp_path / "a.wrl", vertices=table, polygons=polygons, uv="none", commas=data.draw(st.booleans()))
    mesh = read_vrml(path)
    np.testing.assert_array_equal(mesh.vertices_mm, table)
    owner = np.repeat(np.arange(len(polygons)), [len(polygon) - 2 for polygon in polygons])
    assert len(owner) == len(mesh.triangles)
    for k, polygon in enumerate(polygons):
        own = mesh.triangles[owner == k]
        assert own.tolist() == [polygon] if len(polygon) == 3 else {*own.ravel()} == {*polygon}


def test_texture_coordinates_without_their_index_use_the_vertices(tmp_path: Path) -> None:
    mesh = read_vrml(write_wrl(tmp_path / "a.wrl", uv="points", uv_points=UV_POINTS[:4]))
    np.testing.assert_array_equal(mesh.uv, UV_POINTS[TRIANGLES])


def test_quads_with_texture_coordinates(tmp_path: Path) -> None:
    flat = np.array([[0, 0, 0], [10, 0, 0], [10, 10, 0], [0, 10, 0]], np.float32)
    polygons, uv_polygons = [[0, 1, 2, 3], [0, 1, 2]], [[3, 2, 1, 0], [4, 4, 0]]
    path = write_wrl(tmp_path / "a.wrl", vertices=flat, polygons=polygons, uv_polygons=uv_polygons)
    mesh = read_vrml(path)
    assert mesh.triangles.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 2]]
    np.testing.assert_array_equal(mesh.uv, UV_POINTS[[[3, 2, 1], [3, 1, 0], [4, 4, 0]]])


@pytest.mark.parametrize("commas", [False, True])
def test_every_truncation_is_a_scan_error(tmp_path: Path, commas: bool) -> None:
    whole = write_wrl(tmp_path / "a.wrl", commas=commas, inline=commas, comments=True).read_bytes()
    cut = tmp_path / "cut.wrl"
    end = whole.rstrip().rfind(b"}")  # without the last brace it is not whole
    for length in range(end + 1):
        cut.write_bytes(whole[:length])
        with pytest.raises(ScanError, match=r"cut\.wrl"):
            read_vrml(cut)


@given(place=st.integers(0, 900), byte=st.integers(0, 255))
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_changed_byte_is_a_mesh_or_a_scan_error(tmp_path: Path, place: int, byte: int) -> None:
    data = bytearray(write_wrl(tmp_path / "a.wrl").read_bytes())
    data[place % len(data)] = byte
    path = tmp_path / "b.wrl"
    path.write_bytes(data)
    message = "b.wrl"
    try:
        assert len(read_vrml(path).triangles)
    except ScanError as error:
        message = str(error)
    assert "b.wrl" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((b"0 1 3 -1", b"0 1 4 -1"), "names point 4, there are 4"),
        ((b"0 1 3 -1", b"0 1 999999999999999999999 -1"), "there are 4"),
        ((b"0 1 3 -1", b"0 1 -3 -1"), "names point -3"),
        ((b"60.0", b"nan"), "not finite"),
        ((b"60.0", b"1e39"), "not finite"),
        ((b"60.0", b"6O.0"), "found '6O.0'"),
        ((b"60.0", b"60.0 1.0"), "expected 3 a point"),
        ((b"Coordinate {", b"Other {"), "expected Coordinate"),
        ((b"#VRML", b"\x1f\x8b"), "gunzip"),
        ((b'"face.bmp"', b'"face.bmp'), "closing quote"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, change: tuple[bytes, bytes], message: str) -> None:
    path = write_wrl(tmp_path / "a.wrl")
    data = path.read_bytes()
    assert change[0] in data
    path.write_bytes(data.replace(*change, 1))
    with pytest.raises(ScanError, match=message) as error:
        read_vrml(path)
    assert "a.wrl" in str(error.value)


def test_two_surfaces_are_refused(tmp_path: Path) -> None:
    path = write_wrl(tmp_path / "a.wrl")
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(ScanError, match="more than one surface"):
        read_vrml(path)


def test_a_missing_file_and_a_folder_are_scan_errors(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="no such file"):
        read_vrml(tmp_path / "none.wrl")
    with pytest.raises(ScanError, match="not a file"):
        read_vrml(tmp_path)


def test_the_named_texture_is_never_taken_from_elsewhere(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "in").mkdir()
    Image.new("RGB", (2, 2), (9, 8, 7)).save(tmp_path / "secret.bmp")
    path = write_wrl(tmp_path / "in" / "a.wrl")
    for name in ("../secret.bmp", str(tmp_path / "secret.bmp"), "file:///secret.bmp"):
        path.write_bytes(path.read_bytes().replace(b"face.bmp", name.encode()))
        assert read_surface(path).texture is None
        path = write_wrl(path)
    Image.new("RGB", (2, 2), (1, 2, 3)).save(tmp_path / "in" / "FACE.BMP")
    texture = read_surface(path).texture
    assert texture is not None
    assert texture[0, 0].tolist() == [1, 2, 3]


def test_a_dense_scan_reads_whole(tmp_path: Path) -> None:
    """35,000 vertices as BU-4DFE has them: the fast path for triangles gives what the file says."""
    rng = np.random.default_rng(0)
    vertices = rng.normal(0, 60, (35_000, 3)).astype(np.float32)
    triangles = rng.integers(0, len(vertices), (70_000, 3))
    path = write_wrl(
        tmp_path / "a.wrl", vertices=vertices, polygons=triangles.tolist(), uv="none", commas=True, inline=True
    )
    mesh = read_vrml(path)
    np.testing.assert_array_equal(mesh.vertices_mm, vertices)
    np.testing.assert_array_equal(mesh.triangles, triangles)
