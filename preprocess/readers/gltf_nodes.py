"""Where the nodes of a glTF scene stand, and their skins' joints move what they draw. glTF 2.0, sections 3.5 and 3.7.3."""

from __future__ import annotations

from typing import Any

import numpy as np

from preprocess.readers.gltf_file import CUT, GltfFile, to_floats, to_integer
from shared.errors import ScanError

_MAX_NODES = 20_000
_CHUNK = 1 << 16  # vertices moved by joints at a time: a matrix each


def find_worlds(file: GltfFile) -> np.ndarray:
    """Every node's matrix float64 (nodes, 4, 4), from its own coordinates to the scene's, for columns."""
    nodes = file.items("nodes")
    if len(nodes) > _MAX_NODES:
        raise ScanError(f"{len(nodes)} nodes, at most {_MAX_NODES}; is this a scan?")
    worlds = np.tile(np.eye(4), (len(nodes), 1, 1))
    for i, parent in _walk_trees(nodes):
        with np.errstate(over="ignore", invalid="ignore"):  # then a vertex is not finite
            local = _local_matrix(nodes[i])
            worlds[i] = local if parent is None else worlds[parent] @ local
    return worlds


def find_drawn_nodes(file: GltfFile) -> list[int]:
    """The nodes of the default scene that draw a mesh; of the first scene where no default is named."""
    nodes, scenes = file.items("nodes"), file.items("scenes")
    if "scene" not in file.document and len(scenes) > 1:
        file.notes.append(f"holds {len(scenes)} scenes and no default: the first is drawn")
    roots = file.item("scenes", file.document.get("scene", 0)).get("nodes", []) if scenes else range(len(nodes))
    reached = [to_integer(root) for root in dict.fromkeys(roots)]
    drawn: dict[int, None] = {}
    for i in reached:  # grows while it is walked
        if "mesh" in file.item("nodes", i) and i not in drawn:
            drawn[i] = None
        reached.extend(map(to_integer, nodes[i].get("children", [])) if scenes else ())
        if len(reached) > len(nodes):
            raise ScanError(f"its nodes are not a tree; {CUT}")
    return list(drawn)


def move_by_joints(
    file: GltfFile, skin: dict[str, Any], attributes: dict[str, Any], vertices: np.ndarray, worlds: np.ndarray
) -> np.ndarray:
    """Places a skin's vertices f32 (n, 3) by its joints, in the scene's coordinates: float64 (n, 3)."""
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
        part = slice(start, start + _CHUNK)
        point = np.concatenate([moved[part], np.ones((len(moved[part]), 1))], axis=1)
        total = np.zeros((len(point), 3))
        for k in range(indices.shape[1]):
            total += weights[part, k, None] * np.einsum("nij,nj->ni", matrices[indices[part, k], :3], point)
        share = weights[part].sum(1, keepdims=True)  # 1 but for rounding
        moved[part] = np.where(share > 0, total / np.where(share > 0, share, 1), moved[part])
    return moved


def _walk_trees(nodes: list[dict[str, Any]]) -> list[tuple[int, int | None]]:
    """Every node behind its parent; a node that is its own ancestor would be followed without end."""
    parents: dict[int, int] = {}
    for i, node in enumerate(nodes):
        for child in map(to_integer, node.get("children", [])):
            if child in parents or not 0 <= child < len(nodes):
                raise ScanError(f"its nodes are not a tree; {CUT}")
            parents[child] = i
    order: list[tuple[int, int | None]] = [(i, None) for i in range(len(nodes)) if i not in parents]
    for i, _ in order:  # grows while it is walked
        order.extend((to_integer(child), i) for child in nodes[i].get("children", []))
    if len(order) != len(nodes):
        raise ScanError(f"its nodes are not a tree; {CUT}")
    return order


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
