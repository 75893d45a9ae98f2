"""Any mesh file by its name's ending."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from preprocess.mesh import Mesh
from preprocess.readers.image import read_image
from preprocess.readers.obj import find_obj_files, read_obj
from preprocess.readers.off import read_off
from preprocess.readers.open3d_mesh import read_open3d
from preprocess.readers.ply import find_ply_files, read_ply
from preprocess.readers.references import find_beside
from preprocess.readers.vrml import find_vrml_texture, read_vrml
from shared.errors import ScanError

MESH_SUFFIXES = (".obj", ".ply", ".stl", ".glb", ".off", ".wrl")


def read_surface(path: Path, *, texture: Path | None = None) -> Mesh:
    """Reads a mesh in the coordinates of its file, with the texture it names or with another one.

    Raises:
        ScanError: another ending, or whatever is wrong with the file or its texture.
    """
    suffix = path.suffix.lower()
    if suffix == ".obj":
        return read_obj(path, texture=texture)
    if suffix == ".ply":
        return read_ply(path, texture=texture)
    if suffix in (".stl", ".glb"):
        return read_open3d(path, texture=texture)
    if suffix == ".off":
        return read_off(path, texture=texture)
    if suffix == ".wrl":
        return read_textured_vrml(path, texture=texture)
    raise ScanError(f"{path}: unknown ending {suffix!r}, expected one of {', '.join(MESH_SUFFIXES)}; convert it")


def read_textured_vrml(path: Path, *, texture: Path | None = None) -> Mesh:
    """A VRML file with its texture: the given image, else the one it names, where that stands in its folder or below."""
    scan = read_vrml(path)
    if texture is None and scan.texture_name:
        texture = find_beside(path, scan.texture_name)
    return replace(scan.mesh, texture=read_image(texture)) if texture and scan.mesh.uv is not None else scan.mesh


def find_surface_files(path: Path) -> list[Path]:
    """The mesh file and every file it draws on (materials, texture), as far as they are known and there; for hashing.

    Raises nothing: what is wrong with a file is told when it is read.
    """
    suffix = path.suffix.lower()
    files: list[Path] = [path]
    texture = None
    try:
        if suffix == ".obj":
            return [path, *find_obj_files(path)]
        elif suffix == ".ply":
            return [path, *find_ply_files(path)]
        elif suffix == ".wrl":
            texture = find_vrml_texture(path)
    except ScanError:
        return files
    return [*files, texture] if texture else files
