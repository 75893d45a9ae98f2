"""Define the kinds of images of a cache. A new one is one class and one line of MODALITIES here, and its renderer.

Values are the stored integers, 0 in every channel where there is no surface. Arithmetic is on NumPy arrays and torch tensors
alike; axes count from the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shared.errors import FacetError

DEPTH_STEP_MM = 0.02  # depth = round(z_mm / 0.02) + 32768; larger is nearer to the viewer; 0 = no surface
DEPTH_ZERO = 32768
# Depth that a network sees, mm before (+) and behind (−) the nose tip: the crop sphere's ears to a nose turned to the viewer.
DEPTH_SEEN_MM = (-110.0, 20.0)
DEPTH_SHOWN_MM = (-90.0, 0.0)  # black and white in a picture
DEPTH_CHANGE_MM = (-5.0, 5.0)  # of dynamic images, in both: what faces do, short of an opening mouth

BACKGROUND = (250, 250, 248)  # of a picture, where there is no surface
KEY_PX = 96  # height of the key of a picture
LIGHT = np.array([-0.4, 0.5, 0.77])  # of a relief, from the upper left, in the camera frame
NORMAL_LEGEND = (
    "normal, shown as relief: grey is how a lamp would light the surface; the network sees the directions "
    "themselves, as three channels"
)


@dataclass(frozen=True)
class Key:
    """What the shades or colours of a picture mean: stored values to draw beside it, and texts along their height.

    pixels: stored values (H, W, …), row 0 on top. ticks: height, 0 at the bottom and 1 at the top → text.
    """

    pixels: np.ndarray
    ticks: Mapping[float, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Modality:
    """A kind of image with three channels of a byte each.

    In a dynamic image, pooled from a sequence, values are changes and not what the modality otherwise means.
    """

    name: str
    unit: str
    dtype: str = "uint8"
    channels: tuple[int, ...] = (3,)  # the shape of a pixel
    axes: tuple[str, ...] = ("rgb",)  # the names of these axes
    fill: float = 0
    is_colour: bool = False  # colour augmentation applies to it, and a scan may lack it
    picture: str = ""  # what its picture is called where that is not `name`
    slope_order: int = 1  # of the differences that its picture is compared by (shared/likeness.py)

    @property
    def column_axis(self) -> int:
        """Return the axis of an image's columns."""
        return -1 - len(self.channels)

    def find_surface(self, pixels: Any) -> Any:
        """Return where there is a surface, bool (…, H, W)."""
        return (pixels[..., 0] | pixels[..., 1] | pixels[..., 2]) > 0

    def negate_x(self, pixels: Any) -> Any:
        """Return values whose x axis, to the right of the image, is reversed; may modify `pixels`."""
        return pixels

    def to_unit(self, values: Any, *, dynamic: bool = False) -> Any:
        """Return what a network sees, f32 in 0…1 of the same shape, 0 where there is no surface. values: stored ones as f32."""
        return values / 255

    def describe_unit(self, *, dynamic: bool) -> str:
        """Return `to_unit` as a formula for people."""
        return "value / 255"

    def encode_change(self, change: np.ndarray) -> np.ndarray:
        """Return the stored values of a dynamic image, f64, never 0, from weighted sums of stored values."""
        return np.clip(np.round(128 + 2 * change), 1, 255)

    def measure_slopes(self, pixels: np.ndarray) -> np.ndarray:
        """Return the values whose differences of `slope_order` distinguish images, integers or f32."""
        return pixels

    def title(self, *, dynamic: bool) -> str:
        """Return what its picture is called."""
        return self.name

    def draw(self, pixels: np.ndarray, *, dynamic: bool) -> np.ndarray:
        """Return a picture for people, u8 (H, W, 3), from stored values (H, W, …)."""
        return self._on_background(pixels, pixels)

    def draw_stored(self, pixels: np.ndarray, *, dynamic: bool) -> np.ndarray:
        """Return the picture whose colours are the stored values, as a network sees them; `draw` where there is no other."""
        return self._on_background(pixels, pixels) if self.picture else self.draw(pixels, dynamic=dynamic)

    def describe(self, *, dynamic: bool) -> str:
        """Return what `draw_stored` shows, for a legend; empty where that is plain."""
        return "change of each channel over the sequence; bright grows, dark fades" if dynamic else ""

    def describe_picture(self) -> str:
        """Return what the picture called `picture` shows."""
        return ""

    def key(self, *, dynamic: bool) -> Key | None:
        """Return the key of its pictures; None where they need none."""
        if not dynamic:
            return None
        values = np.broadcast_to(np.linspace(255, 1, KEY_PX).reshape(-1, 1, 1), (KEY_PX, KEY_PX // 8, 3))
        return Key(values.astype(self.dtype), {1.0: "grows", 0.5: "same", 0.0: "fades"})

    def _on_background(self, pixels: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        return np.where(self.find_surface(pixels)[..., None], drawn, BACKGROUND).astype(np.uint8)


@dataclass(frozen=True)
class Normal(Modality):
    """Unit normals in the camera frame, round(127 n) + 128; shown as relief, in dynamic images as they are."""

    def negate_x(self, pixels: Any) -> Any:
        pixels[..., 0] = -pixels[..., 0]  # a byte wraps: 256 − value, and 0 stays 0
        return pixels

    def title(self, *, dynamic: bool) -> str:
        return self.name if dynamic else "normal, shown as relief"

    def describe(self, *, dynamic: bool) -> str:
        if dynamic:
            return super().describe(dynamic=dynamic)
        return "direction of the surface; right, up and toward the camera are red, green and blue, as the network sees them"

    def describe_picture(self) -> str:
        return "the normals, lit by a lamp at the upper left; the network sees the normals themselves"

    def key(self, *, dynamic: bool) -> Key | None:
        """Return a ball: each direction toward the camera once."""
        if dynamic:
            return super().key(dynamic=dynamic)
        across = np.linspace(-1.02, 1.02, KEY_PX)
        x, y = np.meshgrid(across, -across)
        inside = x**2 + y**2 <= 1
        normals = np.stack([x, y, np.sqrt(np.where(inside, 1 - x**2 - y**2, 0))], -1)
        return Key(np.where(inside[..., None], np.round(127 * normals) + 128, 0).astype(self.dtype))

    def draw(self, pixels: np.ndarray, *, dynamic: bool) -> np.ndarray:
        if dynamic:
            return super().draw(pixels, dynamic=dynamic)
        n = (pixels.astype(np.float32) - 128) / 127
        grey = np.clip(40 + 205 * np.clip(n @ LIGHT.astype(np.float32), 0, 1), 0, 255)
        return self._on_background(pixels, grey[..., None])


@dataclass(frozen=True)
class Depth(Modality):
    """Distance toward the viewer, one value per pixel; shown as brightness, near is bright."""

    def find_surface(self, pixels: Any) -> Any:
        return pixels > 0

    def to_unit(self, values: Any, *, dynamic: bool = False) -> Any:
        far, near = DEPTH_CHANGE_MM if dynamic else DEPTH_SEEN_MM
        return (((values - DEPTH_ZERO) * DEPTH_STEP_MM - far) / (near - far)).clip(0, 1) * (values > 0)

    def describe_unit(self, *, dynamic: bool) -> str:
        far, near = DEPTH_CHANGE_MM if dynamic else DEPTH_SEEN_MM
        return (
            f"(value - {DEPTH_ZERO}) * {DEPTH_STEP_MM} mm from {far:g} (0) to {near:g} (1), and 0 where the value is 0"
        )

    def encode_change(self, change: np.ndarray) -> np.ndarray:
        return np.clip(np.round(change) + DEPTH_ZERO, 1, 65535)

    def measure_slopes(self, pixels: np.ndarray) -> np.ndarray:
        off_surface = np.float32(-4096)  # 82 mm behind the nose, in steps
        return np.where(pixels > 0, pixels.astype(np.float32) - DEPTH_ZERO, off_surface)

    def describe(self, *, dynamic: bool) -> str:
        if dynamic:
            return "change over the sequence; bright comes nearer"
        return "distance from the nose tip toward the camera; near is bright"

    def key(self, *, dynamic: bool) -> Key | None:
        far, near = DEPTH_CHANGE_MM if dynamic else DEPTH_SHOWN_MM
        values = np.round(np.linspace(near, far, KEY_PX) / DEPTH_STEP_MM) + DEPTH_ZERO
        sign = "+" if dynamic else ""
        ticks = {1.0: f"{near:{sign}g} mm", 0.0: f"{far:{sign}g} mm".replace("-", "−")}
        return Key(np.broadcast_to(values[:, None], (KEY_PX, KEY_PX // 8)).astype(self.dtype), ticks)

    def draw(self, pixels: np.ndarray, *, dynamic: bool) -> np.ndarray:
        z_mm = (pixels.astype(np.float32) - DEPTH_ZERO) * DEPTH_STEP_MM
        far, near = DEPTH_CHANGE_MM if dynamic else DEPTH_SHOWN_MM
        grey = 30 + 225 * np.clip((z_mm - far) / (near - far), 0, 1)
        return self._on_background(pixels, grey[..., None])


MODALITIES: dict[str, Modality] = {
    modality.name: modality
    for modality in (
        Modality("texture", "sRGB; 0,0,0 off the surface", is_colour=True),
        Normal("normal", "round(127 n) + 128, camera frame", axes=("xyz",), picture="relief"),
        # faces all rise and fall alike: pictures of depth are compared by how the surface bends
        Depth("depth", "round(z_mm / 0.02) + 32768", dtype="uint16", channels=(), axes=(), slope_order=2),
    )
}


def get_modality(name: str) -> Modality:
    """Return a modality by its name.

    Raises:
        FacetError: there is none of this name.
    """
    if name not in MODALITIES:
        raise FacetError(f"unknown modality {name!r:.60}, expected one of {', '.join(MODALITIES)}")
    return MODALITIES[name]
