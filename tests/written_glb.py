"""GLB files written value by value, for tests: an accessor, a view or an image at a time."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COMPONENT_TYPES = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
POSITIONS = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]], "<f4")
UV = np.array([[0, 0], [1, 0], [0, 1], [0.25, 0.25]], "<f4")
INDICES = np.array([0, 1, 2, 0, 1, 3], "<u2")


class WrittenGlb:
    """A document and its binary chunk, begun with one scene of one node without a mesh."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = {
            "asset": {"version": "2.0"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": []}],
        }
        self.binary = b""

    def add(self, kind: str, item: dict[str, Any]) -> int:
        self.document.setdefault(kind, []).append(item)
        return len(self.document[kind]) - 1

    def view(self, data: bytes, **extra: Any) -> int:
        self.binary += b"\0" * (-len(self.binary) % 4)
        index = self.add("bufferViews", {"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data), **extra})
        self.binary += data
        return index

    def accessor(self, array: np.ndarray, *, stride: int = 0, offset: int = 0, **extra: Any) -> int:
        """An array (n,) or (n, width) as it is, its rows `stride` bytes apart and `offset` bytes into their view."""
        table = array if array.ndim == 2 else array[:, None]
        rows = [row.tobytes().ljust(stride or table.itemsize * table.shape[1], b"\x7f") for row in table]
        view = self.view(b"\x7f" * offset + b"".join(rows), **({"byteStride": stride} if stride else {}))
        kind = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}[table.shape[1]]
        component_type = COMPONENT_TYPES[table.dtype.str[1:]]
        item = {"bufferView": view, "componentType": component_type, "count": len(table), "type": kind, **extra}
        return self.add("accessors", item | ({"byteOffset": offset} if offset else {}))

    def sparse(self, count: int, places: list[int], values: np.ndarray, *, base: int | None = None) -> int:
        """An accessor of zeros, or of another one's numbers, with some changed."""
        item = dict(self.document["accessors"][base]) if base is not None else {}
        kind = {1: "SCALAR", 2: "VEC2", 3: "VEC3"}[values.shape[1]]
        item |= {"componentType": COMPONENT_TYPES[values.dtype.str[1:]], "count": count, "type": kind}
        item["sparse"] = {
            "count": len(places),
            "indices": {"bufferView": self.view(np.array(places, "<u2").tobytes()), "componentType": 5123},
            "values": {"bufferView": self.view(values.tobytes())},
        }
        return self.add("accessors", item)

    def primitive(self, mesh: int = 0, *, indices: int | None = None, **attributes: int) -> dict[str, Any]:
        """Without attributes, the four points above with texture coordinates and two triangles."""
        if not attributes:
            attributes = {"POSITION": self.accessor(POSITIONS), "TEXCOORD_0": self.accessor(UV)}
            indices = self.accessor(INDICES)
        primitive: dict[str, Any] = {"attributes": attributes}
        if indices is not None:
            primitive["indices"] = indices
        self.document["meshes"][mesh]["primitives"].append(primitive)
        return primitive

    def texture(self, pixels: np.ndarray | None = None, kind: str = "PNG", **extra: Any) -> int:
        """A texture of an embedded image, of one colour (200, 100, 50) where none is given."""
        image = np.full((2, 2, 3), (200, 100, 50), np.uint8) if pixels is None else pixels
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, kind, lossless=True)
        source = self.add("images", {"bufferView": self.view(buffer.getvalue()), "mimeType": f"image/{kind.lower()}"})
        return self.add("textures", {"source": source, **extra})

    def paint(self, primitive: dict[str, Any], texture: int | None = None, **material: Any) -> dict[str, Any]:
        """Gives a primitive a material of its own: its pbrMetallicRoughness part, to be changed."""
        base: dict[str, Any] = {} if texture is None else {"baseColorTexture": {"index": texture}}
        primitive["material"] = self.add("materials", {"pbrMetallicRoughness": base, **material})
        return base

    def write(self, folder: Path) -> Path:
        self.document["buffers"] = [{"byteLength": len(self.binary)}]
        path = folder / "a.glb"
        path.write_bytes(encode_glb(self.document, self.binary))
        return path


def encode_glb(document: dict[str, Any], binary: bytes) -> bytes:
    """The container: a header, the JSON chunk, the binary chunk."""
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
