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
    triangles = mesh.triangles.take(kept, axis=0)  # `take` needs a third of the time of an index in brackets
    piece = find_pieces(triangles, len(mesh.vertices_mm))
    if (piece != piece[0]).any():
        is_large = _find_large_pieces(mesh.vertices_mm, triangles, piece, num_inside[kept] / 3)
        kept, triangles = kept[is_large], triangles[is_large]
    used, triangles = renumber(triangles, len(mesh.vertices_mm))
    return replace(
        mesh,
        vertices_mm=mesh.vertices_mm.take(used, axis=0),
        triangles=triangles,
        uv=None if mesh.uv is None else mesh.uv.take(kept, axis=0),
        colors=None if mesh.colors is None else mesh.colors.take(used, axis=0),
    )


def _find_large_pieces(vertices: np.ndarray, triangles: np.ndarray, piece: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Return which triangles are no small piece that is connected with nothing, bool (M,).

    Args:
        piece: of each triangle, by `find_pieces`. share: about how much of it is within the sphere, 0 to 1.
    """
    areas = share * triangle_areas(vertices, triangles)
    least = _MIN_PIECE * areas.sum()

    def is_large(piece: np.ndarray) -> np.ndarray:
        large: np.ndarray = (np.bincount(piece, areas) >= least)[piece]
        return large

    substantial = is_large(piece)
    if not substantial.all():
        unique, index = weld(vertices)  # files may split vertices that belong together
        substantial = is_large(find_pieces(index[triangles], len(unique)))
    # A surface that is nothing but shards is kept whole: its triangles do not share vertices.
    return substantial if areas[substantial].sum() > 0.8 * areas.sum() else np.ones(len(triangles), bool)
