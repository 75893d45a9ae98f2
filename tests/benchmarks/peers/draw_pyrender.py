"""Draws the scene with pyrender (OpenGL of Mesa on the CPU through EGL), its mesh and texture uploaded once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

vars(np).setdefault("infty", np.inf)  # pyrender 0.1.45 was written for NumPy 1

import pyrender  # type: ignore[import-not-found]  # noqa: E402
from benchmarks.peers.worker import CAMERA_MM, FIELD_OF_VIEW_MM, SIZE_PX, Scene, reduce_mean, run_worker  # noqa: E402

GL_NEAREST, GL_LINEAR, GL_LINEAR_MIPMAP_NEAREST, GL_LINEAR_MIPMAP_LINEAR = 9728, 9729, 9985, 9987
FILTERS = {
    "trilinear": (GL_LINEAR, GL_LINEAR_MIPMAP_LINEAR),
    "bilinear mipmap": (GL_LINEAR, GL_LINEAR_MIPMAP_NEAREST),
    "bilinear": (GL_LINEAR, GL_LINEAR),
    "nearest": (GL_NEAREST, GL_NEAREST),
}


def prepare(scene: Scene, settings: dict[str, Any]) -> Callable[[], np.ndarray]:
    """Settings: filter (a name above), supersampling (side, averaged afterwards).

    pyrender draws off-screen with four samples a pixel and reads colour and depth back; it has no option against either.
    """
    factor = settings["supersampling"]
    magnify, minify = FILTERS[settings["filter"]]
    sampler = pyrender.Sampler(magFilter=magnify, minFilter=minify)
    texture = pyrender.Texture(source=scene.texture, source_channels="RGB", sampler=sampler)
    primitive = pyrender.Primitive(
        positions=scene.vertices_mm,
        indices=scene.triangles.astype(np.uint32),
        texcoord_0=scene.uv,
        mode=4,
        material=pyrender.MetallicRoughnessMaterial(baseColorTexture=texture),
    )
    world = pyrender.Scene(bg_color=(0, 0, 0), ambient_light=(1, 1, 1))
    world.add(pyrender.Mesh([primitive]))
    half = FIELD_OF_VIEW_MM / 2
    camera = world.add(pyrender.OrthographicCamera(half, half, znear=1, zfar=2 * CAMERA_MM))
    renderer = pyrender.OffscreenRenderer(SIZE_PX * factor, SIZE_PX * factor)
    flags = pyrender.RenderFlags.FLAT  # unlit

    def draw(rotation: np.ndarray) -> np.ndarray:
        pose = np.eye(4)
        pose[:3, :3] = rotation.T
        pose[:3, 3] = CAMERA_MM * rotation[2]
        world.set_pose(camera, pose)
        return reduce_mean(renderer.render(world, flags=flags)[0], factor)

    return lambda: np.stack([draw(rotation) for rotation in scene.world_to_view])


if __name__ == "__main__":
    run_worker(prepare)
