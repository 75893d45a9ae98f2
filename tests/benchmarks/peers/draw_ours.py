"""Draws the scene with this project's rasteriser: with its half-sized textures kept, as the peers keep what they uploaded, or
with everything done anew each lap, as for a new scan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from benchmarks.peers.worker import FIELD_OF_VIEW_MM, SIZE_PX, Scene, run_worker

from preprocess.geometry.mesh import Mesh
from preprocess.geometry.normals import fan_normals, find_corners
from preprocess.geometry.rasterise import rasterise
from preprocess.rendering.cameras import Cameras
from preprocess.rendering.surface_pixels import draw_geometry
from preprocess.rendering.texture import SurfaceColours
from preprocess.rendering.views import render_views
from shared.schema import View


def prepare(scene: Scene, settings: dict[str, Any]) -> Callable[[], np.ndarray]:
    """Settings: supersampling (odd); geometry (bool): with normals and depth, as a build draws; else texture alone;
    kept (bool): the half-sized textures are made once."""
    mesh = Mesh(scene.vertices_mm, scene.triangles, scene.uv[scene.triangles], scene.texture)
    samples = settings["supersampling"]
    cameras = Cameras(tuple(View(float(k)) for k in range(len(scene.world_to_view))), scene.world_to_view)

    def draw_all() -> np.ndarray:
        texture = render_views(mesh, cameras, size_px=SIZE_PX, supersampling=samples).texture
        assert texture is not None
        return texture

    def read_colours() -> SurfaceColours:
        incident = find_corners(mesh.triangles, len(mesh.vertices_mm))
        return SurfaceColours(mesh, incident, fan_normals(mesh.vertices_mm, mesh.triangles, *incident)[2])

    kept = read_colours() if settings["kept"] else None
    assert mesh.uv is not None
    no_normals = (np.zeros((len(mesh.vertices_mm), 3), np.float32), mesh.triangles)
    place = np.empty((SIZE_PX, SIZE_PX, 2), np.float32)
    ignored = (np.empty((SIZE_PX, SIZE_PX, 3), np.uint8), np.empty((SIZE_PX, SIZE_PX), np.uint16))

    def draw_textures() -> np.ndarray:
        colours = kept or read_colours()
        images = np.zeros((len(scene.world_to_view), SIZE_PX, SIZE_PX, 3), np.uint8)
        visible = None
        for image, rotation in zip(images, scene.world_to_view, strict=True):
            visible = rasterise(
                *(mesh.vertices_mm, mesh.triangles),
                left=-FIELD_OF_VIEW_MM / 2,
                top=FIELD_OF_VIEW_MM / 2,
                cell=FIELD_OF_VIEW_MM / SIZE_PX,
                shape=(SIZE_PX, SIZE_PX),
                samples=samples,
                rotation=rotation,
                reuse=visible,
            )
            draw_geometry(
                *(visible.triangle, visible.column, visible.row, mesh.triangles, visible.height, *no_normals),
                *(rotation, mesh.uv, samples, *ignored, place),
            )
            colours.draw(visible, place, image)
        return images

    return draw_all if settings["geometry"] else draw_textures


if __name__ == "__main__":
    run_worker(prepare)
