"""Texture images, landmark files, polygons and welding."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from preprocess.geometry.triangles import fan_triangulation, triangle_areas, weld
from preprocess.readers.bu_landmarks import BU_LANDMARK_GROUPS, NUM_BU_LANDMARKS, read_bnd
from preprocess.readers.image import read_image
from preprocess.readers.landmark_points import FACE_POINTS, read_face_points
from preprocess.readers.surface import read_surface
from shared.errors import ScanError


@settings(deadline=None)
@given(st.lists(st.integers(0, 7), max_size=20))
def test_fans_cut_each_polygon_by_itself(sizes: list[int]) -> None:
    expected, start = [], 0
    for size in sizes:
        expected += [[start, start + i, start + i + 1] for i in range(1, size - 1)]
        start += size
    assert fan_triangulation(np.array(sizes, np.int64)).tolist() == expected


@pytest.mark.parametrize("first", [0, 3, 8])
def test_concave_polygons_keep_their_area(tmp_path: Path, first: int) -> None:
    """A comb beside a quad and a triangle, in space, whichever corner comes first; the shoelace formula gives its area."""
    comb = np.array([(0, 0), (9, 0), (9, 9), (7, 2), (5, 9), (4, 2), (3, 9), (2, 2), (0, 9)], float)
    comb = np.roll(comb, -first, axis=0)
    x, y = comb.T
    expected = (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2 + 4 + 2
    flat = [*comb, (20, 0), (22, 0), (22, 2), (20, 2), (30, 0), (32, 0), (30, 2)]
    vertices = np.array(flat) @ [[0.6, 0.8, 0], [0, 0, 1]]
    faces = [range(9), range(9, 13), range(13, 16)]
    rows = "\n".join(" ".join(map(str, v)) for v in vertices)
    lists = [" ".join(map(str, face)) for face in faces]
    counted = "\n".join(f"{len(face)} {row}" for face, row in zip(faces, lists, strict=True))
    texts = {
        "obj": "\n".join(
            ["v " + row for row in rows.split("\n")] + [f"f {' '.join(str(k + 1) for k in f)}" for f in faces]
        ),
        "off": f"OFF\n16 3 0\n{rows}\n{counted}",
        "ply": "ply\nformat ascii 1.0\nelement vertex 16\nproperty float x\nproperty float y\nproperty float z\n"
        f"element face 3\nproperty list uchar int vertex_indices\nend_header\n{rows}\n{counted}",
        "wrl": "#VRML V2.0 utf8\nShape { geometry IndexedFaceSet { coord Coordinate { point [\n"
        f"{rows} ] }} coordIndex [ {' -1 '.join(lists)} -1 ] }} }}",
    }
    for suffix, text in texts.items():
        path = tmp_path / f"a.{suffix}"
        path.write_text(text + "\n")
        mesh = read_surface(path)
        areas = triangle_areas(mesh.vertices_mm, mesh.triangles)
        assert len(areas) == 7 + 2 + 1
        assert areas.sum() == pytest.approx(expected, rel=1e-5)


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from([0.0, -0.0, 1.0, 2.5])] * 3), min_size=1, max_size=30))
def test_welding_keeps_every_place_once(points: list[tuple[float, ...]]) -> None:
    vertices = np.array(points, np.float32)
    kept, place = weld(vertices)
    np.testing.assert_array_equal(vertices[kept][place], vertices)
    assert kept.tolist() == [i for i, p in enumerate(points) if p not in points[:i]]


def bnd_text(points: np.ndarray, separator: str = "\t\t") -> str:
    return "".join(f"{i}{separator}{x} {y} {z}\n" for i, (x, y, z) in enumerate(points.tolist()))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("end", ["", "\n", "\t\t\n"])
def test_bnd(tmp_path: Path, newline: str, end: str) -> None:
    points = np.random.default_rng(0).normal(0, 50, (83, 3)).astype(np.float32)
    path = tmp_path / "a.bnd"
    for separator in ("\t\t", " ", "  \t"):
        path.write_bytes((bnd_text(points, separator) + end).replace("\n", newline).encode())
        np.testing.assert_array_equal(read_bnd(path), points)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[: len(t) // 2].rsplit("\n", 1)[0], "expected 83"),
        (lambda t: t + "1 2 3 4\n", "84 landmarks"),
        (lambda t: t.replace("5\t\t", "5\t\tx"), "copy it again"),
        (lambda t: t.replace("5\t\t", "", 1), "expected 4 numbers|expected 83"),
        (lambda t: t.replace("1.0 1.0 1.0", "1.0 nan 1.0", 1), "not finite"),
        (lambda t: "", "empty"),
    ],
)
def test_bnd_says_what_is_wrong(tmp_path: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "a.bnd"
    path.write_text(change(bnd_text(np.ones((83, 3)))))
    with pytest.raises(ScanError, match=message) as error:
        read_bnd(path)
    assert "a.bnd" in str(error.value)


def test_groups_of_the_83_points() -> None:
    """As BU-3DFE numbers them: eyes of 8, brows of 10, nose and outer lips of 12, inner lips of 8, contour of 15."""
    sizes = {
        "left_eye": 8,
        "right_eye": 8,
        "left_brow": 10,
        "right_brow": 10,
        "nose": 12,
        "mouth": 12,
        "": 8,
        "contour": 15,
    }
    first, places = 0, {}
    for name, size in sizes.items():
        places[name] = tuple(range(first, first + size))
        first += size
    assert first == NUM_BU_LANDMARKS
    del places[""]  # the inner lips move most
    assert places == BU_LANDMARK_GROUPS


@pytest.mark.parametrize("suffix", ["bmp", "png", "jpg", "tiff"])
def test_images_keep_their_rows(tmp_path: Path, suffix: str) -> None:
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :, 0] = 200  # red above
    pixels[16:, :24, 2] = 200  # blue below, left
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", quality=95)
    read = read_image(tmp_path / f"a.{suffix}")
    assert read.shape == pixels.shape
    assert read.dtype == np.uint8
    assert np.abs(read.astype(int) - pixels)[[4, 28]][:, [8, 40]].max() < 12


def test_grey_palette_and_transparent_images(tmp_path: Path) -> None:
    for mode in ("L", "P", "RGBA", "1", "LA"):
        Image.new(mode, (4, 4), 1 if mode in ("L", "P", "1") else None).save(tmp_path / "a.png")
        assert read_image(tmp_path / "a.png").shape == (4, 4, 3)


def test_exif_orientation_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (4, 6, 3)


def test_images_that_are_none(tmp_path: Path) -> None:
    good = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(good, "PNG")

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    for content, message in [
        (b"not an image at all", "not a readable image"),
        (good.getvalue()[:3000], r"not a readable image \(it is cut off\)"),
        (bomb, "10000 × 10000 pixels"),
        (b"", "empty"),
        (b"%PDF-1.4 ...", "not a readable image"),
    ]:
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(ScanError, match=message) as error:
            read_image(tmp_path / "a.png")
        assert str(tmp_path / "a.png") in str(error.value)
    with pytest.raises(ScanError, match="no such file"):
        read_image(tmp_path / "none.png")


def test_face_points_from_every_scheme(tmp_path: Path) -> None:
    points = np.arange(83 * 3, dtype=np.float32).reshape(-1, 3)
    (tmp_path / "a.bnd").write_text(bnd_text(points))
    np.testing.assert_allclose(read_face_points(tmp_path / "a.bnd")[0][0], points[:8].mean(axis=0))
    ibug = {"landmarks": {"points": points[:68].tolist()}, "labels": [], "version": 2}
    (tmp_path / "a.ljson").write_text(json.dumps(ibug))
    centres = [points[part].mean(axis=0) for part in (slice(42, 48), slice(36, 42), slice(27, 36), slice(48, 60))]
    np.testing.assert_allclose(
        read_face_points(tmp_path / "a.ljson")[0][:4], centres
    )  # the markup's left eye comes second
    labelled = {
        "groups": {
            "face": {
                "landmarks": {"points": [[1, 2, 3], [None, None, None], [5, 6, 7], [9, 9, 9]]},
                "labels": [{"label": "leye", "mask": [0, 2]}, {"label": "nose", "mask": [1]}],
            }
        },
        "version": 3,
    }
    (tmp_path / "b.ljson").write_text(json.dumps(labelled))
    read = read_face_points(tmp_path / "b.ljson")[0]
    np.testing.assert_array_equal(read[0], [3, 4, 5])
    assert np.isnan(read[1:]).all()
    (tmp_path / "a.csv").write_text("name,x,y,z\nnose,1,2,3\nright_eye;4;5;6\n")
    read = read_face_points(tmp_path / "a.csv")[0]
    np.testing.assert_array_equal(read[FACE_POINTS.index("nose")], [1, 2, 3])
    np.testing.assert_array_equal(read[FACE_POINTS.index("right_eye")], [4, 5, 6])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.ljson", "{", "not Menpo"),
        ("a.ljson", "[]", "not Menpo"),
        ("a.ljson", '{"landmarks": {"points": [[1, 2]]}}', "3D landmarks"),
        ("a.ljson", '{"landmarks": {"points": [[1, 2, 3]]}}', "holds none"),
        ("a.csv", "nose,1,2,x\n", "x,y,z"),
        (
            "a.csv",
            "ear,1,2,3\n",
            "holds none of the face's points; expected lines `name,x,y,z` with the names left_eye, right",
        ),
        ("eyes.txt", "32 35 -40\n-32 35 -40\n", "expected lines `name,x,y,z`"),
        ("a.pts", "1 2 3\n", "unknown ending"),
    ],
)
def test_face_points_say_what_is_wrong(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ScanError, match=message) as error:
        read_face_points(tmp_path / name)[0]
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("left_eye,19.81,-3.5,40", "left_eye"),
        ("LeftEye,19.81,-3.5,40", "left_eye"),
        ("left eye;19,81;-3,5;40", "left_eye"),
        ("left_eye;19,81;-3,5;40,0", "left_eye"),
        ("Left-Eye\t19,81\t-3,5\t40", "left_eye"),
        ("left_eye 19.81 -3.5 40", "left_eye"),
        ("eye_left 19,81 -3,5 40,0", "left_eye"),
        ("Pronasale,19.81,-3.5,40", "nose_tip"),
        ("nose tip,19.81,-3.5,40", "nose_tip"),
        ("nasion;19.81;-3.5;40", "nose_bridge"),
    ],
)
def test_names_and_numbers_of_points_as_people_write_them(tmp_path: Path, line: str, name: str) -> None:
    (tmp_path / "a.csv").write_text(f"name,x,y,z\n{line}\n")
    points, notes = read_face_points(tmp_path / "a.csv")
    np.testing.assert_allclose(points[FACE_POINTS.index(name)], [19.81, -3.5, 40], rtol=1e-6)
    assert np.isnan(points).sum() == 15
    assert notes == ()


def test_an_eye_is_the_middle_between_its_corners(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "left_eye_inner,16,35,-40\nleft_eye_outer,46,35,-44\nright_eye_inner,-16,35,-40\nchin,0,0,0\n"
    )
    points, notes = read_face_points(tmp_path / "a.csv")
    np.testing.assert_array_equal(points[0], [31, 35, -42])
    assert np.isnan(points[1:]).all()
    assert "right_eye_inner" in notes[0] and "chin" in notes[0]


@pytest.mark.parametrize("line", ["left_eye,19,81,-3,5,40,1", "left_eye,1,2", "left_eye;1;2;3\nLeftEye;1;2;3"])
def test_points_that_can_be_read_in_two_ways_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.csv").write_text(f"name,x,y,z\n{line}\nnose,1,2,3\n")
    with pytest.raises(ScanError, match=r"a\.csv: left_eye"):
        read_face_points(tmp_path / "a.csv")[0]


@pytest.mark.skipif("FACET_FACES" not in os.environ, reason="FACET_FACES names the folder of real scans")
def test_real_landmarks() -> None:
    points = read_face_points(Path(os.environ["FACET_FACES"]) / "james" / "james.ljson")[0]
    assert 60 < np.linalg.norm(points[0] - points[1]) < 72  # mm between the eyes
    assert np.isfinite(points[:4]).all()
