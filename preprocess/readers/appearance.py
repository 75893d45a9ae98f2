"""The appearance of a surface: colours by the range of their numbers, and the image that its file names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from preprocess.geometry.mesh import Mesh
from preprocess.readers.image import read_image
from preprocess.readers.references import find_beside, show_name
from shared.errors import ScanError

_MAX_NOTES = 8
_SAME_PROPORTIONS = 0.02
_OVERSHOOT = 1.1  # a fraction may be rounded, or brightened, to a little more than 1


def read_colors(rgb: np.ndarray, *, largest: int | None = None) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Convert colours (N, 3) of 0…1 or 0…255, whichever their largest number shows, to u8 (N, 3); negative ones are 0.

    Args:
        largest: the number that means full light, if the file's type says so (65535 of 16 bits).
    Returns:
        The colours, and no notes; or None and a note, if the numbers show no range.
    """
    top = float(rgb.max(initial=0))
    if not np.isfinite(rgb).all():
        return None, ("its vertex colours are not all finite numbers, and not drawn",)
    if top > (largest or 255):
        return None, (f"its vertex colours reach {top:g}, expected 0…1 or 0…255, and are not drawn",)
    if largest is None:
        largest = 1 if top <= 1 or (top <= _OVERSHOOT and (rgb != np.rint(rgb)).any()) else 255
    return np.rint(np.clip(rgb * (255 / largest), 0, 255)).astype(np.uint8), ()


def describe_alpha(alpha: np.ndarray) -> tuple[str, ...]:
    """Return a note if some of a surface is more transparent than the rest; one value all over means nothing."""
    return ("it is transparent in parts (alpha), and drawn opaque",) if alpha.min() < alpha.max() else ()


def find_image(path: Path, names: Sequence[bytes]) -> tuple[Path | None, tuple[str, ...]]:
    """Return the first existing image of those that a file names; or None, with a note if it names any.

    Raises:
        ScanError: a name is a link out of the folder.
    """
    for name in names:
        if (file := find_beside(path, name)) is not None:
            return file, ()
    if not names:
        return None, ()
    where = "is an address, and never fetched" if b"://" in names[0] else "is not in its folder or below"
    return None, (f"names the texture {show_name(names[0])}, which {where}",)


def add_texture(mesh: Mesh, path: Path, names: Sequence[bytes], texture: Path | None) -> Mesh:
    """Return the mesh with the given texture, else with the first existing one of `names`; a note if none can be drawn.

    Raises:
        ScanError: the image cannot be read, or is a link out of the folder.
    """
    notes: tuple[str, ...] = ()
    if texture is None:
        texture, notes = find_image(path, names)
    if texture is not None and mesh.uv is not None:
        return replace(mesh, texture=read_image(texture))
    if texture is not None:
        notes = (f"has no texture coordinates to place the texture {show_name(texture.name)} with",)
    return replace(mesh, notes=mesh.notes + notes) if notes else mesh


def add_view_texture(mesh: Mesh, path: Path, texture: Path | None, num_rows: int, num_columns: int) -> Mesh:
    """Return a grid's mesh with the given image of the same view; a note if the image has other proportions than the grid.

    Raises:
        ScanError: the image cannot be read.
    """
    mesh = add_texture(mesh, path, (), texture)
    if mesh.texture is None:
        return mesh
    height, width = mesh.texture.shape[:2]
    if abs(width * num_rows / (height * num_columns) - 1) <= _SAME_PROPORTIONS:
        return mesh
    note = (
        f"its texture has {width} × {height} pixels, its grid {num_columns} × {num_rows}: they do not show the same view, "
        "so the colours are shifted; give an image that is aligned to it"
    )
    return replace(mesh, notes=(*mesh.notes, note))


def limit_notes(notes: Iterable[str]) -> tuple[str, ...]:
    """Keep each note once, and of very many the first."""
    once = tuple(dict.fromkeys(notes))
    more = len(once) - _MAX_NOTES
    return once if more <= 0 else (*once[:_MAX_NOTES], f"and {more} notes more of this kind")


def check_finite(uv: np.ndarray) -> None:
    """Refuse texture coordinates of a file that are no numbers; in a Mesh, NaN marks a triangle without them.

    Raises:
        ScanError: one is NaN or infinite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        is_fine = np.isfinite(uv.sum())  # one number: quicker; huge ones may sum to infinity
    if not is_fine and not np.isfinite(uv).all():
        raise ScanError("a texture coordinate is not finite (NaN or infinite)")
