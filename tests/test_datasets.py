"""Where scans are and what they are labelled, in the layouts of BU-3DFE and BU-4DFE."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocess.datasets import DATASETS
from preprocess.datasets.bu3dfe import find_bu3dfe
from preprocess.datasets.bu4dfe import find_bu4dfe
from shared.errors import FacetError, ScanError

POINTS = [(-50.0, 0.0, 0.0), (50.0, 0.0, 0.0), (0.0, 60.0, 0.0), (0.0, 20.0, 33.0)]
WRL = """#VRML V2.0 utf8
Shape {{ appearance Appearance {{ texture ImageTexture {{ url "{texture}" }} }}
geometry IndexedFaceSet {{
coord Coordinate
{{
point
[
-50 0 0,
50 0 0,
0 60 0,
0 20 33
]
}}
coordIndex [ 0 1 3 -1, 1 2 3 -1, 2 0 3 -1 ]
texCoord TextureCoordinate {{ point [ 0 0, 1 0, 0.5 1, 0.5 0.5 ] }}
texCoordIndex [ 0 1 3 -1, 1 2 3 -1, 2 0 3 -1 ]
}} }}
"""


def write_scan(path: Path, texture: str = "none.bmp") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(WRL.format(texture=texture))
    return path


def write_image(path: Path, color: tuple[int, int, int] = (1, 2, 3)) -> None:
    Image.new("RGB", (4, 4), color).save(path)


def write_bnd(path: Path, first: float = 0.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{i}\t\t{first + i} {i} {i}\n" for i in range(83)))


def make_bu3dfe(root: Path) -> Path:
    for subject in ("M0002", "F0001"):
        for code in ("NE00WH", "AN01WH", "HA04WH", "SU02AE"):
            stem = root / subject / f"{subject}_{code}"
            write_scan(stem.with_name(stem.name + "_F3D.wrl"), f"{stem.name}_F3D.bmp")
            write_image(stem.with_name(stem.name + "_F3D.bmp"))
            write_bnd(stem.with_name(stem.name + "_F3D.bnd"))
            write_scan(stem.with_name(stem.name + "_RAW.wrl"), f"{stem.name}_F3D.bmp")
            write_image(stem.with_name(stem.name + "_F2D.bmp"), (9, 9, 9))
    (root / "SYNTHETIC.txt").write_text("a stray file")
    (root / "F0001" / "notes.txt").write_text("a stray file")
    (root / "F0001" / "F0001_XX01WH_F3D.wrl").write_text("no expression of BU-3DFE")
    write_scan(root / "F0001" / "F0009_AN01WH_F3D.wrl")  # somebody else's
    return root


def test_bu3dfe_lists_cropped_faces(tmp_path: Path) -> None:
    records = find_bu3dfe(make_bu3dfe(tmp_path)).records
    assert [r.sample_id for r in records] == [
        f"{subject}_{code}" for subject in ("F0001", "M0002") for code in ("AN01WH", "HA04WH", "NE00WH", "SU02AE")
    ]
    first, happy, neutral = records[:3]
    assert (first.subject, first.label, first.intensity) == ("F0001", "anger", "01")
    assert (happy.label, happy.intensity, neutral.label) == ("happiness", "04", "neutral")
    assert first.source == "F0001/F0001_AN01WH_F3D.wrl"
    assert first.texture == "F0001/F0001_AN01WH_F3D.bmp"
    assert first.landmarks == "F0001/F0001_AN01WH_F3D.bnd"


def test_bu3dfe_reads_surface_texture_and_landmarks(tmp_path: Path) -> None:
    reader = DATASETS["bu3dfe"]
    record = reader.find(make_bu3dfe(tmp_path)).records[0]
    mesh = reader.read(tmp_path, record)
    np.testing.assert_array_equal(mesh.vertices_mm, np.array(POINTS, np.float32))
    assert mesh.texture is not None
    assert mesh.texture[0, 0].tolist() == [1, 2, 3]
    assert mesh.landmarks_mm is not None
    assert mesh.landmarks_mm.shape == (reader.num_landmarks, 3)
    assert [p.suffix for p in reader.source_files(tmp_path, record)] == [".wrl", ".bmp", ".bnd"]
    assert mesh.notes == ()
    write_scan(tmp_path / record.source, "M0002_HA04WH_F3D.bmp")  # copied over
    (note,) = reader.read(tmp_path, record).notes
    assert "M0002_HA04WH" in note


def test_bu3dfe_raw_scans_stand_in_where_no_cropped_face_is(tmp_path: Path) -> None:
    root = make_bu3dfe(tmp_path)
    (root / "F0001" / "F0001_AN01WH_F3D.wrl").unlink()
    reader = DATASETS["bu3dfe"]
    record = reader.find(root).records[0]
    assert record.source == "F0001/F0001_AN01WH_RAW.wrl"
    assert record.landmarks == ""  # they fit the cropped face only
    mesh = reader.read(root, record)
    assert mesh.texture is not None
    assert mesh.texture[0, 0].tolist() == [1, 2, 3]  # F3D's image, not the photograph
    assert mesh.landmarks_mm is None


def test_bu3dfe_in_lower_case_and_one_folder_down(tmp_path: Path) -> None:
    write_scan(tmp_path / "BU_3DFE" / "f0001" / "f0001_an01wh_f3d.WRL")
    write_image(tmp_path / "BU_3DFE" / "f0001" / "F0001_AN01WH_F3D.BMP")
    (record,) = find_bu3dfe(tmp_path).records
    assert (record.sample_id, record.subject) == ("F0001_AN01WH", "F0001")
    assert record.source == "BU_3DFE/f0001/f0001_an01wh_f3d.WRL"
    assert DATASETS["bu3dfe"].read(tmp_path, record).texture is not None


def test_bu3dfe_a_missing_texture_leaves_the_scan_untextured(tmp_path: Path) -> None:
    write_scan(tmp_path / "F0001" / "F0001_AN01WH_F3D.wrl")
    (record,) = find_bu3dfe(tmp_path).records
    assert DATASETS["bu3dfe"].read(tmp_path, record).texture is None


def test_bu3dfe_broken_files_are_scan_errors(tmp_path: Path) -> None:
    root, reader = make_bu3dfe(tmp_path), DATASETS["bu3dfe"]
    record = reader.find(root).records[0]
    (root / record.texture).write_bytes(b"no image")
    with pytest.raises(ScanError, match=r"F0001_AN01WH_F3D\.bmp"):
        reader.read(root, record)
    write_image(root / record.texture)
    (root / record.landmarks).write_text("1 2 3 4\n")
    with pytest.raises(ScanError, match=r"F0001_AN01WH_F3D\.bnd"):
        reader.read(root, record)
    (root / record.source).unlink()
    with pytest.raises(ScanError, match=r"F0001_AN01WH_F3D\.wrl: no such file"):
        reader.read(root, record)


def make_bu4dfe(root: Path, num_frames: int = 3) -> Path:
    for folder in ("Angry", "Happy"):
        for frame in range(num_frames):
            write_scan(root / "F001" / folder / f"{frame:03d}.wrl", f"{frame:03d}.jpg")
            write_image(root / "F001" / folder / f"{frame:03d}.jpg")
    write_scan(root / "M002" / "Surprise" / "007.wrl")
    write_scan(root / "BU_WrlViewer_V2" / "Angry" / "000.wrl")
    (root / "F001" / "Angry" / "list.txt").write_text("a stray file")
    return root


def test_bu4dfe_lists_frames_of_sequences(tmp_path: Path) -> None:
    reader = DATASETS["bu4dfe"]
    records = reader.find(make_bu4dfe(tmp_path)).records
    assert [r.sample_id for r in records] == [
        *(f"F001/{folder}/{frame:03d}" for folder in ("Angry", "Happy") for frame in range(3)),
        "M002/Surprise/007",
    ]
    assert [(r.sequence, r.frame, r.label, r.task) for r in records[2:4]] == [
        ("F001/Angry", 2, "anger", "Angry"),
        ("F001/Happy", 0, "happiness", "Happy"),
    ]
    assert records[-1].frame == 7
    assert records[0].texture == "F001/Angry/000.jpg"
    assert reader.frames_per_second == 25
    assert reader.read(tmp_path, records[0]).texture is not None
    write_scan(tmp_path / "M002" / "Surprise" / "7.wrl")
    found = reader.find(tmp_path)
    assert found.records == records and found.notes.count(
        "1 files left out, as another has their frame number: M002/Surprise/7.wrl"
    )


@pytest.mark.parametrize("place", ["data", "."])  # in the root, beside it
@pytest.mark.parametrize("pattern", ["{:03d}.bnd", "F001_Angry_{}.bnd", "003_{:04d}.bnd"])
def test_bu4dfe_landmarks_by_number(tmp_path: Path, place: str, pattern: str) -> None:
    root, reader = make_bu4dfe(tmp_path / "data"), DATASETS["bu4dfe"]
    for frame in (0, 2):
        write_bnd(tmp_path / place / "BU4DFE_BND_V1.1" / "F001" / "Angry" / pattern.format(frame), first=100 * frame)
    records = reader.find(root).records
    assert [bool(r.landmarks) for r in records[:4]] == [True, False, True, False]
    landmarks = reader.read(root, records[2]).landmarks_mm
    assert landmarks is not None
    assert landmarks[0, 0] == 200


def test_bu4dfe_landmarks_by_order(tmp_path: Path) -> None:
    """Counted from 1 or from anywhere else: as many files as frames go together in order."""
    root, reader = make_bu4dfe(tmp_path / "data"), DATASETS["bu4dfe"]
    for i, number in enumerate((9, 10, 11)):
        write_bnd(tmp_path / "BU4DFE_BND_V1.1" / "F001" / "Angry" / f"F001.{number}.bnd", first=100 * i)
    records = reader.find(root).records
    for i in range(3):
        landmarks = reader.read(root, records[i]).landmarks_mm
        assert landmarks is not None
        assert landmarks[0, 0] == 100 * i
    write_bnd(tmp_path / "BU4DFE_BND_V1.1" / "F001" / "Angry" / "F001.12.bnd")  # four files, three frames: no telling
    assert not any(r.landmarks for r in reader.find(root).records)


def test_bu4dfe_landmarks_of_partial_sequences(tmp_path: Path) -> None:
    """A scan was lost, and another frame's landmarks: as many files as frames, but no frame may get another one's landmarks."""
    root = make_bu4dfe(tmp_path / "data")
    folder, package = root / "F001" / "Angry", tmp_path / "BU4DFE_BND_V1.1" / "F001" / "Angry"
    write_scan(folder / "003.wrl")
    for number in (0, 1, 2):
        write_bnd(package / f"{number:03d}.bnd")
    (folder / "001.wrl").unlink()
    assert named(root) == {0: "000.bnd", 2: "002.bnd", 3: ""}
    write_bnd(package / "003.bnd")  # all landmarks, one scan less
    assert named(root) == {0: "000.bnd", 2: "002.bnd", 3: "003.bnd"}
    (package / "000.bnd").rename(package / "004.bnd")  # counted from 1, with the same gap: 1, 3, 4
    (package / "002.bnd").unlink()
    assert named(root) == {0: "001.bnd", 2: "003.bnd", 3: "004.bnd"}
    (package / "003.bnd").rename(package / "002.bnd")  # 1, 2, 4: of other frames
    assert named(root) == {0: "", 2: "", 3: ""}


def named(root: Path) -> dict[int | None, str]:
    return {
        r.frame: Path(r.landmarks).name for r in DATASETS["bu4dfe"].find(root).records if r.sequence == "F001/Angry"
    }


def test_bu4dfe_landmarks_of_a_partial_package(tmp_path: Path) -> None:
    """Names in another case, stray files, a file where a folder should be; nothing of the other subject."""
    root, reader = make_bu4dfe(tmp_path / "data"), DATASETS["bu4dfe"]
    package = tmp_path / "BU4DFE_BND_V1.1"
    write_bnd(package / "f001" / "ANGRY" / "001.bnd", first=7)
    (package / "f001" / "ANGRY" / "000.txt").write_text("a stray file")
    (package / "f001" / "HAPPY").write_text("a stray file")
    records = reader.find(root).records
    assert [bool(r.landmarks) for r in records] == [False, True, *[False] * 5]
    landmarks = reader.read(root, records[1]).landmarks_mm
    assert landmarks is not None and landmarks[0, 0] == 7


PSE = np.array(
    [
        [-15, 35, -35],
        [-42, 37, -43],
        [15, 35, -35],
        [42, 37, -43],
        [-15, -4, -16],
        [15, -4, -16],
        [0, 0, 0],
        [0, -12, -17],
    ]
)


def write_pse(path: Path, points: np.ndarray) -> None:
    path.write_text("".join(f"{40 * i} {x:.6f} {y:.6f} {z:.6f}\n" for i, (x, y, z) in enumerate(points.tolist())))


@pytest.mark.parametrize("exchanged", [False, True])
def test_bu3dfe_raw_scans_are_placed_by_their_eight_points(tmp_path: Path, exchanged: bool) -> None:
    """Behind 83 that are not known; whichever eye comes first, the subject's right one is told by the nose."""
    root, reader = make_bu3dfe(tmp_path), DATASETS["bu3dfe"]
    stem = root / "F0001" / "F0001_HA04WH"
    stem.with_name(stem.name + "_F3D.wrl").unlink()
    angle = np.deg2rad(130)  # a RAW scan need not be frontal
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    points = PSE[[2, 3, 0, 1, 4, 5, 6, 7]] if exchanged else PSE
    write_pse(stem.with_name(stem.name + "_RAW.pse"), points @ turn.T + [5, -9, 700])
    record = next(record for record in reader.find(root).records if record.sample_id == stem.name)
    assert (record.source, record.landmarks) == (f"F0001/{stem.name}_RAW.wrl", f"F0001/{stem.name}_RAW.pse")
    assert reader.source_files(root, record)[-1].name == f"{stem.name}_RAW.pse"
    landmarks = reader.read(root, record).landmarks_mm
    assert landmarks is not None and landmarks.shape == (91, 3) and np.isnan(landmarks[:83]).all()
    np.testing.assert_allclose(landmarks[83:], PSE @ turn.T + [5, -9, 700], atol=1e-3)
    groups = reader.groups_of(record)
    assert {name: [i - 83 for i in indices] for name, indices in groups.items()} == {
        "right_eye": [0, 1], "left_eye": [2, 3], "nose": [4, 5],
    }  # fmt: skip
    face = reader.find(root).records[0]
    assert face.landmarks.endswith("_F3D.bnd") and reader.groups_of(face) == reader.landmark_groups


def test_a_raw_head_turned_by_40_degrees_is_placed() -> None:
    """The pose is the one by the 83 points of the same head, to a few degrees of pitch: eight points say less."""
    from dataclasses import replace

    from analytic_face import find_scan_to_face
    from scipy.spatial.transform import Rotation

    from preprocess.alignment.align import move_mesh
    from preprocess.readers.bu_landmarks import BU_LANDMARK_GROUPS, PSE_LANDMARK_GROUPS
    from preprocess.synth.action_units import Activation
    from preprocess.synth.head import Person
    from preprocess.synth.population import draw_person

    face = Person(draw_person(3, 1, female=False)[0]).scan(Activation({}))
    assert face.landmarks_mm is not None
    reference = Rotation.from_matrix(find_scan_to_face(face, landmark_groups=BU_LANDMARK_GROUPS)[0][:3, :3])
    nearest = [int(np.argmin(np.linalg.norm(face.vertices_mm - point, axis=1))) for point in PSE]
    raw = replace(face, landmarks_mm=face.vertices_mm[nearest])
    for yaw in (0, 40, -40, 170):
        turn = np.eye(4)
        turn[:3, :3] = Rotation.from_euler("y", yaw, degrees=True).as_matrix()
        pose, how = find_scan_to_face(move_mesh(raw, turn), landmark_groups=PSE_LANDMARK_GROUPS)
        off = Rotation.from_matrix(pose[:3, :3] @ turn[:3, :3]) * reference.inv()
        assert how == "landmarks" and np.abs(off.as_euler("YXZ", degrees=True)).max() < 5, yaw


@pytest.mark.parametrize("name", ["bu3dfe", "bu4dfe"])
def test_wrong_roots(tmp_path: Path, name: str) -> None:
    find = DATASETS[name].find
    example = "F0001/" if name == "bu3dfe" else "F001/"
    with pytest.raises(FacetError, match="no such folder"):
        find(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(FacetError, match="not a folder"):
        find(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FacetError, match=f"looked for {example}.*empty"):
        find(tmp_path / "empty")
    with pytest.raises(FacetError, match=f"looked for {example}.*found empty/, file"):
        find(tmp_path)
    (tmp_path / "bad" / example).mkdir(parents=True)
    with pytest.raises(FacetError, match=f"looked for {example}.* and in {example} the folder is empty"):
        find(tmp_path / "bad")


def test_one_subject_in_two_folders(tmp_path: Path) -> None:
    write_scan(tmp_path / "F0001" / "F0001_AN01WH_F3D.wrl")
    write_scan(tmp_path / "f0001" / "F0001_AN01WH_F3D.wrl")
    if len(list(tmp_path.iterdir())) == 2:  # not on a file system that ignores case
        with pytest.raises(FacetError, match="two folders"):
            find_bu3dfe(tmp_path)


def test_subjects_in_several_folders(tmp_path: Path) -> None:
    for part in ("part1", "part2"):
        write_scan(tmp_path / part / "F001" / "Angry" / "000.wrl")
    with pytest.raises(FacetError, match="part1, part2"):
        find_bu4dfe(tmp_path)


def test_listing_needs_no_open3d() -> None:
    code = "import sys; from preprocess.datasets import DATASETS; assert 'open3d' not in sys.modules; print(*DATASETS)"
    root = Path(__file__).parents[1]
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert result.stdout.split() == ["bu3dfe", "bosphorus", "bu4dfe", "bp4d", "bp4dplus", "4dme", "folder"]
