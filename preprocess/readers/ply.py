"""Stanford PLY, ASCII and binary, read here: Open3D 0.20 drops texture coordinates and crashes on damaged files.

Layout after Greg Turk, "The PLY Polygon File Format" (1994); texture names and coordinates as MeshLab writes them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from preprocess.geometry.mesh import Mesh
from preprocess.geometry.triangles import cut_polygons, triangulate
from preprocess.readers.appearance import add_texture, check_finite, describe_alpha, find_image, read_colors
from preprocess.readers.file_bytes import CUT, MORE_FOLLOWS, name_errors, read_bytes, to_utf8
from preprocess.readers.references import show_name
from preprocess.readers.text_numbers import parse_numbers, to_float32
from shared.errors import ScanError

_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4", "double": "f8",
    "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8",
}  # fmt: skip
_BYTE_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_UV_NAMES = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"))
_COLOR_NAMES = (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b"))
# MeshLab writes TextureFile, CloudCompare TEXTUREFILE.
_TEXTURE = re.compile(rb"(?:comment|obj_info)\s+texture_?file[\s:=]+(\S.*)", re.IGNORECASE)
_END = re.compile(rb"(?<=[\r\n])end_header[ \t]*(\r\n|\r|\n|$)")
_MANY_LEFT = 0.01  # of a file: behind the last face
_MAX_CORNERS = 64  # of a face
_MAX_UNEVEN_ROWS = 4_000_000  # each is an object while it is read: 300 bytes


@dataclass(frozen=True)
class _Property:
    name: str
    dtype: str
    count_dtype: str = ""  # not empty: a list


@dataclass
class _Element:
    name: str
    count: int
    properties: list[_Property] = field(default_factory=list)


@dataclass(frozen=True)
class _Header:
    byte_order: str  # empty: ASCII
    elements: list[_Element]
    texture_names: list[bytes]
    num_bytes: int


def read_ply(path: Path, *, texture: Path | None = None) -> Mesh:
    """Read a PLY file with its vertex colours, texture coordinates (a vertex's or a corner's) and texture.

    The texture is the one that `comment TextureFile` names, in the file's own folder or below, or another one. Faces without
    texture coordinates beside others that have them get NaN for uv. What is named and not drawn is in the mesh's notes.

    Raises:
        ScanError: missing, cut off, garbled, a count that the file cannot hold, no faces, an index without its vertex, faces
            painted with several textures.
    """
    data = to_utf8(read_bytes(path))
    with name_errors(path):
        header = _read_header(data)
        names = header.texture_names
        with np.errstate(invalid="ignore"):  # garbled bytes may be signalling NaNs
            elements, num_left = _read_elements(data[header.num_bytes :], header)
            notes = (MORE_FOLLOWS,) if num_left >= _MANY_LEFT * len(data) else ()
            mesh = _build_mesh(elements, header, notes)
            if texture is None and mesh.uv is not None and len(names) > 1:
                names = [_pick_texture(elements, names)]
    return add_texture(mesh, path, names, texture)


def find_ply_files(path: Path) -> list[Path]:
    """Return the existing images that the file names.

    Raises:
        ScanError: the file cannot be read, or a name is a link out of the folder.
    """
    names = _read_header(to_utf8(read_bytes(path))).texture_names
    images = [find_image(path, [name])[0] for name in names]
    return [image for image in images if image is not None]


def _read_header(data: bytes) -> _Header:
    end = _END.search(data, 0, 1 << 16)
    if not data.startswith(b"ply") or end is None:
        raise ScanError(f"expected a header from `ply` to `end_header`; {CUT}")
    # A first byte 10 of what follows is no part of a line end where the lines end with 13 alone.
    num_bytes = end.start(1) + 1 if data[3:4] == b"\r" and data[4:5] != b"\n" else end.end()
    elements: list[_Element] = []
    byte_order, names = None, []
    for row in data[: end.start()].splitlines()[1:]:
        if (texture := _TEXTURE.fullmatch(row.strip())) is not None:
            names.append(texture[1].strip(b' "'))
            continue
        line = row.decode("latin-1")
        words = line.split()
        try:
            if words[:1] == ["format"]:
                byte_order = _BYTE_ORDERS[words[1]]
            elif words[:1] == ["element"]:
                elements.append(_Element(words[1], int(words[2])))
                if elements[-1].count < 0:
                    raise ValueError
            elif words[:2] == ["property", "list"]:
                elements[-1].properties.append(_Property(words[4].lower(), _TYPES[words[3]], _TYPES[words[2]]))
            elif words[:1] == ["property"]:
                elements[-1].properties.append(_Property(words[2].lower(), _TYPES[words[1]]))
        except (KeyError, IndexError, ValueError):
            raise ScanError(f"cannot read the header line {line[:80]!r}; {CUT}") from None
    if byte_order is None or not end[1]:
        raise ScanError(f"the header lacks its format or its end; {CUT}")
    return _Header(byte_order, elements, list(dict.fromkeys(names)), num_bytes)


# Property → (count,) values; a list property: all its values in one row, and their numbers under "<name> sizes".
_Columns = dict[str, np.ndarray]


def _read_elements(body: bytes, header: _Header) -> tuple[dict[str, _Columns], int]:
    """Read the elements up to the faces; return also how many bytes follow these, if they are the last element."""
    order = header.byte_order
    if not order:  # an ASCII file is read as a binary one, all of whose numbers are float64
        body = parse_numbers(body, np.float64).tobytes()
    result: dict[str, _Columns] = {}
    position = 0
    for element in header.elements:
        properties = [
            _Property(p.name, order + p.dtype, p.count_dtype and order + p.count_dtype)
            if order
            else _Property(p.name, "=f8", p.count_dtype and "=f8")
            for p in element.properties
        ]
        smallest = sum(np.dtype(p.count_dtype or p.dtype).itemsize for p in properties)
        if element.count * max(smallest, 1) > len(body) - position:
            raise ScanError(f"the header promises {element.count} × {element.name}, more than the file holds; {CUT}")
        result[element.name], position = _read_rows(body, position, properties, element.count)
        if element.name == "face":
            return result, len(body) - position if element is header.elements[-1] else 0
    return result, 0


def _read_rows(body: bytes, position: int, properties: list[_Property], count: int) -> tuple[_Columns, int]:
    """Read rows that are all laid out as the first, such as those of triangles, at once; else one after another."""
    first, _ = _walk_rows(body, position, properties, min(count, 1))
    fields: list[tuple[str, str, tuple[int, ...]]] = []
    for p in properties:
        if p.count_dtype:
            fields.append((f"{p.name} sizes", p.count_dtype, ()))
        fields.append((p.name, p.dtype, (len(first[p.name]),)))
    row = np.dtype([(str(i), dtype, shape) for i, (_, dtype, shape) in enumerate(fields)])
    end = position + row.itemsize * count
    if count > 1 and end <= len(body):
        table = np.frombuffer(body, row, count, position)
        columns = {name: table[str(i)].reshape(-1) for i, (name, _, _) in enumerate(fields)}
        listed = [p.name for p in properties if p.count_dtype]
        if all((columns[f"{name} sizes"] == len(first[name])).all() for name in listed):
            return columns | {f"{name} sizes": columns[f"{name} sizes"].astype(np.int64) for name in listed}, end
    return _walk_rows(body, position, properties, count)


def _walk_rows(body: bytes, position: int, properties: list[_Property], count: int) -> tuple[_Columns, int]:
    if count > _MAX_UNEVEN_ROWS:
        raise ScanError(f"{count} rows of different lengths, at most {_MAX_UNEVEN_ROWS}; export triangles alone")
    values: dict[str, list[np.ndarray]] = {p.name: [] for p in properties}
    try:
        for _ in range(count):
            for p in properties:
                size = 1
                if p.count_dtype:
                    size = int(np.frombuffer(body, p.count_dtype, 1, position)[0])
                    position += np.dtype(p.count_dtype).itemsize
                    if not 0 <= size <= _MAX_CORNERS:
                        raise ScanError(f"a face with {size} entries, expected at most {_MAX_CORNERS}; {CUT}")
                values[p.name].append(np.frombuffer(body, p.dtype, size, position))
                position += size * np.dtype(p.dtype).itemsize
    except (ValueError, OverflowError):  # beyond the end, or a count that is NaN
        raise ScanError(f"ends within its rows; {CUT}") from None
    columns = {p.name: np.concatenate(values[p.name] or [np.empty(0, p.dtype)]) for p in properties}
    for p in properties:
        if p.count_dtype:
            columns[f"{p.name} sizes"] = np.array([len(v) for v in values[p.name]], np.int64)
    return columns, position


def _build_mesh(elements: dict[str, _Columns], header: _Header, notes: tuple[str, ...]) -> Mesh:
    vertex, face = elements.get("vertex", {}), elements.get("face", {})
    if not {"x", "y", "z"} <= vertex.keys():
        raise ScanError("no vertices with x, y and z; export the scan again")
    vertices = np.stack([vertex[name].astype(np.float64) for name in "xyz"], axis=1)
    name = "vertex_indices" if "vertex_indices" in face else "vertex_index"
    if f"{name} sizes" not in face or not len(face[name]):
        raise ScanError(f"no faces ({len(vertices)} points); export the scan as a surface")
    corners, sizes = face[name], face[f"{name} sizes"]
    if not (corners >= 0).all() or corners.max() >= len(vertices):
        raise ScanError(f"a face names a vertex outside 0…{len(vertices) - 1}; {CUT}")
    corners = corners.astype(np.int64)
    cut = triangulate(sizes, corners, vertices)
    uv, uv_notes = _corner_uv(vertex, face, corners, sizes, cut)
    types = {p.name: p.dtype for element in header.elements if element.name == "vertex" for p in element.properties}
    colors, color_notes = _read_colors(vertex, face, types)
    triangles = cut_polygons(corners, cut).astype(np.int32)
    return Mesh(to_float32(vertices), triangles, uv, colors=colors, notes=notes + uv_notes + color_notes)


def _corner_uv(
    vertex: _Columns, face: _Columns, corners: np.ndarray, sizes: np.ndarray, cut: np.ndarray | None
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return uv f32 (M, 3, 2) of the corners, if the faces have a list of them, else of the vertices; and notes."""
    notes: tuple[str, ...] = ()
    listed = face.get("texcoord sizes", np.zeros(len(sizes), np.int64))
    fits = (listed == 2 * sizes) & (listed > 0)
    if unfit := int(((listed > 0) & ~fits).sum()):
        notes = (f"the texture coordinates of {unfit} of its {len(sizes)} faces are not two a corner, and not drawn",)
    numbers = face.get("texnumber", listed)
    if listed.any() and len(numbers) == len(fits) and (numbers >= 0).any():
        fits &= numbers >= 0  # −1: no image
    if fits.all():  # the usual file
        pairs = face["texcoord"].reshape(-1, 2)
        check_finite(pairs)
        return cut_polygons(to_float32(pairs), cut), notes
    if fits.any():
        pairs = np.full((len(corners), 2), np.nan, np.float32)
        known = face["texcoord"][np.repeat(fits, listed)].reshape(-1, 2)
        check_finite(known)
        pairs[np.repeat(fits, sizes)] = to_float32(known)
        return cut_polygons(pairs, cut), notes
    for u, v in _UV_NAMES:
        if u in vertex and v in vertex:
            points = np.stack([vertex[u], vertex[v]], axis=1)
            check_finite(points)
            return to_float32(points)[cut_polygons(corners, cut)], notes
    return None, notes


def _pick_texture(elements: dict[str, _Columns], names: list[bytes]) -> bytes:
    """Return the one of several images that all faces are painted with, by their texnumber.

    Raises:
        ScanError: there are several, or no number says which.
    """
    numbers = elements["face"].get("texnumber", elements["vertex"].get("texnumber", np.empty(0)))
    used = np.unique(numbers[numbers >= 0])
    if len(used) == 1 and used[0] < len(names) and used[0] == int(used[0]):
        return names[int(used[0])]
    shown = ", ".join(show_name(name) for name in names[:5])
    raise ScanError(f"painted with {len(names)} textures ({shown}), expected one; bake them into one image")


def _read_colors(vertex: _Columns, face: _Columns, types: dict[str, str]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Read the vertices' colours, u8 (N, 3), by the types in the header: in the rows of a text, all are floating point."""
    for names in _COLOR_NAMES:
        if all(name in vertex for name in names):
            rgb = np.stack([vertex[name] for name in names], axis=1).astype(np.float64)
            largest = None
            if types[names[0]][0] in "iu":
                largest = 65535 if types[names[0]] == "u2" and rgb.max(initial=0) > 255 else 255
            colors, notes = read_colors(rgb, largest=largest)
            return colors, notes + (describe_alpha(vertex["alpha"]) if "alpha" in vertex else ())
        if all(name in face for name in names) and any(len(np.unique(face[name])) > 1 for name in names):
            return None, ("its faces have colours, which are not drawn: give them to its vertices",)
    return None, ()
