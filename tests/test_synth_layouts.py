"""Synthetic Bosphorus, BP4D and 4DME: their files read by nothing but the standard library and openpyxl, then built."""

from __future__ import annotations

import csv
import hashlib
import re
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from PIL import Image
from scipy.ndimage import uniform_filter
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from preprocess.mesh import Mesh
from preprocess.synth.bosphorus import write_bosphorus
from preprocess.synth.bp4d import write_bp4d
from preprocess.synth.fourdme import draw_clips, write_4dme
from preprocess.synth.label_sheet import encode_sheet
from preprocess.synth.layouts import write_layout
from preprocess.synth.range_scan import scan_from_front
from preprocess.synth.sheet import grid_shape
from shared.cache import open_cache
from shared.errors import FacetError

BP4D_FRAMES, ME_FRAMES = 5, 12
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
    num_scans = write_bosphorus(root, num_subjects=3, progress=False, num_workers=1)
    assert num_scans == len(list(root.rglob("*.bnt")))
    assert 3 * 13 - 2 <= num_scans <= 3 * 13 - 1  # the third subject lacks one or two
    return root


@pytest.fixture(scope="module")
def bp4d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bp4d") / "data"
    num_scans = write_bp4d(root, num_subjects=3, num_frames=BP4D_FRAMES, progress=False, num_workers=1)
    assert num_scans == 3 * 8 * BP4D_FRAMES == len(list(root.rglob("*.obj")))
    return root


@pytest.fixture(scope="module")
def fourdme(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("4dme") / "data"
    num_scans = write_4dme(root, num_subjects=2, num_frames=ME_FRAMES, progress=False, num_workers=1)
    assert num_scans == 2 * 6 * ME_FRAMES
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


def photo_at(photo: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pixel (a·W, b·H) from the upper left."""
    height, width = photo.shape[:2]
    return photo[np.minimum((b * height).astype(int), height - 1), np.minimum((a * width).astype(int), width - 1)]


# --- Bosphorus ---


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


# --- BP4D ---


def parse_obj(path: Path) -> tuple[np.ndarray, np.ndarray, str, bytes]:
    """Vertices, texture coordinates, the material file, the first face's line."""
    rows = path.read_bytes().splitlines()
    vertices = np.array([row.split()[1:] for row in rows if row.startswith(b"v ")], float)
    uv = np.array([row.split()[1:] for row in rows if row.startswith(b"vt ")], float)
    library = next(row.split()[1].decode() for row in rows if row.startswith(b"mtllib"))
    return vertices, uv, library, next(row for row in rows if row.startswith(b"f "))


def parse_tbnd(path: Path) -> tuple[np.ndarray, np.ndarray]:
    rows = [list(map(float, line.split())) for line in path.read_text().splitlines()]
    assert len(rows) == 84 and all(len(row) == 3 for row in rows)
    return np.array(rows[0]), np.array(rows[1:])


def test_bp4d_meshes_and_frame_names(bp4d: Path) -> None:
    sequences = bp4d / "Sequences(2D+3D)"
    assert sorted(path.name for path in sequences.iterdir()) == ["F001", "F002", "M001"]
    styles = set()
    for subject, digits in (("F001", 4), ("M001", 4), ("F002", 3)):
        assert sorted(p.name for p in (sequences / subject).iterdir() if p.is_dir()) == [f"T{k}" for k in range(1, 9)]
        stems = sorted(path.stem for path in (sequences / subject / "T3").glob("*.obj"))
        assert stems == [f"{k:0{digits}d}" for k in range(BP4D_FRAMES)]
        path = sequences / subject / "T3" / f"{stems[2]}.obj"
        vertices, uv, library, face = parse_obj(path)
        assert len(vertices) == len(uv) >= 8000 and uv.min() >= 0 and uv.max() <= 1
        assert library == f"{stems[2]}.mtl" and f"map_Kd {stems[2]}.jpg\n" in (path.parent / library).read_text()
        assert Image.open(path.with_suffix(".jpg")).format == "JPEG"
        corners = [corner.split(b"/") for corner in face.split()[1:]]
        assert all(len(set(corner)) == 1 for corner in corners)
        styles.add(len(corners[0]))
    assert styles == {1, 2}  # `f a b c` and `f a/a b/b c/c`


def test_bp4d_landmarks_are_mirrored_moved_and_sometimes_lost(bp4d: Path) -> None:
    missing = 0
    for folder in sorted((bp4d / "Sequences(2D+3D)").glob("*/T*")):
        features = bp4d / "3DFeatures" / folder.parent.name / folder.name
        lost, reference = 0, None
        for path in sorted(folder.glob("*.obj")):
            tbnd = features / f"{path.stem}.tbnd"
            if not tbnd.is_file():
                missing += 1
                continue
            angles, points = parse_tbnd(tbnd)
            assert np.abs(angles).max() <= 8.0
            tracked = points.any(1)
            lost += int((~tracked).sum())
            if folder.name in ("T1", "T6"):
                vertices = parse_obj(path)[0]
                tree = cKDTree(vertices)
                assert tree.query(points[tracked] * [1, 1, -1])[0].max() < 0.01
                assert np.median(tree.query(points[tracked])[0]) > 5.0  # as they stand they are no face's
                # The head turns by the angles of the file; the top of the forehead is moved by no expression.
                top = vertices[: grid_shape()[1]]
                turn = Rotation.from_euler("YXZ", angles[[1, 0, 2]], degrees=True)
                if reference is None:
                    reference = (top, turn)
                found = Rotation.align_vectors(top - top.mean(0), reference[0] - reference[0].mean(0))[0]
                expected = (turn * reference[1].inv()).magnitude()
                assert abs(found.magnitude() - expected) < np.deg2rad(0.6), path
        assert lost in (0, 3)  # the frame that lacks them may be the one that lacks its file
    assert missing == 3


def test_bp4d_codes_follow_the_face_one_frame_later(bp4d: Path) -> None:
    unknown = 0
    for path in sorted((bp4d / "AUCoding" / "AU_OCC").iterdir()):
        assert re.fullmatch(r"[FM]00[12]_T[1-8]\.csv", path.name)
        with path.open() as file:
            header, *rows = csv.reader(file)
        assert header == [str(k) for k in range(100)]
        table = np.array(rows, int)
        assert table[:, 0].tolist() == list(range(1, len(rows) + 1)) and 1 <= len(rows) <= BP4D_FRAMES
        assert set(np.unique(table[:, 1:])) <= {0, 1, 9}
        assert (table[:, [3, 8, 50, 99]] == 9).all()  # never coded
        unknown += int((table[:, [6, 10, 12, 14, 17]] == 9).sum())
        for unit in (6, 10, 12, 14, 17):
            with (path.parent.parent / "AU_INT" / f"{path.stem}_AU{unit:02d}.csv").open() as file:
                intensity = np.array(list(csv.reader(file)), int)
            assert intensity[:, 0].tolist() == table[:, 0].tolist()
            assert ((intensity[:, 1] >= 0) & (intensity[:, 1] <= 5) | (intensity[:, 1] == 9)).all()
            np.testing.assert_array_equal(np.where(intensity[:, 1] == 9, 9, intensity[:, 1] >= 1), table[:, unit])
    assert unknown == 24  # one in every sequence
    for subject in ("F001", "M001"):
        expected = {"T1": 12, "T3": 1, "T4": 24, "T5": 20, "T6": 43, "T7": 23, "T8": 9}
        for task, unit in expected.items():
            with (bp4d / "AUCoding" / "AU_OCC" / f"{subject}_{task}.csv").open() as file:
                values = [int(row[unit]) for row in list(csv.reader(file))[1:]]
            if unit == 43:
                assert set(values) == {9}  # the data set's coders did not score closed eyes
            else:
                assert values[0] in (0, 9) and 1 in values  # neutral at first, then shown
        # The mouth is widest where the coded smile is strongest: model frame N is coded in row N + 1.
        with (bp4d / "AUCoding" / "AU_INT" / f"{subject}_T1_AU12.csv").open() as file:
            levels = {int(frame) - 1: int(level) for frame, level in csv.reader(file) if level != "9"}
        widths = {}
        for frame in levels:
            tbnd = bp4d / "3DFeatures" / subject / "T1" / f"{frame:04d}.tbnd"
            if tbnd.is_file():
                points = parse_tbnd(tbnd)[1]
                widths[frame] = float(np.linalg.norm(points[48] - points[54]))
        frames = sorted(widths)
        assert np.corrcoef([levels[f] for f in frames], [widths[f] for f in frames])[0, 1] > 0.9


# --- 4DME ---


def read_sheet(root: Path) -> list[dict[str, object]]:
    header, *rows = openpyxl.load_workbook(root / "4DME_labels.xlsx").active.iter_rows(values_only=True)
    assert header == ("sub_ID", "fold_name", "Emotion", "Onset", "Apex", "Offset", "AUs")
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_4dme_sheet_names_the_folders_and_their_frames(fourdme: Path) -> None:
    rows = read_sheet(fourdme)
    assert len(rows) == 12
    for row in rows:
        folder = fourdme / str(row["sub_ID"]) / str(row["fold_name"])
        suffix = ".obj" if row["sub_ID"] == "sub01" else ".wrl"
        frames = sorted(int(path.stem) for path in folder.glob(f"*{suffix}"))
        assert frames == list(range(frames[0], frames[0] + ME_FRAMES))
        assert all((folder / f"{frame:05d}.jpg").is_file() for frame in frames)
        onset, apex, offset = (int(str(row[name])) for name in ("Onset", "Apex", "Offset"))
        assert frames[0] < onset < apex < offset < frames[-1] + 1
    for subject in ("sub01", "sub02"):
        emotions = [str(row["Emotion"]) for row in rows if row["sub_ID"] == subject]
        assert {"Positive", "Negative", "Surprise", "Repression", "Others"} <= set(emotions)
        assert sum("," in emotion for emotion in emotions) == 1


def test_4dme_clips_vary_and_mark_one_sided_units() -> None:
    clips = [clip for number in range(40) for clip in draw_clips(number, 0, 30)]
    assert all(re.fullmatch(r"\d+(\([LR]\))?(\+\d+(\([LR]\))?)*", clip.units) for clip in clips)
    assert sum("(" in clip.units for clip in clips) > 10 and sum("+" in clip.units for clip in clips) > 50
    lengths = np.array([clip.offset - clip.onset for clip in clips])
    assert lengths.min() >= 0.25 * 60 and lengths.max() <= 0.5 * 60  # a micro-expression lasts under half a second
    assert all(clip.first < clip.onset and clip.offset <= clip.first + 29 for clip in clips)


def test_a_micro_expression_is_small_and_lies_between_onset_and_offset(fourdme: Path) -> None:
    for row in [row for row in read_sheet(fourdme) if row["sub_ID"] == "sub01"]:
        folder = fourdme / "sub01" / str(row["fold_name"])
        paths = sorted(folder.glob("*.obj"))
        reference = parse_obj(paths[0])[0]
        centred = reference - reference.mean(0)
        moved = {}
        for path in paths:
            vertices = parse_obj(path)[0]
            vertices = vertices - vertices.mean(0)
            back = Rotation.align_vectors(centred, vertices)[0].apply(vertices)
            # Scanner noise is drawn a vertex; what moves the face is smooth.
            smooth = uniform_filter((back - centred).reshape(*grid_shape(), 3), (5, 5, 0))
            moved[int(path.stem)] = float(np.linalg.norm(smooth, axis=-1)[4:-4, 4:-4].max())
        apex, onset, offset = (int(str(row[name])) for name in ("Apex", "Onset", "Offset"))
        assert 0.25 < moved[apex] < 1.1, row
        assert moved[apex] >= max(moved.values()) - 0.06
        still = [value for frame, value in moved.items() if frame <= onset or frame >= offset]
        assert max(still) < 0.2, row


# --- all three ---


def digests(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_files_do_not_depend_on_the_number_of_people_processes_or_interruptions(
    bosphorus: Path, bp4d: Path, fourdme: Path, tmp_path: Path
) -> None:
    write_bosphorus(tmp_path / "bosphorus", num_subjects=1, progress=False, num_workers=1)
    one, three = digests(tmp_path / "bosphorus"), digests(bosphorus)
    assert len(one) > 50 and all(three[name] == digest for name, digest in one.items())
    options = {"num_subjects": 2, "num_frames": ME_FRAMES, "progress": False}
    write_4dme(tmp_path / "4dme", **options, num_workers=2)  # type: ignore[arg-type]
    assert digests(tmp_path / "4dme") == digests(fourdme)

    # Interrupted in its second subject, and run again.
    before = digests(bp4d)
    (bp4d / "Sequences(2D+3D)" / "M001" / ".complete").unlink()
    shutil.rmtree(bp4d / "Sequences(2D+3D)" / "M001" / "T5")
    (bp4d / "3DFeatures" / "M001" / "T2" / "0000.tbnd").unlink(missing_ok=True)
    num_scans = write_bp4d(bp4d, num_subjects=3, num_frames=BP4D_FRAMES, progress=False, num_workers=1)
    assert num_scans == 3 * 8 * BP4D_FRAMES and digests(bp4d) == before


def test_a_sheet_carries_no_times(tmp_path: Path) -> None:
    rows = [("sub01", 1, "12(L)"), ("sub02", 2, "Ärger")]
    data = encode_sheet(("a", "b", "c"), rows)
    (tmp_path / "s.xlsx").write_bytes(data)
    book = openpyxl.load_workbook(tmp_path / "s.xlsx")
    assert list(book.active.iter_rows(values_only=True)) == [("a", "b", "c"), *rows]
    assert book.properties.modified.year == book.properties.created.year == 1980
    assert data == encode_sheet(("a", "b", "c"), rows)


@pytest.mark.parametrize(
    ("name", "subjects", "frames", "words"),
    [
        ("bosphorus", 106, None, ["--subjects 106", "105"]),
        ("bosphorus", 0, None, ["--subjects 0"]),
        ("bosphorus", 1, 8, ["--frames", "bosphorus", "bp4d"]),
        ("bp4d", 42, None, ["--subjects 42", "41"]),
        ("bp4d", 1, 2, ["--frames 2", "3"]),
        ("bp4d", 1, 1001, ["--frames 1001", "1000"]),
        ("4dme", 100, None, ["--subjects 100", "sub99"]),
        ("4dme", 1, 6, ["--frames 6", "7"]),
    ],
)
def test_what_a_layout_cannot_hold_is_refused(
    tmp_path: Path, name: str, subjects: int, frames: int | None, words: list[str]
) -> None:
    with pytest.raises(FacetError) as error:
        write_layout(name, tmp_path / "data", num_subjects=subjects, num_frames=frames)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)
    assert not (tmp_path / "data").exists()


def copy_part(root: Path, to: Path, patterns: list[str]) -> Path:
    """A partial copy of a data set, as users have them."""
    for pattern in patterns:
        for path in root.glob(pattern):
            if path.is_file():
                (to / path.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, to / path.relative_to(root))
    return to


def surface_colours(source: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points of a scan (K, 3) and their colours u8 (K, 3), read straight from its files."""
    if source.suffix == ".bnt":
        scan, photo = parse_bnt(source), np.asarray(Image.open(source.with_suffix(".png")))
        return scan.planes[:3, scan.seen].T, photo_at(photo, scan.planes[3], scan.planes[4])[scan.seen]
    vertices, uv, _, _ = parse_obj(source)
    texture = np.asarray(Image.open(source.with_suffix(".jpg")))
    return vertices, photo_at(texture, uv[:, 0], 1 - uv[:, 1])


@pytest.mark.parametrize(
    ("name", "patterns"),
    [
        (
            "bosphorus",
            ["*.txt", "BosphorusDB/bs000/bs000_E_HAPPY*", "BosphorusDB/bs000/bs000_O*", "BosphorusDB/bs001/*YR*"],
        ),
        ("bp4d", ["*.txt", "*/F001/T4/*", "AUCoding/*/F001_T4*"]),
        ("4dme", ["*.txt", "*.xlsx", "sub01/clip01/*"]),
    ],
)
def test_a_build_shows_each_layout_upright_unmirrored_and_textured(
    name: str, patterns: list[str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    written: Path = request.getfixturevalue({"4dme": "fourdme"}.get(name, name))
    root = copy_part(written, tmp_path / "data", patterns)
    command = [sys.executable, "-m", "preprocess", "build", name, "--root", str(root), "--cache", str(tmp_path / "c")]
    built = subprocess.run([*command, "--size", "112", "--workers", "1"], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    cache = open_cache(tmp_path / "c")
    rows = list(range(len(cache.samples)))
    assert len(rows) == {"bosphorus": 3, "bp4d": BP4D_FRAMES, "4dme": ME_FRAMES}[name]
    assert all(sample.valid for sample in cache.samples)
    poses, pictures = cache.arrays.read("scan_to_face", rows), cache.arrays.read("texture", rows)[:, 0]
    mm_per_px = 0.9 * 224 / 112
    for sample, pose, picture in zip(cache.samples, poses, pictures, strict=True):
        points, colours = surface_colours(root / sample.source)
        face = points @ pose[:3, :3].T.astype(float) + pose[:3, 3]
        near = (np.abs(face[:, 0]) < 40) & (np.abs(face[:, 1]) < 50) & (face[:, 2] > -60)
        assert near.sum() > 1000

        def difference(
            sign_x: float,
            sign_y: float,
            face: np.ndarray = face[near],
            picture: np.ndarray = picture,
            colours: np.ndarray = colours[near],
        ) -> float:
            column = np.floor(56 + sign_x * face[:, 0] / mm_per_px).astype(int)
            row = np.floor(56 - sign_y * face[:, 1] / mm_per_px).astype(int)
            return float(np.abs(picture[row, column].astype(float) - colours).mean())

        aligned = difference(1, 1)
        assert aligned < 12, (sample.sample_id, aligned)
        assert aligned < 0.75 * difference(-1, 1) and aligned < 0.75 * difference(1, -1), sample.sample_id
