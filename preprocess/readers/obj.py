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
from preprocess.readers.file_bytes import parse_numbers, read_bytes, to_float32
from preprocess.readers.image import read_image
from preprocess.readers.polygons import fan_triangulation
from preprocess.readers.references import find_beside
from shared.errors import ScanError

_FACE = re.compile(rb"(?m)^[ \t]*f[ \t]+([^\r\n#]+)")
_MATERIAL_FILE = re.compile(rb"(?m)^[ \t]*mtllib[ \t]+([^\r\n]+?)[ \t]*\r?$")
_MATERIAL_USE = re.compile(rb"(?m)^[ \t]*usemtl[ \t]+([^\r\n]+?)[ \t]*\r?$")
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
    if b"\\\n" in data or b"\\\r\n" in data:  # a line that goes on in the next
        data = data.replace(b"\\\r\n", b" ").replace(b"\\\n", b" ")
    try:
        mesh = _build_mesh(data)
    except (ScanError, ValueError) as error:
        raise ScanError(f"{path}: {error}") from error
    if mesh.uv is not None:
        texture = texture or find_obj_texture(path, data)
    return replace(mesh, texture=read_image(texture)) if texture and mesh.uv is not None else mesh


def _build_mesh(data: bytes) -> Mesh:
    vertices = _read_rows(data, b"v")
    if vertices.shape[1] not in (3, 4, 6, 7):
        raise ScanError(f"{vertices.shape[1]} numbers a vertex, expected 3 (x y z) or 6 (with r g b); {_CUT}")
    uv_points = _read_rows(data, b"vt")
    corners, sizes = _read_faces(data, len(vertices), len(uv_points))
    fan = fan_triangulation(sizes)
    if not len(fan):
        raise ScanError(f"no faces ({len(vertices)} vertices); {_CUT}")
    uv = None
    if len(uv_points) and uv_points.shape[1] >= 2:
        uv_corners = corners[:, 1]
        if (uv_corners < 0).all() and len(uv_points) == len(vertices):
            uv_corners = corners[:, 0]
        if (uv_corners >= 0).any():  # a corner without texture coordinates takes the first ones
            uv = to_float32(uv_points[np.maximum(uv_corners, 0)[fan], :2])
    colors = None
    if vertices.shape[1] >= 6 and np.isfinite(vertices).all():
        colors = np.rint(np.clip(vertices[:, -3:], 0, 1) * 255).astype(np.uint8)
    return Mesh(to_float32(vertices[:, :3]), corners[:, 0][fan].astype(np.int32), uv, colors=colors)


def _read_rows(data: bytes, keyword: bytes) -> np.ndarray:
    """Every line that begins with the keyword, as float64 (n, columns); all have equally many columns."""
    rows = re.findall(rb"(?m)^[ \t]*" + keyword + rb"[ \t]+([^\r\n#]*)", data)
    if not rows:
        return np.empty((0, 3))
    numbers = parse_numbers(b" inf ".join(rows) + b" inf", np.float64)  # inf marks each row's end
    columns = len(numbers) // len(rows)
    if len(numbers) % len(rows) or not np.isposinf(numbers[columns - 1 :: columns]).all():
        raise ScanError(f"the lines `{keyword.decode()} …` have different numbers of values; {_CUT}")
    return numbers.reshape(len(rows), columns)[:, :-1]


def _read_faces(data: bytes, num_vertices: int, num_uv: int) -> tuple[np.ndarray, np.ndarray]:
    """Corners int64 (C, 2), vertex and texture coordinate (−1: none), 0-based; and how many each face has (P,)."""
    faces = _FACE.findall(data)
    if not faces:
        raise ScanError(f"no faces ({num_vertices} vertices); {_CUT}")
    tokens = b" 0 ".join(faces).split()  # 0 is no index in OBJ: it marks the end of a face here
    tokens.append(b"0")
    text = b" ".join(tokens)
    if b"/" in text:  # every corner as a/b/c, 0 for what it lacks
        padded = b" ".join([t if t.count(b"/") == 2 else t + b"/0" * (2 - t.count(b"/")) for t in tokens])
        text = padded.replace(b"//", b"/0/").replace(b"/ ", b"/0 ").replace(b"/", b" ")
        numbers = parse_numbers(text, np.int64)
        if len(numbers) != 3 * len(tokens):
            raise ScanError(f"a face's corner is not a, a/b, a//c or a/b/c; {_CUT}")
        table = numbers.reshape(-1, 3)[:, :2]
    else:
        table = np.stack([parse_numbers(text, np.int64), np.zeros(len(tokens), np.int64)], axis=1)
    is_mark = table[:, 0] == 0
    sizes = np.diff(np.flatnonzero(is_mark), prepend=-1) - 1
    corners = table[~is_mark]
    if len(sizes) != len(faces):
        raise ScanError(f"a face names vertex 0, the first is 1; {_CUT}")
    if (corners < 0).any():
        for column, keyword in enumerate((b"v", b"vt")):
            declared = _declared_before_faces(data, keyword)
            negative = corners[:, column] < 0
            corners[negative, column] += np.repeat(declared, sizes)[negative] + 1
            if (corners[negative, column] < 1).any():
                raise ScanError(f"a negative index of {keyword.decode()} reaches before the first; {_CUT}")
    for column, (count, name) in enumerate(((num_vertices, "vertex"), (num_uv, "texture coordinate"))):
        if len(corners) and corners[:, column].max() > count:
            raise ScanError(f"a face names {name} {corners[:, column].max()}, there are {count}; {_CUT}")
    return corners - 1, sizes


def _declared_before_faces(data: bytes, keyword: bytes) -> np.ndarray:
    """For each face, how many lines of the keyword stand before it."""
    lines = [m.start() for m in re.finditer(rb"(?m)^[ \t]*" + keyword + rb"[ \t]", data)]
    return np.searchsorted(lines, [m.start() for m in _FACE.finditer(data)])


def find_obj_texture(path: Path, data: bytes | None = None) -> Path | None:
    """The image that an OBJ file's material paints it with (map_Kd), where it stands in the file's folder or below.

    Raises:
        ScanError: the file paints with several images.
    """
    data = read_bytes(path) if data is None else data
    textures: dict[str, str] = {}
    for material_file in find_material_files(path, data):
        textures.update(_read_mtl(material_file))
    used = [textures[m] for m in dict.fromkeys(_text(m) for m in _MATERIAL_USE.findall(data)) if m in textures]
    used = list(dict.fromkeys(used or textures.values()))
    found = [file for name in used if (file := find_beside(path, name)) is not None]
    if len(found) > 1:
        names = ", ".join(file.name for file in found[:5])
        raise ScanError(f"{path}: painted with {len(found)} textures ({names}), expected one; bake them into one image")
    return found[0] if found else None


def find_material_files(path: Path, data: bytes) -> list[Path]:
    """The MTL files an OBJ file names, where they stand in its folder or below."""
    found = [find_beside(path, _text(name)) for name in dict.fromkeys(_MATERIAL_FILE.findall(data))]
    return [file for file in found if file is not None]


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
