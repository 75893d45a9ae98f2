"""What an OBJ file's materials say of its triangles: textures, colours, and notes on what is not drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocess.readers.mtl import read_materials
from preprocess.readers.obj import read_obj
from preprocess.readers.surface import find_surface_files
from shared.errors import ScanError

QUAD = "v 0 0 0\nv 10 0 0\nv 10 10 0\nv 0 10 5\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
CORNERS = np.array([[[0, 0], [1, 0], [1, 1]], [[0, 0], [1, 1], [0, 1]]], np.float32)
FIRST, SECOND, SECOND_BARE = "f 1/1 2/2 3/3\n", "f 1/1 3/3 4/4\n", "f 1 3 4\n"


def scan(folder: Path, obj: str, **files: str | bytes) -> Path:
    """a.obj, an image face.png, and other files, `_` in their names a point."""
    Image.new("RGB", (2, 2), (1, 2, 3)).save(folder / "face.png")
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_bytes(text if isinstance(text, bytes) else text.encode())
    (folder / "a.obj").write_text(obj)
    return folder / "a.obj"


@pytest.mark.parametrize(
    "line",
    [
        *("a.mtl b.mtl", "b.mtl a.mtl", "none.mtl b.mtl", "b.mtl", '"b.mtl"', "./b.mtl", "B.MTL", "sub\\..\\b.mtl"),
        *("\tb.mtl ", "none.mtl\nmtllib b.mtl"),
    ],
)
def test_every_file_of_a_mtllib_line_is_read(tmp_path: Path, line: str) -> None:
    path = scan(
        tmp_path,
        f"mtllib {line}\n{QUAD}usemtl m\n{FIRST}",
        a_mtl="newmtl x\nKd 1 1 1\n",
        b_mtl="newmtl m\nmap_Kd face.png\n",
    )
    mesh = read_obj(path)
    assert mesh.texture is not None
    assert [note for note in mesh.notes if "none.mtl" not in note] == []
    assert any("'none.mtl'" in note for note in mesh.notes) == ("none" in line)
    assert {file.name for file in find_surface_files(path)} >= {"a.obj", "b.mtl", "face.png"}


def test_material_files_whose_names_have_blanks(tmp_path: Path) -> None:
    (tmp_path / "my skin.mtl").write_text("newmtl m\nmap_Kd face.png\n")
    (tmp_path / "eyes.mtl").write_text("newmtl e\n")
    for line in ("my skin.mtl", "eyes.mtl my skin.mtl", '"my skin.mtl"'):
        mesh = read_obj(scan(tmp_path, f"mtllib {line}\n{QUAD}usemtl m\n{FIRST}"))
        assert mesh.texture is not None, line
        assert not mesh.notes


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_marks_and_line_ends(tmp_path: Path, encoding: str, newline: str) -> None:
    obj = f"mtllib a.mtl\nusemtl häut\n{QUAD}{FIRST}{SECOND}"
    path = scan(tmp_path, "")
    for file, text in ((path, obj), (tmp_path / "a.mtl", "newmtl häut\nmap_Kd face.png\n")):
        file.write_bytes(text.replace("\n", newline).encode(encoding))
    mesh = read_obj(path)
    assert mesh.texture is not None
    assert not mesh.notes
    np.testing.assert_array_equal(mesh.uv, CORNERS)


@pytest.mark.parametrize(
    ("line", "scale", "offset"),
    [
        ("map_Kd -s 0.5 1 1 -o 0.5 0 0 face.png", (0.5, 1), (0.5, 0)),
        ("map_Kd -o .25 face.png", (1, 1), (0.25, 0)),
        ("MAP_KD\t-S 2 3\tface.png", (2, 3), (0, 0)),
        ("map_Kd face.png -s 2 2 2 -bm 1", (2, 2), (0, 0)),
        ("map_Kd -mm 0 1 -blendu on -cc off -imfchan m -texres 64 -boost 1 -type sphere face.png", (1, 1), (0, 0)),
        ('map_Kd -s 2 "face.png" -clamp off', (2, 1), (0, 0)),
    ],
)
def test_scale_and_offset_move_the_texture_coordinates(
    tmp_path: Path, line: str, scale: tuple[float, float], offset: tuple[float, float]
) -> None:
    mesh = read_obj(scan(tmp_path, f"mtllib a.mtl\n{QUAD}usemtl m\n{FIRST}{SECOND}", a_mtl=f"newmtl m\n{line}\n"))
    assert mesh.texture is not None
    assert not mesh.notes
    assert mesh.uv is not None
    np.testing.assert_allclose(mesh.uv, CORNERS * np.array(scale) + np.array(offset))


def test_names_that_look_like_options(tmp_path: Path) -> None:
    for name in ("a -s 1.png", "-face.png", "face -bm", "1 2 3.png", "a  b.png", "face.png -s x"):
        Image.new("RGB", (1, 1)).save(tmp_path / name, "PNG")
        path = scan(tmp_path, f"mtllib a.mtl\n{QUAD}usemtl m\n{FIRST}", a_mtl=f"newmtl m\nmap_Kd {name}\n")
        assert find_surface_files(path)[-1].name == name
        assert read_obj(path).texture is not None


def test_names_of_materials_in_two_encodings(tmp_path: Path) -> None:
    path = scan(tmp_path, "", a_mtl="newmtl häut\nmap_Kd face.png\nnewmtl x\nmap_Kd none.png\n".encode("cp1252"))
    path.write_text(f"mtllib a.mtl\n{QUAD}usemtl häut\n{FIRST}")
    mesh = read_obj(path)
    assert mesh.texture is not None
    assert mesh.notes == ()


def test_parts_without_a_texture_are_drawn_in_their_own_colour(tmp_path: Path) -> None:
    materials = "newmtl skin\nmap_Kd face.png\nnewmtl eyes\nKd 1 0 0.2\n"
    for faces in (f"usemtl skin\n{FIRST}usemtl eyes\n{SECOND}", f"usemtl eyes\n{SECOND_BARE}usemtl skin\n{FIRST}"):
        mesh = read_obj(scan(tmp_path, f"mtllib a.mtl\n{QUAD}{faces}", a_mtl=materials))
        assert mesh.texture is not None
        assert mesh.uv is not None
        assert mesh.colors is not None
        assert not mesh.notes  # nothing is lacking: the file says so
        textured = np.isfinite(mesh.uv).all(axis=(1, 2))
        np.testing.assert_array_equal(mesh.uv[textured], CORNERS[:1])
        np.testing.assert_array_equal(mesh.colors[mesh.triangles[~textured]], np.full((1, 3, 3), [255, 0, 51]))


def test_a_quad_and_changes_of_material_count_by_triangles(tmp_path: Path) -> None:
    faces = "usemtl eyes\nf 1/1 2/2 3/3 4/4\nusemtl skin\n" + FIRST + "usemtl eyes\nusemtl skin\nusemtl eyes\n" + SECOND
    materials = "newmtl skin\nmap_Kd face.png\nnewmtl eyes\nKd 1 0 0\n"
    mesh = read_obj(scan(tmp_path, f"mtllib a.mtl\n{QUAD}{faces}", a_mtl=materials))
    assert mesh.uv is not None
    assert np.isnan(mesh.uv[:, 0, 0]).tolist() == [True, True, False, True]


def test_vertex_colours_are_the_own_colour_where_there_are_some(tmp_path: Path) -> None:
    colored = "v 0 0 0 9 9 9\nv 10 0 0 9 9 9\nv 10 10 0 9 9 9\nv 0 10 5 255 0 0\n" + QUAD[QUAD.index("vt") :]
    faces = f"usemtl skin\n{FIRST}usemtl eyes\n{SECOND}"
    mesh = read_obj(
        scan(tmp_path, f"mtllib a.mtl\n{colored}{faces}", a_mtl="newmtl skin\nmap_Kd face.png\nnewmtl eyes\nKd 1 0 0\n")
    )
    assert mesh.colors is not None
    assert mesh.colors.tolist() == [[9, 9, 9]] * 3 + [[255, 0, 0]]


def test_materials_without_faces_do_not_paint(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "other.png")
    materials = "newmtl m\nmap_Kd face.png\nnewmtl n\nmap_Kd other.png\n"
    mesh = read_obj(scan(tmp_path, f"mtllib a.mtl\n{QUAD}usemtl n\nusemtl m\n{FIRST}", a_mtl=materials))
    assert mesh.texture is not None
    with pytest.raises(ScanError, match=r"a\.obj: painted with 2 textures"):
        read_obj(scan(tmp_path, f"mtllib a.mtl\n{QUAD}usemtl n\n{FIRST}usemtl m\n{SECOND}", a_mtl=materials))


@pytest.mark.parametrize(
    ("materials", "faces", "said"),
    [
        ("newmtl m\nmap_Kd none.png\n", FIRST, "'none.png'"),
        ("newmtl m\nmap_Kd l\xe4cheln.png\n", FIRST, "'lächeln.png'"),
        ("newmtl m\nmap_Kd http://x/face.png\n", FIRST, "address"),
        ("newmtl m\nmap_Kd face.png\n", "vt 0 0\nf 1 2 3\n", "no texture coordinates"),
        ("newmtl m\nmap_Kd face.png\n", FIRST + SECOND_BARE, "1 of 2 triangles"),
        ("newmtl m\nmap_Ka face.png\n", FIRST, "map_Ka 'face.png'"),
        ("newmtl m\nmap_d face.png\n", FIRST, "map_d"),
        ("newmtl m\nbump -bm 0.5 face.png\n", FIRST, "bump 'face.png'"),
        ("newmtl m\nmap_Kd -t 0.1 0 0 face.png\n", FIRST, "-t"),
        ("newmtl m\nmap_Kd -mm 0.5 2 face.png\n", FIRST, "-mm"),
        ("newmtl m\nmap_Kd -clamp on -s 2 2 face.png\n", FIRST, "-clamp"),
        ("newmtl other\nmap_Kd face.png\n", FIRST, "material 'm'"),
        ("newmtl m\nmap_Kd none.png\nnewmtl n\nmap_Kd face.png\n", f"{FIRST}usemtl n\n{SECOND}", "'none.png'"),
        ("newmtl n\nmap_Kd face.png\n", f"{FIRST}usemtl n\n{SECOND}", "material 'm'"),
        ("newmtl m\nd 0.25\nnewmtl n\nmap_Kd face.png\n", f"{FIRST}usemtl n\n{SECOND}", "d 0.25"),
        (None, FIRST, "material file 'a.mtl'"),
    ],
)
def test_what_is_named_and_not_drawn_is_noted(tmp_path: Path, materials: str | None, faces: str, said: str) -> None:
    path = scan(tmp_path, f"mtllib a.mtl\n{QUAD}usemtl m\n{faces}")
    if materials is not None:
        (tmp_path / "a.mtl").write_bytes(materials.encode("latin-1"))
    mesh = read_obj(path)
    assert len(mesh.notes) == 1
    assert said in mesh.notes[0]
    assert read_obj(path, texture=tmp_path / "face.png").notes == () or "coordinates" in said or "triangles" in said


@pytest.mark.parametrize(
    "materials",
    [
        "newmtl m\nmap_Kd face.png\nmap_Ka face.png\nmap_d face.png\nmap_aat on\n",
        "newmtl m\nmap_Kd -clamp on face.png\n",
        "newmtl M\nmap_Kd face.png\n",
        "newmtl m\nd 0.5\nmap_Kd face.png\n",
    ],
)
def test_what_is_drawn_is_not_noted(tmp_path: Path, materials: str) -> None:
    mesh = read_obj(scan(tmp_path, f"mtllib a.mtl\n{QUAD}usemtl m\n{FIRST}", a_mtl=materials))
    assert mesh.texture is not None
    assert mesh.notes == ()


def test_an_obj_without_materials_lacks_nothing(tmp_path: Path) -> None:
    assert read_obj(scan(tmp_path, f"{QUAD}{FIRST}")).notes == ()
    assert read_obj(scan(tmp_path, f"{QUAD}usemtl None\n{FIRST}")).notes == ()
    assert "material 'skin'" in read_obj(scan(tmp_path, f"{QUAD}usemtl skin\n{FIRST}")).notes[0]


def test_colours_of_materials(tmp_path: Path) -> None:
    path = tmp_path / "a.mtl"
    path.write_text(
        "newmtl a\nKd 1 0.5 0\nnewmtl b\nKd 255 128 0\nnewmtl c\nKd .2\nnewmtl d\nKd spectral x.rfl\nnewmtl e\nKd 1 2\n"
    )
    colors = {name: None if m.color is None else m.color.tolist() for name, m in read_materials(path).items()}
    assert colors == {"a": [255, 128, 0], "b": [255, 128, 0], "c": [51, 51, 51], "d": None, "e": None}


def test_very_many_materials_are_bounded(tmp_path: Path) -> None:
    names = [f"m{k}" for k in range(300)]
    faces = "".join(f"usemtl {name}\n{FIRST}" for name in names)
    materials = "".join(f"newmtl {name}\nmap_Kd {name}.png\n" for name in names)
    mesh = read_obj(scan(tmp_path, f"mtllib a.mtl\n{QUAD}{faces}", a_mtl=materials))
    assert len("; ".join(mesh.notes)) < 1000
    with pytest.raises(ScanError, match="changes its material 70000 times"):
        read_obj(scan(tmp_path, QUAD + "usemtl a\nusemtl b\n" * 35_000 + FIRST))
