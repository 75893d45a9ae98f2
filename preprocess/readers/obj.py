"""Wavefront OBJ and the texture that its MTL names, read here and not through Open3D.

Open3D 0.20 drops faces with more than three corners, parts the vertices at texture seams and opens whatever file a
material names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preprocess.geometry.mesh import Mesh
from preprocess.geometry.polygons import cut_polygons
from preprocess.readers.appearance import add_texture, read_colors, refuse_endless
from preprocess.readers.file_bytes import enlarge, parse_words, read_text, to_float32
from preprocess.readers.materials import find_material_sources, paint
from preprocess.readers.mtl import plain_name
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
_LINE_END = re.compile(rb"[\r\n]")
_POLYPAINT = re.compile(rb"#MRGB ((?:[0-9A-Fa-f]{8})+)")
_MAX_COMMENTS = 1000  # before the first colour in a comment
_MAX_CHANGES = 1 << 16  # of material in a file


@dataclass(frozen=True)
class _Statements:
    """The lines of an OBJ file that name something. material_files: behind `mtllib`. uses: the places of `usemtl` and names."""

    material_files: list[bytes]
    uses: list[tuple[int, str]]


@dataclass(frozen=True)
class _Faces:
    """What the lines of an OBJ file hold: `v` and `vt`, f64 (n, columns); corners int64 (C, 2), vertex and texture coordinate
    (−1: none), 0-based; sizes: how many corners each face has (P,); counts: how many faces stand before each place asked for.
    """

    vertices: np.ndarray
    uv_points: np.ndarray
    corners: np.ndarray
    sizes: np.ndarray
    counts: list[int]


def read_obj(path: Path, *, texture: Path | None = None) -> Mesh:
    """Reads an OBJ file with the texture its MTL names, or with another one.

    Faces of any size, with corners `a`, `a/b`, `a//c` or `a/b/c`, indices from the start or (negative) from the end;
    `a` alone with one `vt` a vertex takes the vertex's. Vertex colours `v x y z r g b` in 0…1 or 0…255 are kept. A texture is
    only looked for in the file's own folder and below. Triangles whose material names no image, or that lack texture
    coordinates, get the colour of their material (Kd), and NaN for uv, beside others that have a texture. What is named and
    not drawn stands in the mesh's notes.

    Raises:
        ScanError: missing, cut off, garbled, no face, an index without its vertex, several textures on one mesh.
    """
    data = _read_lines(path)
    try:
        statements = _find_statements(data)
        names = list(dict.fromkeys(name for _, name in statements.uses))
        several = len(names) > 1 and texture is None
        faces = _parse(data, [place for place, _ in statements.uses] if several else [])
        mesh = _build_mesh(faces, _find_polypaint(data))
    except (ScanError, ValueError) as error:
        raise ScanError(f"{path}: {error}") from error
    if texture is not None:
        return add_texture(mesh, path, (), texture)
    part = None
    if several:
        names, part = _find_parts(statements.uses, faces)
    return paint(mesh, path, statements.material_files, names, part)


def find_obj_files(path: Path) -> list[Path]:
    """The material files that an OBJ file names, and the images of the materials it uses, where they are there.

    Raises:
        ScanError: one of the files cannot be read, or a name is a link out of the folder.
    """
    statements = _find_statements(_read_lines(path))
    return find_material_sources(path, statements.material_files, (name for _, name in statements.uses))


def _find_parts(uses: Sequence[tuple[int, str]], faces: _Faces) -> tuple[list[str], np.ndarray | None]:
    """The materials that have faces, "" for those before the first `usemtl`; and which of them each triangle has (M,)."""
    lengths = np.diff([0, *faces.counts, len(faces.sizes)])
    names = ["", *(name for _, name in uses)]
    used = list(dict.fromkeys(name for name, length in zip(names, lengths, strict=True) if length))
    if len(used) == 1:
        return used, None
    index = {name: k for k, name in enumerate(used)}
    of_face = np.repeat([index.get(name, 0) for name in names], lengths)
    return used, np.repeat(of_face, np.maximum(faces.sizes - 2, 0))


def _read_lines(path: Path) -> bytes:
    data = read_text(path)
    if b"\\" in data and (b"\\\n" in data or b"\\\r\n" in data):  # a line that goes on in the next
        data = data.replace(b"\\\r\n", b" ").replace(b"\\\n", b" ")
    return data


def _build_mesh(faces: _Faces, polypaint: np.ndarray | None) -> Mesh:
    vertices, uv_points, corners = faces.vertices, faces.uv_points, faces.corners
    if len(vertices) and vertices.shape[1] not in (3, 4, 6, 7):
        raise ScanError(f"{vertices.shape[1]} numbers a vertex, expected 3 (x y z) or 6 (with r g b); {_CUT}")
    for column, (count, name) in enumerate(((len(vertices), "vertex"), (len(uv_points), "texture coordinate"))):
        if len(corners) and (largest := corners[:, column].max()) >= count:
            raise ScanError(f"a face names {name} {largest + 1}, there are {count}; {_CUT}")
    triangles = cut_polygons(corners, faces.sizes)  # (M, 3, 2)
    if not len(triangles):
        raise ScanError(f"no faces ({len(vertices)} vertices); {_CUT}")
    uv = None
    if len(uv_points) and uv_points.shape[1] >= 2:
        refuse_endless(uv_points[:, :2])
        uv_corners = triangles[:, :, 1]
        if (corners[:, 1] < 0).all() and len(uv_points) == len(vertices):
            uv_corners = triangles[:, :, 0]
        lacking = uv_corners < 0
        if not lacking.all():
            uv = np.take(to_float32(uv_points[:, :2]), np.maximum(uv_corners, 0), axis=0)
            if lacking.any():
                uv[lacking.any(axis=1)] = np.nan
    colors, notes = _colors(vertices)
    if polypaint is not None and colors is None:
        if len(polypaint) == len(vertices):
            colors = polypaint
        else:
            notes += (f"holds {len(polypaint)} colours (#MRGB) for {len(vertices)} vertices, which are not drawn",)
    return Mesh(to_float32(vertices[:, :3]), triangles[:, :, 0].astype(np.int32), uv, colors=colors, notes=notes)


def _find_polypaint(data: bytes) -> np.ndarray | None:
    """Colours u8 (N, 3) as ZBrush writes them, in comments: `#MRGB` and eight hexadecimal digits a vertex, mask before red."""
    place = data.find(b"#")
    for _ in range(_MAX_COMMENTS):
        if place < 0 or data.startswith(b"#MRGB ", place):
            break
        place = data.find(b"#", place + 1)
    else:
        return None
    text = b"".join(_POLYPAINT.findall(data, place)) if place >= 0 else b""
    return np.frombuffer(bytes.fromhex(text.decode()), np.uint8).reshape(-1, 4)[:, 1:] if text else None


def _colors(vertices: np.ndarray) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """`x y z r g b`, and of seven numbers `x y z w r g b`, or `x y z r g b a` where the last is the same in all lines."""
    columns = vertices.shape[1]
    if columns < 6:
        return None, ()
    has_alpha = columns == 7 and np.ptp(vertices[:, 6]) == 0 and np.ptp(vertices[:, 3]) > 0
    return read_colors(vertices[:, 3:6] if has_alpha else vertices[:, -3:])


def _parse(data: bytes, places: Sequence[int]) -> _Faces:
    """All lines `v`, `vt` and `f`, and how many faces stand before each of the places, at which lines begin."""
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
    place, counts = 0, []
    for end in (*places, size):
        problem, place = scan_obj(text[:end], place, _CLASSES, *arrays, state)
        while problem == NO_ROOM:
            arrays = [enlarge(array) for array in arrays]
            problem, place = scan_obj(text[:end], place, _CLASSES, *arrays, state)
        if problem != FINE:
            raise ScanError(f"{_describe(problem, data, place)}; {_CUT}")
        counts.append(int(state[-1]))
    vertices, uv, vertices_left, uv_left, corners, sizes = arrays
    num_values, num_left, num_vertices, num_uv_values, num_uv_left, num_uv, num_corners, num_faces = state.tolist()
    parse_words(data, vertices_left[:num_left], vertices)
    parse_words(data, uv_left[:num_uv_left], uv)
    return _Faces(
        vertices[:num_values].reshape(num_vertices, -1) if num_values else np.empty((num_vertices, 0)),
        uv[:num_uv_values].reshape(num_uv, -1) if num_uv_values else np.empty((num_uv, 0)),
        corners[:num_corners],
        sizes[:num_faces],
        counts[:-1],
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


def _find_statements(data: bytes) -> _Statements:
    """Looked for by their letter m, which numbers do not have: one byte is found twenty times as fast as a word.

    Raises:
        ScanError: the material changes very many times.
    """
    files: list[bytes] = []
    uses: list[tuple[int, str]] = []
    line = 0  # where the last line that was looked at ends
    place = data.find(b"m")
    while place >= 0:
        start = max(data.rfind(b"\n", line, place), data.rfind(b"\r", line, place), line - 1) + 1
        ending = _LINE_END.search(data, place)
        line = ending.start() if ending else len(data)
        words = data[start:line].split(None, 1)
        if len(words) == 2 and words[0] == b"mtllib":
            files.append(words[1].strip())
        elif len(words) == 2 and words[0] == b"usemtl":
            name = plain_name(words[1])
            if not uses or uses[-1][1] != name:
                uses.append((start, name))
        place = data.find(b"m", line)
    if len(uses) > _MAX_CHANGES:
        raise ScanError(
            f"changes its material {len(uses)} times, expected at most {_MAX_CHANGES}; bake its textures into one"
        )
    return _Statements(list(dict.fromkeys(files)), uses)
