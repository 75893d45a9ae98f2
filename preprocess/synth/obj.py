"""Writes the OBJ, MTL and JPEG files of one frame."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from preprocess.geometry.mesh import Mesh


def write_textured_obj(folder: Path, stem: str, mesh: Mesh, uv: np.ndarray, *, slashes: bool) -> None:
    """Write `stem.obj`, `stem.mtl` and `stem.jpg` without waiting for the disk.

    Args:
        uv: f32 (N, 2), one pair per vertex, v up. slashes: faces as `f a/a b/b c/c`, else `f a b c`.
    """
    assert mesh.texture is not None
    (folder / f"{stem}.obj").write_bytes(encode_obj(mesh, uv, f"{stem}.mtl", slashes=slashes))
    mtl = f"newmtl face\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {stem}.jpg\n"
    (folder / f"{stem}.mtl").write_bytes(mtl.encode())
    (folder / f"{stem}.jpg").write_bytes(encode_jpeg(mesh.texture))


def encode_obj(mesh: Mesh, uv: np.ndarray, mtl_name: str, *, slashes: bool) -> bytes:
    """Encode OBJ text, 1-based, with one texture coordinate per vertex, in the vertices' order."""
    vertices = ("v %.3f %.3f %.3f\n" * len(mesh.vertices_mm)) % tuple(mesh.vertices_mm.ravel().tolist())
    head = f"# Synthetic face, not a real person\nmtllib {mtl_name}\n"
    return f"{head}{vertices}{_uv_rows(uv.tobytes())}usemtl face\n{_faces(mesh.triangles.tobytes(), slashes)}".encode()


def encode_jpeg(texture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(texture).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


# Every scan has the same triangles and texture coordinates: their text is made once.
@lru_cache(maxsize=2)
def _uv_rows(values: bytes) -> str:
    uv = np.frombuffer(values, np.float32)
    return ("vt %.5f %.5f\n" * (len(uv) // 2)) % tuple(uv.tolist())


@lru_cache(maxsize=4)
def _faces(triangles: bytes, slashes: bool) -> str:
    corners = np.frombuffer(triangles, np.int32) + 1
    if slashes:
        return ("f %d/%d %d/%d %d/%d\n" * (len(corners) // 3)) % tuple(np.repeat(corners, 2).tolist())
    return ("f %d %d %d\n" * (len(corners) // 3)) % tuple(corners.tolist())
