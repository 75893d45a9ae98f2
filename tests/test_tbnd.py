"""BP4D landmark files, and finding the axes in which they lie on a scan."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from scan_folders import face_grid

from preprocess.datasets.bp4d_axes import AXIS_SIGNS, find_axis_signs, surface_distance_mm
from preprocess.readers.bu_landmarks import read_tbnd
from shared.errors import ScanError


def tbnd_text(points: np.ndarray, angles: str = "1.5 -20 3e-1") -> str:
    return angles + "\n" + "".join(f"{x} {y} {z}\n" for x, y, z in points)


def some_points(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 50, (83, 3)).astype(np.float32)


def test_angles_points_and_what_was_not_tracked(tmp_path: Path) -> None:
    points = some_points()
    points[[3, 40]] = 0
    points[range(10, 13), range(3)] = 0  # one coordinate alone is no mark
    path = tmp_path / "0000.tbnd"
    path.write_text(tbnd_text(points))
    tracked = read_tbnd(path)
    points[[3, 40]] = np.nan
    np.testing.assert_array_equal(tracked, points)
    assert tracked.dtype == np.float32
    for text in (
        tbnd_text(points).replace("nan nan nan", "0 0 0").replace(" ", ","),
        tbnd_text(points).replace("nan", "0.0") + "\n\n",
    ):
        path.write_bytes(text.replace("\n", "\r\n").encode())
        np.testing.assert_array_equal(read_tbnd(path), points)
    rows = "".join(f"{i} {x} {y} {z}\n" for i, (x, y, z) in enumerate(some_points()))
    path.write_text("0 0 0\n" + rows)  # numbered, as in .bnd files
    np.testing.assert_array_equal(read_tbnd(path), some_points())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[: t.rstrip().rindex("\n")], "83 lines"),
        (lambda t: t + "1 2 3\n", "85 lines"),
        (lambda t: t.replace("1.5 -20 3e-1", "1.5 -20"), "pitch yaw roll"),
        (lambda t: t.replace("1.5", "x"), "expected numbers"),
        (lambda t: t.rsplit(" ", 1)[0], "x y z"),
        (lambda t: t.rsplit(" ", 1)[0] + " nan\n", "not finite"),
        # a field too many, later one too few: the sum is right
        (lambda t: re.sub(r"(\S+)\n$", r"\n", t.replace("\n", "\n9 ", 2).replace("\n9 ", "\n", 1)), "x y z"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "0000.tbnd"
    path.write_text(change(tbnd_text(some_points())))
    with pytest.raises(ScanError, match=message) as error:
        read_tbnd(path)
    assert "0000.tbnd" in str(error.value)


def scan_with_landmarks(seed: int, offset_mm: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """A face with one swollen cheek, placed off the origin, and 83 points on it."""
    rng = np.random.default_rng(seed)
    vertices = face_grid(12.0)[0].astype(np.float32) + np.array(offset_mm, np.float32)
    points = vertices[rng.choice(len(vertices), 83)] + rng.normal(0, 0.3, (83, 3)).astype(np.float32)
    return points.astype(np.float32), vertices


@pytest.mark.parametrize("signs", AXIS_SIGNS)
def test_any_mirroring_is_found(signs: tuple[int, int, int]) -> None:
    """Also the proper ones, although the data set's guide speaks of a left-handed system."""
    scans = []
    for seed, offset in enumerate([(4.0, 10.0, 60.0), (-6.0, 2.0, 55.0)]):
        points, vertices = scan_with_landmarks(seed, offset)
        scans.append((points * np.array(signs, np.float32), vertices))
    found = find_axis_signs(scans)
    assert found is not None
    assert found[0] == signs
    assert found[1] < 1.0


@pytest.mark.parametrize(
    ("signs", "taken"),
    [((1, 1, -1), (1, 1, -1)), ((1, 1, 1), (-1, 1, 1)), ((-1, -1, 1), (1, -1, 1)), ((-1, 1, -1), (1, 1, -1))],
)
def test_a_symmetric_face_leaves_it_to_the_guide(signs: tuple[int, int, int], taken: tuple[int, int, int]) -> None:
    """Mirrored in x a symmetric face is itself: signs of both hands fit alike, and the left-handed ones are taken, though
    by chance the others may fit a little better."""
    vertices = face_grid(0.0)[0].astype(np.float32)
    points = vertices[:: len(vertices) // 82][:83]
    symmetric = np.concatenate([points[:41], points[:41] * np.array([-1, 1, 1], np.float32), points[-1:]])
    symmetric += np.random.default_rng(0).normal(0, 0.3, symmetric.shape).astype(np.float32)
    found = find_axis_signs([(symmetric * np.array(signs, np.float32), vertices)])
    assert found is not None
    assert found[0] == taken


def test_landmarks_of_something_else_fit_nowhere() -> None:
    points, vertices = scan_with_landmarks(0, (0, 0, 60))
    assert find_axis_signs([(points + np.float32(300), vertices)]) is None
    assert find_axis_signs([]) is None
    assert find_axis_signs([(np.full((83, 3), np.nan, np.float32), vertices)]) is None


def test_distance_is_that_of_brute_force() -> None:
    points, vertices = scan_with_landmarks(0, (0, 0, 60))
    points[:5] = np.nan
    points[5:] += 3
    brute = np.linalg.norm(points[5:, None].astype(float) - vertices, axis=-1).min(axis=1)
    assert surface_distance_mm(points, vertices) == pytest.approx(np.median(brute), rel=1e-6)
