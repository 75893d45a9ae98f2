"""PLY, OFF and VRML as several programs write them: read right, or one line that names what it is and what to do."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocess.geometry.mesh import Mesh
from preprocess.readers.surface import find_surface_files, read_surface
from shared.errors import ScanError

POINTS = [(0, 0, 0), (10, 0, 0), (10, 10, 0), (0, 10, 5)]
UV = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)


def read(folder: Path, name: str, data: bytes | str) -> Mesh:
    """A file beside two images, skin.png and other.png."""
    for k, image in enumerate(("skin.png", "other.png")):
        Image.new("RGB", (2, 2), (k, k, k)).save(folder / image)
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_surface(folder / name)


def ply(
    comments: str = "comment TextureFile skin.png\n",
    *,
    color: str = "",
    colors: tuple[str, ...] = ("", "", "", ""),
    face: str = "property list uchar float texcoord\n",
    faces: tuple[str, ...] = ("3 0 1 2 6 0 0 1 0 1 1", "3 0 2 3 6 0 0 1 1 0 1"),
) -> str:
    names = ("red", "green", "blue", "alpha")[: len(colors[0].split())]
    return (
        f"ply\nformat ascii 1.0\n{comments}element vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
        + "".join(f"property {color} {name}\n" for name in names)
        + f"element face {len(faces)}\nproperty list uchar int vertex_indices\n{face}end_header\n"
        + "".join(f"{x} {y} {z} {rgb}\n" for (x, y, z), rgb in zip(POINTS, colors, strict=True))
        + "".join(f"{row}\n" for row in faces)
    )


@pytest.mark.parametrize(
    "comments",
    [
        *("comment TextureFile skin.png\n", "comment TEXTUREFILE skin.png\n", "comment texturefile: skin.png\n"),
        *("obj_info TextureFile skin.png\n", "comment\tTextureFile\tSKIN.PNG\n", 'comment TextureFile "skin.png"\n'),
        "comment TextureFile skin.png\ncomment TextureFile skin.png\n",
    ],
)
def test_ply_names_its_texture_in_several_ways(tmp_path: Path, comments: str) -> None:
    mesh = read(tmp_path, "a.ply", ply(comments))
    assert mesh.texture is not None
    assert mesh.notes == ()
    assert [file.name for file in find_surface_files(tmp_path / "a.ply")] == ["a.ply", "skin.png"]


def test_ply_in_utf16(tmp_path: Path) -> None:
    assert read(tmp_path, "a.ply", ply().encode("utf-16")).texture is not None


def test_ply_names_in_utf8_are_not_cut(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "Åsa.png")  # its second byte, 0x85, is a line end in Latin-1
    assert read(tmp_path, "a.ply", ply("comment TextureFile Åsa.png\n")).texture is not None


def test_ply_of_two_textures(tmp_path: Path) -> None:
    comments = "comment TextureFile other.png\ncomment TextureFile skin.png\n"
    face = "property list uchar float texcoord\nproperty int texnumber\n"

    def faces(first: int, second: int) -> tuple[str, ...]:
        return (f"3 0 1 2 6 0 0 1 0 1 1 {first}", f"3 0 2 3 6 0 0 1 1 0 1 {second}")

    for numbers in ((0, 1), (0, 2), (5, 5)):
        with pytest.raises(ScanError, match=r"a\.ply: painted with 2 textures"):
            read(tmp_path, "a.ply", ply(comments, face=face, faces=faces(*numbers)))
    with pytest.raises(ScanError, match=r"a\.ply: painted with 2 textures"):
        read(tmp_path, "a.ply", ply(comments))
    mesh = read(tmp_path, "a.ply", ply(comments, face=face, faces=faces(1, 1)))
    assert mesh.texture is not None
    assert mesh.texture[0, 0].tolist() == [0, 0, 0]  # skin.png, the second
    mesh = read(tmp_path, "a.ply", ply(comments, face=face, faces=faces(0, -1)))
    assert mesh.texture is not None
    assert mesh.texture[0, 0].tolist() == [1, 1, 1]
    assert mesh.uv is not None
    assert np.isnan(mesh.uv[:, 0, 0]).tolist() == [False, True]
    assert len(find_surface_files(tmp_path / "a.ply")) == 3


def test_ply_faces_without_texture_coordinates(tmp_path: Path) -> None:
    mesh = read(tmp_path, "a.ply", ply(faces=("3 0 1 2 6 0 0 1 0 1 1", "3 0 2 3 0")))
    np.testing.assert_array_equal(mesh.uv, [UV[[0, 1, 2]], np.full((3, 2), np.nan)])
    assert mesh.notes == ()
    mesh = read(tmp_path, "a.ply", ply(faces=("3 0 1 2 6 0 0 1 0 1 1", "3 0 2 3 4 0 0 1 1")))
    assert "1 of its 2 faces" in mesh.notes[0]
    mesh = read(tmp_path, "a.ply", ply(face="", faces=("3 0 1 2", "3 0 2 3")))
    assert "no texture coordinates" in mesh.notes[0]
    assert "'none.png'" in read(tmp_path, "a.ply", ply("comment TextureFile none.png\n")).notes[0]


@pytest.mark.parametrize("kind", ["uchar", "ushort", "float", "int", "double"])
@pytest.mark.parametrize("levels", [255, 1, 65535])
def test_colours_by_their_range(tmp_path: Path, kind: str, levels: int) -> None:
    if (levels == 1) != (kind in ("float", "double")) and levels != 255:
        return
    colors = (f"{levels} 0 0", f"0 {levels} 0", f"0 0 {levels}", "0 0 0")
    mesh = read(tmp_path, "a.ply", ply("", color=kind, colors=colors, face="", faces=("3 0 1 2", "3 0 2 3")))
    if levels == 65535 and kind != "ushort":
        assert mesh.colors is None
        assert "reach 65535" in mesh.notes[0]
        return
    assert mesh.colors is not None
    assert mesh.colors.tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0]]
    assert mesh.notes == ()


@pytest.mark.parametrize(
    ("colors", "expected"),
    [
        (("255 0 0", "0 128 0", "0 0 0", "1 1 1"), [[255, 0, 0], [0, 128, 0], [0, 0, 0], [1, 1, 1]]),
        (("1 0 0", "0 .5 0", "0 0 0", "1.002 1 1"), [[255, 0, 0], [0, 128, 0], [0, 0, 0], [255, 255, 255]]),
        (("126.6 97 81", "0 0 0", "0 0 0", "255 0 0"), [[127, 97, 81], [0, 0, 0], [0, 0, 0], [255, 0, 0]]),
        (("1 1 0 0", "1 0 1 0", "1 0 0 1", "1 0 0 0"), [[255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0]]),  # w
        (("1 0 0 1", "0 1 0 1", "0 0 1 1", "0 0 0 1"), [[255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0]]),  # alpha
        (("300 0 0", "0 0 0", "0 0 0", "0 0 0"), None),
        (("nan 0 0", "0 0 0", "0 0 0", "0 0 0"), None),
    ],
)
def test_obj_colours(tmp_path: Path, colors: tuple[str, ...], expected: list | None) -> None:
    rows = "".join(f"v {x} {y} {z} {rgb}\n" for (x, y, z), rgb in zip(POINTS, colors, strict=True))
    mesh = read(tmp_path, "a.obj", f"{rows}f 1 2 3 4\n")
    assert (None if mesh.colors is None else mesh.colors.tolist()) == expected
    assert len(mesh.notes) == (expected is None)


def test_obj_colours_of_zbrush(tmp_path: Path) -> None:
    rows = "# Exported by a program\n" + "".join(f"v {x} {y} {z}\n" for x, y, z in POINTS) + "f 1 2 3 4\n"
    mesh = read(tmp_path, "a.obj", rows + "#MRGB ffff0000ff00ff00\n#MRGB ff0000ffff010203\n")
    assert mesh.colors is not None
    assert mesh.colors.tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255], [1, 2, 3]]
    mesh = read(tmp_path, "a.obj", rows + "#MRGB ffff0000ff00ff00\n")
    assert mesh.colors is None
    assert "#MRGB" in mesh.notes[0]


def test_colours_of_faces_and_transparency_are_noted(tmp_path: Path) -> None:
    face = "property uchar red\nproperty uchar green\nproperty uchar blue\n"
    for second, noted in (("1 2 3", True), ("9 9 9", False)):
        mesh = read(tmp_path, "a.ply", ply("", face=face, faces=("3 0 1 2 9 9 9", f"3 0 2 3 {second}")))
        assert any("faces have colours" in note for note in mesh.notes) == noted
    for last, noted in (("9", True), ("255", False)):
        colors = ("1 2 3 255", "1 2 3 255", "1 2 3 255", f"1 2 3 {last}")
        mesh = read(tmp_path, "a.ply", ply("", color="uchar", colors=colors, face="", faces=("3 0 1 2",)))
        assert any("alpha" in note for note in mesh.notes) == noted


@pytest.mark.parametrize("style", ["ascii", "binary"])
@pytest.mark.parametrize("newline", ["\r", "\r\n", "\n"])
def test_ply_line_ends(tmp_path: Path, style: str, newline: str) -> None:
    text = ply("", face="", faces=("3 0 1 2", "3 0 2 3"))
    if style == "ascii":
        mesh = read(tmp_path, "a.ply", text.replace("\n", newline))
    else:
        header = text[: text.index("end_header\n") + 11].replace("ascii", "binary_little_endian").replace("\n", newline)
        points = np.array(POINTS, "<f4")
        points[0, 0] = np.frombuffer(b"\n\n\0\0", "<f4")[0]  # the first byte of the rows looks like a line end
        face = np.array([(3, (0, 1, 2)), (3, (0, 2, 3))], [("n", "u1"), ("v", "<i4", 3)])
        mesh = read(tmp_path, "a.ply", header.encode() + points.tobytes() + face.tobytes())
    np.testing.assert_allclose(mesh.vertices_mm, POINTS, atol=1e-30)


OFF_POINTS = ("0 0 0", "10 0 0", "10 10 0", "0 10 5")


def off(
    keyword: str, rows: tuple[str, ...] = OFF_POINTS, counts: str = "\n4 2 0\n", faces: str = "3 0 1 2\n3 0 2 3\n"
) -> str:
    return f"{keyword}{counts}" + "".join(f"{row}\n" for row in rows) + faces


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "text",
    [
        *(off("OFF"), off("OFF", counts="4 2 0\n"), off("OFF", counts=" 4 2 0\n"), off("OFF", counts="\t4\t2\n")),
        *(
            off("off"),
            off("", counts="4 2 0\n"),
            off("\ufeffOFF"),
            off("# made by\nOFF # text\n"),
            off("OFF", counts="\n\n4 2\n"),
        ),
    ],
)
def test_off_keywords_and_counts(tmp_path: Path, text: str, newline: str) -> None:
    mesh = read(tmp_path, "a.off", text.replace("\n", newline))
    np.testing.assert_array_equal(mesh.vertices_mm, POINTS)
    assert mesh.triangles.tolist() == [[0, 1, 2], [0, 2, 3]]
    assert mesh.notes == ()


def test_off_with_normals_colours_and_texture_coordinates(tmp_path: Path) -> None:
    rows = tuple(f"{p} 0 0 1 0.2 0.4 1 1 {u} {v}" for p, (u, v) in zip(OFF_POINTS, UV, strict=True))
    mesh = read(tmp_path, "a.off", off("STCNOFF", rows))
    np.testing.assert_array_equal(mesh.colors, [[51, 102, 255]] * 4)
    np.testing.assert_array_equal(mesh.uv, UV[[[0, 1, 2], [0, 2, 3]]])
    assert read_surface(tmp_path / "a.off", texture=tmp_path / "skin.png").texture is not None
    mesh = read(tmp_path, "a.off", off("NOFF", tuple(f"{p} 0 0 1" for p in OFF_POINTS)))
    assert (mesh.colors, mesh.uv, mesh.notes) == (None, None, ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (off("OFF BINARY"), "binary OFF"),
        (off("4OFF"), "4OFF: vertices that are not x y z"),
        (off("nOFF"), "nOFF"),
        (off("OFFSET"), "expected OFF"),
        (off("OFF", ("0,5 0 0", *OFF_POINTS[1:])), "'0,5' has a decimal comma"),
    ],
)
def test_off_that_is_not_read(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ScanError, match=message):
        read(tmp_path, "a.off", text)


def test_what_off_holds_beyond_its_keyword_is_noted(tmp_path: Path) -> None:
    assert "COFF" in read(tmp_path, "a.off", off("OFF", tuple(f"{p} 9 9 9 255" for p in OFF_POINTS))).notes[0]
    assert "faces have colours" in read(tmp_path, "a.off", off("OFF", faces="3 0 1 2 9 9 9\n3 0 2 3 1 1 1\n")).notes[0]
    assert read(tmp_path, "a.off", off("OFF", faces="3 0 1 2 9 9 9\n3 0 2 3 9 9 9\n")).notes == ()


def wrl(
    *,
    head: str = "#VRML V2.0 utf8\n",
    before: str = "Shape {",
    texture: str = 'ImageTexture { url "skin.png" }',
    more: str = "",
    geometry: str = "",
    after: str = "}",
    points: str = "0 0 0, 10 0 0, 10 10 0, 0 10 5",
) -> str:
    return (
        f"{head}{before} appearance Appearance {{ texture {texture} {more} }} geometry IndexedFaceSet {{ {geometry}\n"
        f"coord Coordinate {{ point [ {points} ] }} coordIndex [ 0 1 2 -1 0 2 3 -1 ]\n"
        f"texCoord TextureCoordinate {{ point [ 0 0, 1 0, 1 1, 0 1 ] }} }} {after}\n"
    )


def test_vrml_texture_names(tmp_path: Path) -> None:
    (tmp_path / "l\xe4cheln 1.png").symlink_to("skin.png")
    for url in (
        '"skin.png"',
        '[ "none.png", "skin.png" ]',
        '["skin.png"]',
        '"l%C3%A4cheln%201.png"',
        '"maps\\\\skin.png"',
    ):
        mesh = read(tmp_path, "a.wrl", wrl(texture=f"ImageTexture {{ url {url} }}"))
        assert mesh.texture is not None, url
        assert mesh.notes == ()
        assert find_surface_files(tmp_path / "a.wrl")[1].resolve() == (tmp_path / "skin.png").resolve()


def test_vrml_texture_transform(tmp_path: Path) -> None:
    """The standard's own matrices, −C × S × R × C × T, multiplied out."""
    fields = "translation 0.1 0.2 scale 2 0.5 rotation 0.3 center 0.5 0.25"
    mesh = read(tmp_path, "a.wrl", wrl(more=f"textureTransform TextureTransform {{ {fields} }}"))

    def shift(x: float, y: float) -> np.ndarray:
        return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])

    turn = np.array([[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0], [0, 0, 1]])
    matrix = shift(-0.5, -0.25) @ np.diag([2, 0.5, 1]) @ turn @ shift(0.5, 0.25) @ shift(0.1, 0.2)
    moved = (np.c_[UV, np.ones(4)] @ matrix.T)[:, :2]
    assert mesh.uv is not None
    np.testing.assert_allclose(mesh.uv, moved[[[0, 1, 2], [0, 2, 3]]], atol=1e-6)


def test_vrml_colours_of_vertices(tmp_path: Path) -> None:
    levels = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128]]
    color = "color Color { color [ 1 0 0, 0 1 0, 0 0 1, .5 .5 .5 ] }"
    for more, expected, noted in (
        ("", levels, False),
        ("colorPerVertex TRUE colorIndex [ 3 2 1 -1 3 1 0 -1 ]", levels[::-1], False),
        ("colorIndex [ 0 1 2 -1 3 2 1 -1 ]", None, True),
        ("colorPerVertex FALSE", None, True),
    ):
        mesh = read(tmp_path, "a.wrl", wrl(texture="NULL", geometry=f"{color} {more}"))
        assert (None if mesh.colors is None else mesh.colors.tolist()) == expected
        assert bool(mesh.notes) == noted
    with pytest.raises(ScanError, match=r"a\.wrl: colorIndex names point 4"):
        read(tmp_path, "a.wrl", wrl(geometry=f"{color} colorIndex [ 0 1 4 -1 0 1 2 -1 ]"))


@pytest.mark.parametrize(
    ("scene", "said"),
    [
        ({"texture": 'ImageTexture { url "none.png" }'}, "'none.png'"),
        ({"texture": "PixelTexture { image 1 1 1 0xFF }"}, "PixelTexture"),
        ({"before": "Transform { rotation 0 1 0 .5 children Shape {", "after": "} }"}, "Transform (rotation)"),
        ({"before": "Transform { scale 1 1 2 children [ Shape {", "after": "} ] }"}, "Transform (scale)"),
        ({"after": "} Shape { geometry Sphere { radius 1 } }"}, "Sphere"),
        ({"after": '} Inline { url "body.wrl" }'}, "Inline 'body.wrl'"),
        ({"before": "DEF S Shape {", "after": "} Transform { children [ USE S ] }"}, "USE"),
        ({"texture": 'ImageTexture { url "skin.png" repeatS FALSE }',
          "more": "textureTransform TextureTransform { scale 2 2 }"}, "border"),
    ],
)  # fmt: skip
def test_what_vrml_asks_for_and_is_not_drawn_is_noted(tmp_path: Path, scene: dict[str, str], said: str) -> None:
    mesh = read(tmp_path, "a.wrl", wrl(**scene))
    assert len(mesh.notes) == 1
    assert said in mesh.notes[0]


def test_vrml_that_moves_nothing_is_not_noted(tmp_path: Path) -> None:
    before = "Transform { rotation 0 0 1 0 translation 0 0 0 scale 1 1 1 children DEF S Shape {"
    mesh = read(tmp_path, "a.wrl", wrl(before=before, after="} } Viewpoint { orientation 0 1 0 3 position 1 2 3 }"))
    assert mesh.notes == ()
    np.testing.assert_array_equal(read(tmp_path, "a.wrl", wrl().replace("\n", "\r")).vertices_mm, POINTS)
    np.testing.assert_array_equal(read(tmp_path, "a.wrl", b"\xef\xbb\xbf" + wrl().encode()).vertices_mm, POINTS)


def test_vrml_of_other_kinds(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match=r"a\.wrl: a file of VRML 1\.0; convert it to VRML 97"):
        read(tmp_path, "a.wrl", wrl(head="#VRML V1.0 ascii\n"))
    for points in (
        "0,5 0 0 10 0,25 0 10 10 0 0 10 5,0",
        "0,5,1,5,2,5,10,0,1,0,2,0,7,0,8,0,9,0,1,0,2,0,5,0",
        "0,5 0 0, 10 0 0, 10 10 0, 0 10 5",
        "0,5, 0,0, 0,0, 10,1, 0,0, 0,0, 1,1, 1,2, 0,3, 7,8, 9,0, 2,0",
    ):
        with pytest.raises(ScanError, match="has a decimal comma"):
            read(tmp_path, "a.wrl", wrl(points=points))
    for points in ("0,0,0,10,0,0,10,10,0,0,10,5", "0,0,0, 10,0,0, 10,10,0, 0,10,5", "0 0 0,10 0 0,10 10 0,0 10 5"):
        np.testing.assert_array_equal(read(tmp_path, "a.wrl", wrl(points=points)).vertices_mm, POINTS)


@pytest.mark.parametrize(("suffix", "row"), [("obj", "v 1,5 2,5 3,5\n"), ("ply", ply().replace("10 0 0", "1,5 0 0"))])
def test_decimal_commas(tmp_path: Path, suffix: str, row: str) -> None:
    with pytest.raises(ScanError, match="'1,5' has a decimal comma"):
        read(tmp_path, f"a.{suffix}", row)


def packed() -> dict[str, bytes]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as parts:
        parts.writestr("a.obj", "v 0 0 0")
    return {
        "gzip": gzip.compress(b"v 0 0 0\n"),
        "ZIP": archive.getvalue(),
        "bzip2": bz2.compress(b"v 0 0 0\n"),
        "xz": lzma.compress(b"v 0 0 0\n"),
        "7z": b"7z\xbc\xaf\x27\x1c" + bytes(40),
        "RAR": b"Rar!\x1a\x07\x01\0" + bytes(40),
        "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
        "web page": b"<!DOCTYPE html><html><body>Please log in</body></html>",
    }


@pytest.mark.parametrize("suffix", ["obj", "ply", "stl", "glb", "wrl", "off", "png", "gz"])
@pytest.mark.parametrize("kind", packed())
def test_what_is_packed_is_named(tmp_path: Path, suffix: str, kind: str) -> None:
    data = packed()[kind]
    (tmp_path / f"a.{suffix}").write_bytes(data)
    path = tmp_path / f"a.{suffix}"
    if suffix == "png":
        path = tmp_path / "a.obj"
        path.write_text("mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nusemtl m\nf 1/1 2/1 3/1\n")
        (tmp_path / "a.mtl").write_text("newmtl m\nmap_Kd a.png\n")
    with pytest.raises(ScanError, match=rf"a\.{suffix}: .*{kind}"):
        read_surface(path)


@pytest.mark.parametrize(
    ("suffix", "data", "kind"),
    [("obj", ply(), "PLY"), ("ply", wrl(), "VRML"), ("wrl", off("OFF"), "OFF"), ("off", b"\x89PNG\r\n\x1a\n", "PNG"),
     ("obj", b"\xff\xd8\xff\xe0 a picture", "JPEG"), ("ply", b"glTF\2\0\0\0", "GLB"),
     ("wrl", "mtllib a.mtl\nv 0 0 0\n", "OBJ")],
)  # fmt: skip
def test_another_format_under_the_name_is_named(tmp_path: Path, suffix: str, data: bytes | str, kind: str) -> None:
    with pytest.raises(ScanError, match=rf"a\.{suffix}: its content is .*{kind}"):
        read(tmp_path, f"a.{suffix}", data)
