"""VRML 97 (ISO/IEC 14772-1), as far as face scanners write it: one IndexedFaceSet with its texture's name."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from preprocess.geometry.mesh import Mesh
from preprocess.geometry.triangles import cut_polygons
from preprocess.readers.appearance import check_finite, limit_notes, read_colors
from preprocess.readers.file_bytes import read_text
from preprocess.readers.references import show_name
from preprocess.readers.text_numbers import WORD, byte_classes, parse_numbers, to_float32
from shared.errors import ScanError

# Commas are white space in VRML; a comment runs from # to the end of its line.
_TOKEN = re.compile(rb'[\s,]++|#[^\r\n]*+|"(?:[^"\\]|\\.)*+"|[{}\[\]]|[^\s,{}\[\]"#]++', re.DOTALL)
_BLOCK_BODY = re.compile(rb"(?:[^\]#]++|#[^\r\n]*+)*+")
_CLASSES = byte_classes(b" \t\r\n\v\f,", b"#")
# Long lists; normals are passed over.
_NUMBER_FIELDS = {b"point", b"coordIndex", b"texCoordIndex", b"vector", b"normalIndex", b"color", b"colorIndex"}
_IDENTITY = {
    b"translation": 0.0,
    b"scale": 1.0,
}  # what a Transform's fields hold that moves nothing; rotation: its angle 0
_NOT_DRAWN = {
    b"Box", b"Cone", b"Cylinder", b"Sphere", b"Extrusion", b"ElevationGrid", b"Text", b"PixelTexture", b"MovieTexture",
    b"MultiTexture", b"IndexedTriangleSet", b"TriangleSet",
}  # fmt: skip
# Fields that hold a part of a shape: what is used there a second time is drawn.
_PARTS = {
    b"coord", b"texCoord", b"color", b"normal", b"appearance", b"material", b"texture", b"textureTransform", b"fontStyle",
}  # fmt: skip
_NUMBER = re.compile(rb"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_CUT = "the file is cut off or not VRML; copy it again"


@dataclass(frozen=True)
class VrmlFile:
    """One file: its surface (without the texture's pixels) and its texture image's names, the best first."""

    mesh: Mesh
    texture_names: tuple[bytes, ...]


@dataclass
class _Scene:
    """What a file holds, by walking over its words. blocks: the text of its long lists by name; textures: the names behind the
    url of each ImageTexture; moves: the numbers of each TextureTransform's fields; flags: fields that are FALSE.
    """

    blocks: dict[str, memoryview] = field(default_factory=dict)
    textures: list[list[bytes]] = field(default_factory=list)
    moves: list[dict[bytes, list[float]]] = field(default_factory=list)
    flags: set[bytes] = field(default_factory=set)
    notes: dict[str, None] = field(default_factory=dict)


def read_vrml(path: Path) -> VrmlFile:
    """Reads a .wrl file: commas or blanks between numbers, brackets inline or on lines of their own, polygons of any size.

    Without texCoordIndex, coordIndex serves (ISO/IEC 14772-1, 6.23); without texture coordinates, uv is None. A
    TextureTransform is applied, and colours of vertices are kept. Transforms are not applied, which a note says: landmarks
    beside a scan are given in the coordinates as written.

    Raises:
        ScanError: missing, cut off, garbled, VRML 1.0, no surface or more than one, an index without its point, not finite.
    """
    data = read_text(path)
    try:
        scene = _walk(data)
        return VrmlFile(_build_mesh(scene), _name_texture(scene))
    except (ScanError, ValueError) as error:
        raise ScanError(f"{path}: {error}") from error


def find_vrml_names(path: Path) -> tuple[bytes, ...]:
    """The names of the image that a VRML file names, as they stand there. The numbers are not parsed.

    Raises:
        ScanError: missing or cut off.
    """
    return _name_texture(_walk(read_text(path)))


def _name_texture(scene: _Scene) -> tuple[bytes, ...]:
    return tuple(scene.textures[0][:8]) if scene.textures else ()


def _walk(data: bytes) -> _Scene:
    """Walks over the file's words; the long lists of numbers are skipped whole."""
    if data[:16].startswith((b"#VRML V1", b"#Inventor")):
        kind = "VRML 1.0" if data.startswith(b"#VRML") else "Open Inventor"
        raise ScanError(f"a file of {kind}; convert it to VRML 97 (VRML V2.0), or export the scan as OBJ or PLY")
    scene = _Scene()
    nodes: list[bytes] = []  # the nodes we are in, by type
    transforms: list[
        tuple[dict[bytes, list[float]], bool]
    ] = []  # of those that move: their numbers; whether a surface stood before
    last = name = b""  # the last word; the last that is no number
    place = 0
    while place < len(data):
        match = _TOKEN.match(data, place)
        if match is None:
            raise ScanError(f"a text without its closing quote at byte {place}; {_CUT}")
        place, token = match.end(), match.group()
        if token == b"{":
            nodes.append(last)
            if last in (b"Transform", b"TextureTransform"):
                transforms.append(({}, "Coordinate.point" in scene.blocks))
            elif last == b"ImageTexture":
                scene.textures.append([])
            elif last in _NOT_DRAWN:
                scene.notes[f"its {last.decode()} is not drawn"] = None
        elif token == b"}":
            node = nodes.pop() if nodes else b""
            if node in (b"Transform", b"TextureTransform"):
                numbers, stood = transforms.pop()
                if node == b"TextureTransform":
                    scene.moves.append(numbers)
                elif not stood and "Coordinate.point" in scene.blocks and (moved := _describe_move(numbers)):
                    scene.notes[
                        f"its Transform ({moved}) is not applied: the scan is taken as it lies in its own points"
                    ] = None
            last = b""
        elif token == b"[" and last in _NUMBER_FIELDS:
            start, end = place, _find_list_end(data, place)
            place = end + 1
            if place > len(data):
                raise ScanError(f"the list {last.decode()} [ has no end; {_CUT}")
            list_name = f"{nodes[-1].decode('latin-1') if nodes else ''}.{last.decode()}"
            if list_name in scene.blocks:
                raise ScanError(
                    f"holds more than one surface ({list_name[:40]!r} stands twice); expected one: join them"
                )
            scene.blocks[list_name] = memoryview(data)[start:end]
            last = b""
        elif token[0] == 0x22:  # a quoted text
            node = nodes[-1] if nodes else b""
            if name == b"url" and node == b"ImageTexture":
                scene.textures[-1].append(token[1:-1])
            elif name == b"url" and node == b"Inline":
                scene.notes[f"its Inline {show_name(token[1:-1])} is not read"] = None
        elif token not in (b"[", b"]") and token[0] not in b"# \t\r\n,\x0b\x0c":
            if token == b"USE" and last not in _PARTS:
                scene.notes["what it shows a second time (USE) is drawn once"] = None
            elif token == b"FALSE":
                scene.flags.add(name)
            if _NUMBER.fullmatch(token) is None:
                name = token
            elif transforms and nodes[-1] in (b"Transform", b"TextureTransform"):
                transforms[-1][0].setdefault(name, []).append(float(token))
            last = token
    if nodes:
        inside = nodes[-1][:40].decode("latin-1")
        raise ScanError(f"the file ends inside {inside} {{ … }}; {_CUT}")
    return scene


def _describe_move(numbers: dict[bytes, list[float]]) -> str:
    """The fields of a Transform that are not the identity, as text."""
    moving = [name for name, none in _IDENTITY.items() if any(number != none for number in numbers.get(name, []))]
    if any(numbers.get(b"rotation", [])[3:4]):
        moving.append(b"rotation")
    return ", ".join(name.decode() for name in moving)


def _find_list_end(data: bytes, place: int) -> int:
    """Where the list that begins at `place` has its `]`, comments left out; the file's end where it has none."""
    end = data.find(b"]", place)
    if end >= 0 and data.find(b"#", place, end) < 0:
        return end
    body = _BLOCK_BODY.match(data, place)
    assert body is not None  # matches the empty text, too
    return body.end()


def _build_mesh(scene: _Scene) -> Mesh:
    blocks = scene.blocks
    if "Coordinate.point" not in blocks or "IndexedFaceSet.coordIndex" not in blocks:
        found = " ".join(", ".join(blocks).split())[:80] or "neither"  # garbled names may be of any length
        raise ScanError(f"expected Coordinate {{ point [ … ] }} and coordIndex [ … ], found {found}; {_CUT}")
    coord_index = _indices(blocks, "IndexedFaceSet.coordIndex")
    _refuse_decimal_commas(blocks["Coordinate.point"], coord_index)
    vertices = _points(blocks, "Coordinate.point", 3)
    corners, sizes = _part_polygons(coord_index, len(vertices), "coordIndex")
    triangles = cut_polygons(corners, sizes)
    if not len(triangles):
        raise ScanError(f"no triangles: coordIndex holds {len(corners)} indices; {_CUT}")
    uv = None
    uv_points = _points(blocks, "TextureCoordinate.point", 2)
    if len(uv_points):
        same = _is_same_text(blocks, "IndexedFaceSet.coordIndex", "IndexedFaceSet.texCoordIndex")
        uv_index = coord_index[:0] if same else _indices(blocks, "IndexedFaceSet.texCoordIndex")
        if len(uv_index):
            uv_corners, uv_sizes = _part_polygons(uv_index, len(uv_points), "texCoordIndex")
            if not np.array_equal(sizes, uv_sizes):
                raise ScanError(
                    f"texCoordIndex has other polygons ({len(uv_sizes)}) than coordIndex ({len(sizes)}); {_CUT}"
                )
        else:
            name = "texCoordIndex" if same else "coordIndex, used for texture coordinates,"
            uv_corners, _ = _part_polygons(coord_index, len(uv_points), name)
        check_finite(uv_points)
        moved = _move_texture(uv_points, scene.moves[0]) if scene.moves else uv_points
        uv = np.take(to_float32(moved), cut_polygons(uv_corners, sizes), axis=0)
        if scene.flags & {b"repeatS", b"repeatT"} and (uv.min() < 0 or uv.max() > 1):
            scene.notes["its texture ends at its border (repeatS or repeatT FALSE), and is drawn repeated"] = None
    if len(dict.fromkeys(tuple(names) for names in scene.textures)) > 1:
        scene.notes[f"names {len(scene.textures)} textures, of which the first is drawn"] = None
    colors = _colors(scene, corners, sizes, len(vertices))
    return Mesh(to_float32(vertices), triangles.astype(np.int32), uv, colors=colors, notes=limit_notes(scene.notes))


def _move_texture(points: np.ndarray, numbers: dict[bytes, list[float]]) -> np.ndarray:
    """Texture coordinates (n, 2) by a TextureTransform: −C × S × R × C × T (ISO/IEC 14772-1, 6.49)."""

    def pair(name: bytes, default: float) -> np.ndarray:
        found = numbers.get(name, [])
        return np.array(found if len(found) == 2 else [default, default])

    center, angle = pair(b"center", 0), (numbers.get(b"rotation") or [0.0])[0]
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    with np.errstate(over="ignore", invalid="ignore"):
        moved: np.ndarray = (points + pair(b"translation", 0) + center) @ turn.T * pair(b"scale", 1) - center
    return moved


def _colors(scene: _Scene, corners: np.ndarray, sizes: np.ndarray, num_vertices: int) -> np.ndarray | None:
    """u8 (N, 3) of a Color node, where each vertex has one colour (ISO/IEC 14772-1, 6.23); else None, and a note."""
    palette = _points(scene.blocks, "Color.color", 3)
    if not len(palette):
        return None
    if b"colorPerVertex" in scene.flags:
        if len(np.unique(palette, axis=0)) > 1:
            scene.notes["its faces have colours, which are not drawn: give them to its vertices"] = None
        return None
    index = _indices(scene.blocks, "IndexedFaceSet.colorIndex")
    of_corner, color_sizes = _part_polygons(index, len(palette), "colorIndex") if len(index) else (corners, sizes)
    if not np.array_equal(color_sizes, sizes) or of_corner.max(initial=0) >= len(palette):
        raise ScanError(f"its colours do not belong to its faces ({len(palette)} colours); {_CUT}")
    of_vertex = np.zeros(num_vertices, np.int64)
    of_vertex[corners] = of_corner
    if (palette[of_vertex[corners]] != palette[of_corner]).any():
        scene.notes["its vertices have several colours each, which are not drawn"] = None
        return None
    colors, notes = read_colors(palette[of_vertex])
    scene.notes.update(dict.fromkeys(notes))
    return colors


def _refuse_decimal_commas(points: memoryview, coord_index: np.ndarray) -> None:
    """Numbers such as 1,5, which VRML reads as two: a list that has no decimal point, and as many numbers as the faces name
    points where a comma is taken for a part of a number, or twice as many where it parts them.
    """
    start = bytes(points[:4096])
    if b"." in start or b"#" in start or not re.search(rb"\d,\d", start):
        return
    num_points = int(coord_index.max(initial=0)) + 1
    words = start.split()
    num_words = _count_words(points, b" \t\r\n")
    parted = any(word.rstrip(b",").count(b",") > 1 for word in words)
    together = not parted and num_words % 3 == 0 and num_words >= 3 * num_points
    if together or _count_words(points, b" \t\r\n,") == 6 * num_points:
        word = next(word for word in words if b"," in word.rstrip(b","))[:40].decode("latin-1")
        raise ScanError(f"{word!r} has a decimal comma; export the scan with decimal points")


def _count_words(text: memoryview, separators: bytes) -> int:
    is_blank = (byte_classes(separators) != WORD)[np.frombuffer(text, np.uint8)]
    return int((is_blank[:-1] & ~is_blank[1:]).sum()) + int(not is_blank[0])


def _is_same_text(blocks: dict[str, memoryview], first: str, second: str) -> bool:
    """Scanners that give each vertex one texture coordinate write the longest list twice."""
    if second not in blocks:
        return False
    return np.array_equal(np.frombuffer(blocks[first], np.uint8), np.frombuffer(blocks[second], np.uint8))


def _numbers(blocks: dict[str, memoryview], name: str, dtype: type[np.float64] | type[np.int64]) -> np.ndarray:
    try:
        return parse_numbers(blocks.get(name, memoryview(b"")), dtype, classes=_CLASSES)
    except ValueError as error:
        raise ScanError(f"{name}: {error}; the file is garbled, copy it again") from error


def _points(blocks: dict[str, memoryview], name: str, num_columns: int) -> np.ndarray:
    numbers = _numbers(blocks, name, np.float64)
    if len(numbers) % num_columns:
        raise ScanError(f"{name}: {len(numbers)} numbers, expected {num_columns} a point; {_CUT}")
    return numbers.reshape(-1, num_columns)


def _indices(blocks: dict[str, memoryview], name: str) -> np.ndarray:
    return _numbers(blocks, name, np.int64)


def _part_polygons(indices: np.ndarray, num_points: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Corners without the −1 marks (C,), and how many of them each polygon has (P,). The last −1 may be left out."""
    if len(indices) % 4 == 0 and (indices[3::4] == -1).all():  # nothing but triangles: the usual file
        corners = indices.reshape(-1, 4)[:, :3].reshape(-1)
        if len(corners) and corners.view(np.uint64).max() < num_points:  # negative ones are the largest then
            return corners, np.full(len(corners) // 3, 3)
    if len(indices) and (indices.min() < -1 or indices.max() >= num_points):
        bad = indices.min() if indices.min() < -1 else indices.max()
        raise ScanError(f"{name} names point {bad}, there are {num_points}; the file is garbled, copy it again")
    if len(indices) and indices[-1] != -1:
        indices = np.append(indices, -1)
    is_mark = indices == -1
    sizes = np.diff(np.flatnonzero(is_mark), prepend=-1) - 1
    return indices[~is_mark], sizes
