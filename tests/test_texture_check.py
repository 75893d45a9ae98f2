"""Textures that lie mirrored on a face, or are black where their file ends early: drawn, and named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from analytic_face import FACE
from PIL import Image

from preprocess.alignment.align import align
from preprocess.alignment.texture_check import describe_texture
from preprocess.geometry.mesh import Mesh
from preprocess.readers.image import read_image

PICTURE = np.random.default_rng(0).integers(1, 256, (200, 150, 3), np.uint8)
MIRRORED, BLACK = "lies mirrored on the face", "black from edge to edge"


def photographed(texture: np.ndarray = PICTURE) -> Mesh:
    """A face with the photograph that a camera in front of it takes."""
    uv = (FACE.vertices_mm[:, :2] - [-75, -100]) / [150, 200]
    return replace(FACE, uv=uv.astype(np.float32)[FACE.triangles], texture=texture, landmarks_mm=None)


def flip(uv: np.ndarray) -> np.ndarray:
    return np.stack([uv[..., 0], 1 - uv[..., 1]], axis=-1)


def find_notes(mesh: Mesh) -> str:
    return " ".join(describe_texture(mesh))


def test_a_mirrored_texture_is_named() -> None:
    mesh = photographed()
    assert mesh.uv is not None
    assert find_notes(mesh) == ""
    assert MIRRORED in find_notes(replace(mesh, uv=flip(mesh.uv)))  # v downwards
    across = np.array([-1, 1, 1], np.float32)
    assert MIRRORED in find_notes(replace(mesh, vertices_mm=mesh.vertices_mm * across))
    assert "repeated 1" in find_notes(replace(mesh, uv=mesh.uv * np.array([150, 200], np.float32)))  # in pixels
    turned = np.stack([mesh.uv[..., 1], 1 - mesh.uv[..., 0]], axis=-1)  # a chart may be turned
    inward = replace(mesh, triangles=mesh.triangles[:, ::-1].copy(), uv=mesh.uv[:, ::-1].copy())
    assert find_notes(replace(mesh, uv=turned)) == find_notes(inward) == ""


@pytest.mark.parametrize(("suffix", "lost"), [(".bmp", 0.3), (".tga", 0.3), (".ppm", 0.3), (".bmp", 0.0)])
def test_an_image_with_a_lost_end_is_named(tmp_path: Path, suffix: str, lost: float) -> None:
    """The zeros that an interrupted copy leaves are black pixels to formats without compression."""
    path = tmp_path / f"a{suffix}"
    Image.fromarray(PICTURE).save(path)
    data = path.read_bytes()
    kept = round(len(data) * (1 - lost))
    path.write_bytes(data[:kept].ljust(len(data), b"\0"))
    notes = " ".join(align(photographed(read_image(path)), landmark_groups={}).notes)
    assert notes == "" if lost == 0 else BLACK in notes
