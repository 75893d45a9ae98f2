"""Synthetic frames of BU-4DFE's true size: 34,944 vertices, 69,138 triangles, a picture of 1040 × 1392 pixels."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from preprocess.datasets.scan import SYNTHETIC_MARKER
from preprocess.geometry.mesh import Mesh
from preprocess.synth.action_units import draw_activation
from preprocess.synth.head import Person
from preprocess.synth.landmarks import landmark_vertices
from preprocess.synth.population import SCANNER_NOISE_MM, draw_person
from preprocess.synth.sheet import grid_shape
from preprocess.synth.wrl import encode_bnd, encode_bu4dfe_wrl

ROWS, COLUMNS = 208, 168
WIDTH_PX, HEIGHT_PX = 1040, 1392


def triangulate_grid(rows: int, columns: int) -> np.ndarray:
    """i32 (M, 3), two triangles a cell, counter-clockwise where columns run to the right and rows down."""
    index = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    return np.stack([np.stack([a, c, d], -1), np.stack([a, d, b], -1)], 2).reshape(-1, 3)


def enlarge(mesh: Mesh, seed: int) -> tuple[Mesh, np.ndarray]:
    """A synthetic head with as many vertices as a scan of BU-4DFE, noise and pores; and its uv by vertex, f32 (N, 2)."""
    rng = np.random.default_rng(seed)
    grid = mesh.vertices_mm.reshape(*grid_shape(), 3).astype(np.float64)
    vertices = ndimage.zoom(grid, (ROWS / grid.shape[0], COLUMNS / grid.shape[1], 1), order=1, grid_mode=False)
    vertices = vertices.reshape(-1, 3) + rng.normal(0, SCANNER_NOISE_MM, (ROWS * COLUMNS, 3))
    u, v = np.meshgrid(np.linspace(0, 1, COLUMNS), np.linspace(1, 0, ROWS))
    uv = np.stack([u, v], -1).reshape(-1, 2).astype(np.float32)
    triangles = triangulate_grid(ROWS, COLUMNS)
    assert mesh.texture is not None
    skin = np.asarray(Image.fromarray(mesh.texture).resize((WIDTH_PX, HEIGHT_PX), Image.Resampling.BICUBIC), np.float64)
    for size_px, strength in ((1.0, 6.0), (4.0, 5.0), (16.0, 5.0)):  # pores, freckles, blotches
        noise = ndimage.gaussian_filter(rng.normal(size=skin.shape[:2]), size_px)
        skin += strength * (noise / noise.std())[..., None]
    texture = np.clip(np.rint(skin), 0, 255).astype(np.uint8)
    return Mesh(vertices.astype(np.float32), triangles, uv[triangles], texture, landmarks_mm=mesh.landmarks_mm), uv


def make_mesh(seed: int = 0) -> tuple[Mesh, np.ndarray]:
    """A smile in the face frame, and its uv by vertex."""
    identity, rng = draw_person(seed, 0, female=True)
    return enlarge(Person(identity).scan(draw_activation("happiness", 0.9, rng)), seed)


def write_frames(root: Path, num_frames: int, *, num_different: int = 4) -> None:
    """One sequence in BU-4DFE's layout; a few different frames in turn, for writing them costs more than rendering."""
    folder, landmarks = root / "F001" / "Happy", root / "BU4DFE_BND_V1.1" / "F001" / "Happy"
    folder.mkdir(parents=True)
    landmarks.mkdir(parents=True)
    (root / SYNTHETIC_MARKER).write_text("Nobody real is shown.\n")
    identity, rng = draw_person(0, 0, female=True)
    person, apex = Person(identity), draw_activation("happiness", 0.9, rng)
    for k in range(min(num_different, num_frames)):
        mesh, uv = enlarge(person.scan(apex.scaled(k / num_different)), k)
        assert mesh.texture is not None and mesh.landmarks_mm is not None
        picture = io.BytesIO()
        Image.fromarray(mesh.texture).save(picture, "JPEG", quality=92)
        bnd = encode_bnd(landmark_vertices(), mesh.landmarks_mm, separator=" ")
        for frame in range(k, num_frames, num_different):
            wrl = encode_bu4dfe_wrl(mesh, uv, f"{frame:03d}.jpg")
            (folder / f"{frame:03d}.wrl").write_bytes(wrl)
            (folder / f"{frame:03d}.jpg").write_bytes(picture.getvalue())
            (landmarks / f"{frame:03d}.bnd").write_bytes(bnd)
