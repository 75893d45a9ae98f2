"""BP4D-Spontaneous from its folders to rows: frames, landmarks whose axes are found, action units one frame late."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scan_folders import face_grid

from preprocess.datasets import DATASETS
from preprocess.datasets.scan import ScanRecord
from shared.errors import FacetError, ScanError
from shared.labels import BP4D_TASKS

READER = DATASETS["bp4d"]
SEQUENCES = "Sequences(2D+3D)"
OFFSET_MM = np.array([5.0, 12.0, 60.0])  # a scanner's origin is nobody's nose


def write_frame(folder: Path, name: str, bump_mm: float = 6.0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    vertices, triangles = face_grid(bump_mm)
    lines = [f"mtllib {name}.mtl", "usemtl face"]
    lines += [f"v {x:.4f} {y:.4f} {z:.4f}" for x, y, z in vertices + OFFSET_MM]
    lines += [f"vt {(x + 70) / 140:.4f} {(y + 75) / 155:.4f}" for x, y, _ in vertices]
    lines += [f"f {a} {b} {c}" for a, b, c in triangles + 1]
    (folder / f"{name}.obj").write_text("\n".join(lines) + "\n")
    (folder / f"{name}.mtl").write_text(f"newmtl face\nmap_Kd {name}.jpg\n")
    Image.new("RGB", (8, 8), (200, 150, 120)).save(folder / f"{name}.jpg")


def landmark_points(bump_mm: float = 6.0) -> np.ndarray:
    vertices = face_grid(bump_mm)[0] + OFFSET_MM
    return vertices[np.random.default_rng(1).choice(len(vertices), 83)]


def write_tbnd(path: Path, signs: tuple[int, int, int] = (1, 1, -1), shift_mm: float = 0.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    points = (landmark_points() + shift_mm) * signs
    points[7] = 0
    path.write_text("1 2 3\n" + "".join(f"{x:.4f} {y:.4f} {z:.4f}\n" for x, y, z in points))


def write_occurrence(path: Path, rows: dict[int, dict[int, int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(map(str, range(100)))]
    lines += [
        ",".join(str(v) for v in [frame, *(units.get(u, 9) for u in range(1, 100))]) for frame, units in rows.items()
    ]
    path.write_text("\n".join(lines) + "\n")


def make_bp4d(root: Path, signs: tuple[int, int, int] = (1, 1, -1)) -> Path:
    for subject, task, names in (
        ("F001", "T1", ["0000", "0001", "0002"]),
        ("F001", "T8", ["0000", "0001"]),
        ("M002", "T4", ["009", "010"]),
    ):
        for name in names:
            write_frame(root / SEQUENCES / subject / task, name)
            write_tbnd(root / "3DFeatures" / subject / task / f"{name}.tbnd", signs)
    (root / SEQUENCES / "F001" / "T1" / "notes.obj").write_text("a stray file")
    (root / SEQUENCES / "F001" / "T9").mkdir()
    coding = root / "AUCoding"
    write_occurrence(coding / "AU_OCC" / "F001_T1.csv", {1: {12: 1, 1: 0}, 2: {12: 0}, 7: {12: 1}})
    (coding / "AU_INT").mkdir()
    (coding / "AU_INT" / "F001_T1_AU12.csv").write_text("1,3\n2,9\n3,5\n")
    return root


def values_of(record: ScanRecord) -> dict[str, int]:
    return (
        {name: value for name, value in zip(READER.au_names, record.aus, strict=True) if value != -1}
        if record.aus
        else {}
    )


def test_frames_tasks_and_action_units(tmp_path: Path) -> None:
    records = (listing := READER.find(make_bp4d(tmp_path))).records
    assert not any("begins with frame 0" in note for note in listing.notes)
    assert [(r.sample_id, r.sequence, r.frame, r.label) for r in records] == [
        ("F001/T1/0000", "F001/T1", 0, "happiness"),
        ("F001/T1/0001", "F001/T1", 1, "happiness"),
        ("F001/T1/0002", "F001/T1", 2, "happiness"),
        ("F001/T8/0000", "F001/T8", 0, "disgust"),
        ("F001/T8/0001", "F001/T8", 1, "disgust"),
        ("M002/T4/009", "M002/T4", 9, "embarrassment"),
        ("M002/T4/010", "M002/T4", 10, "embarrassment"),
    ]
    # Model frame 0 is AU frame 1.
    assert values_of(records[0]) == {"AU1": 0, "AU12": 1, "AU12_intensity": 3}
    assert values_of(records[1]) == {"AU12": 0}
    assert values_of(records[2]) == {"AU12_intensity": 5}
    assert [r.aus for r in records[3:]] == [()] * 4
    assert records[0].source == f"{SEQUENCES}/F001/T1/0000.obj"
    assert records[0].texture == f"{SEQUENCES}/F001/T1/0000.jpg"
    assert records[0].landmarks == "3DFeatures/F001/T1/0000.tbnd"
    assert (READER.frames_per_second, READER.stabilised) == (25, True)
    assert len(READER.au_names) == 32 and len(set(READER.au_names)) == 32
    assert set(BP4D_TASKS.values()) == set(READER.class_names)


@pytest.mark.parametrize("signs", [(1, 1, -1), (-1, 1, 1), (1, -1, 1), (1, 1, 1), (-1, -1, -1)])
def test_landmarks_lie_on_the_scan_whatever_their_axes(tmp_path: Path, signs: tuple[int, int, int]) -> None:
    records = READER.find(make_bp4d(tmp_path, signs)).records
    words = " ".join(f"{'+' if sign > 0 else '-'}{axis}" for sign, axis in zip(signs, "xyz", strict=True))
    assert {r.options for r in records} == {(("landmark_axes", words),)}
    mesh = READER.read(tmp_path, records[-1])
    assert mesh.texture is not None and mesh.landmarks_mm is not None
    expected = landmark_points().astype(np.float32)
    expected[7] = np.nan  # (0, 0, 0) is untrackable
    np.testing.assert_allclose(mesh.landmarks_mm, expected, atol=1e-3)
    assert f"landmarks lie on the scans with their axes as {words} (found by trying)" in list(
        READER.find(tmp_path).notes
    )


def test_landmarks_that_fit_nowhere_are_left_out(tmp_path: Path) -> None:
    root = make_bp4d(tmp_path)
    for path in (root / "3DFeatures").rglob("*.tbnd"):
        write_tbnd(path, shift_mm=300)
    records = READER.find(root).records
    assert {(r.landmarks, r.options) for r in records} == {("", ())}
    assert READER.read(root, records[0]).landmarks_mm is None
    (line,) = [line for line in READER.find(root).notes if "aligned by geometry" in line]
    assert "do not lie on their scans" in line and "3DFeatures/F001/T1/0000.tbnd" in line


def test_one_frame_whose_landmarks_have_strayed(tmp_path: Path) -> None:
    """Its axes are known from others: it is checked all the same."""
    root = make_bp4d(tmp_path)
    write_tbnd(root / "3DFeatures/F001/T1/0001.tbnd", shift_mm=40)
    records = READER.find(root).records
    landmarks = [READER.read(root, record).landmarks_mm for record in records[:2]]
    assert landmarks[0] is not None and np.isfinite(landmarks[0]).any()
    assert landmarks[1] is not None and np.isnan(landmarks[1]).all()
    notes = [READER.read(root, record).notes for record in records[:2]]
    assert notes[0] == () and "mm off the surface, and are not used" in notes[1][0]


def test_a_broken_first_frame_does_not_end_the_search_for_axes(tmp_path: Path) -> None:
    root = make_bp4d(tmp_path)
    (root / SEQUENCES / "F001/T1/0000.obj").write_text("v 1 2\n")
    records = READER.find(root).records
    assert records[0].options == (("landmark_axes", "+x +y -z"),)
    with pytest.raises(ScanError, match=r"0000\.obj"):
        READER.read(root, records[0])


@pytest.mark.parametrize("root", ["data", "data/Sequences(2D+3D)", "."])
def test_the_root_may_be_the_frames_folder_or_above(tmp_path: Path, root: str) -> None:
    make_bp4d(tmp_path / "data")
    records = READER.find(tmp_path / root).records
    assert len(records) == 7
    assert all((tmp_path / root / r.landmarks).is_file() and r.landmarks for r in records)
    assert values_of(records[0])["AU12"] == 1
    assert READER.read(tmp_path / root, records[0]).landmarks_mm is not None


def test_numbers_match_however_they_are_padded(tmp_path: Path) -> None:
    write_frame(tmp_path / "f001" / "t1", "0007")
    write_tbnd(tmp_path / "3DFeatures" / "f001" / "T1" / "007.tbnd")
    write_occurrence(tmp_path / "AU OCC" / "F001_T01.csv", {8: {6: 1}})
    folder = tmp_path / "AU_INT" / "AU06"  # a folder a unit
    folder.mkdir(parents=True)
    (folder / "F001_T1_AU06.csv").write_text("8,2\n")
    (record,) = (listing := READER.find(tmp_path)).records
    assert any(note.startswith("no sequence begins with frame 0") for note in listing.notes)
    assert (record.subject, record.task, record.landmarks) == ("F001", "T1", "3DFeatures/f001/T1/007.tbnd")
    assert values_of(record) == {"AU6": 1, "AU6_intensity": 2}
    write_frame(tmp_path / "f001" / "t1", "007")  # the same frame again: neither lost in silence nor two frames
    (record,) = (listing := READER.find(tmp_path)).records
    left_out = ({"0007", "007"} - {Path(record.source).stem}).pop()
    assert any("frame number" in note and f"f001/t1/{left_out}.obj" in note for note in listing.notes)


def test_without_a_picture_of_its_name_the_material_counts(tmp_path: Path) -> None:
    write_frame(tmp_path / "F001" / "T1", "0000")
    folder = tmp_path / "F001" / "T1"
    (folder / "0000.jpg").rename(folder / "skin.jpg")
    (folder / "0000.mtl").write_text("newmtl face\nmap_Kd skin.jpg\n")
    (record,) = READER.find(tmp_path).records
    assert record.texture == ""
    assert READER.read(tmp_path, record).texture is not None
    assert {path.name for path in READER.source_files(tmp_path, record)} == {"0000.obj", "0000.mtl", "skin.jpg"}
    (folder / "skin.jpg").rename(folder / "0000.jpg")  # and one of its name counts whatever the material says
    (record,) = READER.find(tmp_path).records
    assert READER.read(tmp_path, record).texture is not None


def test_what_a_partial_copy_lacks_is_summarised(tmp_path: Path) -> None:
    root = make_bp4d(tmp_path)
    (root / "3DFeatures/F001/T1/0002.tbnd").unlink()
    for path in (root / "3DFeatures/F001/T8").iterdir():
        path.unlink()
    (root / SEQUENCES / "F001/T1/0001.obj").unlink()
    (root / "AUCoding/AU_INT/F001_T1_AU12.csv").write_text("1,8\n")
    write_occurrence(root / "AUCoding/AU_OCC/M002_T4.csv", {500: {12: 1}})
    records = READER.find(root).records
    assert values_of(records[0]) == {"AU1": 0, "AU12": 1}  # a file that cannot be read counts as missing
    assert list(READER.find(root).notes) == [
        "a part of the data set: 2 of 41 subjects, 3 of 328 sequences, 6 of 368,036 scans",
        "1 sequences with frames left out: F001/T1",
        "1 sequences without landmarks (3DFeatures): F001/T8",
        "1 frames without landmarks (3DFeatures): F001/T1/0002",
        "landmarks lie on the scans with their axes as +x +y -z (found by trying)",
        "1 sequences without action units: F001/T8",
        "2 sequences without intensities (AU_INT) of all units: F001/T1, M002/T4",
        "1 sequences whose action units fit none of their frames: M002/T4",
        f"{root}/AUCoding/AU_INT/F001_T1_AU12.csv: the value 8, expected 0 to 5 or 9 (unknown); copy it again or remove it",
    ]


def test_what_action_unit_files_lack_is_summarised(tmp_path: Path) -> None:
    root = make_bp4d(tmp_path)
    coding = root / "AUCoding"
    write_frame(root / SEQUENCES / "M002" / "T4", "011")
    write_occurrence(coding / "AU_OCC" / "M002_T4.csv", {10: {12: 1}, 12: {12: 0}})
    (coding / "AU_INT" / "M002_T4_AU12.csv").write_text("11,3\n")  # an intensity is no occurrence
    write_occurrence(
        coding / "AU_OCC" / "F001_T8.csv", {0: {12: 1}, 1: {12: 1}}
    )  # coding ends before the sequence does: as published
    write_occurrence(coding / "AU_OCC" / "F009_T1.csv", {1: {12: 1}})
    (coding / "AU_OCC" / "F001_T1.csv").unlink()
    (coding / "AU_INT" / "F001_T1_AU12.csv").write_text("1,3\n3,5\n")
    lines = list(READER.find(root).notes)
    assert lines[-5:] == [
        "1 sequences with intensities alone, without occurrences (AU_OCC): F001/T1",
        "3 sequences without intensities (AU_INT) of all units: F001/T1, F001/T8, M002/T4",
        "2 frames without action units among others that have them: F001/T1/0001, M002/T4/010",
        "1 sequences of action units without frames: F009/T1",
        "1 sequences whose action units begin with frame 0, which belongs to no scan, as coders count from 1; if these files "
        "count from 0, add 1 to their frames: F001/T8",
    ]


def test_every_unit_is_read_from_the_column_of_its_number(tmp_path: Path) -> None:
    """The units that the data set's guide lists as coded; 99 columns that differ, in a second frame the other way round."""
    occurring = [1, 2, 4, 5, 6, 7, *range(9, 21), 22, 23, 24, 27, 28, 30, 32, 38, 39]
    write_frame(tmp_path / "F001" / "T1", "0000")
    write_frame(tmp_path / "F001" / "T1", "0001")
    rows = {frame: {unit: (unit // frame) % 2 for unit in range(1, 100)} for frame in (1, 2)}
    write_occurrence(tmp_path / "AU_OCC" / "F001_T1.csv", rows)
    (tmp_path / "AU_INT").mkdir()
    for unit in (6, 10, 12, 14, 17):
        (tmp_path / "AU_INT" / f"F001_T1_AU{unit:02d}.csv").write_text(f"1,{unit % 6}\n2,{unit // 6}\n")
    for frame, record in enumerate(READER.find(tmp_path).records, start=1):
        wanted = {f"AU{unit}": rows[frame][unit] for unit in occurring}
        wanted |= {f"AU{unit}_intensity": unit % 6 if frame == 1 else unit // 6 for unit in (6, 10, 12, 14, 17)}
        assert values_of(record) == wanted


def test_one_kind_of_action_units_may_be_missing_or_damaged(tmp_path: Path) -> None:
    write_frame(tmp_path / "F001" / "T1", "0000")
    occurrence, intensity = tmp_path / "AU_OCC" / "F001_T1.csv", tmp_path / "AU_INT" / "F001_T1_AU12.csv"
    write_occurrence(occurrence, {1: {1: 0, 12: 1}})
    sound = occurrence.read_text()
    intensity.parent.mkdir()
    intensity.write_text("1,3\n")
    occurrence.write_text(sound.replace("\n1,", "\n1,0,"))
    records = READER.find(tmp_path).records
    assert values_of(records[0]) == {"AU12_intensity": 3}
    assert any("F001_T1.csv: expected 100 numbers per line" in line for line in READER.find(tmp_path).notes)
    occurrence.unlink()
    records = READER.find(tmp_path).records
    assert values_of(records[0]) == {"AU12_intensity": 3}
    assert not any("no action units" in line for line in READER.find(tmp_path).notes)
    intensity.unlink()
    assert "no action units (AUCoding) found" in READER.find(tmp_path).notes
    occurrence.write_text(sound)
    records = READER.find(tmp_path).records
    assert values_of(records[0]) == {"AU1": 0, "AU12": 1}
    assert not any("no action units" in line for line in READER.find(tmp_path).notes)


def test_wrong_roots(tmp_path: Path) -> None:
    with pytest.raises(FacetError, match="no such folder"):
        READER.find(tmp_path / "none")
    with pytest.raises(FacetError, match=r"looked for Sequences\(2D\+3D\)/F001/T1/0000\.obj"):
        READER.find(tmp_path)
    (tmp_path / "F001" / "T1").mkdir(parents=True)
    with pytest.raises(FacetError, match=r"looked for .*found F001/"):
        READER.find(tmp_path)
    for part in ("a", "b"):
        write_frame(tmp_path / part / "F001" / "T1", "0000")
    with pytest.raises(FacetError, match=r"several folders \(a, b\)"):
        READER.find(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["3DFeatures/FacialLandmarks/F001_T1_0000.bndplus", "AUCoding/AU_OCC/F042_T7.csv", "AUCoding/AU_OCC/F001_T10.csv"],
)
def test_bp4d_plus_is_named_even_where_its_frames_are_elsewhere(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text("")
    with pytest.raises(FacetError, match=r"BP4D\+"):
        DATASETS["bp4d"].find(tmp_path)
