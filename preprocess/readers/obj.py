"""Wavefront OBJ and the texture that its MTL names, read here and not through Open3D.

Open3D 0.20 drops faces with more than three corners, splits the vertices at texture seams and opens whatever file a
material names.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from preprocess.geometry.mesh import Mesh
from preprocess.geometry.triangles import cut_polygons, triangulate
from preprocess.readers.appearance import add_texture, check_finite, read_colors
from preprocess.readers.file_bytes import CUT, name_errors, read_text
from preprocess.readers.mtl import find_material_sources, paint, plain_name
from preprocess.readers.obj_lines import FINE, scan_obj
from preprocess.readers.text_numbers import byte_classes, read_marked, to_float32
from shared.errors import ScanError

_CLASSES = byte_classes(b" \t\v\f", b"\r\n#")
_LINE_END = re.compile(rb"[\r\n]")
_INDEX = re.compile(r"[-+]?[0-9]{1,18}")
_POLYPAINT = re.compile(rb"#MRGB ((?:[0-9A-Fa-f]{8})+)")
_MANY_LEFT, _FEW_LEFT = 0.05, 50  # of the vertices, and in all: behind the last one that a face names
_MAX_COMMENTS = 1000  # before the first colour in a comment
_MAX_CHANGES = 1 << 16  # of material in a file

_Uses = list[tuple[int, str]]  # position of each line `usemtl`, and the material's name


def read_obj(path: Path, *, texture: Path | None = None) -> Mesh:
    """Read an OBJ file with the texture its MTL names, or with another one.

    Faces of any size, with corners `a`, `a/b`, `a//c` or `a/b/c`, indices from the start or (negative) from the end;
    `a` alone with one `vt` a vertex takes the vertex's. Vertex colours `v x y z r g b` are read. A texture is only searched
    in the file's own folder and below. Triangles whose material names no image, or that lack texture coordinates, get the
    colour of their material (Kd), and NaN for uv, beside others that have a texture. What is named and not drawn is in the
    mesh's notes.

    Raises:
        ScanError: missing, cut off, garbled, no face, an index without its vertex, several textures on one mesh.
    """
    data = _read_text(path)
    with name_errors(path):
        files, uses = _find_statements(data)
        mesh, faces = _parse(data)
    if texture is not None:
        return add_texture(mesh, path, (), texture)
    names, part = list(dict.fromkeys(name for _, name in uses)), None
    if len(names) > 1:
        names, part = _find_parts(uses, faces)
    return paint(mesh, path, files, names, part)


def find_obj_files(path: Path) -> list[Path]:
    """Return the existing material files that an OBJ file names, and the images of the materials it uses.

    Raises:
        ScanError: one of the files cannot be read, or a name is a link out of the folder.
    """
    files, uses = _find_statements(_read_text(path))
    return find_material_sources(path, files, (name for _, name in uses))


def _read_text(path: Path) -> bytes:
    data = read_text(path)
    if b"\\" in data:  # a line that goes on in the next
        data = data.replace(b"\\\r\n", b" ").replace(b"\\\n", b" ")
    return data


def _find_statements(data: bytes) -> tuple[list[bytes], _Uses]:
    """Return what follows each `mtllib`, and the changes of material.

    The letter m is searched, which numbers do not have: one byte is found twenty times as fast as a word.

    Raises:
        ScanError: the material changes very many times.
    """
    files: list[bytes] = []
    uses: _Uses = []
    line_end = 0
    position = data.find(b"m")
    while position >= 0:
        start = max(data.rfind(b"\n", line_end, position), data.rfind(b"\r", line_end, position), line_end - 1) + 1
        ending = _LINE_END.search(data, position)
        line_end = ending.start() if ending else len(data)
        words = data[start:line_end].split(None, 1)
        if len(words) == 2 and words[0] == b"mtllib":
            files.append(words[1].strip())
        elif len(words) == 2 and words[0] == b"usemtl":
            name = plain_name(words[1])
            if not uses or uses[-1][1] != name:
                uses.append((start, name))
        position = data.find(b"m", line_end)
    if len(uses) > _MAX_CHANGES:
        raise ScanError(
            f"changes its material {len(uses)} times, expected at most {_MAX_CHANGES}; bake its textures into one"
        )
    return list(dict.fromkeys(files)), uses


def _find_parts(uses: _Uses, faces: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return the materials that have faces ("" before the first `usemtl`), and the index of each triangle's, int (M,)."""
    names = ["", *(name for _, name in uses)]
    of_face = np.searchsorted([position for position, _ in uses], faces[:, 0], side="right")
    used = list(dict.fromkeys(names[k] for k in np.unique(of_face)))
    index = {name: k for k, name in enumerate(used)}
    part = np.array([index.get(name, 0) for name in names])[of_face]
    return used, np.repeat(part, np.maximum(faces[:, 1] - 2, 0))


def _parse(data: bytes) -> tuple[Mesh, np.ndarray]:
    """Return the mesh without its texture, and the position and number of corners of each face, int64 (P, 2)."""
    room = len(data) // 2 + 1  # a number and a blank take two bytes; what is not filled takes no memory
    table = np.empty((2, room))
    corners, faces = np.empty((room, 2), np.int64), np.empty((room, 2), np.int64)
    problem, num_values, num_lines, num_corners, num_faces = scan_obj(
        np.frombuffer(data, np.uint8), _CLASSES, table, corners, faces
    )
    if problem != FINE:
        raise ScanError(f"{_describe(data[problem : problem + 10_000])}; {CUT}")
    corners, faces = corners[:num_corners], faces[:num_faces]
    numbers = []
    for values, count, lines in zip(table, num_values.tolist(), num_lines.tolist(), strict=True):
        read_marked(data, _CLASSES, values[:count])
        numbers.append(values[:count].reshape(lines, -1) if count else np.empty((lines, 0)))
    vertices, uv_points = numbers
    if len(vertices) and vertices.shape[1] not in (3, 4, 6, 7):
        raise ScanError(f"{vertices.shape[1]} numbers per vertex, expected 3 (x y z) or 6 (with r g b); {CUT}")
    for indices, count, least, name in zip(
        corners.T, num_lines, (0, -1), ("vertex", "texture coordinate"), strict=True
    ):
        if len(indices) and indices.min() < least:
            raise ScanError(f"a face names a {name} before the first (the first is 1, the last -1); {CUT}")
        if len(indices) and indices.max() >= count:
            raise ScanError(f"a face names {name} {indices.max() + 1}, there are {count}; {CUT}")
    triangles = cut_polygons(corners, triangulate(faces[:, 1], corners[:, 0], vertices))  # (M, 3, 2)
    if not len(triangles):
        raise ScanError(f"no faces ({len(vertices)} vertices); {CUT}")
    cut = _find_cut(data, len(vertices), int(corners[:, 0].max()) + 1, int(faces[-1, 1]))
    colors, notes = _read_colors(data, vertices)
    notes += cut
    uv = _corner_uv(triangles, uv_points, len(vertices))
    mesh = Mesh(to_float32(vertices[:, :3]), triangles[:, :, 0].astype(np.int32), uv, colors=colors, notes=notes)
    return mesh, faces


def _find_cut(data: bytes, num_vertices: int, num_named: int, last_corners: int) -> tuple[str, ...]:
    """Return a note if the file may be cut off: OBJ has no count of its lines, and no end.

    Args:
        num_named: the faces name vertices up to this one. last_corners: of the last face.
    Raises:
        ScanError: it is cut off for certain: the last line has no end, and is no face, or many vertices are in none.
    """
    is_open = data.rstrip(b" \t")[-1:] not in (b"\n", b"\r")
    num_left = num_vertices - num_named
    is_much = num_left > max(_MANY_LEFT * num_vertices, _FEW_LEFT)
    if is_open and (last_corners < 3 or is_much):
        raise ScanError(f"ends in the middle of a line, and no face names its last {num_left} vertices; {CUT}")
    if is_much or (is_open and num_left > _FEW_LEFT):
        return (f"no face names its last {num_left} of {num_vertices} vertices; perhaps the file is cut off",)
    return ()


def _corner_uv(triangles: np.ndarray, uv_points: np.ndarray, num_vertices: int) -> np.ndarray | None:
    """Return f32 (M, 3, 2) of triangles (M, 3, 2) of indices, NaN for a triangle that lacks one; None if all do."""
    if not len(uv_points) or uv_points.shape[1] < 2:
        return None
    check_finite(uv_points[:, :2])
    indices = triangles[:, :, 1]
    if (indices < 0).all() and len(uv_points) == num_vertices:
        indices = triangles[:, :, 0]
    lacking = indices < 0
    if lacking.all():
        return None
    uv = np.take(to_float32(uv_points[:, :2]), np.maximum(indices, 0), axis=0)
    if lacking.any():
        uv[lacking.any(axis=1)] = np.nan
    return uv


def _read_colors(data: bytes, vertices: np.ndarray) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Read `x y z r g b`; of seven numbers `x y z w r g b`, or `x y z r g b a` if the last is the same in all lines.

    Without them, read the colours of ZBrush in comments: `#MRGB` and eight hexadecimal digits a vertex, mask before red.
    """
    columns = vertices.shape[1]
    notes: tuple[str, ...] = ()
    if columns >= 6:
        has_alpha = columns == 7 and np.ptp(vertices[:, 6]) == 0 and np.ptp(vertices[:, 3]) > 0
        colors, notes = read_colors(vertices[:, 3:6] if has_alpha else vertices[:, -3:])
        if colors is not None:
            return colors, notes
    position = data.find(b"#")
    for _ in range(_MAX_COMMENTS):
        if position < 0 or data.startswith(b"#MRGB ", position):
            break
        position = data.find(b"#", position + 1)
    text = (
        b"".join(_POLYPAINT.findall(data, position)) if data.startswith(b"#MRGB ", position) and position >= 0 else b""
    )
    polypaint = np.frombuffer(bytes.fromhex(text.decode()), np.uint8).reshape(-1, 4)[:, 1:]
    if len(polypaint) == len(vertices):
        return polypaint, notes
    if len(polypaint):
        notes += (f"holds {len(polypaint)} colours (#MRGB) for {len(vertices)} vertices, which are not drawn",)
    return None, notes


def _describe(text: bytes) -> str:
    """Say what is wrong with the line that a text begins with."""
    keyword, *words = _LINE_END.split(text.lstrip(), maxsplit=1)[0].decode("latin-1").split("#")[0].split()
    if keyword != "f":
        return f"the lines `{keyword} …` have different numbers of values"
    for word in words:
        parts = word.split("/")
        if bad := next((part for part in parts if part and not _INDEX.fullmatch(part)), None):
            return f"expected numbers, found {bad[:40]!r}"
        if not parts[0] or len(parts) > 3:
            return f"a face's corner {word[:40]!r} is not a, a/b, a//c or a/b/c"
    return "a face is not a row of corners a, a/b, a//c or a/b/c"
