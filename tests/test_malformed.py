"""Damaged files and folders: a small share of the long run of tests/fuzz, and what that run has found, each by itself."""

from __future__ import annotations

import pickle
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fuzz import containers, corpus

from preprocess.build.plan import plan_rows
from preprocess.datasets import DATASETS
from preprocess.geometry.mesh import Mesh
from preprocess.readers.au_csv import read_au_occurrence
from preprocess.readers.image import read_image
from preprocess.readers.label_sheet import read_label_sheet
from preprocess.readers.landmark_points import read_face_points
from preprocess.readers.references import find_beside
from preprocess.readers.surface import find_surface_files, read_surface
from shared.errors import FacetError, ScanError

FACE = corpus.face()[0]


@pytest.mark.parametrize("name", ["link.png", "linked/secret.png", "linked"])
@pytest.mark.parametrize("suffix", ["obj", "wrl", "ply"])
def test_links_out_of_the_folder_are_not_followed(tmp_path: Path, name: str, suffix: str) -> None:
    folder = tmp_path / "outer" / "scans"
    folder.mkdir(parents=True)
    (tmp_path / "outer" / "secret.png").write_bytes(corpus.image("PNG"))
    (folder / "link.png").symlink_to("../secret.png")
    (folder / "linked").symlink_to("..")
    data = {"obj": corpus.obj(), "wrl": corpus.wrl("bu4dfe"), "ply": corpus.ply_text()}[suffix]
    (folder / "face.mtl").write_bytes(corpus.MTL.replace(b"face.png", name.encode()))
    path = folder / f"a.{suffix}"
    path.write_bytes(data.replace(b"face.png", name.encode()))
    if name == "linked":  # a folder, no picture
        assert read_surface(path).texture is None
        return
    with pytest.raises(ScanError, match="is a link out of its folder; put a copy of the file itself there"):
        read_surface(path)
    assert all(file.parent == folder and not file.is_symlink() for file in find_surface_files(path))


def test_links_within_the_folder_and_to_the_folder_are_followed(tmp_path: Path) -> None:
    (tmp_path / "scans" / "pictures").mkdir(parents=True)
    (tmp_path / "scans" / "pictures" / "face.png").write_bytes(corpus.image("PNG"))
    (tmp_path / "scans" / "face.png").symlink_to("pictures/face.png")
    (tmp_path / "link").symlink_to("scans")
    (tmp_path / "link" / "a.wrl").write_bytes(corpus.wrl("bu4dfe"))
    assert read_surface(tmp_path / "link" / "a.wrl").texture is not None
    assert find_beside(tmp_path / "link" / "a.wrl", "FACE.PNG") is not None


@pytest.mark.parametrize("number", [2e9, -3e38])
def test_coordinates_whose_squares_overflow_are_refused(number: float) -> None:
    vertices = FACE.vertices_mm.copy()
    vertices[3, 1] = number
    with pytest.raises(ScanError, match="a vertex lies beyond"):
        Mesh(vertices, FACE.triangles)
    assert FACE.uv is not None
    uv = FACE.uv.copy()
    uv[0, 0] = number
    with pytest.raises(ScanError, match="a texture coordinate beyond"):
        Mesh(FACE.vertices_mm, FACE.triangles, uv)
    with pytest.raises(ScanError, match="a landmark is infinite"):
        Mesh(FACE.vertices_mm, FACE.triangles, landmarks_mm=np.full((4, 3), np.inf, np.float32))


def test_off_faces_of_huge_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.off").write_bytes(corpus.off().replace(b"3 0 1", b"3 0 99999999999999999999", 1))
    with pytest.raises(ScanError, match=r"a\.off: its faces are not rows of whole numbers"):
        read_surface(tmp_path / "a.off")


def test_points_with_another_systems_line_ends(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(corpus.named_points().replace(b"\n", b"\r"))
    assert np.isfinite(read_face_points(tmp_path / "a.csv")[0][:4]).all()
    (tmp_path / "a.csv").write_bytes(b'nose,1,2,"' + b"3" * 200_000)
    with pytest.raises(ScanError, match=r"a\.csv: not lines"):
        read_face_points(tmp_path / "a.csv")[0]


def change_glb(change: Callable[[bytes], bytes]) -> bytes:
    """A GLB file whose JSON part is changed."""
    data = corpus.glb()
    length = int.from_bytes(data[12:16], "little")
    text = change(data[20 : 20 + length])
    text += b" " * (-len(text) % 4)
    rest = len(text).to_bytes(4, "little") + b"JSON" + text + data[20 + length :]
    return data[:8] + (12 + len(rest)).to_bytes(4, "little") + rest


def test_glb_of_many_buffers_without_a_place(tmp_path: Path) -> None:
    """They are passed over: were each another copy of the binary chunk, a small file would take all memory."""
    (tmp_path / "a.glb").write_bytes(
        change_glb(lambda text: text.replace(b'"buffers": [', b'"buffers": [' + b"{}, " * 100_000))
    )
    (tmp_path / "b.glb").write_bytes(corpus.glb())
    found, expected = (read_surface(tmp_path / name) for name in ("a.glb", "b.glb"))
    np.testing.assert_array_equal(found.vertices_mm, expected.vertices_mm)


def test_glb_that_names_one_mesh_from_many_nodes(tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(
        change_glb(lambda text: text.replace(b'"nodes": [{', b'"nodes": [' + b'{"mesh": 0}, ' * 400_000 + b"{"))
    )
    with pytest.raises(ScanError, match=r"a\.glb: 4\d+ nodes, at most"):
        read_surface(tmp_path / "a.glb")


def test_ply_rows_of_different_lengths_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preprocess.readers.ply._MAX_UNEVEN_ROWS", 40)
    (tmp_path / "a.ply").write_bytes(corpus.ply_text())
    read_surface(tmp_path / "a.ply")  # 84 triangles, all alike
    (tmp_path / "a.ply").write_bytes(corpus.ply_text()[:-1].rpartition(b"\n")[0] + b"\n4 0 1 2 3\n")
    with pytest.raises(ScanError, match="84 rows of different lengths, at most 40"):
        read_surface(tmp_path / "a.ply")


def test_a_message_is_one_line_whatever_a_name_holds() -> None:
    error = ScanError("/data/a\nb\x1b[2J\u2028c.wrl: no such file")
    assert str(error) == r"/data/a\nb\x1b[2J\u2028c.wrl: no such file"
    copy = pickle.loads(pickle.dumps(error))  # as worker processes send it
    assert (type(copy), str(copy)) == (ScanError, str(error))


@pytest.mark.parametrize("number", ["Infinity", "NaN", "1e400", "-1", "0.5", '"12"'])
def test_glb_sizes_that_are_no_sizes(tmp_path: Path, number: str) -> None:
    changed = change_glb(lambda text: text.replace(b'"byteOffset": 0', b'"byteOffset": ' + number.encode(), 1))
    (tmp_path / "a.glb").write_bytes(changed)
    with pytest.raises(ScanError, match=r"a\.glb: (its JSON part lacks or garbles|a view of)"):
        read_surface(tmp_path / "a.glb")


@pytest.mark.parametrize("name", [b"\xff\xfe" * 1000, b"a\x85b"])
def test_garbled_names_do_not_fill_the_message(tmp_path: Path, name: bytes) -> None:
    data = corpus.wrl("bu4dfe").replace(b"IndexedFaceSet", name)
    for text in (data, data + data):
        (tmp_path / "a.wrl").write_bytes(text)
        with pytest.raises(ScanError) as caught:
            read_surface(tmp_path / "a.wrl")
        assert len(str(caught.value).splitlines()) == 1
        assert len(str(caught.value)) < 400


def test_signalling_nans_are_refused_without_a_warning(tmp_path: Path) -> None:
    data = corpus.ply_binary()
    first = data.index(b"end_header\n") + len(b"end_header\n")
    (tmp_path / "a.ply").write_bytes(data[:first] + b"\x01\x00\x80\x7f" + data[first + 4 :])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ScanError, match="not finite"):
            read_surface(tmp_path / "a.ply")


def test_names_that_are_no_text_are_said(tmp_path: Path) -> None:
    folder = tmp_path / "\udcff" / "F001" / "Angry"
    folder.mkdir(parents=True)
    (folder / "000.wrl").write_bytes(corpus.wrl("bu4dfe"))
    with pytest.raises(FacetError, match=r"udcff/F001/Angry/000.wrl': a name there is not UTF-8"):
        plan_rows(DATASETS["bu4dfe"].find(tmp_path).records, tmp_path / "no cache")


def test_long_names_do_not_fill_the_message(tmp_path: Path) -> None:
    rows = f"a.obj,{'A' * 9000},anger,run\nb.obj,B,anger,run\n"
    (tmp_path / "manifest.csv").write_text("path,subject,label,sequence\n" + rows)
    with pytest.raises(FacetError, match="give each its own sequence") as caught:
        DATASETS["folder"].find(tmp_path)
    assert len(str(caught.value)) < 400


def test_landmark_masks_of_no_index(tmp_path: Path) -> None:
    (tmp_path / "a.ljson").write_bytes(corpus.ljson().replace(b'"mask": [0]', b'"mask": [Infinity]'))
    with pytest.raises(ScanError, match=r"a\.ljson: not Menpo's"):
        read_face_points(tmp_path / "a.ljson")[0]


def test_a_texture_without_pixels_is_refused() -> None:
    with pytest.raises(ScanError, match="without pixels"):
        Mesh(FACE.vertices_mm, FACE.triangles, FACE.uv, np.zeros((0, 4, 3), np.uint8))


def test_action_units_that_are_only_separators(tmp_path: Path) -> None:
    (tmp_path / "F001_T1.csv").write_bytes(b",,;\n,")
    with pytest.raises(ScanError, match=r"F001_T1.csv: its first line is neither 0,1,…,99"):
        read_au_occurrence(tmp_path / "F001_T1.csv", (1,))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b".,A,anger", "names no file"),
        (b"./,A,anger", "names no file"),
        (b'a.obj,"A\nB",anger', "line break"),
        (b"a.obj,A,anger\x1b[2J", "control character"),
        ("a.obj,A,an\u2028ger".encode(), "line break"),
    ],
)
def test_manifest_fields_that_cannot_be(tmp_path: Path, row: bytes, message: str) -> None:
    (tmp_path / "manifest.csv").write_bytes(b"path,subject,label\n" + row + b"\n")
    with pytest.raises(FacetError, match=message) as caught:
        DATASETS["folder"].find(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_name_that_no_file_system_holds_is_a_missing_mesh(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_bytes(b"path,subject,label\n" + b"a" * 300 + b".obj,A,anger\n")
    folder = DATASETS["folder"]
    records = folder.find(tmp_path).records
    assert "mesh file" in folder.find(tmp_path).notes[0]
    with pytest.raises(ScanError):
        folder.read(tmp_path, records[0])


@pytest.mark.parametrize("name", ["4dme", "bp4d", "folder"])
def test_files_of_a_broken_scan_are_still_listed(tmp_path: Path, name: str) -> None:
    """A build hashes the files of every scan first: what is wrong with one must not end it there."""
    broken = {"4dme": "S01/clip1/000.wrl", "bp4d": "F001/T1/0000.obj", "folder": "a.wrl"}[name]
    (tmp_path / broken).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / broken).write_bytes(b"mtllib m.mtl\nv 0 0" if name == "bp4d" else b"#VRML V2.0 utf8\nShape {")
    (tmp_path / broken).with_name("m.mtl").symlink_to("/etc/hostname")
    if name == "4dme":
        (tmp_path / "labels.xlsx").write_bytes(corpus.label_sheet())
    (tmp_path / "manifest.csv").write_text("path,subject,label\na.wrl,A,anger\n")
    records = DATASETS[name].find(tmp_path).records
    assert list(DATASETS[name].source_files(tmp_path, records[0])) == [tmp_path / broken]
    with pytest.raises(ScanError):
        DATASETS[name].read(tmp_path, records[0])


def test_images_that_unpack_to_gigabytes_are_refused_by_their_header(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    for side, message in ((12_000, "12000 × 12000 pixels"), (60_000, "a.png: ")):
        path.write_bytes(containers.png_bomb(side, side, full=False))
        assert path.stat().st_size < 1000
        with pytest.raises(ScanError, match=message):
            read_image(path)


@pytest.mark.parametrize("lie", [False, True])
def test_sheets_that_unpack_to_gigabytes_are_refused(tmp_path: Path, lie: bool) -> None:
    path = tmp_path / "labels.xlsx"
    path.write_bytes(containers.xlsx_bomb(140 << 20, lie=lie))
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    try:
        with pytest.raises(FacetError, match="not a readable" if lie else "147 MB unpacked"):
            read_label_sheet(path, ("Emotion",))
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()
