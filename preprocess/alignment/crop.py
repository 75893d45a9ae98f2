"""Crop a mesh in the face frame to the face."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from preprocess.geometry.mesh import Mesh
from preprocess.geometry.triangles import count_inside, find_pieces, renumber, triangle_areas, weld
from shared.errors import ScanError

# A loose piece with less than this fraction of the surface is scanner noise; an eyeball has ten times as much.
_MIN_PIECE = 0.005


def crop_mesh(mesh: Mesh, radius_mm: float) -> Mesh:
    """Keep the triangles that reach into a sphere about the origin; drop small loose pieces.

    Triangles that cross the sphere are kept whole: the renderer cuts them, pixel by pixel.

    Raises:
        ScanError: nothing lies within the sphere.
    """
    num_inside = count_inside(mesh.vertices_mm, mesh.triangles, radius_mm)
    kept = np.flatnonzero(num_inside >= 0)
    if not len(kept):
        raise ScanError(f"no surface within {radius_mm:g} mm of the tip of the nose; is it a face?")
    kept = kept[_is_substantial(mesh.vertices_mm, mesh.triangles[kept], num_inside[kept] / 3)]
    used, triangles = renumber(mesh.triangles[kept], len(mesh.vertices_mm))
    return replace(
        mesh,
        vertices_mm=mesh.vertices_mm[used],
        triangles=triangles,
        uv=None if mesh.uv is None else mesh.uv[kept],
        colors=None if mesh.colors is None else mesh.colors[used],
    )


def _is_substantial(vertices: np.ndarray, triangles: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Return bool (M,): False for triangles of small pieces that are connected with nothing.

    Args:
        share: of each triangle, about how much of it is within the sphere, 0 to 1.
    """
    areas = share * triangle_areas(vertices, triangles)
    least = _MIN_PIECE * areas.sum()

    def by_piece(corners: np.ndarray, num_vertices: int) -> np.ndarray:
        """Return the area of each triangle's connected piece."""
        piece = find_pieces(corners, num_vertices)
        area: np.ndarray = np.bincount(piece, areas)[piece]
        return area

    substantial: np.ndarray = by_piece(triangles, len(vertices)) >= least
    if substantial.all():
        return substantial
    kept, index = weld(vertices)  # files may split vertices that belong together
    substantial = by_piece(index[triangles], len(kept)) >= least
    # A surface that is nothing but shards is kept whole: its triangles do not share vertices.
    return substantial if areas[substantial].sum() > 0.8 * areas.sum() else np.ones(len(triangles), bool)
