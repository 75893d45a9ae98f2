"""Wavefront's material library (.mtl): the image and the colour of each material.

After the MTL specification (Alias|Wavefront 1995) and what programs write: options behind the name, tabs, quotes.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from preprocess.readers.appearance import read_colors
from preprocess.readers.file_bytes import read_text
from preprocess.readers.references import decode_name, show_name

_MAX_BYTES = 1 << 24
_MAX_LINE_BYTES = 2048
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


def read_materials(path: Path) -> dict[str, Material]:
    """The materials of a file by `plain_name`.

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
        elif keyword == b"d" and (number := re.fullmatch(_NUMBER, rest)) is not None:
            material.opacity = float(number[0])
        elif _OTHER_MAPS.fullmatch(keyword) and (name := _split_map(rest)[0]):
            material.other_maps[words[0].decode("latin-1")] = name[0]
    return materials


def plain_name(name: bytes) -> str:
    """A material's name as it is compared: however its umlauts are composed, without quotes."""
    return unicodedata.normalize("NFC", decode_name(name)).strip().strip('"').strip()


def _read_map(text: bytes, material: Material) -> None:
    """Sets what `map_Kd` says."""
    names, options = _split_map(text)
    material.names, material.scale, material.offset, material.clamp, material.notes = names, (1, 1), (0, 0), False, ()
    for option in options:
        numbers = [float(word) for word in (option["numbers"] or option["levels"] or b"").split()]
        kind = (option["vector"] or b"").lower()
        if kind == b"s":
            material.scale = _pair(numbers, 1.0)
        elif kind == b"o":
            material.offset = _pair(numbers, 0.0)
        elif kind == b"t" and any(numbers):
            material.notes += ("the turbulence of its texture (map_Kd -t) is not drawn",)
        elif option["gain"] and numbers not in ([], [0.0], [0.0, 1.0]):
            material.notes += ("the base and gain of its texture (map_Kd -mm) are not applied",)
        elif option["clamp"]:
            material.clamp = option["how"].strip().lower() == b"on"


def _pair(numbers: list[float], default: float) -> tuple[float, float]:
    u, v = [*numbers, default, default][:2]
    return u, v


def _split_map(text: bytes) -> tuple[tuple[bytes, ...], list[re.Match[bytes]]]:
    """The names that a map may mean, and its options, before and behind."""
    leading, place = _options(text, 0)
    whole = text[place:].rstrip()
    names = [whole]
    for word in re.finditer(rb"(?<=\s)-(?=\w)", whole):  # the first option from which on there is nothing else
        trailing, end = _options(whole, word.start())
        if trailing and end == len(whole):
            names.insert(0, whole[: word.start()])
            leading += trailing
            break
    found = (name.strip().strip(b'"').strip() for name in names)
    return tuple(dict.fromkeys(name for name in found if name)), leading


def _options(text: bytes, place: int) -> tuple[list[re.Match[bytes]], int]:
    """The options that stand one after another from `place` on, and where they end."""
    options = []
    while (option := _OPTION.match(text, place)) is not None and option.end() > place:
        options.append(option)
        place = option.end()
    return options, place


def _read_color(text: bytes) -> np.ndarray | None:
    """Kd; one number means grey. None: given by a spectrum, or no numbers."""
    try:
        numbers = [float(word) for word in text.split()[:3]]
    except ValueError:
        return None
    colors, _ = read_colors(np.array([numbers * 3 if len(numbers) == 1 else numbers]).reshape(1, -1)[:, :3])
    return colors[0] if colors is not None and colors.shape == (1, 3) else None


def describe_other_maps(material: Material) -> tuple[str, ...]:
    """A note on the maps whose images are not that of map_Kd."""
    others = {key: name for key, name in material.other_maps.items() if name not in material.names}
    if not others:
        return ()
    shown = ", ".join(f"{key[:20]} {show_name(name)}" for key, name in list(others.items())[:4])
    return (f"names {shown}, not drawn: map_Kd alone gives colour",)
