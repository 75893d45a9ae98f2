"""BP4D's landmarks are brows first: held against the pose that is known, for a wrong order fits a face just as well."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from analytic_face import find_scan_to_face
from scipy.spatial.transform import Rotation

from preprocess.datasets import DATASETS
from preprocess.geometry.mesh import Mesh
from preprocess.readers.bu_landmarks import BP4D_LANDMARK_GROUPS, BU_LANDMARK_GROUPS
from preprocess.synth.action_units import Activation
from preprocess.synth.head import Person
from preprocess.synth.layouts import LAYOUTS
from preprocess.synth.population import draw_person, write_population

READER = DATASETS["bp4d"]
# The guide's figure: brows, eyes, nose, outer and inner lips, contour.
BROWS_FIRST = [*range(16, 26), *range(26, 36), *range(0, 8), *range(8, 16), *range(36, 83)]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Mesh, Mesh]]:
    """The first frame of a task, still neutral, of two people: as it is read, and the same face in the generator's frame."""
    root = tmp_path_factory.mktemp("bp4d") / "data"
    write_population(LAYOUTS["bp4d"], root, num_subjects=2, num_frames=3, progress=False, num_workers=1)
    records = [record for record in READER.find(root).records if record.frame == 0 and record.task == "T3"]
    assert [record.subject for record in records] == ["F001", "M001"]
    numbers = {"F001": 0, "M001": 1}
    return [
        (
            READER.read(root, record),
            Person(draw_person(0, numbers[record.subject], female=record.subject[0] == "F")[0]).scan(Activation({})),
        )
        for record in records
    ]


def known_rotation(scan: Mesh, face: Mesh) -> Rotation:
    """Scan → generator's frame, from all vertices: they are the same ones in the same order."""
    a, b = scan.vertices_mm.astype(float), face.vertices_mm.astype(float)
    return Rotation.align_vectors(b - b.mean(0), a - a.mean(0))[0]


def degrees(rotation: Rotation) -> float:
    return float(np.rad2deg(rotation.magnitude()))


def poses(scans: list[tuple[Mesh, Mesh]]) -> Iterator[tuple[Mesh, Mesh, Rotation]]:
    for scan, face in scans:
        pose, how = find_scan_to_face(scan, landmark_groups=READER.landmark_groups)
        assert how == "landmarks"
        yield scan, face, Rotation.from_matrix(pose[:3, :3])


def test_groups_lie_where_they_say_on_the_known_face(scans: list[tuple[Mesh, Mesh]]) -> None:
    for scan, face in scans:
        assert scan.landmarks_mm is not None and face.landmarks_mm is not None
        to_face = known_rotation(scan, face)
        placed = to_face.apply(scan.landmarks_mm - scan.vertices_mm.mean(0)) + face.vertices_mm.mean(0)
        for name, indices in BP4D_LANDMARK_GROUPS.items():
            known = placed[list(indices)]
            known = known[np.isfinite(known).all(axis=1)]
            if len(known) == len(indices):  # a few of the contour are lost
                expected = face.landmarks_mm[list(BU_LANDMARK_GROUPS[name])].mean(0)
                assert np.linalg.norm(known.mean(0) - expected) < 0.5, name


def test_a_frames_pose_is_that_of_the_same_face_as_bu3dfe_gives_it(scans: list[tuple[Mesh, Mesh]]) -> None:
    """The same points in the other data sets' order, on the face in the generator's frame and turned by the known rotation."""
    for scan, face, found in poses(scans):
        reference, _ = find_scan_to_face(face, landmark_groups=BU_LANDMARK_GROUPS)
        expected = Rotation.from_matrix(reference[:3, :3]) * known_rotation(scan, face)
        assert degrees(found * expected.inv()) < 0.5


def test_the_generators_pose_is_met(scans: list[tuple[Mesh, Mesh]]) -> None:
    for scan, face, found in poses(scans):
        assert degrees(found * known_rotation(scan, face).inv()) < 6  # its upright is not quite an average face's


def test_points_keep_their_files_order(scans: list[tuple[Mesh, Mesh]]) -> None:
    scan, face = scans[0]
    assert scan.landmarks_mm is not None and face.landmarks_mm is not None
    expected = face.landmarks_mm[BROWS_FIRST]
    placed = known_rotation(scan, face).apply(scan.landmarks_mm - scan.vertices_mm.mean(0)) + face.vertices_mm.mean(0)
    tracked = np.isfinite(placed).all(axis=1)
    assert tracked[:68].all() and np.abs(placed - expected)[tracked].max() < 1.0
    in_bu_order = np.empty_like(scan.landmarks_mm)
    in_bu_order[BROWS_FIRST] = scan.landmarks_mm
    pose, _ = find_scan_to_face(scan, landmark_groups=BP4D_LANDMARK_GROUPS)
    same, _ = find_scan_to_face(replace(scan, landmarks_mm=in_bu_order), landmark_groups=BU_LANDMARK_GROUPS)
    np.testing.assert_array_equal(pose, same)
