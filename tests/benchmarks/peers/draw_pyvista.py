"""Draws the scene with PyVista (VTK, OpenGL of Mesa on the CPU), its mesh and texture uploaded once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyvista  # type: ignore[import-not-found]
from benchmarks.peers.worker import (
    CAMERA_MM,
    DEPTH_RANGE_MM,
    FIELD_OF_VIEW_MM,
    SIZE_PX,
    Scene,
    reduce_mean,
    run_worker,
)
from vtkmodules.util.numpy_support import vtk_to_numpy  # type: ignore[import-not-found]
from vtkmodules.vtkCommonCore import vtkUnsignedCharArray  # type: ignore[import-not-found]


def prepare(scene: Scene, settings: dict[str, Any]) -> Callable[[], np.ndarray]:
    """Settings: mipmaps (bool), interpolate (bool), anisotropy (1 = off), multisampling (samples, 0 = off), supersampling
    (side, averaged afterwards), cull (bool)."""
    factor = settings["supersampling"]
    side = SIZE_PX * factor
    plotter = pyvista.Plotter(off_screen=True, window_size=(side, side), lighting="none")
    plotter.set_background("black")
    faces = np.column_stack([np.full(len(scene.triangles), 3), scene.triangles]).ravel()
    mesh = pyvista.PolyData(scene.vertices_mm, faces)
    mesh.active_texture_coordinates = scene.uv
    texture = pyvista.numpy_to_texture(scene.texture)
    texture.SetMipmap(settings["mipmaps"])
    texture.SetInterpolate(settings["interpolate"])
    texture.SetMaximumAnisotropicFiltering(settings["anisotropy"])
    plotter.add_mesh(mesh, texture=texture, lighting=False, culling="back" if settings["cull"] else None)
    plotter.enable_parallel_projection()
    window, camera = plotter.render_window, plotter.camera
    window.SetMultiSamples(settings["multisampling"])
    plotter.render()
    pixels = vtkUnsignedCharArray()

    def draw(rotation: np.ndarray) -> np.ndarray:
        # VTK's own window, camera and pixel read: PyVista's screenshot draws a second time and its camera setters reset.
        camera.SetPosition(*(CAMERA_MM * rotation[2]))
        camera.SetFocalPoint(0, 0, 0)
        camera.SetViewUp(*rotation[1])
        camera.SetParallelScale(FIELD_OF_VIEW_MM / 2)
        camera.SetClippingRange(*DEPTH_RANGE_MM)
        window.Render()
        window.GetPixelData(0, 0, side - 1, side - 1, 0, pixels, 0)
        return reduce_mean(vtk_to_numpy(pixels).reshape(side, side, 3)[::-1], factor).copy()

    return lambda: np.stack([draw(rotation) for rotation in scene.world_to_view])


if __name__ == "__main__":
    run_worker(prepare)
