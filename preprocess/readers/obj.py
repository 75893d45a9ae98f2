"""Wavefront OBJ and the texture name in its MTL, read here and not through Open3D.

Open3D 0.20 drops faces with more than three corners, parts the vertices at texture seams and opens whatever file a
material names.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from preprocess.mesh import Mesh
from preprocess.readers.file_bytes import enlarge, parse_words, read_bytes, to_float32
from preprocess.readers.image import read_image
from preprocess.readers.polygons import cut_polygons
from preprocess.readers.references import find_beside
from preprocess.readers.text_kernels import (
    BAD_CORNER,
    FINE,
    NO_ROOM,
    NUM_STATES,
    UNEVEN_UV,
    UNEVEN_VERTICES,
    UV_BEFORE_FIRST,
    VERTEX_BEFORE_FIRST,
    VERTEX_ZERO,
    byte_classes,
    scan_obj,
)
from shared.errors import ScanError

_CLASSES = byte_classes(b" \t\v\f", b"\r\n#")
_CUT = "the file is cut off or garbled; copy it again"
# Options of map_Kd and how many values follow each (MTL specification, Alias|Wavefront 1995).
_MAP_OPTIONS = {
    "-blendu": 1, "-blendv": 1, "-cc": 1, "-clamp": 1, "-texres": 1, "-bm": 1, "-boost": 1, "-imfchan": 1, "-type": 1, "-mm": 2,
}  # fmt: skip
_VECTOR_OPTIONS = {"-o", "-s", "-t"}  # one to three numbers


def read_obj(path: Path, *, texture: Path | None = None) -> Mesh:
    """Reads an OBJ file with the texture its MTL names, or with another one.

    Faces of any size, with corners `a`, `a/b`, `a//c` or `a/b/c`, indices from the start or (negative) from the end;
    `a` alone with one `vt` a vertex takes the vertex's. Vertex colours `v x y z r g b` in 0…1 are kept. A texture is only
    looked for in the file's own folder and below; one that is not there leaves the mesh untextured.

    Raises:
        ScanError: missing, cut off, garbled, no face, an index without its vertex, several textures on one mesh.
    """
    data = read_bytes(path)
    if b"\\" in data and (b"\\\n" in data or b"\\\r\n" in data):  # a line that goes on in the next
        data = data.replace(b"\\\r\n", b" ").replace(b"\\\n", b" ")
    try:
        mesh = _build_mesh(data)
    except (ScanError, ValueError) as error:
        raise ScanError(f"{path}: {error}") from error
    if mesh.uv is not None:
        texture = texture or find_obj_texture(path, data)
    return replace(mesh, texture=read_image(texture)) if texture and mesh.uv is not None else mesh


def _build_mesh(data: bytes) -> Mesh:
    vertices, uv_points, corners, sizes = _parse(data)
    if len(vertices) and vertices.shape[1] not in (3, 4, 6, 7):
        raise ScanError(f"{vertices.shape[1]} numbers a vertex, expected 3 (x y z) or 6 (with r g b); {_CUT}")
    for column, (count, name) in enumerate(((len(vertices), "vertex"), (len(uv_points), "texture coordinate"))):
        if len(corners) and (largest := corners[:, column].max()) >= count:
            raise ScanError(f"a face names {name} {largest + 1}, there are {count}; {_CUT}")
    triangles = cut_polygons(corners, sizes)  # (M, 3, 2)
    if not len(triangles):
        raise ScanError(f"no faces ({len(vertices)} vertices); {_CUT}")
    uv = None
    if len(uv_points) and uv_points.shape[1] >= 2:
        uv_corners = triangles[:, :, 1]
        if (corners[:, 1] < 0).all() and len(uv_points) == len(vertices):
            uv_corners = triangles[:, :, 0]
        if (uv_corners >= 0).any():  # a corner without texture coordinates takes the first ones
            uv = np.take(to_float32(uv_points[:, :2]), np.maximum(uv_corners, 0), axis=0)
    colors = None
    if vertices.shape[1] >= 6 and np.isfinite(vertices).all():
        colors = np.rint(np.clip(vertices[:, -3:], 0, 1) * 255).astype(np.uint8)
    return Mesh(to_float32(vertices[:, :3]), triangles[:, :, 0].astype(np.int32), uv, colors=colors)


def _parse(data: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All lines `v` and `vt`, f64 (n, columns); corners int64 (C, 2), vertex and texture coordinate (−1: none), 0-based; and
    how many each face has (P,).
    """
    text, size = np.frombuffer(data, np.uint8), len(data)
    # vertices, uv, the words left of each, corners, sizes: what the usual file needs.
    arrays = [
        np.empty(size // 16 + 8),
        np.empty(size // 32 + 8),
        np.empty((64, 3), np.int64),
        np.empty((64, 3), np.int64),
    ]
    arrays += [np.empty((size // 16 + 8, 2), np.int64), np.empty(size // 48 + 8, np.int64)]
    state = np.zeros(NUM_STATES, np.int64)
    problem, place = scan_obj(text, 0, _CLASSES, *arrays, state)
    while problem == NO_ROOM:
        arrays = [enlarge(array) for array in arrays]
        problem, place = scan_obj(text, place, _CLASSES, *arrays, state)
    if problem != FINE:
        raise ScanError(f"{_describe(problem, data, place)}; {_CUT}")
    vertices, uv, vertices_left, uv_left, corners, sizes = arrays
    num_values, num_left, num_vertices, num_uv_values, num_uv_left, num_uv, num_corners, num_faces = state.tolist()
    parse_words(data, vertices_left[:num_left], vertices)
    parse_words(data, uv_left[:num_uv_left], uv)
    return (
        vertices[:num_values].reshape(num_vertices, -1) if num_values else np.empty((num_vertices, 0)),
        uv[:num_uv_values].reshape(num_uv, -1) if num_uv_values else np.empty((num_uv, 0)),
        corners[:num_corners],
        sizes[:num_faces],
    )


def _describe(problem: int, data: bytes, place: int) -> str:
    """What the kernel found wrong there."""
    words = data[place : place + 100].split()
    word = words[0][:40].decode("latin-1") if words else ""
    if problem == BAD_CORNER:
        parts = word.split("/")
        bad = next((part for part in parts if part and not re.fullmatch(r"[-+]?[0-9]{1,18}", part)), None)
        return f"expected numbers, found {bad!r}" if bad else f"a face's corner {word!r} is not a, a/b, a//c or a/b/c"
    return {
        VERTEX_ZERO: "a face names vertex 0, the first is 1",
        VERTEX_BEFORE_FIRST: "a negative index of v reaches before the first",
        UV_BEFORE_FIRST: "a negative index of vt reaches before the first",
        UNEVEN_VERTICES: "the lines `v …` have different numbers of values",
        UNEVEN_UV: "the lines `vt …` have different numbers of values",
    }[problem]


def find_obj_texture(path: Path, data: bytes | None = None) -> Path | None:
    """The image that an OBJ file's material paints it with (map_Kd), where it stands in the file's folder or below.

    Raises:
        ScanError: the file paints with several images.
    """
    data = read_bytes(path) if data is None else data
    textures: dict[str, str] = {}
    for material_file in find_material_files(path, data):
        textures.update(_read_mtl(material_file))
    used = [textures[m] for m in dict.fromkeys(_text(m) for m in _find_lines(data, b"usemtl")) if m in textures]
    used = list(dict.fromkeys(used or textures.values()))
    found = [file for name in used if (file := find_beside(path, name)) is not None]
    if len(found) > 1:
        names = ", ".join(file.name for file in found[:5])
        raise ScanError(f"{path}: painted with {len(found)} textures ({names}), expected one; bake them into one image")
    return found[0] if found else None


def find_material_files(path: Path, data: bytes) -> list[Path]:
    """The MTL files an OBJ file names, where they stand in its folder or below."""
    found = [find_beside(path, _text(name)) for name in dict.fromkeys(_find_lines(data, b"mtllib"))]
    return [file for file in found if file is not None]


def _find_lines(data: bytes, keyword: bytes) -> list[bytes]:
    """What stands behind `mtllib` or `usemtl` at the beginning of a line.

    Looked for by their letter m, which numbers do not have: one byte is found twenty times as fast as a word.
    """
    found = []
    place = data.find(b"m")
    while place >= 0:
        start, end = data.rfind(b"\n", 0, place) + 1, data.find(b"\n", place)
        end = end if end >= 0 else len(data)
        words = data[start:end].split(None, 1)
        if len(words) == 2 and words[0] == keyword:
            found.append(words[1].rstrip())
        place = data.find(b"m", end)
    return found


def _read_mtl(path: Path) -> dict[str, str]:
    """Material → the name behind map_Kd."""
    textures: dict[str, str] = {}
    material = ""
    for line in read_bytes(path, max_bytes=1 << 24).splitlines():
        keyword, _, rest = line.strip().partition(b" ")
        if keyword.lower() == b"newmtl":
            material = _text(rest)
        elif keyword.lower() == b"map_kd" and (name := _without_options(_text(rest))):
            textures[material] = name
    return textures


def _without_options(text: str) -> str:
    words = text.split()
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option in _VECTOR_OPTIONS:
            for _ in range(3):
                if words and re.fullmatch(r"[-+.\deE]+", words[0]):
                    words.pop(0)
        else:
            del words[: _MAP_OPTIONS.get(option, 0)]
    return " ".join(words)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace").strip().strip('"')
