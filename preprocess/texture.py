"""Reads a mesh's colour at points of its surface, filtered to the footprint of the ray that asks."""

from __future__ import annotations

import numpy as np

from preprocess.mesh import Mesh
from shared.schema import FIELD_OF_VIEW_MM


class TextureSampler:
    """Trilinear lookups in a pyramid of half-sized textures (Williams 1983, "Pyramidal parametrics").

    A face scan has about five texels to a pixel at 224 px: read at one point they alias. The pyramid level is chosen for
    each triangle and view from the texels that one ray stands for. Meshes with vertex colours interpolate those.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._levels = [] if mesh.texture is None else build_pyramid(mesh.texture)

    def footprints(self, mesh: Mesh, view_vertices: np.ndarray, size_px: int) -> np.ndarray:
        """Texels that one pixel's side spans on each triangle, f32 (M,): the longer axis of the projected footprint."""
        assert mesh.uv is not None and mesh.texture is not None
        height, width = mesh.texture.shape[:2]
        corners = view_vertices[mesh.triangles, :2] * (size_px / FIELD_OF_VIEW_MM)  # px
        texels = mesh.uv * np.array([width, height], np.float32)
        a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        s, t = texels[:, 1] - texels[:, 0], texels[:, 2] - texels[:, 0]
        det = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
        det = np.where(np.abs(det) < 1e-9, 1e-9, det)
        # The affine map of the triangle: texel = J · pixel, J = [s t] · [a b]⁻¹
        j_x = (s * b[:, 1:2] - t * a[:, 1:2]) / det[:, None]  # d texel / d pixel x
        j_y = (t * a[:, 0:1] - s * b[:, 0:1]) / det[:, None]
        # Largest singular value of the 2 × 2 matrix [j_x j_y]
        sum_squares = (j_x**2).sum(1) + (j_y**2).sum(1)
        area = j_x[:, 0] * j_y[:, 1] - j_x[:, 1] * j_y[:, 0]
        largest = np.sqrt((sum_squares + np.sqrt(np.maximum(sum_squares**2 - 4 * area**2, 0))) / 2)
        return largest.astype(np.float32)

    def sample(
        self, triangle: np.ndarray, weights: np.ndarray, texels_per_px: np.ndarray | None, samples_per_px: int
    ) -> np.ndarray:
        """Colours f32 (K, 3) in 0…255 at points of the surface, given by triangle (K,) and corner weights (K, 3)."""
        if not self._levels or texels_per_px is None:
            assert self._mesh.colors is not None
            corner_colors = self._mesh.colors[self._mesh.triangles[triangle]].astype(np.float32)
            vertex_mean: np.ndarray = np.einsum("kcd,kc->kd", corner_colors, weights)
            return vertex_mean
        assert self._mesh.uv is not None
        uv = np.einsum("kcd,kc->kd", self._mesh.uv[triangle], weights)
        uv = np.where((uv < 0) | (uv > 1), uv - np.floor(uv), uv)  # textures repeat, as VRML and OBJ say
        level = np.log2(np.maximum(texels_per_px[triangle] / samples_per_px, 1.0))
        level = np.minimum(level, len(self._levels) - 1)
        floor = np.minimum(level.astype(np.int64), len(self._levels) - 2) if len(self._levels) > 1 else level * 0
        blend = (level - floor).astype(np.float32)[:, None]
        colors = np.empty((len(uv), 3), np.float32)
        for k in np.unique(floor).astype(int):
            here = np.flatnonzero(floor == k)
            fine = _bilinear(self._levels[k], uv[here])
            coarse = _bilinear(self._levels[min(k + 1, len(self._levels) - 1)], uv[here])
            colors[here] = fine + (coarse - fine) * blend[here]
        return colors


def build_pyramid(texture: np.ndarray) -> list[np.ndarray]:
    """Half-sized means of a texture u8 (h, w, 3), down to 1 × 1: f32 (h, w, 3) each, the full size first."""
    levels = [texture.astype(np.float32)]
    while max(levels[-1].shape[:2]) > 1:
        fine = levels[-1]
        fine = np.pad(fine, ((0, fine.shape[0] % 2), (0, fine.shape[1] % 2), (0, 0)), mode="edge")
        rows = fine[0::2] + fine[1::2]
        levels.append((rows[:, 0::2] + rows[:, 1::2]) * np.float32(0.25))
    return levels


def _bilinear(image: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Colours f32 (K, 3) between the four nearest texel centres; v is up, the border repeats its last texel."""
    height, width = image.shape[:2]
    x = np.clip(uv[:, 0] * width - 0.5, 0, width - 1)
    y = np.clip((1 - uv[:, 1]) * height - 0.5, 0, height - 1)
    x0, y0 = x.astype(np.int64), y.astype(np.int64)
    x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
    fx, fy = (x - x0).astype(np.float32)[:, None], (y - y0).astype(np.float32)[:, None]
    flat = image.reshape(-1, 3)
    top = flat[y0 * width + x0] * (1 - fx) + flat[y0 * width + x1] * fx
    bottom = flat[y1 * width + x0] * (1 - fx) + flat[y1 * width + x1] * fx
    mean: np.ndarray = top * (1 - fy) + bottom * fy
    return mean
