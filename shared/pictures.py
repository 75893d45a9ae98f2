"""Pictures of a cache for people: what they are called, the order of views, and faces in one place in all views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.errors import FacetError
from shared.modalities import MODALITIES, Key, Modality
from shared.schema import FIELD_OF_VIEW_MM, View

WHITE = 255  # where there is no surface
FACE_CENTRE_MM = 70.0  # behind the nose tip: about where the head turns, so that a turned camera sees it in one place


@dataclass(frozen=True)
class Picture:
    """A way to draw the images of a modality.

    is_stored: its colours are the stored values, which the network sees; else it is drawn for people.
    """

    name: str
    modality: Modality
    is_stored: bool

    def draw(self, pixels: np.ndarray, *, dynamic: bool) -> np.ndarray:
        """Return a picture on white, u8 (H, W, 3), of stored values (H, W, …)."""
        draw = self.modality.draw_stored if self.is_stored else self.modality.draw
        surface = self.modality.find_surface(pixels)[..., None]
        return np.where(surface, draw(pixels, dynamic=dynamic), np.uint8(WHITE))

    def describe(self, *, dynamic: bool) -> str:
        """Return a line for a legend; empty where the picture needs none."""
        text = self.modality.describe(dynamic=dynamic) if self.is_stored else self.modality.describe_picture()
        return text and f"{self.name}: {text}"

    def draw_key(self, *, dynamic: bool) -> tuple[np.ndarray, Key] | None:
        """Return a picture of the key, u8 (H, W, 3), and the key; None where the picture needs none."""
        key = self.modality.key(dynamic=dynamic)
        return None if key is None else (self.draw(key.pixels, dynamic=dynamic), key)


PICTURES: dict[str, Picture] = {}
for _modality in MODALITIES.values():
    PICTURES[_modality.name] = Picture(_modality.name, _modality, is_stored=True)
    if _modality.picture:
        PICTURES[_modality.picture] = Picture(_modality.picture, _modality, is_stored=False)


def choose_pictures(names: Sequence[str], modalities: Sequence[str], *, dynamic: bool) -> list[Picture]:
    """Return pictures by name; without names, one of each modality.

    Args:
        modalities: those of the cache.
    Raises:
        FacetError: an unknown name, or one of a modality that the cache lacks.
    """
    known = [p.name for p in PICTURES.values() if p.modality.name in modalities and (p.is_stored or not dynamic)]
    if odd := [name for name in names if name not in known]:
        raise FacetError(f"--show {odd[0]}: expected some of {', '.join(known)}")
    return [PICTURES[name] for name in names or [name for name in known if name in modalities]]


def order_views(views: Sequence[View]) -> list[int]:
    """Return the indices of views from the subject's right to the left, as they stand side by side in a figure."""
    return sorted(range(len(views)), key=lambda index: (views[index].yaw_deg, views[index].pitch_deg))


def describe_view(view: View) -> str:
    """Return `yaw −20°`, with the pitch if there is one."""
    pitch = f", pitch {view.pitch_deg:+g}°" if view.pitch_deg else ""
    yaw = f"{view.yaw_deg:+g}" if view.yaw_deg else "0"
    return f"yaw {yaw}°{pitch}".replace("-", "−")


def centre_shift(view: View) -> tuple[float, float]:
    """Return how far `centre_face` moves a picture to the right and down, in widths of the picture."""
    yaw, pitch = np.deg2rad(view.yaw_deg), np.deg2rad(view.pitch_deg)
    width = FACE_CENTRE_MM / FIELD_OF_VIEW_MM
    return float(-width * np.sin(yaw)) + 0.0, float(width * np.sin(pitch) * np.cos(yaw)) + 0.0


def centre_face(picture: np.ndarray, view: View, fill: float | tuple[int, ...] = WHITE) -> np.ndarray:
    """Move a picture (S, S, …) by whole pixels, so that the face is where it is from the front.

    Cameras turn about the nose tip, so from the side most of the face lies beside the middle of the image.

    Args:
        fill: value of pixels that the picture does not cover.
    """
    right, down = (round(fraction * len(picture)) for fraction in centre_shift(view))
    moved = np.full_like(picture, fill)
    size = len(picture)
    rows, columns = (slice(max(n, 0), size + min(n, 0)) for n in (down, right))
    from_rows, from_columns = (slice(max(-n, 0), size + min(-n, 0)) for n in (down, right))
    moved[rows, columns] = picture[from_rows, from_columns]
    return moved
