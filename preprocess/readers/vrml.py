"""VRML 97 (ISO/IEC 14772-1), as far as face scanners write it: one IndexedFaceSet with its texture's name."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from preprocess.geometry.mesh import Mesh
from preprocess.geometry.triangles import cut_polygons, split_triangles, triangulate
from preprocess.readers.appearance import add_texture, check_finite, find_image, limit_notes, read_colors
from preprocess.readers.file_bytes import name_errors, read_text
from preprocess.readers.references import show_name
from preprocess.readers.text_numbers import WORD, byte_classes, parse_numbers, to_float32
from shared.errors import ScanError

# Commas are white space in VRML; a comment runs from # to the end of its line.
_TOKEN = re.compile(rb'[\s,]++|#[^\r\n]*+|"(?:[^"\\]|\\.)*+"|[{}\[\]]|[^\s,{}\[\]"#]++', re.DOTALL)
_BLOCK_BODY = re.compile(rb"(?:[^\]#]++|#[^\r\n]*+)*+")
_CLASSES = byte_classes(b" \t\r\n\v\f,", b"#")
# Fields of long lists. Normals are not read.
_NUMBER_FIELDS = {b"point", b"coordIndex", b"texCoordIndex", b"vector", b"normalIndex", b"color", b"colorIndex"}
_NOT_DRAWN = {
    b"Box", b"Cone", b"Cylinder", b"Sphere", b"Extrusion", b"ElevationGrid", b"Text", b"PixelTexture", b"MovieTexture",
    b"MultiTexture", b"IndexedTriangleSet", b"TriangleSet",
}  # fmt: skip
# Fields that hold a part of a shape: a node used there a second time (USE) is drawn.
_PARTS = {
    b"coord", b"texCoord", b"color", b"normal", b"appearance", b"material", b"texture", b"textureTransform", b"fontStyle",
}  # fmt: skip
_MOVING = (b"Transform", b"TextureTransform")
_NUMBER = re.compile(rb"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_CUT = "the file is cut off or not VRML; copy it again"
_GARBLED = "the file is garbled, copy it again"


@dataclass
class _Scene:
    """The content of a file. blocks: the text of its long lists, by "Node.field"; textures: the names in the url of each
    ImageTexture; moves: the numbers of each TextureTransform, by field; flags: fields that are FALSE; notes: as keys.
    """

    blocks: dict[str, memoryview] = field(default_factory=dict)
    textures: list[list[bytes]] = field(default_factory=list)
    moves: list[dict[bytes, list[float]]] = field(default_factory=list)
    flags: set[bytes] = field(default_factory=set)
    notes: dict[str, None] = field(default_factory=dict)

    @property
    def texture_names(self) -> list[bytes]:
        """The names of the first texture image, the best first."""
        return self.textures[0][:8] if self.textures else []

    def numbers(self, name: str, dtype: type[np.float64] | type[np.int64]) -> np.ndarray:
        try:
            return parse_numbers(self.blocks.get(name, memoryview(b"")), dtype, classes=_CLASSES)
        except ValueError as error:
            raise ScanError(f"{name}: {error}; {_GARBLED}") from error

    def indices(self, name: str) -> np.ndarray:
        return self.numbers(f"IndexedFaceSet.{name}", np.int64)

    def points(self, name: str, num_columns: int) -> np.ndarray:
        numbers = self.numbers(name, np.float64)
        if len(numbers) % num_columns:
            raise ScanError(f"{name}: {len(numbers)} numbers, expected {num_columns} a point; {_CUT}")
        return numbers.reshape(-1, num_columns)


def read_vrml(path: Path, *, texture: Path | None = None) -> Mesh:
    """Read a .wrl file: commas or blanks between numbers, brackets inline or on lines of their own, polygons of any size.

    The texture is the given image, else the one that the file names, in its folder or below. Without texCoordIndex,
    coordIndex serves (ISO/IEC 14772-1, 6.23); without texture coordinates, uv is None. A TextureTransform is applied, and
    colours of vertices are read. Transforms are not applied, which a note says: landmarks beside a scan are given in the
    coordinates as written.

    Raises:
        ScanError: missing, cut off, garbled, VRML 1.0, no surface or more than one, an index without its point, not finite.
    """
    data = read_text(path)
    with name_errors(path):
        scene = _walk(data)
        mesh = _build_mesh(scene)
    return add_texture(mesh, path, scene.texture_names, texture)


def find_vrml_files(path: Path) -> list[Path]:
    """Return the existing image that a VRML file names. The numbers are not parsed.

    Raises:
        ScanError: missing or cut off.
    """
    image, _ = find_image(path, read_texture_names(path))
    return [] if image is None else [image]


def read_texture_names(path: Path) -> list[bytes]:
    """Return the names of the image that a VRML file names, the best first. The numbers are not parsed.

    Raises:
        ScanError: missing or cut off.
    """
    return _walk(read_text(path)).texture_names


def _walk(data: bytes) -> _Scene:
    """Walk over the file's words; the long lists of numbers are skipped whole."""
    if data[:16].startswith((b"#VRML V1", b"#Inventor")):
        kind = "VRML 1.0" if data.startswith(b"#VRML") else "Open Inventor"
        raise ScanError(f"a file of {kind}; convert it to VRML 97 (VRML V2.0), or export the scan as OBJ or PLY")
    scene = _Scene()
    nodes = [b""]  # the types of the nodes around the current word
    moving: list[
        tuple[dict[bytes, list[float]], bool]
    ] = []  # of each one in _MOVING: its numbers; a surface came before
    last = name = b""  # the last word; the last that is no number
    position = 0
    while position < len(data):
        match = _TOKEN.match(data, position)
        if match is None:
            raise ScanError(f"a text without its closing quote at byte {position}; {_CUT}")
        position, token = match.end(), match.group()
        if token == b"{":
            nodes.append(last)
            if last in _MOVING:
                moving.append(({}, "Coordinate.point" in scene.blocks))
            elif last == b"ImageTexture":
                scene.textures.append([])
            elif last in _NOT_DRAWN:
                scene.notes[f"its {last.decode()} is not drawn"] = None
        elif token == b"}":
            node = nodes.pop() if len(nodes) > 1 else b""
            if node in _MOVING:
                numbers, had_surface = moving.pop()
                if node == b"TextureTransform":
                    scene.moves.append(numbers)
                elif not had_surface and "Coordinate.point" in scene.blocks and (moved := _describe_move(numbers)):
                    note = f"its Transform ({moved}) is not applied: the scan is taken as it lies in its own points"
                    scene.notes[note] = None
            last = b""
        elif token == b"[" and last in _NUMBER_FIELDS:
            end = _find_list_end(data, position)
            if end == len(data):
                raise ScanError(f"the list {last.decode()} [ has no end; {_CUT}")
            list_name = f"{nodes[-1].decode('latin-1')}.{last.decode()}"
            if list_name in scene.blocks:
                raise ScanError(
                    f"holds more than one surface ({list_name[:40]!r} stands twice); expected one: join them"
                )
            scene.blocks[list_name] = memoryview(data)[position:end]
            position, last = end + 1, b""
        elif token[:1] == b'"':
            if name == b"url" and nodes[-1] == b"ImageTexture":
                scene.textures[-1].append(token[1:-1])
            elif name == b"url" and nodes[-1] == b"Inline":
                scene.notes[f"its Inline {show_name(token[1:-1])} is not read"] = None
        elif token not in (b"[", b"]") and token[0] not in b"# \t\r\n,\x0b\x0c":
            if token == b"USE" and last not in _PARTS:
                scene.notes["what it shows a second time (USE) is drawn once"] = None
            elif token == b"FALSE":
                scene.flags.add(name)
            if _NUMBER.fullmatch(token) is None:
                name = token
            elif nodes[-1] in _MOVING:
                moving[-1][0].setdefault(name, []).append(float(token))
            last = token
    if len(nodes) > 1:
        inside = nodes[-1][:40].decode("latin-1")
        raise ScanError(f"the file ends inside {inside} {{ … }}; {_CUT}")
    return scene


def _describe_move(numbers: dict[bytes, list[float]]) -> str:
    """Return the fields of a Transform that are not the identity, as text."""
    moving = [
        name
        for name, none in (("translation", 0), ("scale", 1))
        if any(x != none for x in numbers.get(name.encode(), []))
    ]
    if any(numbers.get(b"rotation", [])[3:4]):
        moving.append("rotation")
    return ", ".join(moving)


def _find_list_end(data: bytes, position: int) -> int:
    """Return the position of the `]` of the list that begins at `position`, not one in a comment; the file's length if none."""
    end = data.find(b"]", position)
    if end >= 0 and data.find(b"#", position, end) < 0:
        return end
    body = _BLOCK_BODY.match(data, position)
    assert body is not None  # matches the empty text, too
    return body.end()


def _build_mesh(scene: _Scene) -> Mesh:
    blocks = scene.blocks
    if "Coordinate.point" not in blocks or "IndexedFaceSet.coordIndex" not in blocks:
        found = " ".join(", ".join(blocks).split())[:80] or "neither"  # garbled names may be of any length
        raise ScanError(f"expected Coordinate {{ point [ … ] }} and coordIndex [ … ], found {found}; {_CUT}")
    coord_index = scene.indices("coordIndex")
    _refuse_decimal_commas(blocks["Coordinate.point"], coord_index)
    vertices = scene.points("Coordinate.point", 3)
    corners, sizes = _split_polygons(coord_index, len(vertices), "coordIndex")
    cut = triangulate(sizes, corners, vertices)
    triangles = cut_polygons(corners, cut)
    if not len(triangles):
        raise ScanError(f"no triangles: coordIndex holds {len(corners)} indices; {_CUT}")
    uv = _corner_uv(scene, corners, sizes, cut)
    if len(dict.fromkeys(tuple(names) for names in scene.textures)) > 1:
        scene.notes[f"names {len(scene.textures)} textures, of which the first is drawn"] = None
    colors = _read_colors(scene, corners, sizes, len(vertices))
    return Mesh(
        to_float32(vertices), triangles.astype(np.int32, copy=False), uv, colors=colors, notes=limit_notes(scene.notes)
    )


def _corner_uv(scene: _Scene, corners: np.ndarray, sizes: np.ndarray, cut: np.ndarray | None) -> np.ndarray | None:
    """Return uv f32 (M, 3, 2) of the polygons that coordIndex names, cut as they are, or None without any."""
    points = scene.points("TextureCoordinate.point", 2)
    if not len(points):
        return None
    first, second = (
        np.frombuffer(scene.blocks.get(f"IndexedFaceSet.{name}", b""), np.uint8)
        for name in ("coordIndex", "texCoordIndex")
    )
    same = np.array_equal(first, second)  # scanners with one texture coordinate per vertex write the longest list twice
    index = corners[:0] if same else scene.indices("texCoordIndex")
    if len(index):
        corners, uv_sizes = _split_polygons(index, len(points), "texCoordIndex")
        if not np.array_equal(sizes, uv_sizes):
            raise ScanError(
                f"texCoordIndex has other polygons ({len(uv_sizes)}) than coordIndex ({len(sizes)}); {_CUT}"
            )
    elif corners.max() >= len(points):
        name = "texCoordIndex" if same else "coordIndex, used for texture coordinates,"
        raise ScanError(f"{name} names point {corners.max()}, there are {len(points)}; {_GARBLED}")
    check_finite(points)
    if scene.moves:
        points = _move_texture(points, scene.moves[0])
    uv = np.take(to_float32(points), cut_polygons(corners, cut), axis=0)
    if scene.flags & {b"repeatS", b"repeatT"} and (uv.min() < 0 or uv.max() > 1):
        scene.notes["its texture ends at its border (repeatS or repeatT FALSE), and is drawn repeated"] = None
    return uv


def _move_texture(points: np.ndarray, numbers: dict[bytes, list[float]]) -> np.ndarray:
    """Transform texture coordinates (n, 2) by a TextureTransform: −C × S × R × C × T (ISO/IEC 14772-1, 6.49)."""

    def pair(name: bytes, default: float) -> np.ndarray:
        found = numbers.get(name, [])
        return np.array(found if len(found) == 2 else [default, default])

    center, angle = pair(b"center", 0), (numbers.get(b"rotation") or [0.0])[0]
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    with np.errstate(over="ignore", invalid="ignore"):
        moved: np.ndarray = (points + pair(b"translation", 0) + center) @ turn.T * pair(b"scale", 1) - center
    return moved


def _read_colors(scene: _Scene, corners: np.ndarray, sizes: np.ndarray, num_vertices: int) -> np.ndarray | None:
    """Return u8 (N, 3) of a Color node if each vertex has one colour (ISO/IEC 14772-1, 6.23); else None, and note it."""
    palette = scene.points("Color.color", 3)
    if not len(palette):
        return None
    if b"colorPerVertex" in scene.flags:
        if len(np.unique(palette, axis=0)) > 1:
            scene.notes["its faces have colours, which are not drawn: give them to its vertices"] = None
        return None
    index = scene.indices("colorIndex")
    of_corner, color_sizes = _split_polygons(index, len(palette), "colorIndex") if len(index) else (corners, sizes)
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
    """Refuse numbers such as 1,5, which VRML reads as two.

    A list has them if it has no decimal point, and as many numbers as the faces name coordinates when a comma is a part of
    a number, or twice as many when it separates them.
    """
    start = bytes(points[:4096])
    if b"." in start or b"#" in start or not re.search(rb"\d,\d", start):
        return
    num_points = int(coord_index.max(initial=0)) + 1
    words = start.split()
    num_words = _count_words(points, b" \t\r\n")
    separated = any(word.rstrip(b",").count(b",") > 1 for word in words)
    together = not separated and num_words % 3 == 0 and num_words >= 3 * num_points
    if together or _count_words(points, b" \t\r\n,") == 6 * num_points:
        word = next(word for word in words if b"," in word.rstrip(b","))[:40].decode("latin-1")
        raise ScanError(f"{word!r} has a decimal comma; export the scan with decimal points")


def _count_words(text: memoryview, separators: bytes) -> int:
    is_blank = (byte_classes(separators) != WORD)[np.frombuffer(text, np.uint8)]
    return int((is_blank[:-1] & ~is_blank[1:]).sum()) + int(not is_blank[0])


def _split_polygons(indices: np.ndarray, num_points: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return corners without the −1 marks (C,), and how many of them each polygon has (P,). The last −1 may be missing."""
    corners = split_triangles(indices, num_points)  # the usual file
    if len(corners):
        return corners, np.full(len(corners) // 3, 3)
    if len(indices) and (indices.min() < -1 or indices.max() >= num_points):
        bad = indices.min() if indices.min() < -1 else indices.max()
        raise ScanError(f"{name} names point {bad}, there are {num_points}; {_GARBLED}")
    if len(indices) and indices[-1] != -1:
        indices = np.append(indices, -1)
    is_mark = indices == -1
    sizes = np.diff(np.flatnonzero(is_mark), prepend=-1) - 1
    return indices[~is_mark], sizes
