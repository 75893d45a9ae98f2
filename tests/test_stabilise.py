"""Frames of a sequence: a shaken head over a still face stays still in the pixels, a 1 mm bump survives."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from analytic_face import FACE, find_scan_to_face
from scan_folders import face_grid
from scipy.spatial.transform import Rotation

from preprocess.alignment.align import move_mesh
from preprocess.alignment.anthropometry import CANONICAL_POINTS_MM
from preprocess.alignment.crop import crop_mesh
from preprocess.alignment.scan_aligner import REFERENCE_TRIES, ScanAligner, frames_needed
from preprocess.alignment.stabilise import find_rigid_patch, register, smooth_pose
from preprocess.datasets.scan import DatasetReader, Listing, ScanRecord
from preprocess.geometry.mesh import Mesh
from preprocess.rendering.cameras import build_cameras
from preprocess.rendering.views import render_views
from preprocess.sequences.head_motion import draw_unstabilised, find_head_motion, measure_changes_mm
from shared.errors import CacheError, ScanError
from shared.modalities import DEPTH_STEP_MM, DEPTH_ZERO
from shared.schema import RenderSettings, View

NUM_FRAMES = 16
GROUPS = {name: (i,) for i, name in enumerate(CANONICAL_POINTS_MM)}
SETTINGS = RenderSettings(views=(View(0), View(20)), size_px=112, stabilised=True)


def make_face(bump_mm: float = 0.0, seed: int = 0) -> Mesh:
    """An average face, a soft bump on its cheek, its surface noisy as a scanner's (0.05 mm)."""
    vertices, triangles = face_grid(bump_mm)
    vertices = vertices + np.random.default_rng(seed).normal(0, 0.05, vertices.shape)
    points = np.array(list(CANONICAL_POINTS_MM.values()), np.float32)
    return Mesh(vertices.astype(np.float32), triangles.astype(np.int32), landmarks_mm=points)


def shake(frame: int) -> np.ndarray:
    """A head that nods and turns by up to 8 degrees and 10 mm, twice a second at 25 frames a second."""
    phase = 2 * np.pi * 2 * frame / 25
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler(
        "yxz", [8 * np.sin(phase), 4 * np.sin(0.7 * phase), 2 * np.cos(phase)], degrees=True
    ).as_matrix()
    pose[:3, 3] = [10 * np.sin(phase), 4 * np.cos(phase), 5 * np.sin(0.5 * phase)]
    return pose


def moving_head(bump_at: int | None) -> DatasetReader:
    """Frames of one head that shakes; its bump of 1 mm comes and goes around frame `bump_at`."""

    def read(root: object, record: ScanRecord) -> Mesh:
        frame = record.frame or 0
        bump = 0.0 if bump_at is None else float(np.exp(-(((frame - bump_at) / 2) ** 2)))
        mesh = move_mesh(make_face(bump, seed=frame), shake(frame))
        if frame != 0:  # only the first frame has landmarks: the others must follow it
            mesh = dataclasses.replace(mesh, landmarks_mm=None)
        return mesh

    return DatasetReader("test", "test", "", (), lambda root: Listing([]), read, lambda root, record: [], 4, GROUPS)  # type: ignore[arg-type]


RECORDS = [ScanRecord(f"s/{k:03d}", "s", f"{k}.obj", sequence="s", frame=k) for k in range(NUM_FRAMES)]


def render_sequence(dataset: DatasetReader, settings: RenderSettings) -> tuple[np.ndarray, np.ndarray]:
    """depth mm (T, V, H, W), NaN off the surface, and normals u8."""
    aligner = ScanAligner(dataset, None, settings, RECORDS)  # type: ignore[arg-type]
    depths, normals = [], []
    for record in RECORDS:
        placed = aligner.align(record, aligner.read(record))
        views = render_views(placed.mesh, build_cameras(settings.views), size_px=settings.size_px, radius_mm=100)
        depths.append(np.where(views.depth > 0, (views.depth.astype(float) - DEPTH_ZERO) * DEPTH_STEP_MM, np.nan))
        normals.append(views.normal)
    return np.stack(depths), np.stack(normals)


def inner(images: np.ndarray) -> np.ndarray:
    """The face without its outline, where a fraction of a pixel decides between surface and nothing."""
    return images[..., 30:82, 36:76]


def test_a_shaken_head_stays_still_in_the_pixels() -> None:
    still, _ = render_sequence(moving_head(None), SETTINGS)
    moved = np.abs(inner(still) - inner(still[:1]))
    assert np.nanmedian(moved) < 0.08  # the scanner's own noise, 0.05 mm in both frames
    assert np.nanpercentile(moved, 95) < 0.35
    shaken, _ = render_sequence(moving_head(None), dataclasses.replace(SETTINGS, stabilised=False))
    assert np.nanmedian(np.abs(inner(shaken) - inner(shaken[:1]))[4:]) > 1.0  # one transform alone shows the shake


def test_frames_are_drawn_as_before_they_were_stabilised() -> None:
    """From depth and pose of a stabilised frame alone, what a build without --stabilise draws from its mesh."""
    dataset, plain = moving_head(None), dataclasses.replace(SETTINGS, stabilised=False)
    poses, drawn = [], {}
    for settings in (SETTINGS, plain):
        aligner = ScanAligner(dataset, None, settings, RECORDS[:8])  # type: ignore[arg-type]
        for record in (RECORDS[0], RECORDS[3]):
            placed = aligner.align(record, aligner.read(record))
            poses.append(placed.scan_to_face)
            drawn[settings.stabilised, record.frame] = render_views(
                placed.mesh, build_cameras(settings.views), size_px=112, radius_mm=100
            )
    motion = find_head_motion(np.stack(poses[:2]))
    truth = np.linalg.inv(shake(0)) @ shake(3)
    turned = Rotation.from_matrix(truth[:3, :3]).magnitude()
    assert motion.largest[0] == pytest.approx(np.rad2deg(turned), abs=0.2) and motion.largest[0] > 5
    after, before = drawn[True, 3], drawn[False, 3]
    for index, view in enumerate(SETTINGS.views):
        images = {"depth": after.depth[index]}
        again = draw_unstabilised(images, view, motion.moves[1], SETTINGS)
        assert again is not None
        common = (again["depth"] > 0) & (before.depth[index] > 0)
        assert common.sum() > 0.93 * (before.depth[index] > 0).sum()
        off_mm = (again["depth"].astype(float) - before.depth[index])[common] * DEPTH_STEP_MM
        assert np.abs(np.median(off_mm)) < 0.1 and np.percentile(np.abs(off_mm), 90) < 0.5
    changes = measure_changes_mm(drawn[True, 0].depth[0], after.depth[0], View(0), motion.moves[1])
    assert changes[0] > 1 and changes[1] < 0.1  # the scanner's noise
    far = np.eye(4)
    far[:3, 3] = [90, 0, 0]
    assert np.isnan(measure_changes_mm(drawn[True, 0].depth[0], after.depth[0], View(0), far)[0])


@pytest.mark.parametrize(("word", "axis", "toward"), [("yaw", "z", "x"), ("pitch", "z", "y"), ("roll", "y", "x")])
def test_a_head_turns_to_its_left_up_and_to_its_left_shoulder(word: str, axis: str, toward: str) -> None:
    """Positive angles: the nose turns to +x, the nose turns to +y, the top of the head leans to +x."""
    turn = Rotation.align_vectors(  # `axis` of the face ends 10 degrees nearer to `toward`
        [
            np.cos(np.deg2rad(10)) * np.eye(3)["xyz".index(axis)]
            + np.sin(np.deg2rad(10)) * np.eye(3)["xyz".index(toward)]
        ],
        [np.eye(3)["xyz".index(axis)]],
    )[0]
    first, later = np.eye(4), np.eye(4)
    later[:3, :3] = turn.as_matrix().T  # scan → face takes the turn back
    later[:3, 3] = later[:3, :3] @ [0, 0, -4]
    motion = find_head_motion(np.stack([first, later]))
    expected = [10.0 if name == word else 0.0 for name in ("yaw", "pitch", "roll")]
    assert motion.angles_deg[1] == pytest.approx(expected, abs=1e-6)
    assert motion.shifts_mm[1] == pytest.approx([0, 0, 4]) and motion.largest == pytest.approx((10, 4))
    later[0, 0] = np.nan
    with pytest.raises(CacheError, match="not rigid"):
        find_head_motion(np.stack([first, later]))


def test_a_bump_of_one_millimetre_survives() -> None:
    depth, _ = render_sequence(moving_head(8), SETTINGS)
    row, column = 56 + round(10 / 1.8), 56 + round(40 / 1.8)  # the bump's place: x = 40, y = −10 mm
    cheek = np.nanmean(depth[:, 0, row - 1 : row + 2, column - 1 : column + 2], axis=(1, 2))
    other = np.nanmean(depth[:, 0, row - 1 : row + 2, 111 - column : 114 - column], axis=(1, 2))
    course = cheek - cheek[0]
    assert course[8] == pytest.approx(1.0, abs=0.15)
    assert abs(course[-1]) < 0.15
    assert np.abs(other - other[0]).max() < 0.25


@pytest.mark.parametrize("seed", range(20))
def test_register_recovers_a_known_motion(seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference = crop_mesh(make_face(), 100.0)
    patch = find_rigid_patch(reference)
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_rotvec(np.deg2rad(rng.normal(0, 5, 3))).as_matrix()
    motion[:3, 3] = rng.normal(0, 6, 3)
    # the face also smiles: everything below the eyes moves
    smiling = make_face(6.0, seed=seed + 100)
    lower = smiling.vertices_mm.copy()
    lower[:, 1] += np.where(lower[:, 1] < -15, -4, 0).astype(np.float32)
    frame = move_mesh(dataclasses.replace(smiling, vertices_mm=lower), motion)
    found = register(patch, frame, np.eye(4)).pose @ motion
    assert np.rad2deg(np.linalg.norm(Rotation.from_matrix(found[:3, :3]).as_rotvec())) < 0.3
    assert np.abs(found[:3, 3]).max() < 0.3


@pytest.mark.parametrize("seed", range(3))
def test_a_raised_brow_does_not_lift_the_head(seed: int) -> None:
    """A sixth of what is to hold still stands out by 3 mm: it is left aside, however near."""
    patch = find_rigid_patch(crop_mesh(make_face(), 100.0))
    frame = make_face(seed=seed + 50)
    vertices = frame.vertices_mm.copy()
    x, y = vertices[:, 0], vertices[:, 1]
    raised = (x > 10) & (y > 55) & (y < 75)
    vertices[raised, 2] += 3
    in_patch = (patch.points_mm[:, 0] > 10) & (patch.points_mm[:, 1] > 55) & (patch.points_mm[:, 1] < 75)
    assert 0.1 < in_patch.mean() < 0.25
    found = register(patch, dataclasses.replace(frame, vertices_mm=vertices), np.eye(4)).pose
    assert np.rad2deg(Rotation.from_matrix(found[:3, :3]).magnitude()) < 0.15
    assert np.abs(found[:3, 3]).max() < 0.15


def test_a_scans_own_axes_are_asked_for() -> None:
    turned = np.eye(4)
    turned[:3, :3] = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]  # y up → z up, facing −y
    dataset = dataclasses.replace(
        moving_head(None), read=lambda root, record: move_mesh(FACE, turned), landmark_groups={}
    )
    settings = dataclasses.replace(SETTINGS, stabilised=False)
    wanted = find_scan_to_face(move_mesh(FACE, turned), landmark_groups={}, up="z", facing="-y")[0]
    for sequence in ("", "s"):
        record = ScanRecord("a", "s", "a.obj", sequence=sequence, frame=0, options=(("up", "z"), ("facing", "-y")))
        aligner = ScanAligner(dataset, None, settings, [record])  # type: ignore[arg-type]
        assert aligner.align(record, aligner.read(record)).scan_to_face == pytest.approx(wanted, abs=1e-4)


def test_register_refuses_what_is_no_such_face() -> None:
    patch = find_rigid_patch(crop_mesh(make_face(), 100.0))
    far = make_face()
    with pytest.raises(ScanError, match="not found"):
        register(patch, dataclasses.replace(far, vertices_mm=far.vertices_mm + np.float32(300)), np.eye(4))
    below = dataclasses.replace(far, vertices_mm=far.vertices_mm - np.array([0, 200, 0], np.float32))
    with pytest.raises(ScanError, match="too little forehead"):
        find_rigid_patch(below)


def test_smoothing_keeps_constant_acceleration_and_rotations_exact() -> None:
    def pose(t: float) -> np.ndarray:
        result = np.eye(4)
        result[:3, 3] = [t, 2 * t**2, 0]
        return result

    assert smooth_pose([pose(t) for t in (-2, -1, 0, 1, 2)]) == pytest.approx(pose(0), abs=1e-9)
    noisy = [shake(k) for k in range(5)]
    smooth = smooth_pose(noisy)
    assert smooth[:3, :3] @ smooth[:3, :3].T == pytest.approx(np.eye(3), abs=1e-12)
    assert np.linalg.det(smooth[:3, :3]) == pytest.approx(1)
    assert smooth_pose(noisy[1:4]) == pytest.approx(noisy[2], abs=1e-12)
    assert smooth_pose(noisy[:1]) == pytest.approx(noisy[0], abs=1e-12)


def test_frames_needed_are_references_and_neighbours() -> None:
    inside = {f"s/{k:03d}" for k in range(6, 9)}
    names = [record.frame for record in frames_needed(RECORDS, inside, stabilised=True)]
    assert names == [0, 1, 2, 4, 5, 9, 10]
    assert [r.frame for r in frames_needed(RECORDS, inside, stabilised=False)] == list(range(REFERENCE_TRIES))


def test_a_shard_of_part_of_a_sequence_gives_the_same_poses() -> None:
    dataset = moving_head(8)
    whole = ScanAligner(dataset, None, SETTINGS, RECORDS)  # type: ignore[arg-type]
    inside = {record.sample_id for record in RECORDS[5:10]}
    part = ScanAligner(dataset, None, SETTINGS, [*RECORDS[5:10], *frames_needed(RECORDS, inside, stabilised=True)])  # type: ignore[arg-type]
    for record in RECORDS[5:10]:
        expected = whole.align(record, whole.read(record)).scan_to_face
        assert (part.align(record, part.read(record)).scan_to_face == expected).all()


def test_the_next_shard_aligns_the_first_frame_again_only_if_its_file_changed(tmp_path: Path) -> None:
    was_read: list[int | None] = []
    head, file = moving_head(None), tmp_path / "frame"
    file.write_text("a scan")

    def read(root: Path, record: ScanRecord) -> Mesh:
        was_read.append(record.frame)
        return head.read(root, record)

    dataset = dataclasses.replace(head, read=read, source_files=lambda root, record: [file])
    poses = []
    for num_changes in (0, 0, 1):
        file.write_text("a scan" + num_changes * "!")
        aligner = ScanAligner(dataset, tmp_path, dataclasses.replace(SETTINGS, stabilised=False), RECORDS[:2])
        os.utime(file, (1, 1))
        poses.append(aligner.align(RECORDS[1], aligner.read(RECORDS[1])).scan_to_face)
    assert was_read == [1, 0, 1, 1, 0]
    assert (np.diff(poses, axis=0) == 0).all()


def test_the_landmarks_of_the_first_frame_place_the_sequence() -> None:
    dataset = moving_head(None)
    aligner = ScanAligner(dataset, None, dataclasses.replace(SETTINGS, stabilised=False), RECORDS)  # type: ignore[arg-type]
    first = dataset.read(None, RECORDS[0])  # type: ignore[arg-type]
    expected, how = find_scan_to_face(first, landmark_groups=GROUPS)
    for record in (RECORDS[0], RECORDS[9]):
        placed = aligner.align(record, aligner.read(record))
        assert placed.method == how == "landmarks"
        assert placed.scan_to_face == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("angles_deg", [(28, 10, -12), (15, 0, 0), (0, -14, 8), (-22, 5, 0)])
@pytest.mark.parametrize("shift_mm", [(25, -10, 8), (3, 0, 0)])
def test_a_head_that_turns_far_does_not_slip(angles_deg: tuple[float, ...], shift_mm: tuple[float, ...]) -> None:
    """From the first frame's pose the registration might slide along the forehead; then frames start from their own face."""
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("yxz", angles_deg, degrees=True).as_matrix()
    turn[:3, 3] = shift_mm

    def read(root: object, record: ScanRecord) -> Mesh:
        return move_mesh(make_face(seed=record.frame or 0), turn if record.frame else np.eye(4))

    dataset = dataclasses.replace(moving_head(None), read=read)
    records = RECORDS[:3]
    aligner = ScanAligner(dataset, None, SETTINGS, records)  # type: ignore[arg-type]
    first = aligner.align(records[0], aligner.read(records[0])).scan_to_face
    last = aligner.align(records[2], aligner.read(records[2])).scan_to_face
    assert last @ turn == pytest.approx(first, abs=0.3)
