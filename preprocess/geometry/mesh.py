"""A scan as a triangle mesh: the form between a file's bytes and rendered pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from shared.errors import ScanError, escape_controls

# Beyond these, sums of squares overflow float32 and texels have no fraction left: garbled numbers, not a scanner's noise.
MAX_COORDINATE_MM = 1e9
MAX_TEXTURE_COORDINATE = 1e6


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh with the appearance of its surface, in mm.

    vertices_mm: f32 (N, 3).
    triangles: i32 (M, 3), indices into the vertices; usually counter-clockwise seen from outside, which nothing relies on.
    uv: f32 (M, 3, 2), one pair per triangle corner, u to the right and v **up**: (0, 0) is the lower left corner of the texture
        image (the convention of VRML and OBJ); six NaN for a triangle without texture.
    texture: u8 (h, w, 3), sRGB, row 0 on top.
    colors: u8 (N, 3), sRGB, one per vertex, for triangles without texture.
    landmarks_mm: f32 (L, 3), NaN if a landmark is not known.
    notes: what the scan's files ask for and this mesh does not show, a line each.

    Raises:
        ScanError: a shape, dtype, index or coordinate is not as above.
    """

    vertices_mm: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray | None = None
    texture: np.ndarray | None = None
    colors: np.ndarray | None = None
    landmarks_mm: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "notes", tuple(map(escape_controls, self.notes)))
        n, m = len(self.vertices_mm), len(self.triangles)
        _check("vertices", self.vertices_mm, np.float32, (n, 3))
        _check("triangles", self.triangles, np.int32, (m, 3))
        if n < 3 or m < 1:
            raise ScanError(f"no surface: {n} vertices and {m} triangles")
        farthest = _largest(self.vertices_mm)
        if not np.isfinite(farthest):
            raise ScanError("a vertex is not finite (NaN or infinite)")
        if farthest > MAX_COORDINATE_MM:
            raise ScanError(f"a vertex lies beyond {MAX_COORDINATE_MM:g} mm; the file is garbled, copy it again")
        if self.triangles.min() < 0 or self.triangles.max() >= n:
            raise ScanError(f"a triangle names vertex {self.triangles.max()}, there are {n}")
        if self.uv is not None:
            _check("texture coordinates", self.uv, np.float32, (m, 3, 2))
            farthest = _largest(self.uv)
            if not np.isfinite(farthest):
                textured = self.uv[~np.isnan(self.uv).all(axis=(1, 2))]
                farthest = _largest(textured)
                if not np.isfinite(farthest):
                    raise ScanError("a texture coordinate is not finite (NaN or infinite)")
            if farthest > MAX_TEXTURE_COORDINATE:
                raise ScanError(
                    f"a texture coordinate beyond {MAX_TEXTURE_COORDINATE:g}; the file is garbled, copy it again"
                )
        if self.texture is not None:
            if self.uv is None:
                raise ScanError("a texture needs texture coordinates")
            _check("texture", self.texture, np.uint8, (*self.texture.shape[:2], 3))
            if not self.texture.size:
                raise ScanError("a texture without pixels")
        if self.colors is not None:
            _check("vertex colours", self.colors, np.uint8, (n, 3))
        if self.landmarks_mm is not None:
            _check("landmarks", self.landmarks_mm, np.float32, (len(self.landmarks_mm), 3))
            if np.isinf(self.landmarks_mm).any():
                raise ScanError("a landmark is infinite; NaN marks one that is not known")

    def move(self, move: Callable[[np.ndarray], np.ndarray]) -> Mesh:
        """Return the mesh with its vertices and landmarks moved by a function of points f32 (n, 3)."""
        landmarks = None if self.landmarks_mm is None else move(self.landmarks_mm)
        return replace(self, vertices_mm=move(self.vertices_mm), landmarks_mm=landmarks)

    @property
    def has_appearance(self) -> bool:
        """Whether a `texture` image can be rendered."""
        return self.texture is not None or self.colors is not None


def _largest(array: np.ndarray) -> float:
    """Return the largest absolute value, NaN if any is NaN. Quicker than `np.isfinite` of each."""
    return max(float(array.max(initial=0)), -float(array.min(initial=0)))


def _check(name: str, array: np.ndarray, dtype: type, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise ScanError(f"{name}: expected {np.dtype(dtype)} {shape}, found {array.dtype} {array.shape}")
