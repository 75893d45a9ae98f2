"""BP4D+ from its folders to rows: ten tasks, landmarks in one folder, columns named by their units, and BP4D under its name."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from scan_folders import face_grid
from test_bp4d import OFFSET_MM, make_bp4d, write_frame

from preprocess.datasets import DATASETS
from preprocess.datasets.scan import ScanRecord
from preprocess.readers.bu_landmarks import read_bndplus
from preprocess.synth.layouts import LAYOUTS
from preprocess.synth.population import write_population
from shared.errors import FacetError, ScanError

READER = DATASETS["bp4dplus"]
UNITS = (1, 2, 4, 5, 6, 7, 9, *range(10, 21), 22, 23, 24, *range(27, 40))
# Where the points of each part lie on the face, x and y in mm: brows, eyes, nose, mouth, contour.
PARTS = {"brows": (20, 48), "eyes": (16, 34), "nose": (12, -5), "mouth": (20, -35), "contour": (15, -65)}


def landmark_points(*order: str) -> np.ndarray:
    """83 points, on vertices of the face, in parts of the given order."""
    vertices = face_grid(6.0)[0] + OFFSET_MM
    points = []
    for part in order:
        number, height = PARTS[part]
        for x in np.linspace(-45, 45, number):
            points.append(
                vertices[np.argmin(np.hypot(vertices[:, 0] - OFFSET_MM[0] - x, vertices[:, 1] - OFFSET_MM[1] - height))]
            )
    return np.array(points)


BP4D_ORDER, BU_ORDER = ("brows", "eyes", "nose", "mouth", "contour"), ("eyes", "brows", "nose", "mouth", "contour")


def write_bndplus(path: Path, points: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{x:.4f},{y:.4f},{z:.4f}\n" for x, y, z in points * [1, 1, -1]))


def write_occurrence(path: Path, rows: dict[int, dict[int, int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(map(str, (1, *UNITS)))]
    lines += [",".join(str(v) for v in (frame, *(units.get(u, 9) for u in UNITS))) for frame, units in rows.items()]
    path.write_text("\n".join(lines) + "\n")


def make_plus(
    root: Path, *, start: int = 0, order: tuple[str, ...] = BP4D_ORDER, folder: str = "FacialLandmarks"
) -> Path:
    points = landmark_points(*order)
    for subject, task in (("F082", "T1"), ("F082", "T10"), ("F082", "T2"), ("M058", "T5")):
        for frame in range(start, start + 2):
            write_frame(root / "2D+3D" / subject / task, f"{frame:04d}")
            write_bndplus(root / "3DFeatures" / folder / f"{subject}_{task}_{frame:04d}.bndplus", points)
    write_occurrence(root / "AUCoding/AU_OCC/F082_T1.csv", {1: {12: 1, 39: 0}, 2: {12: 0}})
    (root / "AUCoding/AU_INT/AU12").mkdir(parents=True)
    (root / "AUCoding/AU_INT/AU12/F082_T1_AU12.csv").write_text("1,4\n2,0\n")
    return root


def values_of(record: ScanRecord) -> dict[str, int]:
    return (
        {name: value for name, value in zip(READER.au_names, record.aus, strict=True) if value != -1}
        if record.aus
        else {}
    )


@pytest.mark.parametrize(("folder", "start"), [("FacialLandmarks", 0), ("BND", 1)])
def test_tasks_landmarks_and_action_units(tmp_path: Path, folder: str, start: int) -> None:
    """Where no sequence begins at 0, frames are taken to be numbered as the coders numbered them."""
    root = make_plus(tmp_path, start=start, folder=folder)
    listing = READER.find(root)
    assert [(r.sequence, r.frame, r.label) for r in listing.records if r.frame == start] == [
        ("F082/T1", start, "happiness"),
        ("F082/T2", start, "surprise"),
        ("F082/T10", start, "disgust"),
        ("M058/T5", start, "skepticism"),
    ]
    first, second = listing.records[:2]
    assert first.landmarks == f"3DFeatures/{folder}/F082_T1_{start:04d}.bndplus"
    assert dict(first.options) == {"landmark_axes": "+x +y -z"} and dict(first.groups) == {"sex": "F"}
    mesh = READER.read(root, first)
    assert mesh.landmarks_mm is not None and mesh.texture is not None
    np.testing.assert_allclose(mesh.landmarks_mm, landmark_points(*BP4D_ORDER), atol=1e-3)
    assert values_of(first) == {"AU12": 1, "AU39": 0, "AU12_intensity": 4}
    assert values_of(second) == {"AU12": 0, "AU12_intensity": 0}
    assert not any(record.aus for record in listing.records[2:])
    assert [name for name in READER.au_names if "_" not in name] == [f"AU{unit}" for unit in UNITS]
    assert list(listing.notes) == [
        "a part of the data set: 2 of 140 subjects, 4 of 1,400 sequences",
        "landmarks lie on the scans with their axes as +x +y -z (found by trying)",
        "1 sequences without intensities (AU_INT) of all units: F082/T1",
        f"frame N is taken for action-unit frame N{' + 1' * (not start)}",
    ]


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    """Folders whose names are no task's or subject's, and a file of occurrences without a line: intensities do not hide it."""
    root = make_plus(tmp_path)
    for folder in ("F082/T11", "F082/T1 copy", "F82/T1"):
        write_frame(root / "2D+3D" / folder, "0000")
    write_occurrence(root / "AUCoding/AU_OCC/F082_T1.csv", {})
    listing = READER.find(root)
    assert {record.sequence for record in listing.records} == {"F082/T1", "F082/T2", "F082/T10", "M058/T5"}
    assert "3 folders with scans that are left out, by their names: F82/, F082/T1 copy/, F082/T11/" in listing.notes
    assert "1 sequences whose action units fit none of their frames: F082/T1" in listing.notes


def test_landmarks_in_another_order_are_not_used(tmp_path: Path) -> None:
    """Brows taken for eyes would pitch each face, and fit it no worse: the order is checked, not assumed."""
    listing = READER.find(make_plus(tmp_path, order=BU_ORDER))
    assert {record.landmarks for record in listing.records} == {""}
    assert any("not in the order of BP4D" in note and "aligned by geometry" in note for note in listing.notes)


def test_bp4d_under_the_name_of_bp4d_plus(tmp_path: Path) -> None:
    root = make_bp4d(tmp_path)
    with pytest.raises(FacetError, match=r"Sequences\(2D\+3D\) is BP4D's folder.*give the NAME bp4d$"):
        READER.find(root)
    (root / "Sequences(2D+3D)").rename(root / "frames")
    assert any("labels of T2 to T8 are wrong: give the NAME bp4d" in note for note in READER.find(root).notes)
    (root / "frames").rename(root / "2D+3D")
    assert not any("give the NAME" in note for note in READER.find(root).notes)


def test_packed_subjects_are_named(tmp_path: Path) -> None:
    root = make_plus(tmp_path)
    (root / "2D+3D" / "F001.zip").write_bytes(b"PK\3\4")
    assert "1 archives that are not unpacked, so not read: 2D+3D/F001.zip" in READER.find(root).notes
    for folder in ("F082", "M058"):
        shutil.rmtree(root / "2D+3D" / folder)
    with pytest.raises(FacetError, match=r"archives are not read, unpack them first \(2D\+3D/F001\.zip\)"):
        READER.find(root)


def test_files_of_landmarks(tmp_path: Path) -> None:
    points = landmark_points(*BP4D_ORDER)
    points[3] = 0
    path = tmp_path / "a.bndplus"
    write_bndplus(path, points)
    found = read_bndplus(path)
    assert np.isnan(found[3]).all()
    np.testing.assert_allclose(np.delete(found, 3, 0), np.delete(points, 3, 0) * [1, 1, -1], atol=1e-3)
    path.write_text("")
    assert np.isnan(read_bndplus(path)).all() and read_bndplus(path).shape == (83, 3)
    for text in ("1,2,3\n", "1,2,3\n" * 84, "1,2\n" * 83, "1,2,x\n" * 83, "1,2,inf\n" * 83):
        path.write_text(text)
        with pytest.raises(ScanError, match=r"a\.bndplus: .*copy it again"):
            read_bndplus(path)


def test_synthetic_bp4d_plus_is_read_as_it_was_written(tmp_path: Path) -> None:
    root = tmp_path / "data"
    num_scans = write_population(LAYOUTS["bp4dplus"], root, num_subjects=1, num_frames=3, progress=False, num_workers=1)
    assert num_scans == 30 == len(list((root / "2D+3D" / "F001").rglob("*.obj")))
    assert len(list((root / "3DFeatures/FacialLandmarks").iterdir())) == 29  # one is missing
    assert sorted(path.name for path in (root / "AUCoding/AU_OCC").iterdir()) == [
        f"F001_T{k}.csv" for k in (1, 6, 7, 8)
    ]
    listing = READER.find(root)
    assert {record.task: record.label for record in listing.records} == READER.find.keywords["edition"].tasks  # type: ignore[attr-defined]
    assert sum(bool(record.landmarks) for record in listing.records) == 29
    records = {record.frame: record for record in listing.records if record.task == "T8"}
    with (root / "AUCoding/AU_OCC/F001_T8.csv").open() as file:
        header, *rows = list(csv.reader(file))
    assert header == [str(unit) for unit in (1, *UNITS)]
    for row in rows:
        coded = dict(zip(header[1:], row[1:], strict=True))
        values = values_of(records[int(row[0]) - 1])
        assert {f"AU{unit}": int(value) for unit, value in coded.items() if value != "9"} == {
            name: value for name, value in values.items() if "_" not in name
        }
    with (root / "AUCoding/AU_INT/AU10/F001_T8_AU10.csv").open() as file:
        levels = {int(frame) - 1: int(value) for frame, value in csv.reader(file)}
    assert levels == {frame: values_of(records[frame]).get("AU10_intensity", 9) for frame in levels}
