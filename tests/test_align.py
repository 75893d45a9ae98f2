"""Alignment recovers known motions of a procedural face and of real scans; the crop keeps the face and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from analytic_face import FACE, GROUPS, difference, find_scan_to_face, make_face, motion
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from preprocess.alignment.align import align, find_pose, move_mesh
from preprocess.alignment.anthropometry import CANONICAL_POINTS_MM, EYE_DISTANCE_MM
from preprocess.alignment.depth_map import Surface
from preprocess.alignment.nose import find_nose_tip, remove_spikes
from preprocess.alignment.units import is_face_scale, is_unit
from preprocess.geometry.mesh import Mesh
from shared.errors import ScanError

BUST = make_face(shoulders=True)


def test_a_frontal_face_stays_as_it_is() -> None:
    """The truth is known: the tip of the nose at the origin, mirrored on x = 0."""
    for mesh, groups, how in ((FACE, GROUPS, "landmarks"), (FACE, {}, "geometry"), (BUST, {}, "geometry")):
        pose, found = find_scan_to_face(mesh, landmark_groups=groups)
        assert found == how
        yaw, _, roll = Rotation.from_matrix(pose[:3, :3]).as_euler("yxz", degrees=True)
        assert abs(yaw) < 0.5
        assert abs(roll) < 0.5
        assert abs((pose @ [0, 0, 0, 1])[0]) < 0.5
        # Pitch is a convention, and the apex moves up the bridge with it; it stays near the tip.
        assert np.linalg.norm(pose @ [0, 0, 0, 1] - [0, 0, 0, 1]) < 5


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_landmarks_undo_any_motion(seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference, _ = find_scan_to_face(FACE, landmark_groups=GROUPS)
    moved = motion(Rotation.random(random_state=seed), rng.uniform(-500, 500, 3))
    pose, how = find_scan_to_face(move_mesh(FACE, moved), landmark_groups=GROUPS)
    angles, shift = difference(pose, moved, reference)
    assert how == "landmarks"
    assert angles.max() < 0.2
    assert shift < 0.2
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)


@given(
    angles=st.tuples(st.floats(-20, 20), st.floats(-15, 15), st.floats(-15, 15)),
    shift=st.tuples(*[st.floats(-300, 300)] * 3),
    bust=st.booleans(),
)
@settings(max_examples=15, deadline=None)
def test_geometry_undoes_a_turn_of_the_head(angles: tuple[float, ...], shift: tuple[float, ...], bust: bool) -> None:
    mesh = BUST if bust else FACE
    reference, _ = find_scan_to_face(mesh, landmark_groups={})
    moved = motion(Rotation.from_euler("yxz", angles, degrees=True), shift)
    pose, _ = find_scan_to_face(move_mesh(mesh, moved), landmark_groups={})
    found, distance = difference(pose, moved, reference)
    assert found.max() < 2
    assert distance < 1.5
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)


def test_up_and_facing_name_the_scans_axes() -> None:
    reference, _ = find_scan_to_face(FACE, landmark_groups={})
    turned = motion(Rotation.from_matrix([[1, 0, 0], [0, 0, -1], [0, 1, 0]]), (0, 0, 0))  # y up → z up, facing −y
    pose, _ = find_scan_to_face(move_mesh(FACE, turned), landmark_groups={}, up="z", facing="-y")
    angles, shift = difference(pose, turned, reference)
    assert angles.max() < 0.5
    assert shift < 0.5
    with pytest.raises(ScanError, match="perpendicular"):
        find_scan_to_face(FACE, landmark_groups={}, up="y", facing="-y")


@pytest.mark.parametrize(("up", "facing"), [("y", "-x"), ("-z", "x"), ("x", "y"), ("-y", "-z")])
def test_every_axis_can_be_up_and_any_other_faced(up: str, facing: str) -> None:
    """The scan's axis of that name, with its sign, ends up as +y and +z; what is left is +x by the right hand."""
    axes = {sign + name: (-1 if sign else 1) * np.eye(3)[i] for i, name in enumerate("xyz") for sign in ("", "-")}
    y, z = axes[up], axes[facing]
    to_scan = motion(Rotation.from_matrix(np.stack([np.cross(y, z), y, z], axis=1)), (3, -5, 9))
    reference, _ = find_scan_to_face(FACE, landmark_groups={})
    pose, _ = find_scan_to_face(move_mesh(FACE, to_scan), landmark_groups={}, up=up, facing=facing)
    angles, shift = difference(pose, to_scan, reference)
    assert angles.max() < 0.5
    assert shift < 0.5


def test_left_and_right_may_be_the_images() -> None:
    """Exchanged names give the same pose: no half turn, no mirror image."""
    exchanged = {**GROUPS, "left_eye": GROUPS["right_eye"], "right_eye": GROUPS["left_eye"]}
    pose, _ = find_scan_to_face(FACE, landmark_groups=GROUPS)
    other, _ = find_scan_to_face(FACE, landmark_groups=exchanged)
    np.testing.assert_allclose(other, pose, atol=1e-6)


def test_an_open_mouth_does_not_turn_the_head() -> None:
    assert FACE.landmarks_mm is not None
    landmarks = FACE.landmarks_mm.copy()
    landmarks[7:] += [0, -12, -6]
    pose, _ = find_scan_to_face(FACE, landmark_groups=GROUPS)
    opened, _ = find_scan_to_face(replace(FACE, landmarks_mm=landmarks), landmark_groups=GROUPS)
    assert np.degrees(Rotation.from_matrix(opened[:3, :3] @ pose[:3, :3].T).magnitude()) < 2


def test_unknown_landmarks_are_left_out_and_too_few_leave_geometry() -> None:
    assert FACE.landmarks_mm is not None
    landmarks = FACE.landmarks_mm.copy()
    landmarks[[1, 7, 8]] = np.nan  # half an eye and the mouth
    assert find_scan_to_face(replace(FACE, landmarks_mm=landmarks), landmark_groups=GROUPS)[1] == "landmarks"
    less = landmarks.copy()
    less[[5, 6]] = np.nan  # one of the nose's three is not its middle: two groups are left
    assert find_scan_to_face(replace(FACE, landmarks_mm=less), landmark_groups=GROUPS)[1] == "geometry"
    landmarks[:2] = np.nan
    assert find_scan_to_face(replace(FACE, landmarks_mm=landmarks), landmark_groups=GROUPS)[1] == "geometry"
    assert find_scan_to_face(replace(FACE, landmarks_mm=None), landmark_groups=GROUPS)[1] == "geometry"


@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (7.3, -4.6), (-5.45, 9.1)])
def test_the_tip_of_the_nose_is_found_between_the_vertices(x: float, y: float) -> None:
    """A blunt bump whose top lies nowhere on the grid, on a scan that was shifted: to a tenth of a millimetre or two."""
    u, v = (axis.ravel() for axis in np.meshgrid(np.arange(-40, 41, 2.0), np.arange(-40, 41, 2.0)))
    z = 20 - 0.02 * (u - x) ** 2 - 0.015 * (v - y) ** 2 - 0.006 * (u - x) * (v - y)
    index = np.arange(41 * 41).reshape(41, 41)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    triangles = np.concatenate([np.stack(q, -1).reshape(-1, 3) for q in ((a, b, c), (a, c, d))])
    shift = np.array([30.0, -200.0, 11.0])
    surface = Surface((np.stack([u, v, z], axis=1) - shift).astype(np.float32), triangles.astype(np.int32))
    tip = find_nose_tip(surface, motion(Rotation.identity(), shift), x_mm=(-15, 15), y_mm=(-16, 20))
    assert tip == pytest.approx([x, y, 20], abs=0.3)


@pytest.mark.parametrize("groups", [GROUPS, {}])
def test_one_vertex_of_noise_does_not_move_the_nose(groups: dict) -> None:
    reference, _ = find_scan_to_face(FACE, landmark_groups=groups)
    distance = np.linalg.norm(FACE.vertices_mm[:, :2] - [5, 12], axis=1)
    vertices = FACE.vertices_mm.copy()
    vertices[np.argmin(distance), 2] += 60
    spiked = replace(FACE, vertices_mm=vertices)
    pose, _ = find_scan_to_face(spiked, landmark_groups=groups)
    angles, shift = difference(pose, np.eye(4), reference)
    assert angles.max() < 0.5
    assert shift < 0.7
    removed = remove_spikes(vertices, FACE.triangles)
    assert np.abs(removed - FACE.vertices_mm).max() < 3


@pytest.mark.parametrize("groups", [GROUPS, {}])
def test_a_shard_far_away_changes_nothing(groups: dict) -> None:
    shard = np.array([[9e5, 0, 0], [9e5, 1, 0], [9e5, 0, 1]], np.float32)
    n = len(FACE.vertices_mm)
    triangles = np.concatenate([FACE.triangles, [[n, n + 1, n + 2]]]).astype(np.int32)
    mesh = replace(FACE, vertices_mm=np.concatenate([FACE.vertices_mm, shard]), triangles=triangles)
    reference, _ = find_scan_to_face(FACE, landmark_groups=groups)
    pose, _ = find_scan_to_face(mesh, landmark_groups=groups)
    angles, shift = difference(pose, np.eye(4), reference)
    assert angles.max() < 0.5
    assert shift < 0.5


@pytest.mark.parametrize(("factor", "word"), [(0.1, "cm"), (0.001, r"units may be m \("), (1 / 25.4, "in")])
@pytest.mark.parametrize("groups", [GROUPS, {}])
def test_wrong_units_are_named(factor: float, word: str, groups: dict) -> None:
    assert FACE.landmarks_mm is not None
    small = replace(
        FACE,
        vertices_mm=FACE.vertices_mm * np.float32(factor),
        landmarks_mm=FACE.landmarks_mm * np.float32(factor),
    )
    with pytest.raises(ScanError, match=word):
        align(small, landmark_groups=groups)


def test_a_face_of_the_wrong_scale_within_a_plausible_box() -> None:
    """Half as large fits no unit: the landmarks tell the scale."""
    assert FACE.landmarks_mm is not None
    half = replace(FACE, vertices_mm=FACE.vertices_mm / 2, landmarks_mm=FACE.landmarks_mm / 2)
    with pytest.raises(ScanError, match=r"a scale of about (1\.[89]|2)"):
        align(half, landmark_groups=GROUPS)


def test_landmarks_that_are_not_this_faces() -> None:
    assert FACE.landmarks_mm is not None
    with pytest.raises(ScanError, match="off the surface"):
        align(replace(FACE, landmarks_mm=FACE.landmarks_mm + np.float32(200)), landmark_groups=GROUPS)
    for off_mm, is_named in ((1, False), (7, True)):
        near = replace(FACE, landmarks_mm=FACE.landmarks_mm + np.array([0, 0, off_mm], np.float32))
        assert ("mm off the surface" in " ".join(align(near, landmark_groups=GROUPS).notes)) == is_named
    scattered = FACE.landmarks_mm.copy()
    scattered[4:7] += [0, 90, 60]
    with pytest.raises(ScanError, match="off those of a face"):
        align(replace(FACE, landmarks_mm=scattered), landmark_groups=GROUPS)


def test_many_landmarks_on_the_surface_confirm_a_face_far_from_the_average() -> None:
    """A narrow, long and deep face: 3.9 mm off the average one, more than its shape alone may be."""
    proportions = np.array([0.75, 1.1, 1.6], np.float32)
    assert FACE.landmarks_mm is not None
    far = replace(FACE, vertices_mm=FACE.vertices_mm * proportions, landmarks_mm=FACE.landmarks_mm * proportions)
    found = find_pose(far, landmark_groups=GROUPS)
    angles, _ = difference(found.scan_to_face, np.eye(4), find_pose(FACE, landmark_groups=GROUPS).scan_to_face)
    assert found.method == "landmarks"
    assert angles.max() < 1.0
    with pytest.raises(ScanError, match="no face found"):
        find_pose(far, landmark_groups={}, explain=False)


def test_what_is_no_face() -> None:
    import open3d

    ball = open3d.geometry.TriangleMesh.create_sphere(100, 30)
    mesh = Mesh(np.asarray(ball.vertices, np.float32), np.asarray(ball.triangles, np.int32))
    with pytest.raises(
        ScanError, match=r"no face found .*mm off an average face, the limit is [\d.]+ mm.*or give landmarks"
    ):
        align(mesh, landmark_groups={})


@pytest.mark.parametrize(
    ("axis", "degrees", "up", "facing"),
    [("y", 180, "y", "-z"), ("x", 90, "z", "-y")],
)
def test_the_axes_that_fit_are_named(axis: str, degrees: float, up: str, facing: str) -> None:
    """Seen from behind, from above: the message names the axes with which the same scan is found."""
    away = motion(Rotation.from_euler(axis, degrees, degrees=True), (0, 0, 0))
    with pytest.raises(ScanError, match=f"no face found.*up={up} facing={facing} fits"):
        align(move_mesh(FACE, away), landmark_groups={})
    pose, _ = find_scan_to_face(move_mesh(FACE, away), landmark_groups={}, up=up, facing=facing)
    angles, shift = difference(pose, away, find_scan_to_face(FACE, landmark_groups={})[0])
    assert angles.max() < 0.5
    assert shift < 0.5


def test_no_scale_is_named_that_a_face_may_have() -> None:
    """A scale that fits by chance would make a face of half again its size."""
    assert [scale for scale in (0.02, 0.5, 0.7, 1.0, 1.53, 1.8, 25.0) if is_face_scale(scale)] == [0.7, 1.0, 1.53]
    assert [scale for scale in (1490, 620, 8.0, 50, 300, 0.025) if is_unit(scale)] == [1490, 620, 8.0]  # of m and cm


@pytest.mark.parametrize("factor", [0.02, 40.0])
def test_the_scale_that_fits_is_named(factor: float) -> None:
    scaled = replace(FACE, vertices_mm=FACE.vertices_mm * np.float32(factor), landmarks_mm=None)
    with pytest.raises(ScanError, match=r"no face's; a scale of about [\d.]+ fits") as error:
        align(scaled, landmark_groups={})
    said = float(str(error.value).split("scale of about ")[1].split()[0])
    assert said * factor == pytest.approx(1, rel=0.2)


NAMED = {name: (i,) for i, name in enumerate(CANONICAL_POINTS_MM)}


def named_points(mesh: Mesh = FACE, **moved: tuple[float, float, float]) -> Mesh:
    """The analytic face with the six named points on it; `moved` puts some elsewhere."""
    points = {name: np.array(moved.get(name, point), float) for name, point in CANONICAL_POINTS_MM.items()}
    return replace(mesh, landmarks_mm=np.stack(list(points.values())).astype(np.float32))


@pytest.mark.parametrize(
    "names",
    [
        ("left_eye", "right_eye", "nose", "mouth"),
        ("left_eye", "right_eye", "nose_tip"),
        ("left_eye", "right_eye", "nose_bridge", "mouth"),
        ("left_eye", "nose", "mouth"),
        ("right_eye", "nose_tip", "mouth"),
        ("left_eye", "right_eye", "mouth"),
    ],
)
def test_a_pose_does_not_depend_on_which_points_are_known(names: tuple[str, ...]) -> None:
    """Nor on landmarks at all, nor on which eye is called left."""
    expected = find_pose(FACE, landmark_groups={})
    exchanged = {"left_eye": "right_eye", "right_eye": "left_eye"}
    for rename in ({}, exchanged):
        groups = {rename.get(name, name): NAMED[name] for name in names}
        found = find_pose(named_points(), landmark_groups=groups)
        angles, shift = difference(found.scan_to_face, np.eye(4), expected.scan_to_face)
        assert (found.method, found.notes) == ("landmarks", ())
        assert angles.max() < 0.5
        assert shift < 0.5


@pytest.mark.parametrize("point", ["nose_tip", "nose_bridge"])
def test_a_nose_that_is_its_tip_or_bridge_does_not_turn_the_head(point: str) -> None:
    mistaken = named_points(nose=CANONICAL_POINTS_MM[point])
    groups = {name: NAMED[name] for name in ("left_eye", "right_eye", "nose", "mouth")}
    found = find_pose(mistaken, landmark_groups=groups)
    angles, _ = difference(found.scan_to_face, np.eye(4), find_scan_to_face(FACE, landmark_groups={})[0])
    assert (found.method == "landmarks") == (not found.notes)
    assert angles.max() < 0.5


@pytest.mark.parametrize("order", [(0, 2, 1), (2, 1, 0), (1, 0, 2)])
def test_landmarks_in_other_axes_are_not_believed(order: tuple[int, int, int]) -> None:
    """y and z, x and z, x and y exchanged: the surface decides, and a note says so; or the scan is refused."""
    mesh = named_points()
    assert mesh.landmarks_mm is not None
    wrong = replace(mesh, landmarks_mm=np.ascontiguousarray(mesh.landmarks_mm[:, order]))
    try:
        found = find_pose(wrong, landmark_groups=NAMED)
    except ScanError:
        return
    angles, _ = difference(found.scan_to_face, np.eye(4), find_scan_to_face(FACE, landmark_groups={})[0])
    assert angles.max() < 0.5
    assert found.method == "geometry"
    assert not found.has_landmarks
    assert "landmarks not used" in found.notes[0]


def test_landmarks_that_give_no_pose_are_told() -> None:
    for names in (("left_eye", "right_eye"), ("nose", "mouth", "nose_tip"), ("left_eye",)):
        found = find_pose(named_points(), landmark_groups={name: NAMED[name] for name in names})
        assert found.method == "geometry"
        assert "landmarks not used" in found.notes[0]


@pytest.mark.parametrize("factor", [0.7, 0.85, 1.0, 1.2])
def test_the_size_of_a_face_is_found_with_and_without_landmarks(factor: float) -> None:
    mesh = named_points()
    assert mesh.landmarks_mm is not None
    scaled = replace(
        mesh, vertices_mm=mesh.vertices_mm * np.float32(factor), landmarks_mm=mesh.landmarks_mm * np.float32(factor)
    )
    by_landmarks, by_shape = (find_pose(scaled, landmark_groups=groups) for groups in (NAMED, {}))
    assert by_landmarks.eye_distance_mm == pytest.approx(EYE_DISTANCE_MM * factor)
    whole = find_pose(FACE, landmark_groups={}).eye_distance_mm
    assert by_shape.eye_distance_mm == pytest.approx(whole * factor, rel=0.08)
    assert bool(by_landmarks.notes) == (not 40 <= EYE_DISTANCE_MM * factor <= 80)


def test_a_smile_is_no_reason_to_refuse_a_face() -> None:
    """Neither do moving cheeks, lips and jaw turn the head."""
    x, y = FACE.vertices_mm[:, 0], FACE.vertices_mm[:, 1]
    smile = 4 * np.exp(-(((np.abs(x) - 36) / 14) ** 2) - ((y + 10) / 14) ** 2)
    smile -= 5 * np.exp(-(((np.abs(x) - 25) / 10) ** 2) - ((y + 33) / 9) ** 2)
    smiling = FACE.vertices_mm + np.stack([0 * smile, 0 * smile, smile], axis=1).astype(np.float32)
    smiling[y < -45, 1] -= 12  # an open mouth
    pose, _ = find_scan_to_face(replace(FACE, vertices_mm=smiling), landmark_groups={})
    angles, shift = difference(pose, np.eye(4), find_scan_to_face(FACE, landmark_groups={})[0])
    assert angles.max() < 3
    assert shift < 3


def test_what_belongs_to_the_mesh_goes_along() -> None:
    m, n = len(BUST.triangles), len(BUST.vertices_mm)
    rng = np.random.default_rng(0)
    uv = rng.random((m, 3, 2), np.float32)
    colors = rng.integers(0, 255, (n, 3), np.uint8)
    mesh = replace(BUST, uv=uv, texture=np.zeros((2, 2, 3), np.uint8), colors=colors)
    result = align(mesh, landmark_groups=GROUPS)
    assert result.scan_to_face.dtype == np.float32
    rigid = result.scan_to_face.astype(np.float64)
    np.testing.assert_allclose(rigid[:3, :3] @ rigid[:3, :3].T, np.eye(3), atol=1e-6)
    assert result.mesh.texture is mesh.texture
    # Every kept triangle is found in the scan by its texture coordinates, with its own corners and colours.
    where = {row.tobytes(): i for i, row in enumerate(uv)}
    assert result.mesh.uv is not None
    kept = [where[row.tobytes()] for row in result.mesh.uv]
    assert 0 < len(kept) < m
    corners = mesh.vertices_mm[mesh.triangles[kept]].astype(np.float64) @ rigid[:3, :3].T + rigid[:3, 3]
    np.testing.assert_allclose(result.mesh.vertices_mm[result.mesh.triangles], corners, atol=1e-3)
    assert result.mesh.colors is not None
    np.testing.assert_array_equal(result.mesh.colors[result.mesh.triangles], colors[mesh.triangles[kept]])
    assert result.mesh.landmarks_mm is not None
    assert mesh.landmarks_mm is not None
    expected = mesh.landmarks_mm.astype(np.float64) @ rigid[:3, :3].T + rigid[:3, 3]
    np.testing.assert_allclose(result.mesh.landmarks_mm, expected, atol=1e-3)
    # Only what lies wholly outside the sphere is left out; the renderer cuts the rest.
    corners = result.mesh.vertices_mm[result.mesh.triangles]
    nearest_of_boxes = np.clip(0, corners.min(axis=1), corners.max(axis=1))
    assert np.linalg.norm(nearest_of_boxes, axis=1).max() <= 100 < np.linalg.norm(corners, axis=2).max()
