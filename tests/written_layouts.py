"""What tests of synthetic data sets read from the files that were written, without the product."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from command_lines import preprocess
from PIL import Image

from shared.cache import open_cache


def photo_at(photo: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pixel (a·W, b·H) from the upper left."""
    height, width = photo.shape[:2]
    return photo[np.minimum((b * height).astype(int), height - 1), np.minimum((a * width).astype(int), width - 1)]


def parse_obj(path: Path) -> tuple[np.ndarray, np.ndarray, str, bytes]:
    """Vertices, texture coordinates, the material file, the first face's line."""
    rows = path.read_bytes().splitlines()
    vertices = np.array([row.split()[1:] for row in rows if row.startswith(b"v ")], float)
    uv = np.array([row.split()[1:] for row in rows if row.startswith(b"vt ")], float)
    library = next(row.split()[1].decode() for row in rows if row.startswith(b"mtllib"))
    return vertices, uv, library, next(row for row in rows if row.startswith(b"f "))


def digests(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def copy_part(root: Path, to: Path, patterns: list[str]) -> Path:
    """A partial copy of a data set, as users have them."""
    for pattern in patterns:
        for path in root.glob(pattern):
            if path.is_file():
                (to / path.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, to / path.relative_to(root))
    return to


def obj_colours(source: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points of a scan (K, 3) and their colours u8 (K, 3), read straight from its files."""
    vertices, uv, _, _ = parse_obj(source)
    texture = np.asarray(Image.open(source.with_suffix(".jpg")))
    return vertices, photo_at(texture, uv[:, 0], 1 - uv[:, 1])


def check_build(
    name: str, root: Path, folder: Path, colours_of: Callable[[Path], tuple[np.ndarray, np.ndarray]], num_rows: int
) -> None:
    """Builds a cache and holds its pictures against the colours of the scans' own points: upright, unmirrored, textured.

    Args:
        folder: the cache is made in it.
        colours_of: points (K, 3) and colours u8 (K, 3) of a scan, read from its files.
    """
    assert preprocess("build", name, "--root", root, "--cache", folder / "c", "--size", 112, "--workers", 1) == 0
    cache = open_cache(folder / "c")
    rows = list(range(len(cache.samples)))
    assert len(rows) == num_rows
    assert all(sample.valid for sample in cache.samples)
    poses, pictures = cache.arrays.read("scan_to_face", rows), cache.arrays.read("texture", rows)[:, 0]
    mm_per_px = 0.9 * 224 / 112
    for sample, pose, picture in zip(cache.samples, poses, pictures, strict=True):
        points, colours = colours_of(root / sample.source)
        face = points @ pose[:3, :3].T.astype(float) + pose[:3, 3]
        near = (np.abs(face[:, 0]) < 40) & (np.abs(face[:, 1]) < 50) & (face[:, 2] > -60)
        assert near.sum() > 1000

        def difference(
            sign_x: float,
            sign_y: float,
            face: np.ndarray = face[near],
            picture: np.ndarray = picture,
            colours: np.ndarray = colours[near],
        ) -> float:
            column = np.floor(56 + sign_x * face[:, 0] / mm_per_px).astype(int)
            row = np.floor(56 - sign_y * face[:, 1] / mm_per_px).astype(int)
            return float(np.abs(picture[row, column].astype(float) - colours).mean())

        aligned = difference(1, 1)
        assert aligned < 12, (sample.sample_id, aligned)
        assert aligned < 0.75 * difference(-1, 1) and aligned < 0.75 * difference(1, -1), sample.sample_id


# Landmarks within their groups, the subject's left first.
LEFT_EYE, RIGHT_EYE, LEFT_BROW, RIGHT_BROW = range(8), range(8, 16), range(16, 26), range(26, 36)
