"""STL and GLB (glTF 2.0 in one file) through Open3D.

Open3D never sees the user's file: it gets a copy in an empty folder, counts checked, a GLB stripped to its geometry. So it
can neither follow a reference to another file nor be led to allocate what the file does not hold.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from preprocess.mesh import Mesh
from preprocess.readers.file_bytes import read_bytes, to_float32
from preprocess.readers.glb import split_glb
from preprocess.readers.image import decode_image, read_image
from preprocess.readers.polygons import weld
from shared.errors import ScanError

_CUT = "the file is cut off or garbled; copy it again"


def read_open3d(path: Path, *, texture: Path | None = None) -> Mesh:
    """Reads an STL or GLB file; the nodes of a GLB scene stand where their transforms put them.

    Vertices at one place become one. v of the texture coordinates points up, as in Mesh. A GLB's embedded base-colour
    image is its texture unless another is given.

    Raises:
        ScanError: missing, cut off, garbled, a count that the file cannot hold, no triangles, several textures.
    """
    data = read_bytes(path)
    image: bytes | None = None
    try:
        if path.suffix.lower() == ".glb":
            data, image = split_glb(data)
        else:
            _check_stl(data)
        mesh = _load(data, path.suffix.lower())
        if mesh.uv is not None and image is not None and texture is None:
            mesh = replace(mesh, texture=decode_image(image))
    except ScanError as error:
        raise ScanError(f"{path}: {error}") from error
    return replace(mesh, texture=read_image(texture)) if texture and mesh.uv is not None else mesh


def _load(data: bytes, suffix: str) -> Mesh:
    import open3d

    with tempfile.TemporaryDirectory(prefix="facet-") as folder:
        copy = Path(folder) / f"scan{suffix}"
        copy.write_bytes(data)
        with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
            loaded = open3d.io.read_triangle_mesh(str(copy), enable_post_processing=False)  # type: ignore[arg-type]
    vertices = to_float32(np.asarray(loaded.vertices).reshape(-1, 3))
    triangles = np.asarray(loaded.triangles).reshape(-1, 3).astype(np.int64)
    if not len(triangles):
        raise ScanError(f"no triangles; {_CUT}")
    if triangles.min() < 0 or triangles.max() >= len(vertices):
        raise ScanError(f"a triangle names vertex {triangles.max()}, there are {len(vertices)}; {_CUT}")
    uv = None
    if loaded.has_triangle_uvs():
        uv = to_float32(np.asarray(loaded.triangle_uvs).reshape(-1, 3, 2))
    colors = None
    if loaded.has_vertex_colors():
        colors = np.rint(np.clip(np.nan_to_num(np.asarray(loaded.vertex_colors)), 0, 1) * 255).astype(np.uint8)
    kept, place = weld(vertices, colors)
    return Mesh(vertices[kept], place[triangles].astype(np.int32), uv, colors=None if colors is None else colors[kept])


def _check_stl(data: bytes) -> None:
    """A binary STL is 84 bytes and 50 a triangle; an ASCII one begins with `solid` and holds facets."""
    num_triangles = int.from_bytes(data[80:84], "little")
    if len(data) >= 84 and 84 + 50 * num_triangles == len(data):
        return
    if not (data.lstrip()[:5].lower() == b"solid" and b"facet" in data and b"endsolid" in data[-1024:]):
        raise ScanError(f"{len(data)} bytes, its header promises {num_triangles} triangles; {_CUT}")
