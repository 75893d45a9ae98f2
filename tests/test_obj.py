"""OBJ: every corner style and face size; textures only from the file's own folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from preprocess.readers.obj import read_obj
from preprocess.readers.surface import find_surface_files, read_surface
from shared.errors import ScanError

HEAD = b"v 0 0 0\nv 10 0 0\nv 10 10 0\nv 0 10 5\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nvn 0 0 1\n"
UV = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [np.nan, np.nan]], np.float32)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize(
    ("faces", "triangles", "uv"),
    [
        (b"f 1/1 2/2 3/3\n", [[0, 1, 2]], [[0, 1, 2]]),
        (b"f 1/1/1 2/2/1 3/3/1 4/4/1\n", [[0, 1, 2], [0, 2, 3]], [[0, 1, 2], [0, 2, 3]]),
        (b"f 1//1 2//1 3//1\n", [[0, 1, 2]], [[0, 1, 2]]),  # one vt a vertex: the vertex's own
        (b"f 4 2 3\n", [[3, 1, 2]], [[3, 1, 2]]),
        (b"f -4/-4 -3/-3 -2/-1\n", [[0, 1, 2]], [[0, 1, 3]]),
        (b"f 1 2 3\nf 1/4 2/2 3/3\n", [[0, 1, 2], [0, 1, 2]], [[4, 4, 4], [3, 1, 2]]),  # 4: without
        (
            b"g part\ns off\nusemtl x\nf 1/4 2/2 3/3 # a comment\n  f\t1/1  2/2 4/4 \n",
            [[0, 1, 2], [0, 1, 3]],
            [[3, 1, 2], [0, 1, 3]],
        ),
        (b"f 1/1 2/2 \\\n3/3\n", [[0, 1, 2]], [[0, 1, 2]]),
    ],
)
def test_corner_styles(tmp_path: Path, newline: bytes, faces: bytes, triangles: list, uv: list) -> None:
    mesh = read_obj(write(tmp_path / "a.obj", (HEAD + faces).replace(b"\n", newline)))
    assert mesh.triangles.tolist() == triangles
    np.testing.assert_array_equal(mesh.uv, UV[uv])
    assert len(mesh.vertices_mm) == 4


def test_negative_indices_count_from_where_they_stand(tmp_path: Path) -> None:
    data = b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf -3 -2 -1\nv 5 0 0\nf -3 -2 -1\n"
    assert read_obj(write(tmp_path / "a.obj", data)).triangles.tolist() == [[0, 1, 2], [1, 2, 3]]


def test_vertex_colours(tmp_path: Path) -> None:
    mesh = read_obj(write(tmp_path / "a.obj", b"v 0 0 0 1 0 0\nv 1 0 0 0 0.5 0\nv 0 1 0 0 0 1\nf 1 2 3\n"))
    assert mesh.colors is not None
    assert mesh.colors.tolist() == [[255, 0, 0], [0, 128, 0], [0, 0, 255]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (HEAD, "no faces"),
        (HEAD + b"f 1 2\n", "no faces"),
        (HEAD + b"f 1 2 5\n", "names vertex 5, there are 4"),
        (HEAD + b"f 1/1 2/2 3/9\n", "names texture coordinate 9, there are 4"),
        (HEAD + b"f 1 2 -9\n", "before the first"),
        (HEAD + b"f 0 1 2\n", "vertex before the first"),
        (HEAD + b"f 1/1/1/1 2 3\n", "corner"),
        (HEAD + b"f 1 2 x\n", "'x'"),
        (HEAD + b"v 1 2\nf 1 2 3\n", "different numbers"),
        (HEAD.replace(b"10 0 0", b"inf 0 0") + b"f 1 2 3\n", "different numbers|not finite"),
        (HEAD.replace(b"10 0 0", b"1e40 0 0") + b"f 1 2 3\n", "not finite"),
        (b"v 1 2\nv 1 2\nv 1 2\nf 1 2 3\n", "2 numbers per vertex"),
        (b"\0" * 100, "empty"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(ScanError, match=message) as error:
        read_obj(write(tmp_path / "a.obj", data))
    assert "a.obj" in str(error.value)


@given(place=st.integers(0, 200), byte=st.integers(0, 255), cut=st.booleans())
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_is_a_mesh_or_a_scan_error(tmp_path: Path, place: int, byte: int, cut: bool) -> None:
    data = bytearray(HEAD + b"mtllib a.mtl\nusemtl m\nf 1/1 2/2 3/3 4/4\nf 1/1/1 -2/2/1 3/3/1\n")
    place %= len(data)
    data[place] = byte
    message = "b.obj"
    try:
        read_obj(write(tmp_path / "b.obj", bytes(data[:place] if cut else data)))
    except ScanError as error:
        message = str(error)
    assert "b.obj" in message


def textured(folder: Path, material: str, obj: bytes = b"") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "a.mtl").write_text(material)
    return write(folder / "a.obj", b"mtllib a.mtl\n" + HEAD + (obj or b"usemtl m\nf 1/1 2/2 3/3\n"))


def test_the_texture_is_the_one_the_material_names(tmp_path: Path) -> None:
    (tmp_path / "in" / "maps").mkdir(parents=True)
    Image.new("RGB", (3, 2), (1, 2, 3)).save(tmp_path / "in" / "maps" / "the skin.png")
    for name in ("maps/the skin.png", "maps\\the skin.png", "-s 1 1 1 -clamp on ./maps/the skin.png"):
        path = textured(tmp_path / "in", f"newmtl other\nmap_Kd none.png\nnewmtl m\nKd 1 1 1\nmap_Kd {name}\n")
        texture = read_obj(path).texture
        assert texture is not None, name
        assert texture.shape == (2, 3, 3)
        assert texture[0, 0].tolist() == [1, 2, 3]
    assert [p.name for p in find_surface_files(path)] == ["a.obj", "a.mtl", "the skin.png"]


def test_a_material_that_names_nothing_names_no_texture(tmp_path: Path) -> None:
    for line in ("map_Kd", "map_Kd -s 1", "map_Kd -s 1 1 1", "map_Kd -o 0 .5", "map_Kd -clamp", "map_Kd -unheard-of"):
        path = textured(tmp_path / "in", f"newmtl m\n{line}\n")
        assert read_obj(path).texture is None, line
        assert [p.name for p in find_surface_files(path)] == ["a.obj", "a.mtl"]
    path = write(tmp_path / "in" / "b.obj", b"mtllib\nmtllib \n" + HEAD + b"usemtl\nf 1/1 2/2 3/3\n")
    assert read_obj(path).texture is None
    assert [p.name for p in find_surface_files(path)] == ["b.obj"]


def test_textures_elsewhere_are_not_opened(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "secret.png")
    for name in ("../secret.png", str(tmp_path / "secret.png"), "maps/../../secret.png", "http://x/secret.png", ".."):
        path = textured(tmp_path / "in", f"newmtl m\nmap_Kd {name}\n")
        assert read_obj(path).texture is None, name
        assert find_surface_files(path)[2:] == []
    (tmp_path / "out.mtl").write_text("newmtl m\nmap_Kd in.png\n")
    Image.new("RGB", (2, 2)).save(tmp_path / "in" / "in.png")
    write(tmp_path / "in" / "b.obj", b"mtllib ../out.mtl\n" + HEAD + b"usemtl m\nf 1/1 2/2 3/3\n")
    assert read_obj(tmp_path / "in" / "b.obj").texture is None


def test_another_computers_path_finds_the_file_beside(tmp_path: Path) -> None:
    path = textured(tmp_path / "in", "newmtl m\nmap_Kd C:\\scans\\Skin.PNG\n")
    Image.new("RGB", (2, 2), (5, 5, 5)).save(tmp_path / "in" / "skin.png")
    assert read_obj(path).texture is not None


def test_several_textures_and_broken_ones_are_refused(tmp_path: Path) -> None:
    materials = "newmtl m\nmap_Kd 1.png\nnewmtl n\nmap_Kd 2.png\n"
    path = textured(tmp_path / "in", materials, b"usemtl m\nf 1/1 2/2 3/3\nusemtl n\nf 1/1 2/2 4/4\n")
    (tmp_path / "in" / "1.png").write_bytes(b"no image")
    with pytest.raises(ScanError, match=r"1\.png: not a readable image"):
        read_obj(path)
    for name in ("1.png", "2.png"):
        Image.new("RGB", (2, 2)).save(tmp_path / "in" / name)
    with pytest.raises(ScanError, match="2 textures"):
        read_obj(path)


@pytest.mark.skipif("FACET_FACES" not in os.environ, reason="FACET_FACES names the folder of real scans")
def test_real_scan_agrees_with_open3d() -> None:
    """The published counts, and every corner where Open3D's own reader puts it."""
    import open3d

    path = Path(os.environ["FACET_FACES"]) / "james" / "james.obj"
    mesh = read_obj(path)
    assert (len(mesh.vertices_mm), len(mesh.triangles)) == (6393, 12228)
    assert mesh.texture is not None
    assert mesh.texture.shape == (1600, 2400, 3)
    other = open3d.io.read_triangle_mesh(str(path))  # type: ignore[arg-type]
    corners = np.asarray(other.vertices)[np.asarray(other.triangles)]
    np.testing.assert_allclose(mesh.vertices_mm[mesh.triangles], corners, atol=1e-4)
    assert mesh.uv is not None
    np.testing.assert_allclose(mesh.uv, np.asarray(other.triangle_uvs).reshape(-1, 3, 2), atol=1e-6)


def grid_obj(side: int = 30) -> bytes:
    """A square of quads, row by row, as scanners write them."""
    points = [f"v {k % side} {k // side} 0\n" for k in range(side * side)]
    corners = [row * side + column for row in range(1, side) for column in range(1, side)]
    faces = [f"f {k - side} {k - side + 1} {k + 1} {k}\n" for k in corners]
    return "".join([*points, *faces]).encode()


def test_a_file_that_was_not_copied_to_its_end(tmp_path: Path) -> None:
    whole, path = grid_obj(), tmp_path / "a.obj"
    assert read_surface(write(path, whole)).notes == ()
    assert read_surface(write(path, whole.rstrip())).notes == ()  # some programs end without a line feed
    assert read_surface(write(path, whole + b"\0")).notes == ()  # and some with a zero
    half = whole[: whole.rindex(b"\n", 0, len(whole) * 3 // 4)]
    for cut in (half, half + b"\nf 12", whole + b"f 1", whole + b"f 1 2"):
        with pytest.raises(ScanError, match=r"a\.obj: ends in the middle of a line, and no face names its last \d+"):
            read_surface(write(path, cut))
    (note,) = read_surface(
        write(path, half + b"\n")
    ).notes  # at the end of a line: perhaps the vertices are just not used
    assert "vertices; perhaps the file is cut off" in note
    with pytest.raises(ScanError, match=rf"a\.obj: a zero byte in a text, at byte {len(half)}; .* copy it again"):
        read_surface(write(path, half + bytes(len(whole) - len(half))))
