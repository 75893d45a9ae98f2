"""Draws a mesh from every camera into images: no GL, no display, the same bytes each time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from preprocess.geometry.mesh import Mesh
from preprocess.geometry.normals import fan_normals, find_corners
from preprocess.geometry.rasterise import rasterise
from preprocess.rendering.cameras import Cameras
from preprocess.rendering.surface_pixels import draw_geometry
from preprocess.rendering.texture import SurfaceColours
from shared.errors import ScanError
from shared.schema import FIELD_OF_VIEW_MM

# A face fills about half of the frontal image; a view with less surface than this shows none.
MIN_COVERAGE = 0.03


@dataclass(frozen=True)
class Views:
    """Images of one mesh; the nearest surface wins. Where the centre of a pixel meets no surface, all are 0.

    texture u8 (V, H, W, 3), sRGB, or None where the mesh has none or it was not wanted; normal u8 (V, H, W, 3) =
    round(127 n) + 128 in the camera frame, n_z ≥ 0; depth u16 (V, H, W) = round(z_mm / 0.02) + 32768, larger is nearer.
    """

    texture: np.ndarray | None
    normal: np.ndarray
    depth: np.ndarray

    @property
    def images(self) -> dict[str, np.ndarray]:
        """Return modality → images, for those that there are."""
        return {name: array for name, array in vars(self).items() if array is not None}


def render_views(
    mesh: Mesh,
    cameras: Cameras,
    *,
    size_px: int,
    radius_mm: float = np.inf,
    supersampling: int = 3,
    with_texture: bool = True,
) -> Views:
    """Render one aligned mesh from every camera; the nearest surface wins.

    Geometry (normal, depth) is what the ray through a pixel's centre meets. Texture is the mean over the pixel: where the
    neighbours continue it, filtered in the texture; elsewhere of supersampling² rays. What is smaller than a pixel and meets no
    centre is seen only at such edges.

    Args:
        mesh: in the face frame; vertices_mm (N, 3).
        size_px: side of the square images; they show 201.6 mm whatever their size.
        radius_mm: surfaces outside a sphere about the origin are not drawn; each ray ends at the sphere.
        supersampling: rays along each side of a pixel at an edge, odd, so that one of them is the centre.
        with_texture: False: the surface's colour is not wanted; it takes most of the time.
    Raises:
        ScanError: a view shows almost no surface; names the view.
    """
    if supersampling % 2 != 1:
        raise ValueError(f"supersampling must be odd, found {supersampling}")
    incident = find_corners(mesh.triangles, len(mesh.vertices_mm))
    normals, normal_of, closed = fan_normals(mesh.vertices_mm, mesh.triangles, *incident)
    num_views = len(cameras.views)
    normal = np.zeros((num_views, size_px, size_px, 3), np.uint8)
    depth = np.zeros((num_views, size_px, size_px), np.uint16)
    with_texture = with_texture and mesh.has_appearance
    texture = np.zeros((num_views, size_px, size_px, 3), np.uint8) if with_texture else None
    colours = SurfaceColours(mesh, incident, closed) if with_texture else None
    samples = 1 if texture is None else supersampling
    # Where the middle of each pixel lies in the texture.
    uv = np.empty((0, 3, 2), np.float32) if texture is None or mesh.texture is None else mesh.uv
    assert uv is not None
    place = np.empty((size_px, size_px, 2) if len(uv) else (0, 0, 2), np.float32)
    fragments = None
    for k, (view, rotation) in enumerate(zip(cameras.views, cameras.world_to_view, strict=True)):
        fragments = rasterise(
            *(mesh.vertices_mm, mesh.triangles),
            left=-FIELD_OF_VIEW_MM / 2,
            top=FIELD_OF_VIEW_MM / 2,
            cell=FIELD_OF_VIEW_MM / size_px,
            shape=(size_px, size_px),
            samples=samples,
            rotation=rotation,
            radius=radius_mm,
            reuse=fragments,
        )
        draw_geometry(
            *(fragments.triangle, fragments.column, fragments.row, mesh.triangles),
            *(fragments.height, normals, normal_of, rotation, uv, samples, normal[k], depth[k], place),
        )
        if (coverage := np.count_nonzero(depth[k]) / depth[k].size) < MIN_COVERAGE:
            raise ScanError(
                f"view {view}: only {coverage:.1%} of the image shows a surface (at least {MIN_COVERAGE:.0%} needed); "
                "is the scan upright, in mm, and its face complete?"
            )
        if texture is not None and colours is not None:
            colours.draw(fragments, place, texture[k])
    return Views(texture, normal, depth)
