"""The parts that a glTF scene draws, each in the scene's coordinates: nodes, primitives, morph targets, skins.

Khronos, glTF 2.0 specification, sections 3.5 and 3.7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from preprocess.readers.file_bytes import CUT
from preprocess.readers.gltf_file import GltfFile, to_floats, to_integer
from preprocess.readers.gltf_material import Material, read_material
from preprocess.readers.text_numbers import to_float32
from shared.errors import ScanError

_TRIANGLES, _STRIP, _FAN = 4, 5, 6  # modes; the others are points and lines
_MAX_NODES = 20_000
_MAX_PARTS = 10_000
_MAX_TARGETS = 2_000
_CHUNK = 1 << 16  # vertices moved by joints at a time: a matrix each


@dataclass
class Part:
    """A primitive of a node: vertices f32 (n, 3), triangles i64 (m, 3); of each vertex uv f32 (n, 2) with v down, and linear
    colours f32 (n, 3 or 4); has_texture: it is drawn with the texture."""

    vertices: np.ndarray
    triangles: np.ndarray
    material: Material
    uv: np.ndarray | None
    colors: np.ndarray | None
    has_texture: bool = False


def read_parts(file: GltfFile) -> list[Part]:
    """Read what the default scene draws; the first scene if no default is named.

    Raises:
        ScanError: no triangles, too many parts, or garbled; KeyError, TypeError or ValueError as GltfFile.
    """
    worlds, drawn = _find_nodes(file)
    parts: list[Part] = []
    num_seen = num_others = 0
    for i in drawn:
        node = file.items("nodes")[i]
        mesh = file.item("meshes", node["mesh"])
        weights = node.get("weights", mesh.get("weights", []))
        if len(weights) > _MAX_TARGETS:
            raise ScanError(f"{len(weights)} morph targets, at most {_MAX_TARGETS}; is this a scan?")
        for primitive in mesh["primitives"]:
            num_seen += 1
            if num_seen > _MAX_PARTS:
                raise ScanError(f"its nodes draw more than {_MAX_PARTS} parts; is this a scan?")
            if primitive.get("mode", _TRIANGLES) not in (_TRIANGLES, _STRIP, _FAN):
                num_others += 1
                continue
            part = _read_primitive(file, primitive, to_floats(weights, len(weights)).tolist())
            if part is not None:
                _move(file, part, node, primitive["attributes"], worlds, i)
                parts.append(part)
    if num_others:
        file.notes.append(f"{num_others} parts of points or lines are not drawn")
    if not parts:
        raise ScanError(f"no triangles in its scene; export the scan as a surface, or {CUT}")
    return parts


def _find_nodes(file: GltfFile) -> tuple[np.ndarray, list[int]]:
    """Return every node's matrix f64 (nodes, 4, 4), node → scene, and the nodes of the scene that draw a mesh."""
    nodes, scenes = file.items("nodes"), file.items("scenes")
    if len(nodes) > _MAX_NODES:
        raise ScanError(f"{len(nodes)} nodes, at most {_MAX_NODES}; is this a scan?")
    if "scene" not in file.document and len(scenes) > 1:
        file.notes.append(f"holds {len(scenes)} scenes and no default: the first is drawn")
    roots = file.item("scenes", file.document.get("scene", 0)).get("nodes", []) if scenes else range(len(nodes))
    for root in roots:
        file.item("nodes", root)
    in_scene = dict.fromkeys(map(to_integer, roots))
    parents: dict[int, int] = {}
    for i, node in enumerate(nodes):
        for child in map(to_integer, node.get("children", [])):
            if child in parents or not 0 <= child < len(nodes):
                raise ScanError(f"its nodes are not a tree; {CUT}")
            parents[child] = i
    worlds = np.tile(np.eye(4), (len(nodes), 1, 1))
    order = [i for i in range(len(nodes)) if i not in parents]
    for i in order:  # grows: every node behind its parent
        with np.errstate(over="ignore", invalid="ignore"):  # then a vertex is not finite
            local = _local_matrix(nodes[i])
            worlds[i] = worlds[parents[i]] @ local if i in parents else local
        if parents.get(i) in in_scene:
            in_scene[i] = None
        order.extend(map(to_integer, nodes[i].get("children", [])))
    if len(order) != len(nodes):  # a node that is its own ancestor
        raise ScanError(f"its nodes are not a tree; {CUT}")
    return worlds, [i for i in in_scene if "mesh" in nodes[i]]


def _local_matrix(node: dict[str, Any]) -> np.ndarray:
    if "matrix" in node:
        return to_floats(node["matrix"], 16).reshape(4, 4).T
    matrix = np.eye(4)
    if "rotation" in node:
        x, y, z, w = to_floats(node["rotation"], 4)
        norm = x * x + y * y + z * z + w * w
        s = 2 / norm if norm > 0 else 0
        matrix[:3, :3] = [
            [1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)],
            [s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)],
            [s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)],
        ]
    if "scale" in node:
        matrix[:3, :3] *= to_floats(node["scale"], 3)
    if "translation" in node:
        matrix[:3, 3] = to_floats(node["translation"], 3)
    return matrix


def _read_primitive(file: GltfFile, primitive: dict[str, Any], weights: list[float]) -> Part | None:
    """Read a primitive in its own coordinates; None if it has no triangles. weights: of the morph targets."""
    attributes = primitive["attributes"]
    if "POSITION" not in attributes:
        return None
    if "KHR_draco_mesh_compression" in primitive.get("extensions", {}) and (
        "bufferView" not in file.item("accessors", attributes["POSITION"])
    ):
        raise ScanError("needs the extension KHR_draco_mesh_compression; export it uncompressed")
    vertices = _read_attribute(file, primitive, "POSITION", weights, (3,))
    n = len(vertices)
    corners = np.arange(n)
    if "indices" in primitive:
        numbers = file.numbers(primitive["indices"])
        if numbers.dtype.kind != "u" or numbers.shape[1] != 1:
            raise ScanError(f"indices that are no whole numbers; {CUT}")
        corners = numbers[:, 0].astype(np.int64)
        if corners.max() >= n:
            raise ScanError(f"a triangle names vertex {corners.max()}, there are {n}; {CUT}")
    triangles = _cut_triangles(corners, primitive.get("mode", _TRIANGLES))
    if not len(triangles):
        return None
    material = read_material(file, primitive.get("material"))
    uv = colors = None
    if f"TEXCOORD_{material.uv_set}" in attributes:
        uv = _read_attribute(file, primitive, f"TEXCOORD_{material.uv_set}", weights, (2,))
        with np.errstate(over="ignore", invalid="ignore"):
            uv = to_float32(uv @ material.uv_matrix[:, :2].T + material.uv_matrix[:, 2])
    if "COLOR_0" in attributes:
        colors = np.clip(np.nan_to_num(_read_attribute(file, primitive, "COLOR_0", weights, (3, 4))), 0, 1)
    if any(len(array) != n for array in (uv, colors) if array is not None):
        raise ScanError(f"a part of {n} vertices with another number of colours or texture coordinates; {CUT}")
    return Part(vertices, triangles, material, uv, colors)


def _read_attribute(
    file: GltfFile, primitive: dict[str, Any], name: str, weights: list[float], widths: tuple[int, ...]
) -> np.ndarray:
    """Read a vertex attribute f32 (n, width) plus its morph targets by their weights (section 3.7.2.2)."""
    array = file.values(primitive["attributes"][name])
    if array.shape[1] not in widths:
        raise ScanError(f"{name} of {array.shape[1]} numbers; {CUT}")
    for weight, target in zip(weights, primitive.get("targets", []), strict=False):
        if weight and name in target:
            moved = file.values(target[name])
            if moved.shape != array.shape:
                raise ScanError(f"a morph target of {len(moved)} vertices for {len(array)}; {CUT}")
            with np.errstate(over="ignore", invalid="ignore"):  # Mesh refuses what is not finite
                array += np.float32(weight) * moved
    return array


def _cut_triangles(corners: np.ndarray, mode: int) -> np.ndarray:
    """Return the triangles i64 (m, 3) of a list, strip or fan of corners (section 3.7.2.1); what is left over makes none."""
    if mode == _TRIANGLES:
        return corners[: len(corners) // 3 * 3].reshape(-1, 3)
    if mode == _FAN:
        return np.stack([corners[1:-1], corners[2:], np.full(max(len(corners) - 2, 0), corners[0])], axis=1)
    triangles = np.stack([corners[:-2], corners[1:-1], corners[2:]], axis=1)
    triangles[1::2, 1:] = triangles[1::2, :0:-1].copy()  # every second one is wound the other way
    return triangles


def _move(
    file: GltfFile, part: Part, node: dict[str, Any], attributes: dict[str, Any], worlds: np.ndarray, i: int
) -> None:
    """Move a part from the coordinates of node i, or by its skin's joints, to the scene's; mirrored, turn its triangles."""
    with np.errstate(over="ignore", invalid="ignore"):  # Mesh refuses what is not finite
        if "skin" in node and "JOINTS_0" in attributes:  # the node's own matrix does not count (section 3.7.3.3)
            skin = file.item("skins", node["skin"])
            part.vertices = to_float32(_move_by_joints(file, skin, attributes, part.vertices, worlds))
        elif not (worlds[i] == np.eye(4)).all():
            part.vertices = to_float32(part.vertices @ worlds[i, :3, :3].T + worlds[i, :3, 3])
            if np.linalg.det(worlds[i, :3, :3]) < 0:
                part.triangles = part.triangles[:, ::-1]


def _move_by_joints(
    file: GltfFile, skin: dict[str, Any], attributes: dict[str, Any], vertices: np.ndarray, worlds: np.ndarray
) -> np.ndarray:
    """Move a skin's vertices f32 (n, 3) by its joints (section 3.7.3): float64 (n, 3), in the scene's coordinates."""
    joints = [to_integer(joint) for joint in skin["joints"]]
    if not 0 < len(joints) <= len(worlds) or not all(0 <= joint < len(worlds) for joint in joints):
        raise ScanError(f"a skin's joints are not nodes; {CUT}")
    matrices = worlds[joints]
    if "inverseBindMatrices" in skin:
        inverse = file.values(skin["inverseBindMatrices"]).astype(np.float64)
        if inverse.shape[0] < len(joints) or inverse.shape[1] != 16:
            raise ScanError(f"a skin of {len(joints)} joints with {len(inverse)} matrices; {CUT}")
        matrices = matrices @ inverse[: len(joints)].reshape(-1, 4, 4).transpose(0, 2, 1)  # stored column by column
    sets = [k for k in range(len(attributes)) if f"JOINTS_{k}" in attributes]
    indices = np.concatenate([file.numbers(attributes[f"JOINTS_{k}"]) for k in sets], axis=1)
    weights = np.concatenate([file.values(attributes[f"WEIGHTS_{k}"]) for k in sets], axis=1).astype(np.float64)
    if indices.dtype.kind != "u" or not len(indices) == len(weights) == len(vertices) or indices.shape != weights.shape:
        raise ScanError(f"joints of {len(indices)} vertices, there are {len(vertices)}; {CUT}")
    if indices.max() >= len(joints):
        raise ScanError(f"a vertex names joint {indices.max()}, its skin has {len(joints)}; {CUT}")
    moved = vertices.astype(np.float64)
    for start in range(0, len(moved), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        point = np.concatenate([moved[chunk], np.ones((len(moved[chunk]), 1))], axis=1)
        total = np.zeros((len(point), 3))
        for k in range(indices.shape[1]):
            total += weights[chunk, k, None] * np.einsum("nij,nj->ni", matrices[indices[chunk, k], :3], point)
        weight = weights[chunk].sum(1, keepdims=True)  # 1 but for rounding
        moved[chunk] = np.where(weight > 0, total / np.where(weight > 0, weight, 1), moved[chunk])
    return moved
