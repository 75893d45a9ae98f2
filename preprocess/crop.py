"""Cuts a mesh in the face frame down to the face."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from preprocess.mesh import Mesh
from preprocess.readers.polygons import weld
from shared.errors import ScanError

_SHARD_SHARE = (
    0.005  # a loose piece below this share of the surface is the scanner's noise; an eyeball has ten times as much
)


def crop_mesh(mesh: Mesh, radius_mm: float) -> Mesh:
    """Keeps the triangles that lie within a sphere about the origin, without loose shards.

    Raises:
        ScanError: nothing lies within the sphere.
    """
    inside = np.einsum("nc,nc->n", mesh.vertices_mm, mesh.vertices_mm, dtype=np.float64) <= radius_mm**2
    kept = np.flatnonzero(inside[mesh.triangles].all(axis=1))
    if not len(kept):
        raise ScanError(f"no surface within {radius_mm:g} mm of the tip of the nose; is it a face?")
    kept = kept[_is_substantial(mesh.vertices_mm, mesh.triangles[kept])]
    used, triangles = np.unique(mesh.triangles[kept], return_inverse=True)
    return replace(
        mesh,
        vertices_mm=mesh.vertices_mm[used],
        triangles=triangles.reshape(-1, 3).astype(np.int32),
        uv=None if mesh.uv is None else mesh.uv[kept],
        colors=None if mesh.colors is None else mesh.colors[used],
    )


def _is_substantial(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """bool (M,): False for triangles of pieces that are connected with nothing and small."""
    used, local = np.unique(triangles, return_inverse=True)
    kept, place = weld(vertices[used])  # files may part what belongs together
    local = place[local.reshape(-1, 3)]
    rows = np.concatenate([local[:, 0], local[:, 1]])
    columns = np.concatenate([local[:, 1], local[:, 2]])
    graph = coo_matrix((np.ones(len(rows), bool), (rows, columns)), (len(kept), len(kept)))
    piece = connected_components(graph, directed=False)[1][local[:, 0]]
    corners = vertices[triangles].astype(np.float64)
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    by_piece = np.bincount(piece, areas)
    substantial: np.ndarray = (by_piece >= _SHARD_SHARE * by_piece.sum())[piece]
    # A surface that is nothing but shards is kept whole: its triangles do not share vertices.
    return substantial if areas[substantial].sum() > 0.8 * areas.sum() else np.ones(len(triangles), bool)
