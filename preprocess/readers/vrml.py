"""VRML 97 (ISO/IEC 14772-1), as far as face scanners write it: one IndexedFaceSet with its texture's name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preprocess.mesh import Mesh
from preprocess.readers.file_bytes import parse_numbers, read_bytes, to_float32
from preprocess.readers.polygons import cut_polygons
from preprocess.readers.references import find_beside
from preprocess.readers.text_kernels import byte_classes
from shared.errors import ScanError

# Commas are white space in VRML; a comment runs from # to the end of its line.
_TOKEN = re.compile(rb'[\s,]++|#[^\r\n]*+|"(?:[^"\\]|\\.)*+"|[{}\[\]]|[^\s,{}\[\]"#]++', re.DOTALL)
_BLOCK_BODY = re.compile(rb"(?:[^\]#]++|#[^\r\n]*+)*+")
_CLASSES = byte_classes(b" \t\r\n\v\f,", b"#")
# Long lists; normals and colours are passed over.
_NUMBER_FIELDS = {b"point", b"coordIndex", b"texCoordIndex", b"vector", b"normalIndex", b"color", b"colorIndex"}
_CUT = "the file is cut off or not VRML; copy it again"


@dataclass(frozen=True)
class VrmlFile:
    """One file: its surface (without the texture's pixels) and the name of the texture image as it stands there."""

    mesh: Mesh
    texture_name: str | None


def read_vrml(path: Path) -> VrmlFile:
    """Reads a .wrl file: commas or blanks between numbers, brackets inline or on lines of their own, polygons of any size.

    Without texCoordIndex, coordIndex serves (ISO/IEC 14772-1, 6.23); without texture coordinates, uv is None. Transforms
    are not applied: landmarks beside a scan are given in the coordinates as written.

    Raises:
        ScanError: missing, cut off, garbled, no surface or more than one, an index without its point, not finite.
    """
    data = read_bytes(path)
    if data[:2] == b"\x1f\x8b":
        raise ScanError(f"{path}: compressed with gzip; unpack it with `gunzip`")
    try:
        blocks, texture_name = _find_blocks(data)
        return VrmlFile(_build_mesh(blocks), texture_name)
    except (ScanError, ValueError) as error:
        raise ScanError(f"{path}: {error}") from error


def find_vrml_texture(path: Path) -> Path | None:
    """The image that a VRML file names, where it stands in the file's folder or below. The numbers are not parsed.

    Raises:
        ScanError: missing or cut off.
    """
    name = _find_blocks(read_bytes(path))[1]
    return find_beside(path, name) if name else None


def _find_blocks(data: bytes) -> tuple[dict[str, memoryview], str | None]:
    """Walks over the file's words; the long lists of numbers are skipped whole. Returns their text by name."""
    blocks: dict[str, memoryview] = {}
    texture_name: str | None = None
    nodes: list[bytes] = []  # the nodes we are in, by type
    last = b""
    place = 0
    while place < len(data):
        match = _TOKEN.match(data, place)
        if match is None:
            raise ScanError(f"a text without its closing quote at byte {place}; {_CUT}")
        place, token = match.end(), match.group()
        if token == b"{":
            nodes.append(last)
        elif token == b"}":
            if nodes:
                nodes.pop()
            last = b""
        elif token == b"[" and last in _NUMBER_FIELDS:
            start, end = place, _find_list_end(data, place)
            place = end + 1
            if place > len(data):
                raise ScanError(f"the list {last.decode()} [ has no end; {_CUT}")
            name = f"{nodes[-1].decode('latin-1') if nodes else ''}.{last.decode()}"
            if name in blocks:
                raise ScanError(f"holds more than one surface ({name[:40]!r} stands twice); expected one: join them")
            blocks[name] = memoryview(data)[start:end]
            last = b""
        elif token[0] == 0x22:  # a quoted text
            if last == b"url" and nodes and nodes[-1] == b"ImageTexture" and texture_name is None:
                texture_name = token[1:-1].decode("utf-8", "replace")
        elif token not in (b"[", b"]") and token[0] not in b"# \t\r\n,\x0b\x0c":
            last = token
    if nodes:
        inside = nodes[-1][:40].decode("latin-1")
        raise ScanError(f"the file ends inside {inside} {{ … }}; {_CUT}")
    return blocks, texture_name


def _find_list_end(data: bytes, place: int) -> int:
    """Where the list that begins at `place` has its `]`, comments left out; the file's end where it has none."""
    end = data.find(b"]", place)
    if end >= 0 and data.find(b"#", place, end) < 0:
        return end
    body = _BLOCK_BODY.match(data, place)
    assert body is not None  # matches the empty text, too
    return body.end()


def _build_mesh(blocks: dict[str, memoryview]) -> Mesh:
    if "Coordinate.point" not in blocks or "IndexedFaceSet.coordIndex" not in blocks:
        found = " ".join(", ".join(blocks).split())[:80] or "neither"  # garbled names may be of any length
        raise ScanError(f"expected Coordinate {{ point [ … ] }} and coordIndex [ … ], found {found}; {_CUT}")
    vertices = _points(blocks, "Coordinate.point", 3)
    coord_index = _indices(blocks, "IndexedFaceSet.coordIndex")
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
        uv = np.take(to_float32(uv_points), cut_polygons(uv_corners, sizes), axis=0)
    return Mesh(to_float32(vertices), triangles.astype(np.int32), uv)


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
