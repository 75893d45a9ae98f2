"""The nearest vertex, against a comparison with every vertex."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from preprocess.alignment.nearest import find_nearest, sort_into_cells


@pytest.mark.parametrize("seed", range(5))
def test_the_nearest_vertex_in_the_box_is_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vertices = rng.normal(0, 25, (2000, 3)).astype(np.float32)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = Rotation.random(random_state=seed).as_matrix(), rng.normal(0, 10, 3)
    low, high = np.array([-30.0, -20, -40]), np.array([25.0, 31, 35])
    moved = vertices.astype(np.float64) @ pose[:3, :3].T + pose[:3, 3]
    index, placed, starts = sort_into_cells(vertices, pose, low, high)
    assert sorted(index) == np.flatnonzero(((moved > low) & (moved < high)).all(axis=1)).tolist()
    np.testing.assert_allclose(placed, moved[index], atol=1e-9)
    points = rng.normal(0, 30, (300, 3))  # some of them outside the box
    nearest = np.full(len(points), -1)
    for reach_mm in (200.0, 6.0, 3.0):
        find_nearest(points, reach_mm, placed, starts, low, high, nearest)
        distances = np.linalg.norm(points[:, None] - placed, axis=2)
        expected = np.where(distances.min(axis=1) < reach_mm, distances.argmin(axis=1), -1)
        assert (nearest == expected).all()
        points += rng.normal(0, 2, points.shape)  # what was nearest is so no longer
    assert 0 < (nearest >= 0).sum() < len(points)


def test_a_box_without_vertices_holds_none() -> None:
    low, high = np.full(3, 50.0), np.full(3, 60.0)
    index, placed, starts = sort_into_cells(np.zeros((3, 3), np.float32), np.eye(4), low, high)
    nearest = np.full(1, -1)
    find_nearest(low[None], 100.0, placed, starts, low, high, nearest)
    assert not len(index) and nearest.tolist() == [-1]
