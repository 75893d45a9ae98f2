"""Alignment on real scans: heads are found from geometry as from landmarks."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from analytic_face import difference, find_scan_to_face, motion
from scipy.spatial.transform import Rotation

from preprocess.alignment.align import align, move_mesh
from preprocess.geometry.mesh import Mesh
from preprocess.readers.landmark_points import FACE_POINTS, read_face_points
from preprocess.readers.surface import read_surface

needs_faces = pytest.mark.skipif("FACET_FACES" not in os.environ, reason="FACET_FACES names the folder of real scans")
REAL = {
    "james": ("james/james.obj", 1.0),
    "lee": ("leeperrysmith/LeePerrySmith.glb", 54.0),
    "meshmonk": ("meshmonk/DemoFace_10K.obj", 1.0),
}


def read_real(name: str) -> Mesh:
    file, scale = REAL[name]
    mesh = read_surface(Path(os.environ["FACET_FACES"]) / file)
    return replace(mesh, vertices_mm=mesh.vertices_mm * np.float32(scale))


@needs_faces
@pytest.mark.parametrize("name", list(REAL))
def test_real_heads_are_found_from_geometry(name: str) -> None:
    """Hair, ears, neck and shoulders with them, turned by up to 20 degrees."""
    mesh = read_real(name)
    reference, _ = find_scan_to_face(mesh, landmark_groups={})
    rng = np.random.default_rng(0)
    for _ in range(4):
        angles = rng.uniform([-20, -15, -15], [20, 15, 15])
        moved = motion(Rotation.from_euler("yxz", angles, degrees=True), rng.uniform(-200, 200, 3))
        pose, _ = find_scan_to_face(move_mesh(mesh, moved), landmark_groups={})
        found, shift = difference(pose, moved, reference)
        assert found.max() < 2
        assert shift < 1


@needs_faces
def test_geometry_agrees_with_landmarks_on_a_real_face() -> None:
    groups = {name: (i,) for i, name in enumerate(FACE_POINTS)}
    points = read_face_points(Path(os.environ["FACET_FACES"]) / "james" / "james.ljson")[0]
    mesh = replace(read_real("james"), landmarks_mm=points)
    by_landmarks = align(mesh, landmark_groups=groups)
    by_geometry, _ = find_scan_to_face(mesh, landmark_groups={})
    angles, shift = difference(by_geometry, np.eye(4), by_landmarks.scan_to_face.astype(np.float64))
    assert angles.max() < 3
    assert shift < 3
    # This file says "leye" of the eye on the image's left: the subject's right one, at −x.
    assert by_landmarks.mesh.landmarks_mm is not None
    assert by_landmarks.mesh.landmarks_mm[0, 0] < -25
    assert abs(by_landmarks.mesh.vertices_mm[:, :2][np.argmax(by_landmarks.mesh.vertices_mm[:, 2])]).max() < 3
