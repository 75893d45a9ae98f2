"""Which image and which colours the materials of an OBJ file give its triangles."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from preprocess.geometry.mesh import Mesh
from preprocess.readers.appearance import add_texture, find_image, limit_notes
from preprocess.readers.image import read_image
from preprocess.readers.mtl import Material, describe_other_maps, read_materials
from preprocess.readers.references import find_beside, show_name
from shared.errors import ScanError

_MTL_NAME = re.compile(rb"\S.*?\.mtl(?!\S)", re.IGNORECASE)
_NO_MATERIAL = ("", "None", "(null)", "default")  # what programs write where there is none
_MAX_FILES = 100
_GREY = 128  # of a part without Kd beside parts with one


def paint(
    mesh: Mesh, path: Path, material_lines: Sequence[bytes], names: Sequence[str], part: np.ndarray | None
) -> Mesh:
    """The mesh with its materials' texture; triangles that have none of it get NaN for uv and their material's colour (Kd).

    Args:
        material_lines: what stands behind each `mtllib`.
        names: the material of each part of the mesh; empty where the file names none.
        part: int (M,), each triangle's, an index into names; None: they are all of one.
    Raises:
        ScanError: the parts are painted with several images, or a file cannot be read.
    """
    files, notes = _find_material_files(path, material_lines)
    materials = _read_all(files)
    chosen, more = _choose(names, materials)
    if files or (mesh.uv is not None and not material_lines):
        notes += more
    if not any(chosen):  # the only image there is
        chosen, part = list(materials.values()), None
    found = [find_image(path, material.names) if material else (None, ()) for material in chosen]
    images = list(dict.fromkeys(image for image, _ in found if image is not None))
    if len(images) > 1:
        shown = ", ".join(image.name for image in images[:5])
        raise ScanError(
            f"{path}: painted with {len(images)} textures ({shown}), expected one; bake them into one image"
        )
    for material, (_, missing) in zip(chosen, found, strict=True):
        if material is not None:
            notes += material.notes + missing + describe_other_maps(material)
            if material.opacity < 1 and len(chosen) > 1:  # of the only one, it means nothing
                notes += (f"a part of it is transparent (d {material.opacity:g}), and drawn opaque",)
    if notes:
        mesh = replace(mesh, notes=limit_notes(mesh.notes + notes))
    if not images or mesh.uv is None:
        return add_texture(mesh, path, (), images[0] if images else None)
    if part is None:  # parts of which only one has the image are of no known place
        with_image = next(k for k, (image, _) in enumerate(found) if image is not None)
        chosen, found, part = [chosen[with_image]], [found[with_image]], np.zeros(len(mesh.triangles), np.int64)
    texture = read_image(images[0])
    uv, colors, more = _lay_out(mesh, part, chosen, np.array([image is not None for image, _ in found]))
    try:
        return replace(mesh, uv=uv, texture=texture, colors=colors, notes=mesh.notes + more)
    except ScanError as error:  # a scale or an offset out of all bounds
        raise ScanError(f"{path}: {error}") from error


def find_material_sources(path: Path, material_lines: Sequence[bytes], names: Iterable[str]) -> list[Path]:
    """The material files, and the images of the materials named, where they are there; for hashing.

    Raises:
        ScanError: one of the files cannot be read, or a name is a link out of the folder.
    """
    files, _ = _find_material_files(path, material_lines)
    materials = _read_all(files)
    chosen, _ = _choose(list(dict.fromkeys(names)), materials)
    used = chosen if any(chosen) else materials.values()
    images = [find_image(path, material.names)[0] for material in used if material is not None]
    return [*files, *dict.fromkeys(image for image in images if image is not None)]


def _find_material_files(path: Path, lines: Sequence[bytes]) -> tuple[list[Path], tuple[str, ...]]:
    """The material files behind `mtllib`, one or several on a line, and notes on those that are not there."""
    found: dict[Path, None] = {}
    notes: list[str] = []
    for line in lines[:_MAX_FILES]:
        readings = [[line], _MTL_NAME.findall(line)[:_MAX_FILES], line.split()[:_MAX_FILES]]
        names = next((r for r in readings if r and all(find_beside(path, name.strip(b'"')) for name in r)), None)
        for name in names or readings[1] or readings[0]:
            file = find_beside(path, name.strip(b'"'))
            if file is not None:
                found[file] = None
            else:
                notes.append(f"names the material file {show_name(name)}, which is not in its folder or below")
    return list(found), tuple(notes)


def _read_all(files: Sequence[Path]) -> dict[str, Material]:
    materials: dict[str, Material] = {}
    for file in files:
        materials.update(read_materials(file))
    return materials


def _choose(names: Sequence[str], materials: dict[str, Material]) -> tuple[list[Material | None], tuple[str, ...]]:
    """The material of each name, else of one that differs in case, else None; and a note on those that no file describes."""
    folded = {name.casefold(): material for name, material in materials.items()}
    chosen = [materials.get(name, folded.get(name.casefold())) for name in names]
    unknown = dict.fromkeys(name for name, material in zip(names, chosen, strict=True) if material is None)
    shown = ", ".join([show_name(name) for name in unknown if name not in _NO_MATERIAL][:4])
    notes = (f"uses the material {shown}, which no material file describes",) if shown else ()
    return chosen, notes


def _lay_out(
    mesh: Mesh, part: np.ndarray, materials: Sequence[Material | None], has_image: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """Texture coordinates as the materials move them, NaN where a part has no image; colours for those; notes."""
    assert mesh.uv is not None
    uv = mesh.uv
    notes: tuple[str, ...] = ()
    textured = [material or Material() for material in materials]
    scales, offsets = (np.array([getattr(m, name) for m in textured], float) for name in ("scale", "offset"))
    if (scales != 1).any() or (offsets != 0).any():
        with np.errstate(over="ignore", invalid="ignore"):
            uv = (uv * scales[part][:, None] + offsets[part][:, None]).astype(np.float32)
    bare = np.isnan(uv[:, 0, 0])
    if (lacking := int((bare & has_image[part]).sum())) and lacking < len(bare):
        notes += (f"{lacking} of {len(bare)} triangles have no texture coordinates, and are drawn without its texture",)
    if any(material.clamp for material in textured) and (np.fmin.reduce(uv, None) < 0 or np.fmax.reduce(uv, None) > 1):
        notes += ("its texture ends at its border (map_Kd -clamp on), and is drawn repeated",)
    colors = mesh.colors
    if not has_image.all():
        uv = np.where(has_image[part][:, None, None], uv, np.float32(np.nan))
        bare = np.isnan(uv[:, 0, 0])
    if colors is None and bare.any() and any(m.color is not None for m in textured):
        colors = np.full((len(mesh.vertices_mm), 3), _GREY, np.uint8)
        palette = np.array([np.full(3, _GREY) if m.color is None else m.color for m in textured], np.uint8)
        colors[mesh.triangles[bare]] = palette[part[bare]][:, None]
    return uv, colors, notes
