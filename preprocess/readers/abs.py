"""Range images of FRGC (.abs, .abs.gz), text of the Minolta Vivid scanner.

    480 rows
    640 columns
    pixels (flag X Y Z):
    a line of flags (1 = measured), then a line each of x, y and z in mm: row-major, row 0 at the top, -999999 in the background

Phillips et al. 2005, "Overview of the face recognition grand challenge"; layout after public readers. y up, z to the scanner.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np

from preprocess.geometry.grid import grid_to_mesh, pixel_uv
from preprocess.geometry.mesh import Mesh
from preprocess.readers.appearance import add_view_texture
from preprocess.readers.file_bytes import CUT, MAX_SCAN_BYTES, name_errors, read_bytes, to_utf8
from preprocess.readers.text_numbers import parse_numbers
from shared.errors import ScanError

_HEADER = re.compile(rb"\s*(\d{1,5})\s+rows\s+(\d{1,5})\s+columns\s+pixels \(flag X Y Z\):\s", re.IGNORECASE)
_PLANES = 4
_BACKGROUND_MM = 9e5


def read_abs(path: Path, *, texture: Path | None = None) -> Mesh:
    """Read a range image as a mesh, with the given image of the same view.

    Raises:
        ScanError: missing, cut off, garbled, too large when unpacked, or nothing was measured.
    """
    is_packed = path.suffix.lower() == ".gz"
    data = read_bytes(path, packed=is_packed)
    with name_errors(path):
        mesh, shape = _parse(to_utf8(_unpack(data) if is_packed else data))
    return add_view_texture(mesh, path, texture, *shape)


def _unpack(data: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)  # gzip
    try:
        text = unpacker.decompress(data, MAX_SCAN_BYTES)
    except zlib.error as error:
        raise ScanError(f"not a gzip file ({error}); copy it again") from error
    if unpacker.unconsumed_tail:
        raise ScanError(f"unpacks to more than {MAX_SCAN_BYTES / 1e6:.0f} MB; is this a scan?")
    if not unpacker.eof:
        raise ScanError(CUT)
    return text


def _parse(text: bytes) -> tuple[Mesh, tuple[int, int]]:
    """Return the mesh, and the numbers of rows and columns."""
    header = _HEADER.match(text)
    if header is None:
        raise ScanError("expected `480 rows`, `640 columns`, `pixels (flag X Y Z):` at its beginning; copy it again")
    num_rows, num_columns = int(header[1]), int(header[2])
    count = _PLANES * num_rows * num_columns
    numbers = parse_numbers(memoryview(text)[header.end() :], np.float64)
    if num_rows < 2 or num_columns < 2 or len(numbers) != count:
        raise ScanError(f"{len(numbers)} numbers, {count} expected for its {num_rows} × {num_columns} points; {CUT}")
    flag, *xyz = numbers.reshape(_PLANES, num_rows, num_columns)
    points = np.stack(xyz, axis=-1)
    with np.errstate(invalid="ignore"):
        points[(flag == 0) | ~(np.abs(points) < _BACKGROUND_MM).all(axis=-1)] = np.nan
    return grid_to_mesh(points[::-1], pixel_uv(num_rows, num_columns)[::-1]), (num_rows, num_columns)
