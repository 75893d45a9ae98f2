"""A glTF material as far as an image without light shows it: its colour and its texture. glTF 2.0, section 3.9."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from preprocess.readers.gltf_file import GltfFile, decode_data_uri, to_floats, to_integer
from preprocess.readers.image import MAX_PIXELS

REPEAT, CLAMP_TO_EDGE = 10497, 33071
_WHITE = (1.0, 1.0, 1.0, 1.0)
# Images that Pillow's own formats do not hold; their textures may name another image beside it.
_UNREAD_IMAGES = ("KHR_texture_basisu", "MSFT_texture_dds", "EXT_texture_avif")


@dataclass(frozen=True)
class Material:
    """color float64 (4,), linear, with alpha: a factor of the texture and the vertex colours.

    has_texture: it names an image, with index `image` in the file, or None if that cannot be read. uv_set: index of its
    texture coordinates, transformed by uv_matrix (2, 3). wraps: its modes beyond 0…1 along u and v. is_opaque: its alpha
    means nothing. notes: what it asks for and is not done; texture_notes: why its image is not drawn.
    """

    color: np.ndarray
    has_texture: bool = False
    image: int | None = None
    uv_set: int = 0
    uv_matrix: np.ndarray = field(default_factory=lambda: np.eye(2, 3))
    wraps: tuple[int, int] = (REPEAT, REPEAT)
    is_opaque: bool = True
    notes: tuple[str, ...] = ()
    texture_notes: tuple[str, ...] = ()


def read_material(file: GltfFile, index: Any) -> Material:
    """Read a primitive's material; white if it names none."""
    if index is None:
        return Material(np.array(_WHITE))
    material = file.item("materials", index)
    extensions = material.get("extensions", {})
    notes: list[str] = []
    texture_notes: list[str] = []
    if "KHR_materials_pbrSpecularGlossiness" in extensions:
        base, names = extensions["KHR_materials_pbrSpecularGlossiness"], ("diffuseFactor", "diffuseTexture")
    else:
        base, names = material.get("pbrMetallicRoughness", {}), ("baseColorFactor", "baseColorTexture")
    color, texture = to_floats(base.get(names[0], _WHITE), 4), base.get(names[1])
    glow = to_floats(material.get("emissiveFactor", (0, 0, 0)), 3)
    if glow.any() and not color[:3].any():  # pictures without light are also exported like this
        color, texture = np.append(glow, color[3]), material.get("emissiveTexture")
    elif glow.any():
        notes.append("a material that glows is drawn without its emission")
    if extensions.get("KHR_materials_transmission", {}).get("transmissionFactor"):
        notes.append("a material that light passes through is drawn opaque")
    is_opaque = material.get("alphaMode", "OPAQUE") == "OPAQUE"
    color = np.clip(color, 0, 1)
    if texture is None:
        return Material(color, is_opaque=is_opaque, notes=tuple(notes))
    image, wraps = _find_image(file, texture, texture_notes)
    moved = texture.get("extensions", {}).get("KHR_texture_transform", {})
    uv_set = to_integer(moved.get("texCoord", texture.get("texCoord", 0)))
    return Material(color, True, image, uv_set, _uv_matrix(moved), wraps, is_opaque, tuple(notes), tuple(texture_notes))


def _find_image(file: GltfFile, texture_info: dict[str, Any], notes: list[str]) -> tuple[int | None, tuple[int, int]]:
    texture = file.item("textures", texture_info["index"])
    sampler = file.item("samplers", texture["sampler"]) if "sampler" in texture else {}
    wraps = sampler.get("wrapS", REPEAT), sampler.get("wrapT", REPEAT)
    extensions = texture.get("extensions", {})
    source = extensions.get("EXT_texture_webp", {}).get("source", texture.get("source"))
    if source is None:
        names = ", ".join(name for name in _UNREAD_IMAGES if name in extensions) or "which names no image"
        notes.append(f"its texture ({names}) is not drawn; export it as PNG, JPEG or WebP")
        return None, wraps
    image = file.item("images", source)
    if "bufferView" not in image and not image.get("uri", "").startswith("data:"):
        name = "".join(c if c.isprintable() else "?" for c in image.get("uri", "without a name")[-60:])
        notes.append(f"its texture {name} is another file and not drawn; embed it, or list it in a column texture")
        return None, wraps
    return to_integer(source), wraps


def _uv_matrix(moved: dict[str, Any]) -> np.ndarray:
    """Return the matrix of KHR_texture_transform: scale, rotation, offset; counter-clockwise seen with v upwards.

    v points down. The extension's GLSL turns the other way; its text and the implementations agree on this
    (github.com/KhronosGroup/glTF, issue 1563).
    """
    (du, dv), (su, sv) = to_floats(moved.get("offset", (0, 0)), 2), to_floats(moved.get("scale", (1, 1)), 2)
    (angle,) = to_floats([moved.get("rotation", 0)], 1)
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c * su, s * sv, du], [-s * su, c * sv, dv]])


def find_image_bytes(file: GltfFile, image: int) -> bytes:
    """Return an image of the file as it is encoded."""
    entry = file.item("images", image)
    return bytes(file.view(entry["bufferView"])) if "bufferView" in entry else decode_data_uri(entry["uri"])


def has_transparency(data: bytes) -> bool:
    """Return whether a pixel of an encoded image is not opaque; False if it cannot be read, or is too large."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "WEBP")) as image:
            if not image.has_transparency_data or image.width * image.height > MAX_PIXELS:
                return False
            alpha = np.asarray(image.convert("RGBA").getchannel("A"))
            return bool(alpha.min() < 255)
    except Exception:  # decode_image says what is wrong with it
        return False


def tint_texture(texture: np.ndarray, color: np.ndarray) -> np.ndarray:
    """Multiply a texture u8 (h, w, 3), sRGB, by a linear colour (3,)."""
    if (np.abs(color - 1) < 1e-3).all():
        return texture
    levels = np.arange(256) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    table = encode_srgb(linear[:, None] * color)
    return np.stack([table[texture[..., k], k] for k in range(3)], axis=-1)


def encode_srgb(linear: np.ndarray) -> np.ndarray:
    """Encode linear light 0…1 as sRGB u8 of the same shape (IEC 61966-2-1); clip what lies outside."""
    linear = np.clip(linear, 0, 1)
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(curve * 255).astype(np.uint8)
