"""Draws the scene with Open3D's OffscreenRenderer (Filament, Vulkan of Mesa on the CPU), its mesh and texture uploaded once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import open3d as o3d
from benchmarks.peers.worker import (
    CAMERA_MM,
    DEPTH_RANGE_MM,
    FIELD_OF_VIEW_MM,
    SIZE_PX,
    Scene,
    reduce_mean,
    run_worker,
)

# The unlit material draws an albedo texture at half its linear value; a base colour of this much, which it takes as sRGB,
# sets it right (fitted to the reference).
BASE_COLOR = 1.362


def prepare(scene: Scene, settings: dict[str, Any]) -> Callable[[], np.ndarray]:
    """Settings: supersampling (side, averaged afterwards).

    Post-processing is off, for it costs time and quality (FXAA, dithering, tone mapping; multisampling does nothing without);
    what comes is linear light, turned to sRGB here through a table.
    """
    rendering = o3d.visualization.rendering
    factor = settings["supersampling"]
    vertices, triangles = o3d.core.Tensor.from_numpy(scene.vertices_mm), o3d.core.Tensor.from_numpy(scene.triangles)
    mesh = o3d.t.geometry.TriangleMesh(vertices, triangles)
    mesh.vertex.texture_uvs = o3d.core.Tensor.from_numpy(
        scene.uv
    )  # by vertex, or Filament gets three vertices a triangle
    material = rendering.MaterialRecord()
    material.shader = "defaultUnlit"
    material.albedo_img = o3d.geometry.Image(scene.texture)  # type: ignore[call-overload]
    material.base_color = [BASE_COLOR] * 3 + [1.0]
    renderer = rendering.OffscreenRenderer(SIZE_PX * factor, SIZE_PX * factor)
    renderer.scene.set_background([0, 0, 0, 1])
    renderer.scene.show_skybox(False)
    renderer.scene.scene.enable_sun_light(False)
    renderer.scene.scene.enable_indirect_light(False)
    renderer.scene.add_geometry("face", mesh, material)
    view = renderer.scene.view
    view.set_post_processing(False)
    view.set_antialiasing(False)  # or it costs three times as much, to no effect
    view.set_sample_count(1)
    view.set_ambient_occlusion(False)
    view.set_shadowing(False, rendering.View.ShadowType.PCF)
    half = FIELD_OF_VIEW_MM / 2
    to_srgb = srgb_of_linear()

    def draw(rotation: np.ndarray) -> np.ndarray:
        camera = renderer.scene.camera
        camera.set_projection(rendering.Camera.Projection.Ortho, -half, half, -half, half, *DEPTH_RANGE_MM)
        camera.look_at(np.zeros(3, np.float32), (CAMERA_MM * rotation[2]).astype(np.float32), rotation[1])
        return reduce_mean(to_srgb[np.asarray(renderer.render_to_image())], factor)

    return lambda: np.stack([draw(rotation) for rotation in scene.world_to_view])


def srgb_of_linear() -> np.ndarray:
    """u8 (256,), the sRGB transfer curve (IEC 61966-2-1)."""
    linear = np.arange(256) / 255
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * curve).astype(np.uint8)


if __name__ == "__main__":
    run_worker(prepare)
