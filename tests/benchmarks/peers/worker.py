"""What every renderer's process does: read the scene, draw all views once for the quality, then draw laps when told to.

PYTHONPATH=tests python -m benchmarks.peers.draw_NAME SCENE.npz IMAGES.npy SETTINGS_JSON
The process writes its images, u8 (V, 224, 224, 3), says `ready` on stdout, and answers each line "SECONDS" on stdin with one
line of JSON: views drawn, seconds on the wall, seconds of CPU of all its threads. Peers live in an environment of their own,
so this file needs NumPy alone.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SIZE_PX = 224
FIELD_OF_VIEW_MM = 201.6
CAMERA_MM = 500.0  # from the nose tip; the near and far planes stand 200 mm before and behind it
DEPTH_RANGE_MM = (300.0, 700.0)


@dataclass(frozen=True)
class Scene:
    """vertices_mm f32 (N, 3); triangles i32 (M, 3); uv f32 (N, 2), v up; texture u8 (h, w, 3), sRGB, row 0 on top;
    world_to_view f64 (V, 3, 3), rows right, up, toward the viewer. Images are orthographic, FIELD_OF_VIEW_MM wide and high,
    unlit, on black."""

    vertices_mm: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray
    texture: np.ndarray
    world_to_view: np.ndarray


def run_worker(prepare: Callable[[Scene, dict[str, Any]], Callable[[], np.ndarray]]) -> None:
    """Serves rounds until stdin ends.

    Args:
        prepare: from the scene and the settings to the function timed, which draws one lap: every view once, pixels read
            back, as u8 (V, SIZE_PX, SIZE_PX, 3).
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    scene_path, images_path, settings = sys.argv[1:]
    with np.load(scene_path) as arrays:
        scene = Scene(**{name: arrays[name] for name in arrays.files})
    draw_lap = prepare(scene, json.loads(settings))
    draw_lap()
    images = draw_lap()
    assert images.shape == (len(scene.world_to_view), SIZE_PX, SIZE_PX, 3) and images.dtype == np.uint8
    np.save(Path(images_path), images)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(draw_for(draw_lap, float(line))), file=answers, flush=True)


def draw_for(draw_lap: Callable[[], np.ndarray], seconds: float) -> dict[str, float]:
    views = 0
    started, started_cpu = time.perf_counter(), time.process_time()
    while (elapsed := time.perf_counter() - started) < seconds:
        views += len(draw_lap())
    return {"views": views, "seconds": elapsed, "cpu_seconds": time.process_time() - started_cpu}


def reduce_mean(image: np.ndarray, factor: int) -> np.ndarray:
    """u8 (H, W, 3) to u8 (H / factor, W / factor, 3), each pixel the mean of factor² of them."""
    if factor == 1:
        return image
    height, width = image.shape[0] // factor, image.shape[1] // factor
    total = np.zeros((height, width, 3), np.uint16)
    for row in range(factor):
        for column in range(factor):
            total += image[row::factor, column::factor]
    return ((total + factor * factor // 2) // (factor * factor)).astype(np.uint8)
