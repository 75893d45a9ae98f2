"""Pictures of a cache for a browser: PNG, drawn when asked for, the last ones kept in memory."""

from __future__ import annotations

import io
import threading
import zlib
from collections import OrderedDict
from typing import Generic, TypeVar

import numpy as np
from PIL import Image

from preprocess.viewer.address import KINDS
from shared.cache import Cache
from shared.modalities import MODALITIES
from shared.schema import Sample

# What a browser may ask for; normal: the stored normals themselves, for a light that moves.
PICTURES = (*KINDS, "normal")
MODALITY_OF = {**dict(zip(KINDS, MODALITIES, strict=True)), "normal": "normal"}
PNG_BYTES, IMAGE_BYTES = 128 * 2**20, 64 * 2**20
Key = TypeVar("Key")
Value = TypeVar("Value", bytes, np.ndarray)


class Kept(Generic[Key, Value]):
    """The values used last, up to a number of bytes. For one thread at a time."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._num_bytes = max_bytes, 0
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        if key in self._values:
            self._values.move_to_end(key)
        return self._values.get(key)

    def put(self, key: Key, value: Value) -> None:
        replaced = self._values.pop(key, None)
        self._num_bytes += _size(value) - (0 if replaced is None else _size(replaced))
        self._values[key] = value
        while self._num_bytes > self._max_bytes and len(self._values) > 1:
            self._num_bytes -= _size(self._values.popitem(last=False)[1])


class Pictures:
    """Reads and draws for many threads; a cache's reader is used by one at a time."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._images: Kept[tuple[int, str], np.ndarray] = Kept(IMAGE_BYTES)
        self._pngs: Kept[tuple[int, str, int], bytes] = Kept(PNG_BYTES)

    def png(self, row: int, kind: str, view: int) -> bytes | None:
        """One picture; None where the cache has none: no such row, view or modality, or the row is not valid.

        Raises:
            CacheError: stored bytes are missing or damaged.
        """
        cache = self._cache
        if kind not in PICTURES or not 0 <= row < len(cache.samples) or not 0 <= view < len(cache.info.settings.views):
            return None
        if not has_picture(cache.samples[row], kind):
            return None
        key = (row, kind, view)
        with self._lock:
            found = self._pngs.get(key)
        if found is not None:
            return found
        pixels = self.read(row, MODALITY_OF[kind])[view]
        if kind != "normal":
            pixels = MODALITIES[MODALITY_OF[kind]].draw(pixels, dynamic=bool(cache.info.settings.dynamic))
        png = _encode(pixels)
        with self._lock:
            self._pngs.put(key, png)
        return png

    def read(self, row: int, modality: str) -> np.ndarray:
        """A row's images in every view, (V, H, W, …), as stored. Raises CacheError like `png`."""
        with self._lock:
            images = self._images.get((row, modality))
            if images is None:
                images = np.array(self._cache.arrays.read(modality, [row])[0])
                self._images.put((row, modality), images)
            return images


def has_picture(sample: Sample, kind: str) -> bool:
    return sample.valid and sample.has(MODALITY_OF[kind])


def shown_kind(sample: Sample, wanted: str) -> str | None:
    """The kind of picture to show: the wanted one, else another that the row has; None where it has none."""
    return next((kind for kind in (wanted, *KINDS) if has_picture(sample, kind)), None)


def _size(value: bytes | np.ndarray) -> int:
    return len(value) if isinstance(value, bytes) else value.nbytes


def _encode(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    # for a wire within this machine: a quarter faster than zlib's default strategy, and no larger
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return buffer.getvalue()
