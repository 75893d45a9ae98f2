"""One scan in memory, without a cache: read its file, align its face, draw it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from preprocess.alignment.align import align
from preprocess.build.shard import render_face
from preprocess.datasets.folder import FOLDER, read_folder_scan
from preprocess.datasets.manifest_fields import UNITS_MM
from preprocess.datasets.scan import ScanRecord
from preprocess.geometry.mesh import Mesh
from preprocess.readers.landmark_points import FACE_POINTS
from preprocess.rendering.views import Views
from shared.errors import FacetError, ScanError
from shared.schema import RenderSettings, View


def read_scan(
    path: Path | str,
    *,
    units: str | float | None = None,
    texture: Path | str | None = None,
    landmarks: Path | str | None = None,
) -> Mesh:
    """Read a mesh file as `build folder` does, in mm and in the axes of the file.

    Args:
        path: OBJ, PLY, STL, GLB, OFF or WRL.
        units: mm, cm, m or in, or the number of mm per unit of the file; None: mm, and m for GLB.
        texture: an image that replaces the one that the file names.
        landmarks: a file of landmarks, in the units and axes of the mesh (preprocess/README.md, landmarks).
    Returns:
        The mesh; `notes` says what its files ask for and it lacks. landmarks_mm: f32 (6, 3), in the order of FACE_POINTS.
    Raises:
        ScanError: a file is missing, damaged or of an unknown kind.
        FacetError: unknown units.
    """
    if isinstance(units, str) and units not in UNITS_MM:
        raise FacetError(f"units {units!r:.40}: expected one of {', '.join(UNITS_MM)}, or a number of mm")
    if isinstance(units, int | float) and not 0 < units < np.inf:
        raise FacetError(f"units {units}: expected a number of mm above 0")
    key = "units" if isinstance(units, str) else "scale"
    path = Path(path).absolute()
    record = ScanRecord(
        sample_id=path.stem,
        subject="",
        source=path.name,
        texture=str(Path(texture).absolute()) if texture else "",
        landmarks=str(Path(landmarks).absolute()) if landmarks else "",
        options=() if units is None else ((key, str(units)),),
    )
    return read_folder_scan(path.parent, record)


def render(
    scan: Mesh | Path | str,
    views: Iterable[float | tuple[float, float] | View] = (0, 20, -20),
    *,
    size_px: int = 224,
    up: str = "y",
    facing: str = "z",
) -> Views:
    """Align one scan and draw it from every view: the images that `build folder` stores, without a cache.

    Args:
        scan: a mesh in mm, or the path of one that needs no options of `read_scan`.
        views: yaw in degrees, + toward the subject's left, or (yaw, pitch), + up.
        size_px: width and height. The images show 201.6 mm whatever their size.
        up, facing: axes of the file that point up and out of the face, such as z and -y; unused with landmarks.
    Returns:
        texture u8 (V, S, S, 3) or None, normal u8 (V, S, S, 3), depth u16 (V, S, S); see `Views`. What the scan asks for
        and the images lack is a UserWarning.
    Raises:
        ScanError: the file cannot be read, no face is found, or a view shows almost no surface.
        FacetError: views or a size that cannot be drawn.
    """
    chosen = tuple(one if isinstance(one, View) else View(*np.atleast_1d(one).tolist()) for one in views)
    settings = RenderSettings(views=chosen, size_px=size_px)
    mesh = scan if isinstance(scan, Mesh) else read_scan(scan)
    if mesh.landmarks_mm is not None and len(mesh.landmarks_mm) != len(FACE_POINTS):
        raise ScanError(f"{len(mesh.landmarks_mm)} landmarks, expected {', '.join(FACE_POINTS)}; or leave them out")
    found = align(
        mesh, landmark_groups=FOLDER.landmark_groups, up=up, facing=facing, crop_radius_mm=settings.crop_radius_mm
    )
    for note in dict.fromkeys((*mesh.notes, *found.notes)):
        warnings.warn(note, stacklevel=2)
    return render_face(found.mesh, settings)
