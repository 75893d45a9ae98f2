"""The container of a .glb file: what it holds, checked, and stripped to the geometry. Khronos, glTF 2.0 specification."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

from shared.errors import ScanError

_MAX_VALUES = 20_000_000  # of all nodes together: vertices with each of their attributes, and corners
_CUT = "the file is cut off or garbled; copy it again"
_COMPONENT_BYTES = {5120: 1, 5121: 1, 5122: 2, 5123: 2, 5125: 4, 5126: 4}
_COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}


def split_glb(data: bytes) -> tuple[bytes, bytes | None]:
    """Parts a GLB file into its geometry and its picture.

    Returns:
        The file without images, materials and anything but its scene's geometry; the encoded image of the base colour, or None.
    Raises:
        ScanError: no GLB, cut off, a count its buffer does not hold, another file needed, compressed, several textures.
    """
    document, binary = _read_chunks(data)
    try:
        required = [str(name) for name in document.get("extensionsRequired", [])]
        unknown = [name for name in required if name not in ("KHR_mesh_quantization", "KHR_materials_unlit")]
        if unknown:
            raise ScanError(f"needs the extension {', '.join(unknown)[:80]}; export it uncompressed")
        binary = _join_buffers(document, binary)
        _check_buffers(document, binary)
        image = _find_base_color(document, binary)
        stripped = {
            key: value
            for key, value in document.items()
            if key in ("asset", "scene", "scenes", "nodes", "meshes", "accessors", "bufferViews", "buffers")
        }
        for node in stripped.get("nodes", []):
            for key in ("skin", "camera", "extensions"):
                node.pop(key, None)
        for mesh in stripped.get("meshes", []):
            for primitive in mesh["primitives"]:
                for key in ("material", "targets", "extensions"):
                    primitive.pop(key, None)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise ScanError(f"its JSON part lacks or garbles {str(error)[:80]}; {_CUT}") from error
    return _write_chunks(stripped, binary), image


def _read_chunks(data: bytes) -> tuple[dict[str, Any], bytes]:
    try:
        magic, version, length, json_length, json_type = struct.unpack_from("<4sIII4s", data)
        document = json.loads(data[20 : 20 + json_length].decode())
        binary = b""
        if 20 + json_length < length:
            binary_length, binary_type = struct.unpack_from("<I4s", data, 20 + json_length)
            binary = data[28 + json_length : 28 + json_length + binary_length]
            if binary_type != b"BIN\0" or len(binary) != binary_length:
                raise ValueError
    except (struct.error, ValueError, RecursionError) as error:
        raise ScanError(f"not a whole GLB file; {_CUT}") from error
    if magic != b"glTF" or version != 2 or json_type != b"JSON" or length > len(data) or not isinstance(document, dict):
        raise ScanError(f"expected glTF version 2 of {len(data)} bytes, found version {version} of {length}; {_CUT}")
    return document, binary


def _write_chunks(document: dict[str, Any], binary: bytes) -> bytes:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _join_buffers(document: dict[str, Any], binary: bytes) -> bytes:
    """Makes one buffer of the binary chunk and of those written into the JSON part; other files are not opened."""
    joined, starts = bytearray(), []
    for k, buffer in enumerate(document.get("buffers", [])):
        if k and "uri" not in buffer:
            raise ScanError(
                f"buffer {k} is nowhere; {_CUT}"
            )  # only the first may be the binary chunk (section 4.4.3.3)
        starts.append(len(joined))
        joined += _decode_data_uri(buffer["uri"]) if "uri" in buffer else binary
        joined += b"\0" * (-len(joined) % 8)
    for view in document.get("bufferViews", []):
        view["byteOffset"] = _integer(view.get("byteOffset", 0)) + starts[_index(view["buffer"])]
        view["buffer"] = 0
    document["buffers"] = [{"byteLength": len(joined)}]
    return bytes(joined)


def _decode_data_uri(uri: str) -> bytes:
    head, comma, text = uri.partition(",")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        raise ScanError("needs another file for its numbers; export it as one self-contained GLB")
    return base64.b64decode(text, validate=True)


def _check_buffers(document: dict[str, Any], binary: bytes) -> None:
    """Every view lies in the buffer and every accessor in its view."""
    views = document.get("bufferViews", [])
    for view in views:
        start, length = _integer(view.get("byteOffset", 0)), _integer(view["byteLength"])
        if start < 0 or length < 0 or start + length > len(binary):
            raise ScanError(f"a view of {length} bytes from {start}, its buffer has {len(binary)}; {_CUT}")
    for accessor in document.get("accessors", []):
        if "sparse" in accessor or "bufferView" not in accessor:
            raise ScanError("sparse accessors are not read; export it without them")
        size = _COMPONENT_BYTES[accessor["componentType"]] * _COMPONENTS[accessor["type"]]
        view = views[_index(accessor["bufferView"])]
        count, start = _integer(accessor["count"]), _integer(accessor.get("byteOffset", 0))
        stride = _integer(view.get("byteStride", 0)) or size
        if count < 1 or start < 0 or stride < size or start + (count - 1) * stride + size > view["byteLength"]:
            raise ScanError(f"an accessor of {count} values, its view has {view['byteLength']} bytes; {_CUT}")
    _check_nodes(document)
    _check_size(document)


def _check_size(document: dict[str, Any]) -> None:
    """What the scene is when every node's mesh stands there: a small file may name one mesh from a million nodes."""
    accessors = document.get("accessors", [])
    sizes = []
    for mesh in document.get("meshes", []):
        used = [p["indices"] for p in mesh["primitives"] if "indices" in p]
        used += [index for p in mesh["primitives"] for index in p["attributes"].values()]
        sizes.append(sum(_integer(accessors[_index(index)]["count"]) for index in used))
    total = sum(sizes[_index(node["mesh"])] for node in document.get("nodes", []) if "mesh" in node)
    if total > _MAX_VALUES:
        raise ScanError(f"its nodes draw {total} vertices and corners, at most {_MAX_VALUES}; is this a scan?")


def _check_nodes(document: dict[str, Any]) -> None:
    """The nodes are trees: a node that is its own ancestor would be followed without end."""
    nodes = document.get("nodes", [])
    parents = [child for node in nodes for child in node.get("children", [])]
    if len(set(parents)) != len(parents) or any(not 0 <= _index(child) < len(nodes) for child in parents):
        raise ScanError(f"its nodes are not a tree; {_CUT}")
    reached = [i for i in range(len(nodes)) if i not in set(parents)]
    for i in reached:  # grows while it is walked
        reached.extend(nodes[i].get("children", []))
    if len(reached) != len(nodes):
        raise ScanError(f"its nodes are not a tree; {_CUT}")


def _find_base_color(document: dict[str, Any], binary: bytes) -> bytes | None:
    """The one image that the meshes' materials use as base colour, as PNG or JPEG bytes."""
    images: set[int] = set()
    for mesh in document.get("meshes", []):
        for primitive in mesh["primitives"]:
            if "material" not in primitive:
                continue
            material = document["materials"][_index(primitive["material"])]
            texture = material.get("pbrMetallicRoughness", {}).get("baseColorTexture")
            if texture is not None:
                if texture.get("texCoord", 0) != 0:
                    raise ScanError("its texture uses a second set of texture coordinates; export it with one")
                source = document["textures"][_index(texture["index"])].get("source")
                if source is not None:
                    images.add(_index(source))
    if len(images) > 1:
        raise ScanError(f"painted with {len(images)} textures, expected one; bake them into one image")
    for i in images:
        image = document["images"][i]
        if image.get("uri", "").startswith("data:"):
            return _decode_data_uri(image["uri"])
        if "bufferView" in image:  # an image in another file is not followed: name it as `texture` in the manifest
            view = document["bufferViews"][_index(image["bufferView"])]
            start = _index(view.get("byteOffset", 0))
            return binary[start : start + _index(view["byteLength"])]
    return None


def _index(value: Any) -> int:
    if _integer(value) < 0:
        raise ValueError(f"the index {value!r}")
    return _integer(value)


def _integer(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():  # some programs write 12.0
        value = int(value)
    if not isinstance(value, int):
        raise ValueError(f"the number {value!r}")
    return value
