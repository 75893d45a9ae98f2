"""The container of a .glb file: its JSON document, its buffers, and the numbers in them. Khronos, glTF 2.0 specification.

Other readers are not used: trimesh 5.2 and Open3D 0.20 take normalised integers for floats, ignore sparse accessors, morph
targets and texture transforms, and use linear colours as if they were sRGB.
"""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from preprocess.readers.file_bytes import CUT
from shared.errors import ScanError

MAX_ELEMENTS = 20_000_000  # vertices with each of their attributes, and corners, every time that they are drawn
_EACH = 200  # elements that reading an accessor costs at least: small ones may be named a million times
_MAX_JSON_BYTES = 1 << 25  # objects in memory, 20 times the size of the tightest text
_DTYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


@dataclass
class GltfFile:
    """An opened GLB: nothing is read from its buffers before it is asked for, and nothing in it is trusted.

    Methods raise ScanError if the file lacks or garbles what they read, KeyError, TypeError or ValueError if its JSON
    part does; other files are never opened.
    """

    document: dict[str, Any]
    binary: memoryview
    notes: list[str] = field(default_factory=list)  # what the file asks for and is not done
    _decoded: dict[int, memoryview] = field(default_factory=dict)
    _elements_left: int = MAX_ELEMENTS

    def items(self, name: str) -> list[dict[str, Any]]:
        """Return the objects of one kind: nodes, meshes, accessors …"""
        items = self.document.get(name, [])
        if not isinstance(items, list):
            raise ValueError(name)
        return items

    def item(self, name: str, index: Any) -> dict[str, Any]:
        items = self.items(name)
        if not 0 <= to_integer(index) < len(items):
            raise ScanError(f"names {name} {index!r}, there are {len(items)}; {CUT}")
        return items[to_integer(index)]

    def view(self, index: Any) -> memoryview:
        """Return the bytes of a buffer view."""
        view = self.item("bufferViews", index)
        start, length = to_integer(view.get("byteOffset", 0)), to_integer(view["byteLength"])
        number = to_integer(view["buffer"])
        buffer, data = self.item("buffers", number), self.binary
        if "uri" in buffer:
            if number not in self._decoded:
                self._decoded[number] = memoryview(decode_data_uri(buffer["uri"]))
            data = self._decoded[number]
        elif number:  # only the first may be the binary chunk (section 4.4.3.3)
            compression = [name for name in view.get("extensions", {}) if "meshopt" in name]
            if compression:
                raise ScanError(f"needs the extension {' '.join(compression)}; export it uncompressed")
            raise ScanError(f"buffer {number} is nowhere; {CUT}")
        if start < 0 or length < 0 or start + length > len(data):
            raise ScanError(f"a view of {length} bytes from {start}, its buffer has {len(data)}; {CUT}")
        return data[start : start + length]

    def numbers(self, index: Any) -> np.ndarray:
        """Return an accessor's numbers as they are stored, (count, components); it may be read-only."""
        accessor = self.item("accessors", index)
        count, width = to_integer(accessor["count"]), _WIDTHS[accessor["type"]]
        dtype = np.dtype(_DTYPES[accessor["componentType"]])
        if count < 1:
            raise ScanError(f"an accessor of {count} values; {CUT}")
        array = self._strided(accessor, count, width, dtype) if "bufferView" in accessor else None
        self._elements_left -= count + _EACH
        if self._elements_left < 0:
            raise ScanError(f"its nodes draw more than {MAX_ELEMENTS} vertices and corners; is this a scan?")
        if array is None:
            array = np.zeros((count, width), dtype)
        if "sparse" not in accessor:
            return array
        sparse = accessor["sparse"]
        num_changed = to_integer(sparse["count"])
        if not 1 <= num_changed <= count:
            raise ScanError(f"{num_changed} sparse values in an accessor of {count}; {CUT}")
        index_dtype = np.dtype(_DTYPES[sparse["indices"]["componentType"]])
        changed = self._strided(sparse["indices"], num_changed, 1, index_dtype)[:, 0]
        if index_dtype.kind != "u" or changed.max() >= count:
            raise ScanError(f"a sparse accessor's index lies outside its {count} values; {CUT}")
        array = array.copy()
        array[changed] = self._strided(sparse["values"], num_changed, width, dtype)
        return array

    def values(self, index: Any) -> np.ndarray:
        """Return an accessor's values f32 (count, components): normalised integers as fractions (section 3.6.2.2)."""
        array = self.numbers(index)
        if array.dtype.kind != "f" and self.item("accessors", index).get("normalized") is True:
            return np.maximum(array / np.float32(np.iinfo(array.dtype).max), -1).astype(np.float32)
        return array.astype(np.float32)

    def _strided(self, source: dict[str, Any], count: int, width: int, dtype: np.dtype) -> np.ndarray:
        view = self.view(source["bufferView"])
        size = width * dtype.itemsize
        start = to_integer(source.get("byteOffset", 0))
        stride = to_integer(self.item("bufferViews", source["bufferView"]).get("byteStride", 0)) or size
        if start < 0 or stride < size or start + (count - 1) * stride + size > len(view):
            raise ScanError(f"an accessor of {count} values, its view has {len(view)} bytes; {CUT}")
        return np.ndarray((count, width), dtype, view, start, (stride, dtype.itemsize))


def open_glb(data: bytes) -> GltfFile:
    """Split a GLB file into its JSON document and its binary chunk.

    Raises:
        ScanError: no GLB of version 2, or cut off.
    """
    if data[:1] == b"{" or data[:4] == b"\xef\xbb\xbf{":
        raise ScanError("JSON text, a .gltf file; export it as one self-contained GLB")
    if data[:4] != b"glTF":
        raise ScanError(f"begins with {data[:4]!r} and not with glTF: no GLB file; rename it, or {CUT}")
    try:
        version, length, json_length, json_type = struct.unpack_from("<III4s", data, 4)
        if version == 1:
            raise ScanError("glTF version 1; export it as GLB of glTF version 2")
        if version != 2 or json_type != b"JSON" or length > len(data):
            raise ScanError(f"expected glTF version 2 of {len(data)} bytes, found version {version} of {length}; {CUT}")
        if json_length > _MAX_JSON_BYTES:
            raise ScanError(
                f"a JSON part of {json_length} bytes, at most {_MAX_JSON_BYTES}; keep its buffers in binary"
            )
        document = json.loads(data[20 : 20 + json_length].rstrip(b"\0").decode("utf-8-sig"))
        binary = memoryview(b"")
        if 20 + json_length < length:
            binary_length, binary_type = struct.unpack_from("<I4s", data, 20 + json_length)
            binary = memoryview(data)[28 + json_length : 28 + json_length + binary_length]
            if binary_type != b"BIN\0" or len(binary) != binary_length:
                raise ValueError
    except (struct.error, ValueError, RecursionError) as error:
        raise ScanError(f"not a whole GLB file; {CUT}") from error
    if not isinstance(document, dict):
        raise ScanError(f"its JSON part is no object; {CUT}")
    return GltfFile(document, binary)


def decode_data_uri(uri: str) -> bytes:
    """Decode bytes that stand in the JSON part itself; other files are not opened."""
    head, comma, text = uri.partition(",")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        raise ScanError("needs another file for its numbers; export it as one self-contained GLB")
    return base64.b64decode(text, validate=True)


def to_integer(value: Any) -> int:
    """Return a whole number of the JSON part; some programs write 12.0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int):
        raise ValueError(f"the number {value!r}")
    return value


def to_floats(value: Any, count: int) -> np.ndarray:
    """Return numbers of the JSON part, float64 (count,)."""
    array = np.array(value, np.float64)
    if array.shape != (count,) or not np.isfinite(array).all():
        raise ValueError(f"{count} numbers: {str(value)[:40]}")
    return array
