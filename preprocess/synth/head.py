"""One scan of a synthetic person: identity and active units → a textured mesh with landmarks, in the face frame."""

from __future__ import annotations

import numpy as np

from preprocess.geometry.mesh import Mesh
from preprocess.synth.action_units import Activation, displace
from preprocess.synth.identity import Identity, shape_vertices_mm
from preprocess.synth.landmarks import landmark_vertices
from preprocess.synth.sheet import grid_shape, grid_sheet, grid_triangles
from preprocess.synth.skin import grid_uv, paint_expression, paint_skin
from preprocess.synth.template import seat_eyes, template_vertices_mm


class Person:
    """A synthetic person who can be scanned with any expression. Skin and shape at rest are worked out once."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self._rest_mm, self._eyes_mm = shape_vertices_mm(identity, grid_sheet(), template_vertices_mm())
        self._skin = paint_skin(identity)

    def set_at_rest(self, activation: Activation) -> None:
        """Let the face at rest look as this activation does; it stays a face at rest to labels and skin."""
        self._rest_mm = self._rest_mm + displace(grid_sheet(), activation)

    def scan(self, activation: Activation, noise_mm: float = 0.0, seed: int = 0) -> Mesh:
        """Return a scan in the face frame, mm. `noise_mm` is the standard deviation of the scanner's depth noise."""
        vertices = self._rest_mm + displace(grid_sheet(), activation)
        seat_eyes(vertices, self._eyes_mm)
        normals = grid_normals(vertices)
        texture = paint_expression(self._skin, self.identity, activation, vertices, normals, self._eyes_mm)
        if noise_mm > 0:
            vertices = vertices + normals * np.random.default_rng(seed).normal(0, noise_mm, (len(vertices), 1))
        placed = vertices.astype(np.float32)
        triangles = grid_triangles()
        return Mesh(placed, triangles, grid_uv()[triangles], texture, landmarks_mm=placed[landmark_vertices()])


def grid_normals(vertices_mm: np.ndarray) -> np.ndarray:
    """Return unit normals of the grid's vertices, f64 (N, 3), out of the face, from central differences."""
    rows, columns = grid_shape()
    grid = vertices_mm.reshape(rows, columns, 3)
    down, right = np.gradient(grid, axis=0), np.gradient(grid, axis=1)
    normals = np.cross(down, right).reshape(-1, 3)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
