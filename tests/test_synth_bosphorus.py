"""Synthetic Bosphorus: files of the real layout, read here byte by byte as its description says."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import cKDTree
from written_layouts import check_build, copy_part, digests, photo_at

from preprocess.datasets import DATASETS
from preprocess.geometry.mesh import Mesh
from preprocess.synth.layouts import LAYOUTS
from preprocess.synth.population import write_population
from preprocess.synth.range_scan import scan_from_front
from train.protocols.named import PROTOCOLS

LABELS = [
    "Outer left eyebrow",
    "Middle of the left eyebrow",
    "Inner left eyebrow",
    "Inner right eyebrow",
    "Middle of the right eyebrow",
    "Outer right eyebrow",
    "Outer left eye corner",
    "Inner left eye corner",
    "Inner right eye corner",
    "Outer right eye corner",
    "Nose saddle left",
    "Nose saddle right",
    "Left nose peak",
    "Nose tip",
    "Right nose peak",
    "Left mouth corner",
    "Upper lip outer middle",
    "Right mouth corner",
    "Upper lip inner middle",
    "Lower lip inner middle",
    "Lower lip outer middle",
    "Chin middle",
]


@pytest.fixture(scope="module")
def bosphorus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bosphorus") / "data"
    num_scans = write_population(LAYOUTS["bosphorus"], root, num_subjects=3, progress=False, num_workers=1)
    assert num_scans == len(list(root.rglob("*.bnt")))
    assert 3 * 18 - 2 <= num_scans <= 3 * 18 - 1  # the third subject lacks one or two
    return root


@dataclass
class Bnt:
    planes: np.ndarray  # f64 (5, rows, columns)
    image_name: str

    @property
    def seen(self) -> np.ndarray:
        return np.asarray(self.planes[2] != -1e9)


def parse_bnt(path: Path) -> Bnt:
    """Byte by byte as the table says."""
    data = path.read_bytes()
    rows, columns = struct.unpack_from("<HH", data, 0)
    assert struct.unpack_from("<d", data, 4) == (-1e9,)
    (length,) = struct.unpack_from("<H", data, 12)
    (count,) = struct.unpack_from("<I", data, 14 + length)
    assert count == rows * columns * 5
    assert len(data) == 18 + length + 8 * count
    planes = np.frombuffer(data, "<f8", offset=18 + length).reshape(5, rows, columns)
    return Bnt(planes, data[14 : 14 + length].decode("ascii"))


def parse_lm3(path: Path) -> dict[str, np.ndarray]:
    lines = path.read_bytes().decode().splitlines()
    assert lines[:2] == ["# 3D Landmark File", ""]
    assert lines[2] == f"{(len(lines) - 3) // 2} landmarks:"
    return {label: np.array(row.split(), float) for label, row in zip(lines[3::2], lines[4::2], strict=True)}


def parse_lm2(path: Path) -> dict[str, np.ndarray]:
    lines = path.read_bytes().decode().splitlines()
    count = int(lines[2].removesuffix(" landmarks"))
    assert lines[:2] + lines[3:5] == ["# 2D Landmark File", "", "", "Labels:"]
    assert lines[5 + count : 7 + count] == ["", "2D Image coordinates:"]
    points = [np.array(row.split(), float) for row in lines[7 + count :]]
    return dict(zip(lines[5 : 5 + count], points, strict=True))


def test_a_known_surface_is_scanned_where_it_is_and_photographed_upright() -> None:
    """A tilted square with a colour a quarter: upper left red, upper right green, lower left blue, lower right white."""
    corners = np.array([[-20.0, -30.0], [20.0, -30.0], [20.0, 30.0], [-20.0, 30.0]])
    depth = 0.3 * corners[:, 0] + 0.2 * corners[:, 1] + 5.0
    triangles = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)[triangles]
    texture = np.zeros((64, 64, 3), np.uint8)
    texture[:32, :32], texture[:32, 32:], texture[32:, :32], texture[32:, 32:] = (
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (255, 255, 255),
    )
    vertices = np.column_stack([corners, depth]).astype(np.float32)
    landmarks = np.array([[10, 15, 11], [10, 15, -30]], np.float32)  # on the surface, and far behind it
    scan = scan_from_front(Mesh(vertices, triangles, uv, texture, landmarks_mm=landmarks))
    inside = np.isfinite(scan.z_mm)
    assert inside.mean() > 0.9
    x, y, z = scan.x_mm[inside], scan.y_mm[inside], scan.z_mm[inside]
    np.testing.assert_allclose(z, 0.3 * x + 0.2 * y + 5.0, atol=1e-3)
    np.testing.assert_array_equal(scan.visible, [True, False])
    colours = photo_at(scan.photo, scan.a, scan.b)[inside]
    off_edges = (np.abs(np.abs(x) - 10) < 8) & (np.abs(np.abs(y) - 15) < 12)
    expected = np.array([[(0, 0, 255), (255, 255, 255)], [(255, 0, 0), (0, 255, 0)]])[
        (y > 0).astype(int), (x > 0).astype(int)
    ]
    assert off_edges.sum() > 500
    np.testing.assert_array_equal(colours[off_edges], expected[off_edges])


def test_bnt_grids_are_regular_bottom_up_and_have_holes(bosphorus: Path) -> None:
    for path in sorted(bosphorus.rglob("*.bnt")):
        scan = parse_bnt(path)
        x, y, z, a, b = scan.planes
        seen = scan.seen
        assert (x[~seen] == -1e9).all() and (y[~seen] == -1e9).all() and (x[seen] > -1e9).all()
        assert 0.13 < 1 - seen.mean() < 0.24, path.name
        assert (scan.planes[3:] > 0).all() and (scan.planes[3:] < 1).all()  # of background points, too
        assert (np.diff(a, axis=1) > 0).all() and (np.diff(b, axis=0) < 0).all()
        both = seen[:, 1:] & seen[:, :-1]
        np.testing.assert_allclose((x[:, 1:] - x[:, :-1])[both], 0.8, atol=1e-6)
        both = seen[1:] & seen[:-1]
        np.testing.assert_allclose((y[1:] - y[:-1])[both], 0.8, atol=1e-6)  # rows run from the bottom up
        assert np.abs(z[seen]).max() < 300


def test_bosphorus_names_and_missing_expressions(bosphorus: Path) -> None:
    assert sorted(path.name for path in (bosphorus / "BosphorusDB").iterdir()) == ["bs000", "bs001", "bs002"]
    shown: dict[str, set[str]] = {}
    for path in sorted(bosphorus.rglob("*.bnt")):
        match = re.fullmatch(r"(bs\d{3})_((?:E|N|LFAU|UFAU|CAU|YR|O)_[A-Z0-9]+)_0", path.stem)
        assert match and path.parent.name == match[1]
        shown.setdefault(match[1], set()).add(match[2])
        assert all(path.with_suffix(suffix).is_file() for suffix in (".png", ".lm2", ".lm3"))
    every = {"E_ANGER", "E_DISGUST", "E_FEAR", "E_HAPPY", "E_SADNESS", "E_SURPRISE"}
    assert every <= shown["bs000"] and every <= shown["bs001"] and 1 <= len(every - shown["bs002"]) <= 2
    assert all({"N_N", "YR_R20", "O_EYE", "LFAU_12", "UFAU_4", "CAU_A12A15"} <= codes for codes in shown.values())
    names = {path.stem: parse_bnt(path).image_name for path in bosphorus.rglob("*.bnt")}
    assert names["bs000_E_HAPPY_0"] == "bs000_E_HAPPY_0.png"
    assert names["bs001_UFAU_4_0"] == "bs001_UFAU_4_1.png"  # a renamed file


def test_bosphorus_landmarks_lie_on_the_face(bosphorus: Path) -> None:
    line_ends = set()
    for path in sorted(bosphorus.rglob("*.lm3")):
        points, pixels, scan = parse_lm3(path), parse_lm2(path.with_suffix(".lm2")), parse_bnt(path.with_suffix(".bnt"))
        line_ends.add(b"\r\n" in path.read_bytes())
        assert list(points) == list(pixels) == [label for label in LABELS if label in points]
        assert len(points) == 22 if "O_EYE" not in path.name else 14 <= len(points) < 22
        surface = scan.planes[:3, scan.seen].T
        nearest = cKDTree(surface).query(np.stack(list(points.values())))[0]
        assert np.median(nearest) < 0.6 and nearest.max() < 8.0, path.name
        assert points["Left mouth corner"][0] > points["Right mouth corner"][0]
        saddle = points.get("Nose saddle left", points.get("Nose saddle right"))  # a hand may hide one of them
        assert saddle is not None and saddle[1] > points["Nose tip"][1] > points["Upper lip outer middle"][1]
        assert points["Lower lip outer middle"][1] > points["Chin middle"][1]
        if path.stem.endswith("N_N_0"):  # nothing is nearer to the scanner than the nose
            assert points["Nose tip"][2] > surface[:, 2].max() - 3.0
        # The picture has the landmarks where the grid says.
        height, width = np.asarray(Image.open(path.with_suffix(".png"))).shape[:2]
        for label, point in points.items():
            row, column = np.unravel_index(
                np.argmin(np.abs(scan.planes[:2] - point[:2, None, None]).sum(0)), scan.seen.shape
            )
            place = scan.planes[3:, row, column] * [width, height]
            assert np.abs(pixels[label] - place).max() < 8.0, (path.name, label)
    assert line_ends == {True, False}


def test_bosphorus_photographs_are_textured_faces(bosphorus: Path) -> None:
    for path in sorted(bosphorus.rglob("*_N_N_0.bnt")):
        photo, pixels = (
            np.asarray(Image.open(path.with_suffix(".png"))).astype(float),
            parse_lm2(path.with_suffix(".lm2")),
        )
        assert photo.shape[2] == 3 and (photo[0] == photo[0, 0]).all()  # the backdrop

        def at(place: np.ndarray, photo: np.ndarray = photo) -> np.ndarray:
            column, row = place.astype(int)
            return np.asarray(photo[row - 2 : row + 3, column - 2 : column + 3].mean((0, 1)))

        def redness(rgb: np.ndarray) -> float:
            return float(rgb[0] / rgb[1:].mean())

        forehead = (pixels["Inner left eyebrow"] + pixels["Inner right eyebrow"]) / 2 - [0, 30]
        lip = (pixels["Upper lip outer middle"] + pixels["Upper lip inner middle"]) / 2
        assert redness(at(lip)) > redness(at(forehead)) + 0.05
        assert at(pixels["Middle of the left eyebrow"]).sum() < at(forehead).sum()
        assert lip[1] > forehead[1]  # upright


def test_the_list_of_units_says_what_the_faces_show(bosphorus: Path) -> None:
    reader = DATASETS["bosphorus"]
    assert (bosphorus / "facscodes.lst").read_bytes().count(b"\r\n") == len(list(bosphorus.rglob("*.bnt"))) - 2 * 3
    coded = [dict(zip(reader.au_names, record.aus, strict=False)) for record in reader.find(bosphorus).records]
    assert all(any(units.get(name) == 1 for units in coded) for name in PROTOCOLS["bosphorus-au"].classes)
    for record in reader.find(bosphorus).records:
        if record.task in ("YR", "O"):
            assert record.aus == ()
            continue
        units = dict(zip(reader.au_names, record.aus, strict=True))
        shown = {int(name[2:]) for name in units if "_" not in name and units[name] == 1}
        stem = record.sample_id.split("_", 1)[1]
        expected = {"N_N_0": set(), "LFAU_12_0": {12}, "LFAU_12L_0": {12}, "UFAU_4_0": {4}, "CAU_A12A15_0": {12, 15}}
        expected |= {"CAU_A14A44_0": {14, 44}, "CAU_A18A34_0": {18, 34}, "CAU_A22A25_0": {22, 25}, "LFAU_28_0": {28}}
        prototypes = {"happiness": {6, 12, 25}, "surprise": {1, 2, 5}, "anger": {4, 7, 23}, "disgust": {9, 10}}
        assert prototypes.get(record.label, set()) <= shown
        assert shown == expected.get(stem, shown), stem
        assert all((1 <= units[f"AU{unit}_intensity"] <= 5) for unit in shown)
        if stem == "LFAU_12L_0":  # the subject's left corner of the mouth alone is drawn up
            assert units["AU12_side"] == 1
            smile = parse_lm3(bosphorus / record.landmarks)
            rest = parse_lm3(bosphorus / record.landmarks.replace(stem, "N_N_0"))

            def rise(side: str, smile: dict[str, np.ndarray] = smile, rest: dict[str, np.ndarray] = rest) -> float:
                eye = f"Outer {side} eye corner"
                corner = f"{side.capitalize()} mouth corner"
                return float(np.linalg.norm(rest[corner] - rest[eye]) - np.linalg.norm(smile[corner] - smile[eye]))

            assert rise("left") > rise("right") + 2.0


def test_bosphorus_files_do_not_depend_on_the_number_of_people(bosphorus: Path, tmp_path: Path) -> None:
    write_population(LAYOUTS["bosphorus"], tmp_path / "bosphorus", num_subjects=1, progress=False, num_workers=1)
    one, three = digests(tmp_path / "bosphorus"), digests(bosphorus)
    (tables,) = (name for name in one if name.endswith(".lst"))
    assert (bosphorus / tables).read_bytes().startswith((tmp_path / "bosphorus" / tables).read_bytes())
    del one[tables]
    assert len(one) > 50 and all(three[name] == digest for name, digest in one.items())


def bnt_colours(source: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points of a scan (K, 3) and their colours u8 (K, 3), read straight from its files."""
    scan, photo = parse_bnt(source), np.asarray(Image.open(source.with_suffix(".png")))
    return scan.planes[:3, scan.seen].T, photo_at(photo, scan.planes[3], scan.planes[4])[scan.seen]


def test_a_build_shows_bosphorus_upright_unmirrored_and_textured(bosphorus: Path, tmp_path: Path) -> None:
    patterns = ["*.txt", "BosphorusDB/bs000/bs000_E_HAPPY*", "BosphorusDB/bs000/bs000_O*", "BosphorusDB/bs001/*YR*"]
    check_build("bosphorus", copy_part(bosphorus, tmp_path / "data", patterns), tmp_path, bnt_colours, 3)
