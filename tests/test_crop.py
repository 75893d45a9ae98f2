"""Which parts of a scan are the face, and rigid motions fitted to points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from analytic_face import FACE, pixel_centres_mm
from scipy.spatial.transform import Rotation

from preprocess.alignment.crop import crop_mesh
from preprocess.geometry.mesh import Mesh
from preprocess.geometry.rigid import fit_rigid
from preprocess.rendering.cameras import build_cameras
from preprocess.rendering.views import render_views
from shared.errors import ScanError
from shared.modalities import DEPTH_STEP_MM, DEPTH_ZERO
from shared.schema import parse_views


def test_crop_drops_shards_and_keeps_what_is_large() -> None:
    shard = np.array([[60, 60, 30], [63, 60, 30], [60, 63, 30]], np.float32)
    second = FACE.vertices_mm[:, :3] * np.float32(0.3) + np.array([0, 0, 60], np.float32)  # as large as an eyeball
    n = len(FACE.vertices_mm)
    mesh = Mesh(
        np.concatenate([FACE.vertices_mm, shard, second]),
        np.concatenate([FACE.triangles, [[n, n + 1, n + 2]], FACE.triangles + n + 3]).astype(np.int32),
    )
    cropped = crop_mesh(mesh, 100)
    assert not (cropped.vertices_mm[:, None] == shard).all(-1).any()
    assert (cropped.vertices_mm[:, 2] > 35).sum() > 1000
    soup = FACE.vertices_mm[FACE.triangles].reshape(-1, 3)  # every triangle with vertices of its own
    loose = Mesh(soup, np.arange(len(soup), dtype=np.int32).reshape(-1, 3))
    assert len(crop_mesh(loose, 100).triangles) == len(crop_mesh(FACE, 100).triangles)
    with pytest.raises(ScanError, match="no surface within"):
        crop_mesh(replace(FACE, vertices_mm=FACE.vertices_mm + np.float32(500)), 100)


def test_the_outline_is_that_of_the_sphere_not_of_the_triangles() -> None:
    cameras = build_cameras(parse_views("0,30"))
    cropped, whole = (render_views(mesh, cameras, size_px=96, radius_mm=70) for mesh in (crop_mesh(FACE, 70.0), FACE))
    np.testing.assert_array_equal(cropped.depth, whole.depth)
    x, y = pixel_centres_mm(96)
    z = (whole.depth.astype(float) - DEPTH_ZERO) * DEPTH_STEP_MM
    distance = np.sqrt(x**2 + y[:, None] ** 2 + z**2)[whole.depth > 0]
    assert 69.5 < distance.max() <= 70.01
    # a triangle without a corner in the sphere
    plane = Mesh(np.array([[-300, -300, 0], [300, -300, 0], [0, 300, 0]], np.float32), np.array([[0, 1, 2]], np.int32))
    assert len(crop_mesh(plane, 70.0).triangles) == 1


def test_fit_rigid_agrees_with_scipy_and_never_mirrors() -> None:
    rng = np.random.default_rng(1)
    source, weights = rng.normal(size=(6, 3)), rng.random(6) + 0.1
    target = source @ Rotation.random(random_state=2).as_matrix().T + rng.normal(size=(6, 3)) * 0.2
    pose, _, _ = fit_rigid(source, target, weights)
    a, b = source - weights @ source / weights.sum(), target - weights @ target / weights.sum()
    np.testing.assert_allclose(pose[:3, :3], Rotation.align_vectors(b, a, weights=weights)[0].as_matrix(), atol=1e-9)
    mirrored, _, error = fit_rigid(source, source * [-1, 1, 1], np.ones(6))
    assert np.linalg.det(mirrored[:3, :3]) == pytest.approx(1)
    assert error > 0.1
    assert fit_rigid(source, 3 * source, np.ones(6))[1] == pytest.approx(3)
