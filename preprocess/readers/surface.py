"""Any mesh file by its name's ending. A further format is a file beside this one and a line in FORMATS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from preprocess.geometry.mesh import Mesh
from preprocess.readers.abs import read_abs
from preprocess.readers.depth_image import DEPTH_SUFFIXES
from preprocess.readers.file_bytes import describe_kind, describe_packed
from preprocess.readers.glb import read_glb
from preprocess.readers.obj import find_obj_files, read_obj
from preprocess.readers.off import read_off
from preprocess.readers.ply import find_ply_files, read_ply
from preprocess.readers.references import find_below
from preprocess.readers.stl import read_stl
from preprocess.readers.vrml import find_vrml_files, read_vrml
from shared.errors import ScanError


class ReadMesh(Protocol):
    """Read a mesh in the coordinates of its file, with the texture it names or with another one; raise ScanError."""

    def __call__(self, path: Path, *, texture: Path | None = None) -> Mesh: ...


def _find_none(path: Path) -> list[Path]:
    return []


@dataclass(frozen=True)
class MeshFormat:
    """kind: its name, as in `describe_kind`. find_files: returns the existing files that a file names: materials, images."""

    kind: str
    read: ReadMesh
    find_files: Callable[[Path], list[Path]] = _find_none


FORMATS = {
    ".obj": MeshFormat("OBJ", read_obj, find_obj_files),
    ".ply": MeshFormat("PLY", read_ply, find_ply_files),
    ".stl": MeshFormat("STL", read_stl),
    ".glb": MeshFormat("GLB", read_glb),
    ".off": MeshFormat("OFF", read_off),
    ".wrl": MeshFormat("VRML", read_vrml, find_vrml_files),
    ".abs": MeshFormat("ABS", read_abs),
    ".abs.gz": MeshFormat("ABS", read_abs),
}
_MANY_COLLAPSED = 0.05
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
MESH_SUFFIXES = tuple(FORMATS)


def scan_suffix(name: str) -> str:
    """Return the ending of a scan's name, in lower case: of a mesh or a depth image; "" if it is neither."""
    return next((suffix for suffix in (*FORMATS, *DEPTH_SUFFIXES) if name.lower().endswith(suffix)), "")


def read_surface(path: Path, *, texture: Path | None = None) -> Mesh:
    """Read a mesh in the coordinates of its file, with the texture it names or with another one.

    Raises:
        ScanError: another ending, or whatever is wrong with the file or its texture.
    """
    suffix = scan_suffix(path.name)
    if suffix not in FORMATS:
        suffix = path.suffix.lower()
        unknown = f"unknown ending {suffix!r}, expected one of {', '.join(FORMATS)}; convert it"
        if suffix == ".gltf":
            unknown = "glTF in several files; export it as one self-contained GLB"
        raise ScanError(f"{path}: {describe_packed(_first_bytes(path)) or unknown}")
    expected = FORMATS[suffix].kind
    try:
        mesh = FORMATS[suffix].read(path, texture=texture)
        notes = [note for note in (_find_collapsed(mesh), _find_unused_image(path, mesh)) if note]
        return replace(mesh, notes=(*mesh.notes, *notes)) if notes else mesh
    except ScanError as error:
        kind = describe_kind(_first_bytes(path))
        if kind in (None, expected):
            raise
        raise ScanError(
            f"{path}: its content is {kind}, not {expected}; give it the ending of its content, or convert it"
        ) from error


def _find_collapsed(mesh: Mesh) -> str:
    """Return a note if many triangles have two corners in one vertex, as where a copy ends in zeros; else ""."""
    a, b, c = mesh.triangles.T
    num = int(((a == b) | (b == c) | (c == a)).sum())
    many = num > _MANY_COLLAPSED * len(mesh.triangles)
    return f"{num} of {len(mesh.triangles)} triangles have no area; perhaps the file was not copied to its end" * many


def _find_unused_image(path: Path, mesh: Mesh) -> str:
    """Return a note if a mesh is drawn without texture although it could have one, and an image has its name; else ""."""
    if mesh.uv is None or mesh.has_appearance:
        return ""
    found = next(filter(None, (find_below(path.parent, path.stem + suffix) for suffix in IMAGE_SUFFIXES)), None)
    return f"drawn without texture, but {found.name} has its name: name it in a column texture" if found else ""


def _first_bytes(path: Path) -> bytes:
    try:
        if not path.is_file():  # to open a pipe would wait for ever
            return b""
        with path.open("rb") as file:
            return file.read(64)
    except OSError:
        return b""


def find_surface_files(path: Path) -> list[Path]:
    """Return the mesh file and every existing file it draws on (materials, textures), for hashing.

    Raises nothing: what is wrong with a file is reported when it is read.
    """
    suffix = scan_suffix(path.name)
    try:
        return [path, *(FORMATS[suffix].find_files(path) if suffix in FORMATS else [])]
    except ScanError:
        return [path]
