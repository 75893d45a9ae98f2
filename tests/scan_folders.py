"""Small folders of face-like scans for tests of the builder: an analytic face, as OBJ files with a manifest."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from preprocess.alignment.anthropometry import CANONICAL_POINTS_MM, canonical_depth_mm
from shared.labels import BASIC_EXPRESSIONS

STEP_MM = 5.0


def face_grid(bump_mm: float, skin: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (N, 3) and triangles (M, 3) of an average face over a grid, with a bump on one cheek to tell scans apart.

    skin: seed of a rough surface that no other scan has.
    """
    xs, ys = np.meshgrid(np.arange(-70, 70.1, STEP_MM), np.arange(-75, 80.1, STEP_MM))
    z = canonical_depth_mm(xs, ys) + bump_mm * np.exp(-(((xs - 40) / 12) ** 2) - ((ys + 10) / 12) ** 2)
    if skin is not None:
        z += np.random.default_rng(skin).normal(0, 0.5, z.shape)
    rows, columns = xs.shape
    a = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    triangles = np.concatenate(
        [np.stack([a, a + 1, a + columns + 1], 1), np.stack([a, a + columns + 1, a + columns], 1)]
    )
    return np.stack([xs, ys, z], -1).reshape(-1, 3), triangles


def write_scan(folder: Path, name: str, bump_mm: float, *, textured: bool = True, skin: int | None = None) -> None:
    """One OBJ with its material and texture, and its four landmarks beside it."""
    vertices, triangles = face_grid(bump_mm, skin)
    lines = [f"mtllib {name}.mtl", "usemtl skin"] if textured else []
    lines += [f"v {x:.4f} {y:.4f} {z:.4f}" for x, y, z in vertices]
    if textured:
        uv = (vertices[:, :2] - vertices[:, :2].min(0)) / np.ptp(vertices[:, :2], axis=0)
        lines += [f"vt {u:.5f} {v:.5f}" for u, v in uv]
        lines += [f"f {a}/{a} {b}/{b} {c}/{c}" for a, b, c in triangles + 1]
        (folder / f"{name}.mtl").write_text(f"newmtl skin\nmap_Kd {name}.png\n")
        shade = np.linspace(90, 220, 64).astype(np.uint8)
        image = np.stack(
            [np.tile(shade, (64, 1)), np.tile(shade[:, None], (1, 64)), np.full((64, 64), 120, np.uint8)], -1
        )
        image[0, 0] = list(name.encode()[-3:].rjust(3))  # no two scans have one texture
        Image.fromarray(image).save(folder / f"{name}.png")
    else:
        lines += [f"f {a} {b} {c}" for a, b, c in triangles + 1]
    (folder / f"{name}.obj").write_text("\n".join(lines) + "\n")
    points = "".join(f"{key},{x},{y},{z}\n" for key, (x, y, z) in CANONICAL_POINTS_MM.items())
    (folder / f"{name}.csv").write_text(points)


def manifest_row(index: int, num_subjects: int) -> str:
    label = BASIC_EXPRESSIONS[index // num_subjects % 6]
    return f"scan{index:03d}.obj,S{index % num_subjects:02d},{label},{index % 4 + 1:02d},scan{index:03d}.csv\n"


def write_scan_folder(
    root: Path, num_scans: int, *, num_subjects: int = 5, without_texture: tuple[int, ...] = ()
) -> None:
    """scan000.obj … and manifest.csv; every subject shows each of the six expressions in turn."""
    root.mkdir(parents=True, exist_ok=True)
    for index in range(num_scans):
        write_scan(root, f"scan{index:03d}", 0.2 * index, textured=index not in without_texture)
    write_manifest(root, range(num_scans), num_subjects=num_subjects)


def write_manifest(root: Path, indices: range | list[int], *, num_subjects: int = 5) -> None:
    rows = "".join(manifest_row(index, num_subjects) for index in indices)
    (root / "manifest.csv").write_text("path,subject,label,intensity,landmarks\n" + rows)


class BuiltOnce:
    """Copies of a cache, which is built at the first one: `built("zarr", folder)`.

    build: builds the cache of a store in a folder.
    """

    def __init__(self, build: Callable[[str, Path], object], root: Path) -> None:
        self._build, self._root = build, root

    def __call__(self, store: str, folder: Path) -> Path:
        if not (self._root / store).exists():
            self._build(store, self._root / store)
        return Path(shutil.copytree(self._root / store, folder))


def cache_bytes(cache: Path) -> dict[str, bytes]:
    """Every file of a cache that belongs to the contract: relative path → bytes."""
    return {
        path.relative_to(cache).as_posix(): path.read_bytes()
        for path in sorted(cache.rglob("*"))
        if path.is_file() and ".build" not in path.parts
    }
