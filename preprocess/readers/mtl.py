"""Wavefront's material library (.mtl): which image and which colours the materials of an OBJ file give its triangles.

After the MTL specification (Alias|Wavefront 1995) and what programs write: options behind the name, tabs, quotes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from preprocess.geometry.mesh import Mesh
from preprocess.readers.appearance import add_texture, find_image, limit_notes, read_colors
from preprocess.readers.file_bytes import name_errors, read_text
from preprocess.readers.image import read_image
from preprocess.readers.references import decode_name, find_beside, show_name
from shared.errors import ScanError

_MAX_BYTES = 1 << 24
_MAX_LINE_BYTES = 2048
_MAX_FILES = 100
_GREY = 128  # of a part without Kd beside parts with one
_NO_MATERIAL = ("", "None", "(null)", "default")  # names that programs write if there is none
_MTL_NAME = re.compile(rb"\S.*?\.mtl(?!\S)", re.IGNORECASE)
_NUMBER = rb"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?!\S)"
# An option of a map: up to three numbers, or so many words.
_OPTION = re.compile(
    rb"-(?:(?P<vector>[ost])(?P<numbers>(?:\s+" + _NUMBER + rb"){0,3})"
    rb"|(?P<gain>mm)(?P<levels>(?:\s+" + _NUMBER + rb"){0,2})"
    rb"|(?P<clamp>clamp)(?P<how>(?:\s+(?:on|off)(?!\S))?)"
    rb"|(?:bm|boost|texres)(?:\s+" + _NUMBER + rb")?"
    rb"|(?:blendu|blendv|cc)(?:\s+(?:on|off)(?!\S))?"
    rb"|(?:imfchan|type|colorspace)(?:\s+[^\s.]+(?!\S))?)(?!\S)\s*",
    re.IGNORECASE,
)
_OTHER_MAPS = re.compile(rb"map_(?!kd$|aat$)\w+|bump|norm|disp|decal|refl")


@dataclass
class Material:
    """One material, as far as it is drawn.

    names: what the name behind map_Kd may be, the likeliest first; empty: no image. scale, offset: of its texture
    coordinates, in this order. clamp: the image does not repeat. color: Kd u8 (3,). opacity: d. other_maps: keyword and name
    of maps that are not drawn. notes: what its map asks for and is not done.
    """

    names: tuple[bytes, ...] = ()
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)
    clamp: bool = False
    color: np.ndarray | None = None
    opacity: float = 1.0
    other_maps: dict[str, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def paint(
    mesh: Mesh, path: Path, material_lines: Sequence[bytes], names: Sequence[str], part: np.ndarray | None
) -> Mesh:
    """Return the mesh with its materials' texture; triangles without it get NaN for uv and their material's colour (Kd).

    Args:
        material_lines: what follows each `mtllib`.
        names: the material of each part of the mesh; empty if the file names none.
        part: int (M,), index of each triangle's name; None: they are all of one.
    Raises:
        ScanError: the parts are painted with several images, or a file cannot be read.
    """
    materials, files, notes = _read_all(path, material_lines)
    chosen, unknown = _choose(names, materials)
    if files or (mesh.uv is not None and not material_lines):
        notes += unknown
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
            notes += material.notes + missing + _describe_other_maps(material)
            if material.opacity < 1 and len(chosen) > 1:  # of the only one, it means nothing
                notes += (f"a part of it is transparent (d {material.opacity:g}), and drawn opaque",)
    if notes:
        mesh = replace(mesh, notes=limit_notes(mesh.notes + notes))
    if not images or mesh.uv is None:
        return add_texture(mesh, path, (), images[0] if images else None)
    has_image = np.array([image is not None for image, _ in found])
    if part is None:  # nothing says which triangles have the image: all
        chosen, has_image = [chosen[int(has_image.argmax())]], np.ones(1, bool)
        part = np.zeros(len(mesh.triangles), np.int64)
    texture = read_image(images[0])
    uv, colors, more = _lay_out(mesh, mesh.uv, part, [material or Material() for material in chosen], has_image)
    with name_errors(path):  # a scale or an offset out of all bounds
        return replace(mesh, uv=uv, texture=texture, colors=colors, notes=mesh.notes + more)


def find_material_sources(path: Path, material_lines: Sequence[bytes], names: Iterable[str]) -> list[Path]:
    """Return the material files, and the images of the named materials, that exist; for hashing.

    Raises:
        ScanError: one of the files cannot be read, or a name is a link out of the folder.
    """
    materials, files, _ = _read_all(path, material_lines)
    chosen, _ = _choose(list(dict.fromkeys(names)), materials)
    used = chosen if any(chosen) else materials.values()
    images = [find_image(path, material.names)[0] for material in used if material is not None]
    return [*files, *dict.fromkeys(image for image in images if image is not None)]


def _read_all(path: Path, lines: Sequence[bytes]) -> tuple[dict[str, Material], list[Path], tuple[str, ...]]:
    """Read the material files behind `mtllib`, one or several on a line; return also notes on the missing ones."""
    found: dict[Path, None] = {}
    notes: list[str] = []
    for line in lines[:_MAX_FILES]:
        readings = [[line], _MTL_NAME.findall(line)[:_MAX_FILES], line.split()[:_MAX_FILES]]
        for names in readings:
            files = [find_beside(path, name.strip(b'"')) for name in names]
            if files and all(files):
                break
        else:
            names = readings[1] or readings[0]
            files = [find_beside(path, name.strip(b'"')) for name in names]
        for name, file in zip(names, files, strict=True):
            if file is not None:
                found[file] = None
            else:
                notes.append(f"names the material file {show_name(name)}, which is not in its folder or below")
    materials: dict[str, Material] = {}
    for file in found:
        materials.update(read_materials(file))
    return materials, list(found), tuple(notes)


def _choose(names: Sequence[str], materials: dict[str, Material]) -> tuple[list[Material | None], tuple[str, ...]]:
    """Return the material of each name, else of one that differs in case, else None; and a note on unknown names."""
    folded = {name.casefold(): material for name, material in materials.items()}
    chosen = [materials.get(name, folded.get(name.casefold())) for name in names]
    unknown = dict.fromkeys(name for name, material in zip(names, chosen, strict=True) if material is None)
    shown = ", ".join([show_name(name) for name in unknown if name not in _NO_MATERIAL][:4])
    return chosen, (f"uses the material {shown}, which no material file describes",) if shown else ()


def _lay_out(
    mesh: Mesh, uv: np.ndarray, part: np.ndarray, materials: Sequence[Material], has_image: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """Return uv as the materials move them, NaN for parts without an image; colours for those; notes."""
    notes: tuple[str, ...] = ()
    scales, offsets = (np.array([getattr(m, name) for m in materials], float) for name in ("scale", "offset"))
    if (scales != 1).any() or (offsets != 0).any():
        with np.errstate(over="ignore", invalid="ignore"):
            uv = (uv * scales[part][:, None] + offsets[part][:, None]).astype(np.float32)
    bare = np.isnan(uv[:, 0, 0])
    if (lacking := int((bare & has_image[part]).sum())) and lacking < len(bare):
        notes += (f"{lacking} of {len(bare)} triangles have no texture coordinates, and are drawn without its texture",)
    if any(material.clamp for material in materials) and (np.fmin.reduce(uv, None) < 0 or np.fmax.reduce(uv, None) > 1):
        notes += ("its texture ends at its border (map_Kd -clamp on), and is drawn repeated",)
    if not has_image.all():
        uv = np.where(has_image[part][:, None, None], uv, np.float32(np.nan))
        bare = np.isnan(uv[:, 0, 0])
    colors = mesh.colors
    if colors is None and bare.any() and any(m.color is not None for m in materials):
        colors = np.full((len(mesh.vertices_mm), 3), _GREY, np.uint8)
        palette = np.array([np.full(3, _GREY) if m.color is None else m.color for m in materials], np.uint8)
        colors[mesh.triangles[bare]] = palette[part[bare]][:, None]
    return uv, colors, notes


def read_materials(path: Path) -> dict[str, Material]:
    """Read the materials of a file, by `plain_name`.

    Raises:
        ScanError: it cannot be read.
    """
    materials: dict[str, Material] = {}
    material = Material()
    for line in read_text(path, max_bytes=_MAX_BYTES).splitlines():
        words = line.split(None, 1)
        if len(words) < 2 or len(line) > _MAX_LINE_BYTES:
            continue
        keyword, rest = words[0].lower(), words[1].strip()
        if keyword == b"newmtl":
            material = materials.setdefault(plain_name(rest), Material())
        elif keyword == b"map_kd":
            _read_map(rest, material)
        elif keyword == b"kd":
            material.color = _read_color(rest)
        elif keyword == b"d" and re.fullmatch(_NUMBER, rest) is not None:
            material.opacity = float(rest)
        elif _OTHER_MAPS.fullmatch(keyword) and (name := _split_map(rest)[0]):
            material.other_maps[words[0].decode("latin-1")] = name[0]
    return materials


def plain_name(name: bytes) -> str:
    """Return a material's name as it is compared: however its umlauts are composed, without quotes."""
    return unicodedata.normalize("NFC", decode_name(name)).strip().strip('"').strip()


def _read_map(text: bytes, material: Material) -> None:
    """Read what follows `map_Kd`."""
    material.names, options = _split_map(text)
    material.scale, material.offset, material.clamp, material.notes = (1.0, 1.0), (0.0, 0.0), False, ()
    for option in options:
        numbers = [float(word) for word in (option["numbers"] or option["levels"] or b"").split()]
        kind = (option["vector"] or b"").lower()
        if kind == b"s":
            u, v = [*numbers, 1.0, 1.0][:2]
            material.scale = u, v
        elif kind == b"o":
            u, v = [*numbers, 0.0, 0.0][:2]
            material.offset = u, v
        elif kind == b"t" and any(numbers):
            material.notes += ("the turbulence of its texture (map_Kd -t) is not drawn",)
        elif option["gain"] and numbers not in ([], [0.0], [0.0, 1.0]):
            material.notes += ("the base and gain of its texture (map_Kd -mm) are not applied",)
        elif option["clamp"]:
            material.clamp = option["how"].strip().lower() == b"on"


def _split_map(text: bytes) -> tuple[tuple[bytes, ...], list[re.Match[bytes]]]:
    """Return the names that a map may mean, and its options, before and behind the name."""
    options, position = _read_options(text, 0)
    whole = text[position:].rstrip()
    names = [whole]
    for word in re.finditer(rb"(?<=\s)-(?=\w)", whole):  # the first option from which on there is nothing else
        trailing, end = _read_options(whole, word.start())
        if trailing and end == len(whole):
            names.insert(0, whole[: word.start()])
            options += trailing
            break
    found = (name.strip().strip(b'"').strip() for name in names)
    return tuple(dict.fromkeys(name for name in found if name)), options


def _read_options(text: bytes, position: int) -> tuple[list[re.Match[bytes]], int]:
    """Return the consecutive options from `position` on, and where they end."""
    options = []
    while (option := _OPTION.match(text, position)) is not None and option.end() > position:
        options.append(option)
        position = option.end()
    return options, position


def _read_color(text: bytes) -> np.ndarray | None:
    """Read Kd u8 (3,); one number means grey. None: given by a spectrum, or no numbers."""
    try:
        numbers = [float(word) for word in text.split()[:3]]
    except ValueError:
        return None
    if len(numbers) == 1:
        numbers *= 3
    colors = read_colors(np.array([numbers]))[0] if len(numbers) == 3 else None
    return None if colors is None else colors[0]


def _describe_other_maps(material: Material) -> tuple[str, ...]:
    """Return a note on the maps whose images are not that of map_Kd."""
    others = {key: name for key, name in material.other_maps.items() if name not in material.names}
    if not others:
        return ()
    shown = ", ".join(f"{key[:20]} {show_name(name)}" for key, name in list(others.items())[:4])
    return (f"names {shown}, not drawn: map_Kd alone gives colour",)
