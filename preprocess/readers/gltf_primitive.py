"""A glTF primitive's vertices, triangles and what is painted on them. glTF 2.0, section 3.7."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from preprocess.readers.gltf_file import CUT, GltfFile
from preprocess.readers.gltf_material import Material, read_material
from preprocess.readers.text_numbers import to_float32
from shared.errors import ScanError

TRIANGLES, STRIP, FAN = 4, 5, 6  # modes; the others are points and lines


@dataclass
class Part:
    """A primitive where a node draws it: vertices f32 (n, 3), triangles i64 (m, 3), of a vertex uv f32 (n, 2) with v down, and
    linear colours f32 (n, 3 or 4)."""

    vertices: np.ndarray
    triangles: np.ndarray
    material: Material
    uv: np.ndarray | None
    colors: np.ndarray | None
    has_texture: bool = False  # it is drawn


def read_primitive(file: GltfFile, primitive: dict[str, Any], weights: np.ndarray) -> Part | None:
    """Reads a primitive in its own coordinates; None where it has no triangles.

    weights: of the morph targets, float64. Raises ScanError, or as GltfFile does.
    """
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
    triangles = _cut_triangles(corners, primitive.get("mode", TRIANGLES))
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
    file: GltfFile, primitive: dict[str, Any], name: str, weights: np.ndarray, widths: tuple[int, ...]
) -> np.ndarray:
    """A vertex attribute f32 (n, width) with its morph targets by their weights (glTF 2.0, section 3.7.2.2)."""
    array = file.values(primitive["attributes"][name])
    if array.shape[1] not in widths:
        raise ScanError(f"{name} of {array.shape[1]} numbers; {CUT}")
    for weight, target in zip(weights.tolist(), primitive.get("targets", []), strict=False):
        if weight and name in target:
            moved = file.values(target[name])
            if moved.shape != array.shape:
                raise ScanError(f"a morph target of {len(moved)} vertices for {len(array)}; {CUT}")
            with np.errstate(over="ignore", invalid="ignore"):  # Mesh refuses what is not finite
                array += np.float32(weight) * moved
    return array


def _cut_triangles(corners: np.ndarray, mode: int) -> np.ndarray:
    """Triangles i64 (m, 3) of a list, a strip or a fan of corners (glTF 2.0, section 3.7.2.1); what is left over makes none."""
    if mode == TRIANGLES:
        return corners[: len(corners) // 3 * 3].reshape(-1, 3)
    if mode == FAN:
        return np.stack([corners[1:-1], corners[2:], np.full(max(len(corners) - 2, 0), corners[0])], axis=1)
    triangles = np.stack([corners[:-2], corners[1:-1], corners[2:]], axis=1)
    triangles[1::2, 1:] = triangles[1::2, :0:-1].copy()  # every second one is wound the other way
    return triangles
