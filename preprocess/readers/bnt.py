"""The range images of Bosphorus: a grid of points with texture coordinates.

Layout, little-endian, without padding (Savran et al. 2008, "Bosphorus database for 3D face analysis", and its files):

    0       uint16       nrows
    2       uint16       ncols
    4       float64      zmin, the background mark (-1e9)
    12      uint16       L, length of the image's name
    14      L bytes      the image's name, without a NUL
    14+L    uint32       count = nrows · ncols · 5
    18+L    float64 ×    five planes in turn, x, y, z, a, b, each nrows × ncols, row-major, rows from bottom to top
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preprocess.geometry.grid import grid_to_mesh
from preprocess.geometry.mesh import Mesh
from preprocess.readers.file_bytes import CUT, name_errors, read_bytes
from shared.errors import ScanError

_PLANES = 5
# A coordinate beyond this is a background mark, whatever the header says.
_MAX_COORDINATE_MM = 1e6
_FEW_ZEROS = 512  # at the end of b, of measured points: a copy that was interrupted has more


@dataclass(frozen=True)
class BntFile:
    """A grid of measured points. x, y, z f64 (nrows, ncols), mm, row 0 at the **bottom**, all equal to zmin in the background.

    a, b f64 (nrows, ncols) in 0…1: the point's position in its PNG, a from the left and b from the **top**; valid everywhere.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    a: np.ndarray
    b: np.ndarray
    zmin: float
    image_name: str

    @property
    def is_surface(self) -> np.ndarray:
        """bool (nrows, ncols): False in the background."""
        xyz = np.stack([self.x, self.y, self.z])
        with np.errstate(invalid="ignore"):
            known = np.isfinite(xyz) & (np.abs(xyz) < _MAX_COORDINATE_MM)
        marked = (xyz == self.zmin).all(axis=0)
        return np.asarray(known.all(axis=0) & ~marked)


def read_bnt(path: Path) -> BntFile:
    """Read a .bnt file.

    Raises:
        ScanError: missing, cut off, too long, or counts that do not agree with each other or the file's size.
    """
    data = read_bytes(path)
    with name_errors(path):
        return _parse(data)


def _parse(data: bytes) -> BntFile:
    if len(data) < 14:
        raise ScanError(f"{len(data)} bytes, its header alone has 18; {CUT}")
    num_rows, num_columns, zmin, name_length = struct.unpack_from("<HHdH", data)
    start = 18 + name_length
    if len(data) < start:
        raise ScanError(f"{len(data)} bytes, its header alone has {start}; {CUT}")
    (count,) = struct.unpack_from("<I", data, 14 + name_length)
    if num_rows < 2 or num_columns < 2 or count != num_rows * num_columns * _PLANES:
        raise ScanError(f"a grid of {num_rows} × {num_columns} points with {count} numbers is none of Bosphorus; {CUT}")
    if len(data) != start + 8 * count:
        raise ScanError(
            f"{len(data)} bytes, {start + 8 * count} expected for its {num_rows} × {num_columns} points; {CUT}"
        )
    planes = np.frombuffer(data, "<f8", count, start).reshape(_PLANES, num_rows, num_columns).astype(np.float64)
    name = data[14 : 14 + name_length].rstrip(b"\0").decode("latin-1")
    x, y, z, a, b = planes
    grid = BntFile(x, y, z, a, b, zmin, name)
    num_zeros = int((np.cumsum(b.ravel()[::-1] != 0) == 0).sum())
    if int(grid.is_surface.ravel()[b.size - num_zeros :].sum()) > _FEW_ZEROS:
        raise ScanError(f"ends in zeros; {CUT}")
    return grid


def bnt_to_mesh(grid: BntFile) -> Mesh:
    """Return the grid's surface (see grid_to_mesh), facing the scanner (+z), without texture.

    uv = (a, 1 - b): Mesh counts v from the bottom.

    Raises:
        ScanError: nothing was measured, or the grid has another order.
    """
    points = np.stack([grid.x, grid.y, grid.z], -1)
    points[~grid.is_surface] = np.nan
    with np.errstate(invalid="ignore"):  # garbled bytes may be signalling NaNs
        return grid_to_mesh(points, np.stack([grid.a, 1 - grid.b], -1))
