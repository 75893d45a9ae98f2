"""Bosphorus range images: the byte layout, every way it can be cut or garbled, and the grid's way to a mesh."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.readers.bnt import BntFile, bnt_to_mesh, read_bnt
from shared.errors import ScanError

HOLE = -1e9


def encode(planes: list[np.ndarray], name: bytes = b"bs000_E_HAPPY_0.png", zmin: float = HOLE) -> bytes:
    """The layout's table, field by field."""
    num_rows, num_columns = planes[0].shape
    data = struct.pack("<H", num_rows) + struct.pack("<H", num_columns) + struct.pack("<d", zmin)
    data += struct.pack("<H", len(name)) + name + struct.pack("<I", num_rows * num_columns * 5)
    for plane in planes:
        for row in plane:
            data += struct.pack(f"<{num_columns}d", *row)
    return data


def make_grid(num_rows: int = 40, num_columns: int = 30, step_mm: float = 0.8) -> list[np.ndarray]:
    """A slanted, bent surface; a from left to right, b from top to bottom, rows from bottom to top."""
    x, y = np.meshgrid(np.arange(num_columns) * step_mm, np.arange(num_rows) * step_mm)
    z = 5 + 0.3 * x - 0.01 * (y - 10) ** 2
    a = (np.arange(num_columns) + 0.5) / num_columns + 0 * y
    b = 1 - ((np.arange(num_rows) + 0.5) / num_rows)[:, None] + 0 * x
    return [x, y, z, a, b]


def punch(planes: list[np.ndarray], where: np.ndarray) -> list[np.ndarray]:
    return [np.where(where, HOLE, plane) for plane in planes[:3]] + planes[3:]


def to_grid(planes: list[np.ndarray]) -> BntFile:
    x, y, z, a, b = planes
    return BntFile(x, y, z, a, b, HOLE, "")


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 6),
    st.integers(2, 6),
    st.text("abcXYZ019_.", max_size=30),
    st.integers(0, 2**32),
    st.sampled_from([HOLE, -1.0]),
)
def test_every_field_is_where_the_layout_says(
    tmp_path_factory: pytest.TempPathFactory, num_rows: int, num_columns: int, name: str, seed: int, zmin: float
) -> None:
    planes = list(np.random.default_rng(seed).normal(0, 50, (5, num_rows, num_columns)))
    path = tmp_path_factory.getbasetemp() / "a.bnt"
    path.write_bytes(encode(planes, name.encode(), zmin))
    grid = read_bnt(path)
    assert (grid.image_name, grid.zmin) == (name, zmin)
    for read, written in zip((grid.x, grid.y, grid.z, grid.a, grid.b), planes, strict=True):
        np.testing.assert_array_equal(read, written)


def test_every_truncation_is_a_scan_error(tmp_path: Path) -> None:
    data = encode(make_grid(3, 4))
    path = tmp_path / "a.bnt"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(ScanError, match=r"a\.bnt"):
            read_bnt(path)
    path.write_bytes(data + b"x")
    with pytest.raises(ScanError, match="expected for its 3 × 4 points"):
        read_bnt(path)


@pytest.mark.parametrize(
    ("offset", "value"), [(0, b"\xff\xff"), (2, b"\xff\xff"), (0, b"\0\0"), (12, b"\xff\xff"), (33, b"\xff" * 4)]
)
def test_counts_are_not_trusted(tmp_path: Path, offset: int, value: bytes) -> None:
    data = bytearray(encode(make_grid(3, 4)))
    data[offset : offset + len(value)] = value
    (tmp_path / "a.bnt").write_bytes(data)
    with pytest.raises(ScanError, match=r"a\.bnt: .*copy it again"):
        read_bnt(tmp_path / "a.bnt")


def test_a_copy_that_ends_in_zeros_is_refused(tmp_path: Path) -> None:
    data = encode(make_grid(80, 60))
    (tmp_path / "a.bnt").write_bytes(data[:-5000] + bytes(5000))  # several rows of the last plane, which all lie at 0
    with pytest.raises(ScanError, match=r"a\.bnt: ends in zeros; .*copy it again"):
        read_bnt(tmp_path / "a.bnt")


def test_huge_counts_that_agree_allocate_nothing(tmp_path: Path) -> None:
    """65535 × 13107 points make a count that fits its field: 34 GB that the file does not have."""
    count = 65535 * 13107 * 5 % 2**32
    (tmp_path / "a.bnt").write_bytes(struct.pack("<HHdH", 65535, 13107, HOLE, 0) + struct.pack("<I", count) + bytes(80))
    with pytest.raises(ScanError, match="98 bytes"):
        read_bnt(tmp_path / "a.bnt")


def test_a_smooth_surface_is_two_triangles_a_cell_facing_the_scanner() -> None:
    planes = make_grid()
    mesh = bnt_to_mesh(to_grid(planes))
    assert len(mesh.vertices_mm) == 40 * 30
    assert len(mesh.triangles) == 2 * 39 * 29
    corners = mesh.vertices_mm[mesh.triangles].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (normals[:, 2] > 0).all()
    assert normals[:, 2].sum() / 2 == pytest.approx(39 * 29 * 0.8**2, rel=1e-5)  # covers the grid once
    x, y, z = mesh.vertices_mm.T.astype(np.float64)
    np.testing.assert_allclose(z, 5 + 0.3 * x - 0.01 * (y - 10) ** 2, atol=1e-4)
    # v counts from the bottom: as b falls with y, v rises with y.
    assert mesh.uv is not None
    np.testing.assert_allclose(mesh.uv, (corners[..., :2] / 0.8 + 0.5) / (30, 40), atol=1e-5)


def test_a_grid_in_another_order_is_refused() -> None:
    planes = make_grid()
    for change in (
        lambda p: p.T,
        lambda p: p[::-1],
        lambda p: p.reshape(30, 40),
        lambda p: p.ravel("F").reshape(40, 30),
    ):
        with pytest.raises(ScanError, match=r"no grid of [34]0 rows × [34]0 columns"):
            bnt_to_mesh(to_grid([change(plane) for plane in planes]))


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 8), st.integers(2, 8), st.integers(0, 2**32), st.floats(0, 0.9))
def test_no_triangle_touches_a_hole(num_rows: int, num_columns: int, seed: int, share: float) -> None:
    """Against a count cell by cell: two triangles for four measured corners, one for three."""
    hole = np.random.default_rng(seed).random((num_rows, num_columns)) < share
    planes = punch(make_grid(num_rows, num_columns), hole)
    expected = 0
    for row in range(num_rows - 1):
        for column in range(num_columns - 1):
            expected += max(0, int((~hole[row : row + 2, column : column + 2]).sum()) - 2)
    if not expected:
        with pytest.raises(ScanError, match="no surface"):
            bnt_to_mesh(to_grid(planes))
        return
    mesh = bnt_to_mesh(to_grid(planes))
    assert len(mesh.triangles) == expected
    assert np.abs(mesh.vertices_mm).max() < 1e3
    assert set(np.unique(mesh.triangles)) == set(range(len(mesh.vertices_mm)))
    assert mesh.uv is not None and mesh.uv.min() >= 0 and mesh.uv.max() <= 1


@pytest.mark.parametrize("along", [0, 1])
@pytest.mark.parametrize("jump_mm", [6.0, 40.0])
def test_no_triangle_spans_a_jump_in_depth(along: int, jump_mm: float) -> None:
    planes = make_grid()
    position = planes[along]
    planes[2] = np.where(position > 12, planes[2] + jump_mm, planes[2])
    mesh = bnt_to_mesh(to_grid(planes))
    beyond = mesh.vertices_mm[:, along][mesh.triangles] > 12
    assert (beyond.all(axis=1) | ~beyond.any(axis=1)).all()
    assert beyond.any() and not beyond.all()
    lost = 2 * (29 if along else 39)  # one column or row of cells
    assert len(mesh.triangles) == 2 * 39 * 29 - lost


def test_steep_but_whole_surfaces_are_kept() -> None:
    """The side of a nose, 75° to the scanner."""
    planes = make_grid()
    planes[2] = planes[0] * np.tan(np.deg2rad(75))
    assert len(bnt_to_mesh(to_grid(planes)).triangles) == 2 * 39 * 29


def test_the_limit_of_a_jump_is_in_steps_of_the_grid() -> None:
    """A tall grid whose steps are 2 mm upward and 0.5 mm across: most of its edges have 2 mm, so 12 mm are too long."""
    x, y = np.meshgrid(np.arange(3) * 0.5, np.arange(40) * 2.0)
    for jump_mm, lost in ((11.0, 0), (14.0, 4)):
        z = np.where(y > 30, jump_mm, 0.0)
        assert len(bnt_to_mesh(to_grid([x, y, z, 0 * x, 0 * x])).triangles) == 2 * 39 * 2 - lost


@pytest.mark.parametrize(("raised", "diagonal"), [(0, {1, 2}), (1, {0, 3}), (2, {0, 3}), (3, {1, 2})])
def test_a_cell_is_parted_along_its_shorter_diagonal(raised: int, diagonal: set[int]) -> None:
    """One of the corners 0 1 below, 2 3 above stands out: the diagonal that leaves it aside is shorter."""
    x, y = np.meshgrid(np.arange(2) * 1.0, np.arange(2) * 1.0)
    z = np.zeros(4)
    z[raised] = 0.5
    triangles = bnt_to_mesh(to_grid([x, y, z.reshape(2, 2), 0 * x, 0 * x])).triangles
    assert set(triangles[0]) & set(triangles[1]) == diagonal
    assert set(triangles.ravel()) == {0, 1, 2, 3}


def test_the_rule_for_jumps_has_no_unit() -> None:
    planes = make_grid()
    planes[2] = np.where(planes[0] > 12, planes[2] + 20, planes[2])
    scaled = [0.01 * plane for plane in planes[:3]] + planes[3:]
    np.testing.assert_array_equal(bnt_to_mesh(to_grid(planes)).triangles, bnt_to_mesh(to_grid(scaled)).triangles)


def test_background_that_is_marked_otherwise(tmp_path: Path) -> None:
    planes = make_grid()
    planes[2][0, 0] = np.nan
    planes[0][5, 5] = -1e9  # one coordinate alone
    mesh = bnt_to_mesh(to_grid(planes))
    assert len(mesh.vertices_mm) == to_grid(planes).is_surface.sum() == 40 * 30 - 2
    planes = make_grid()
    grid = dataclasses.replace(to_grid(planes), zmin=planes[0][0, 3])  # the mark is one only where all three bear it
    assert grid.is_surface.all()
