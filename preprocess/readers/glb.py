"""GLB (glTF 2.0 in one file): the default scene as it stands, in its base colours. Khronos, glTF 2.0 specification."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from preprocess.geometry.mesh import Mesh
from preprocess.geometry.triangles import weld
from preprocess.readers.appearance import check_finite
from preprocess.readers.file_bytes import CUT, read_bytes
from preprocess.readers.gltf_file import GltfFile, open_glb
from preprocess.readers.gltf_material import (
    CLAMP_TO_EDGE,
    REPEAT,
    encode_srgb,
    find_image_bytes,
    has_transparency,
    tint_texture,
)
from preprocess.readers.gltf_scene import Part, read_parts
from preprocess.readers.image import decode_image, read_image
from shared.errors import ScanError

_MAX_NOTES = 12
_MAX_COPIES = 16  # of one image
_BORDER = 0.01  # texture coordinates so little beyond an image that ends there are moved to its border
# Extensions that change neither shape nor base colour, or are read; families by the beginning of their names.
_READ = (
    "KHR_mesh_quantization", "KHR_texture_transform", "EXT_texture_webp", "KHR_materials_", "KHR_lights_", "EXT_lights_",
    "KHR_xmp", "FB_ngon_encoding",
)  # fmt: skip
# Extensions that a file may use beside an equivalent that is read; if it requires one, it is refused or noted elsewhere.
_OPTIONAL = (
    "KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_meshopt_compression", "KHR_texture_basisu",
    "MSFT_texture_dds", "EXT_texture_avif",
)  # fmt: skip


def read_glb(path: Path, *, texture: Path | None = None) -> Mesh:
    """Read a GLB file's scene: morph targets by their weights, skins by their joints, each node by its matrix.

    Equal vertices become one. v of the texture coordinates points up, as in Mesh. A part without texture is drawn in its
    material's and its vertices' colour if another part has a texture or a colour of its own. `texture` replaces the image
    that the file names. `Mesh.notes` lists what the file asks for and is not done.

    Raises:
        ScanError: missing, cut off, garbled, a count that the file cannot hold, no triangles, several textures, an extension
            that it cannot be read without, other files needed for its numbers.
    """
    data = read_bytes(path)
    picture = read_image(texture) if texture else None
    try:
        file = open_glb(data)
        _check_extensions(file)
        return _build_mesh(file, read_parts(file), picture)
    except ScanError as error:
        raise ScanError(f"{path}: {error}") from error
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError) as error:
        raise ScanError(f"{path}: its JSON part lacks or garbles {str(error)[:80]}; {CUT}") from error


def _check_extensions(file: GltfFile) -> None:
    required = [str(name) for name in file.items("extensionsRequired")]
    unknown = [name for name in required if not name.startswith(_READ)]
    if unknown:
        advice = "export it uncompressed" if any("compression" in name for name in unknown) else "export it without"
        raise ScanError(f"needs the extension {', '.join(unknown)[:80]}; {advice}")
    used = [str(name) for name in file.items("extensionsUsed")]
    used += [name for node in file.items("nodes") for name in node.get("extensions", {}) if name not in used]
    unread = [name for name in used if not name.startswith((*_READ, *_OPTIONAL))]
    if unread:
        file.notes.append(f"uses {', '.join(unread)[:80]}, which is not read: drawn without")
    if file.items("animations"):
        file.notes.append("holds animations: drawn as it stands, no frame of them")


def _build_mesh(file: GltfFile, parts: list[Part], picture: np.ndarray | None) -> Mesh:
    if picture is None:
        picture = _choose_texture(file, parts)
    else:  # replaces the file's images; on all its parts if none of them names one
        named = any(part.material.has_texture for part in parts)
        for part in parts:
            part.has_texture = part.uv is not None and (part.material.has_texture or not named)
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    triangles = np.concatenate([part.triangles + start for part, start in zip(parts, starts, strict=False)])
    vertices = np.concatenate([part.vertices for part in parts])
    uv = None
    if any(part.uv is not None for part in parts):
        uv = np.concatenate([_corner_uv(file, part, is_drawn=picture is not None) for part in parts])
    colors = _choose_colors(file, parts)
    unique, index = weld(vertices, colors)
    colors = None if colors is None else colors[unique]
    notes = tuple(dict.fromkeys(file.notes))[:_MAX_NOTES]
    texture = picture if uv is not None else None
    return Mesh(vertices[unique], index[triangles].astype(np.int32), uv, texture, colors=colors, notes=notes)


def _choose_texture(file: GltfFile, parts: list[Part]) -> np.ndarray | None:
    """Return the one image that parts are painted with, times their colour, u8 (h, w, 3); mark these parts."""
    tints: set[tuple[float, ...]] = set()
    painted = [part for part in parts if part.material.image is not None and part.uv is not None]
    for part in painted:
        part.has_texture = True
        tint = part.material.color.copy()
        if part.colors is not None and (part.colors == part.colors[0]).all():
            tint[: part.colors.shape[1]] *= part.colors[0]
        elif part.colors is not None:
            file.notes.append("a part has a texture and vertex colours: the colours are not drawn")
        tints.add(tuple(tint[:3].round(4).tolist()))
    if not painted:
        return None
    data = _find_one_image(file, sorted({part.material.image for part in painted if part.material.image is not None}))
    if len(tints) > 1:
        file.notes.append("its parts tint one texture differently: drawn without their tints")
        tints = {(1.0, 1.0, 1.0)}
    if not all(part.material.is_opaque for part in painted) and has_transparency(data):
        file.notes.append("its texture is transparent in parts: drawn opaque")
    return tint_texture(decode_image(data), np.array(tints.pop()))


def _find_one_image(file: GltfFile, images: list[int]) -> bytes:
    """Return the encoded image that all of these are; some programs write one several times."""
    data = find_image_bytes(file, images[0])
    if len(images) > _MAX_COPIES or any(find_image_bytes(file, image) != data for image in images[1:]):
        raise ScanError("painted with several textures, expected one; bake them into one image")
    return data


def _choose_colors(file: GltfFile, parts: list[Part]) -> np.ndarray | None:
    """Return vertex colours u8 (n, 3), sRGB; None if no part shows them, or all is of one colour that only materials name."""
    shades = set()
    for part in parts:
        if part.material.has_texture and part.uv is None:
            file.notes.append("a part names a texture and has no texture coordinates for it: drawn in its own colour")
        if not part.has_texture:  # otherwise the manifest may have replaced its image
            file.notes.extend(part.material.texture_notes)
        file.notes.extend(part.material.notes)
        alpha = part.material.color[3] * (
            part.colors[:, 3].min() if part.colors is not None and part.colors.shape[1] > 3 else 1
        )
        if alpha < 1 and not part.material.is_opaque:
            file.notes.append("a part is transparent: drawn opaque")
        shades.add(tuple(encode_srgb(part.material.color[:3]).tolist()))
    plain = [part for part in parts if not part.has_texture]
    if not plain:
        return None
    only_materials = len(plain) == len(parts) and all(part.colors is None for part in parts)
    has_images = any(part.material.has_texture for part in parts)  # which are not drawn
    if only_materials and (len(shades) == 1 or has_images):
        return None
    colors = [part.material.color[:3] * (1 if part.colors is None else part.colors[:, :3]) for part in parts]
    sizes = [(len(part.vertices), 3) for part in parts]
    return np.concatenate([np.broadcast_to(encode_srgb(c), size) for c, size in zip(colors, sizes, strict=True)])


def _corner_uv(file: GltfFile, part: Part, *, is_drawn: bool) -> np.ndarray:
    """Return uv of a part's triangles f32 (m, 3, 2), v up; NaN if the texture is not theirs."""
    if part.uv is None or (is_drawn and not part.has_texture):
        return np.full((len(part.triangles), 3, 2), np.nan, np.float32)
    uv = part.uv[part.triangles]
    check_finite(uv)
    for axis, wrap in enumerate(part.material.wraps if part.has_texture else ()):
        beyond = max(uv[..., axis].max() - 1, -uv[..., axis].min())
        if wrap != REPEAT and beyond > _BORDER:
            file.notes.append("its texture is to end at its border, or to be mirrored there: drawn repeated")
        elif wrap == CLAMP_TO_EDGE:
            uv[..., axis] = uv[..., axis].clip(0, 1)
    uv[..., 1] = 1 - uv[..., 1]
    return uv
