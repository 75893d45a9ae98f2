"""Depth images: 16-bit grey PNG or TIFF of RealSense, Azure Kinect and other depth cameras, with the camera's numbers.

A pinhole camera without distortion: the pixel (column, row) of depth z shows x = (column - cx) z / fx, y = (row - cy) z / fy in
its frame, x to the right, y down, z forward. The mesh has y up and z to the camera.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from preprocess.geometry.grid import grid_to_mesh, pixel_uv
from preprocess.geometry.mesh import Mesh
from preprocess.readers.appearance import add_view_texture
from preprocess.readers.file_bytes import name_errors, read_bytes, read_rows
from preprocess.readers.image import is_16_bit_grey
from shared.errors import ScanError

DEPTH_SUFFIXES = (".png", ".tif", ".tiff")
CAMERA_FIELDS = ("fx", "fy", "cx", "cy", "depth_scale")
_SIZE_FIELDS = ("width", "height")
_MAX_PIXELS = 1 << 22  # 2048 × 2048
_MAX_RANGE_MM = 1000.0  # of depths without a limit: head and shoulders, but no room
_NO_DEPTH = (0, 65535)
_SYNONYMS = {"ppx": "cx", "ppy": "cy", "image_width": "width", "image_height": "height"}  # of librealsense and ROS
_MATRICES = ("intrinsic_matrix", "camera_matrix", "K")
_MAX_NUMBER = 1e6
_NEAR_MIDDLE = 0.05  # of the width or height
_ADVICE = "give fx, fy, cx, cy in pixels, as columns of the manifest or in the file that its column camera names"


@dataclass(frozen=True)
class PinholeCamera:
    """fx, fy, cx, cy: pixels, the centre of the first pixel at 0. step_mm: of its levels. width, height: 0 = unknown."""

    fx: float
    fy: float
    cx: float
    cy: float
    step_mm: float = 1.0
    width: float = 0.0
    height: float = 0.0


def make_camera(numbers: Mapping[str, object]) -> PinholeCamera:
    """Make a camera of fx, fy, cx, cy and perhaps depth_scale, width and height, as numbers or text.

    depth_scale is in mm per level (default 1); below 0.1 in metres per level (RealSense: 0.001); from 100 in levels per metre
    (Open3D: 1000).

    Raises:
        ScanError: a number is missing, or none of a camera.
    """
    given = [name for name in (*CAMERA_FIELDS, *_SIZE_FIELDS) if numbers.get(name) not in (None, "")]
    values = {name: _read_number(name, numbers[name]) for name in given}
    if lacking := [name for name in CAMERA_FIELDS[:4] if name not in values]:
        raise ScanError(f"the camera's {', '.join(lacking)} is not known; {_ADVICE}")
    scale = values.pop("depth_scale", 1.0)
    if values["fx"] <= 0 or values["fy"] <= 0 or scale <= 0:
        raise ScanError(f"fx, fy and depth_scale must be positive; {_ADVICE}")
    return PinholeCamera(**values, step_mm=scale * 1000 if scale < 0.1 else 1000 / scale if scale >= 100 else scale)


def read_camera(path: Path) -> PinholeCamera:
    """Read the camera's numbers: JSON of these names, or with a 3 × 3 matrix as Open3D writes it; or CSV lines `name,value`.

    Raises:
        ScanError: missing, garbled, or not all numbers are there.
    """
    if path.suffix.lower() == ".json":
        try:
            content = json.loads(read_bytes(path, max_bytes=1 << 20))
        except (ValueError, RecursionError) as error:
            raise ScanError(f"{path}: not JSON; {_ADVICE}") from error
        numbers = _find_numbers(content) if isinstance(content, dict) else {}
    else:
        words = [row.decode("utf-8", "replace").split() for row in read_rows(path, separators=b",;:=")]
        if len(words) == 2 and len(words[0]) == len(words[1]) > 2:  # a line of names, a line of values
            words = [list(pair) for pair in zip(*words, strict=True)]
        numbers = {row[0].lower(): row[1] for row in words if len(row) == 2}
    with name_errors(path):
        return make_camera({_SYNONYMS.get(name, name): value for name, value in numbers.items()})


def read_depth_image(
    path: Path, camera: PinholeCamera, *, max_depth_mm: float | None = None, texture: Path | None = None
) -> Mesh:
    """Read a depth image as a mesh, mm, with the given colour image of the same view.

    Level 0 and the highest, 65535, mean that nothing was measured.

    Args:
        max_depth_mm: what lies farther is left out, such as the wall behind a head.
    Raises:
        ScanError: missing, no 16-bit grey image, too large, nothing was measured, or a whole room and no max_depth_mm.
    """
    data = read_bytes(path)
    with name_errors(path):
        levels = _decode(data)
        num_rows, num_columns = levels.shape
        _check_fits(camera, num_columns, num_rows)
        z = np.where(np.isin(levels, _NO_DEPTH), np.nan, levels * camera.step_mm)
        if max_depth_mm is not None:
            z[z > max_depth_mm] = np.nan
        elif np.isfinite(z).any():
            near, far = np.nanpercentile(z, [1, 99])
            if far - near > _MAX_RANGE_MM:
                raise ScanError(
                    f"shows depths of {near:.0f} to {far:.0f} mm; give max_depth_mm, a depth just behind the head "
                    "(a column, or --columns max_depth_mm=900)"
                )
        x = (np.arange(num_columns) - camera.cx) / camera.fx * z
        y = (np.arange(num_rows)[:, None] - camera.cy) / camera.fy * z
        step = z / min(camera.fx, camera.fy)
        mesh = grid_to_mesh(np.stack([x, -y, -z], -1)[::-1], pixel_uv(num_rows, num_columns)[::-1], step[::-1])
    return add_view_texture(mesh, path, texture, num_rows, num_columns)


def _check_fits(camera: PinholeCamera, width: int, height: int) -> None:
    cx, cy, expected = camera.cx, camera.cy, (camera.width or width, camera.height or height)
    if expected != (width, height):
        raise ScanError(
            f"{width} × {height} pixels, but the camera's numbers are for {expected[0]:.0f} × {expected[1]:.0f}; give "
            "those of this image (of a cut-out: cx and cy from its corner, and no width and height)"
        )
    # The principal point of a whole image is near its middle. In a cut-out it may be anywhere, but hardly such that cx and cy
    # exchanged are the middle again.
    off, exchanged = (max(abs(x / width - 0.5), abs(y / height - 0.5)) for x, y in ((cx, cy), (cy, cx)))
    if exchanged < _NEAR_MIDDLE < off:
        raise ScanError(
            f"cx {cx:g}, cy {cy:g} lie far from the middle of its {width} × {height} pixels, but in it when exchanged; give cx "
            "along the width and cy along the height, and fx and fy likewise"
        )


def _decode(data: bytes) -> np.ndarray:
    """Return the levels, u16 (rows, columns), row 0 at the top."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "TIFF")) as image:
            width, height = image.size
            if width * height > _MAX_PIXELS or min(width, height) < 2:
                raise ScanError(
                    f"{width} × {height} pixels, expected 2 × 2 to 2048 × 2048; cut out the face, and take the corner "
                    "from cx and cy"
                )
            if not is_16_bit_grey(image):
                raise ScanError(f"an image of mode {image.mode}, expected depth as 16-bit grey")
            return np.asarray(image).astype(np.uint16)
    except ScanError:
        raise
    except Exception as error:  # as in decode_image
        why = "it is cut off" if "truncated" in str(error) else type(error).__name__
        raise ScanError(
            f"not a readable depth image ({why}); expected 16-bit grey PNG or TIFF; copy it again"
        ) from error


def _find_numbers(content: dict[str, Any]) -> dict[str, object]:
    numbers: dict[str, object] = {
        name.lower(): value for name, value in content.items() if not isinstance(value, list | dict)
    }
    for name in _MATRICES:
        flat = _flatten(content.get(name))
        if len(flat) == 9:  # by columns (Open3D) or by rows: one of the two corners is 0
            columns = flat[2] == 0
            numbers |= {"fx": flat[0], "fy": flat[4], "cx": flat[6 if columns else 2], "cy": flat[7 if columns else 5]}
    return numbers


def _flatten(value: object) -> list[object]:
    if isinstance(value, dict):
        value = value.get("data")
    if not isinstance(value, list) or len(value) > 9:
        return []
    return [one for row in value for one in (row if isinstance(row, list) else [row])]


def _read_number(name: str, value: object) -> float:
    try:
        number = float(value) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not abs(number) < _MAX_NUMBER:
        raise ScanError(f"{name} {str(value)[:40]!r}, expected a number; {_ADVICE}")
    return number
