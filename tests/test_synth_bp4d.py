"""Synthetic BP4D: meshes, landmarks and action-unit codes in the layout of the real data set."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from written_layouts import check_build, copy_part, digests, obj_colours, parse_obj

from preprocess.datasets import DATASETS
from preprocess.synth.layouts import LAYOUTS
from preprocess.synth.population import write_population
from preprocess.synth.sheet import grid_shape

BP4D_FRAMES = 5


@pytest.fixture(scope="module")
def bp4d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bp4d") / "data"
    num_scans = write_population(
        LAYOUTS["bp4d"], root, num_subjects=3, num_frames=BP4D_FRAMES, progress=False, num_workers=1
    )
    assert num_scans == 3 * 8 * BP4D_FRAMES == len(list(root.rglob("*.obj")))
    return root


def parse_tbnd(path: Path) -> tuple[np.ndarray, np.ndarray]:
    rows = [list(map(float, line.split())) for line in path.read_text().splitlines()]
    assert len(rows) == 84 and all(len(row) == 3 for row in rows)
    return np.array(rows[0]), np.array(rows[1:])


def test_bp4d_meshes_and_frame_names(bp4d: Path) -> None:
    sequences = bp4d / "Sequences(2D+3D)"
    assert sorted(path.name for path in sequences.iterdir()) == ["F001", "F002", "M001"]
    assert all(dict(record.groups) == {"sex": record.subject[0]} for record in DATASETS["bp4d"].find(bp4d).records)
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


def test_bp4d_files_do_not_depend_on_an_interruption(bp4d: Path) -> None:
    """Interrupted in its second subject, and run again."""
    before = digests(bp4d)
    (bp4d / "Sequences(2D+3D)" / "M001" / ".complete").unlink()
    shutil.rmtree(bp4d / "Sequences(2D+3D)" / "M001" / "T5")
    (bp4d / "3DFeatures" / "M001" / "T2" / "0000.tbnd").unlink(missing_ok=True)
    num_scans = write_population(
        LAYOUTS["bp4d"], bp4d, num_subjects=3, num_frames=BP4D_FRAMES, progress=False, num_workers=1
    )
    assert num_scans == 3 * 8 * BP4D_FRAMES and digests(bp4d) == before


def test_a_build_shows_bp4d_upright_unmirrored_and_textured(bp4d: Path, tmp_path: Path) -> None:
    root = copy_part(bp4d, tmp_path / "data", ["*.txt", "*/F001/T4/*", "AUCoding/*/F001_T4*"])
    check_build("bp4d", root, tmp_path, obj_colours, BP4D_FRAMES)
