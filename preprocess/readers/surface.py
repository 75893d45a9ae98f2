"""Any mesh file by its name's ending."""

from __future__ import annotations

from pathlib import Path

from preprocess.geometry.mesh import Mesh
from preprocess.readers.appearance import add_texture, find_image
from preprocess.readers.file_bytes import describe_kind, describe_packed
from preprocess.readers.glb import read_glb
from preprocess.readers.obj import find_obj_files, read_obj
from preprocess.readers.off import read_off
from preprocess.readers.ply import find_ply_files, read_ply
from preprocess.readers.stl import read_stl
from preprocess.readers.vrml import find_vrml_names, read_vrml
from shared.errors import ScanError


def read_surface(path: Path, *, texture: Path | None = None) -> Mesh:
    """Reads a mesh in the coordinates of its file, with the texture it names or with another one.

    Raises:
        ScanError: another ending, or whatever is wrong with the file or its texture.
    """
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        unknown = f"unknown ending {suffix!r}, expected one of {', '.join(MESH_SUFFIXES)}; convert it"
        if suffix == ".gltf":
            unknown = "glTF in several files; export it as one self-contained GLB"
        raise ScanError(f"{path}: {describe_packed(_first_bytes(path)) or unknown}")
    try:
        return _READERS[suffix](path, texture=texture)
    except ScanError as error:
        kind = describe_kind(_first_bytes(path))
        if kind is None or kind.lower() == _KINDS[suffix]:
            raise
        raise ScanError(
            f"{path}: its content is {kind}, not {_KINDS[suffix].upper()}; give it the ending of its content, or convert it"
        ) from error


def _first_bytes(path: Path) -> bytes:
    try:
        if not path.is_file():  # to open a pipe would wait for ever
            return b""
        with path.open("rb") as file:
            return file.read(64)
    except OSError:
        return b""


def read_textured_vrml(path: Path, *, texture: Path | None = None) -> Mesh:
    """A VRML file with its texture: the given image, else the one it names, where that stands in its folder or below."""
    scan = read_vrml(path)
    return add_texture(scan.mesh, path, scan.texture_names, texture)


def find_surface_files(path: Path) -> list[Path]:
    """The mesh file and every file it draws on (materials, textures), as far as they are known and there; for hashing.

    Raises nothing: what is wrong with a file is told when it is read.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".obj":
            return [path, *find_obj_files(path)]
        if suffix == ".ply":
            return [path, *find_ply_files(path)]
        if suffix == ".wrl":
            image, _ = find_image(path, find_vrml_names(path))
            return [path] if image is None else [path, image]
    except ScanError:
        pass
    return [path]


_READERS = {
    ".obj": read_obj,
    ".ply": read_ply,
    ".stl": read_stl,
    ".glb": read_glb,
    ".off": read_off,
    ".wrl": read_textured_vrml,
}
_KINDS = {suffix: suffix[1:] for suffix in _READERS} | {".wrl": "vrml"}  # in describe_kind's words, small letters
MESH_SUFFIXES = tuple(_READERS)
