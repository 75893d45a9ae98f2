"""Draw PNG pictures of a cache for a browser. The last ones stay in memory."""

from __future__ import annotations

import io
import threading
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image

from preprocess.viewer.address import KINDS
from shared.cache import Cache
from shared.modalities import BACKGROUND, MODALITIES
from shared.schema import Sample

# Kind of picture → modality. normal: the stored normals, which the browser lights itself.
MODALITY_OF = {**dict(zip(KINDS, MODALITIES, strict=True)), "normal": "normal"}
PNG_BYTES, IMAGE_BYTES = 128 * 2**20, 64 * 2**20  # at most, of drawn pictures and of decoded images in memory


class Pictures:
    """Reads and draws for many threads."""

    def __init__(self, cache: Cache) -> None:
        self._cache, self._lock = cache, threading.Lock()  # a reader of a cache serves one thread at a time
        settings = cache.info.settings
        view_bytes = 3 * settings.size_px**2  # all images have one size, so a number of images bounds the bytes
        self._draw = lru_cache(max(PNG_BYTES // view_bytes, 1))(self._draw_png)
        self._read = lru_cache(max(IMAGE_BYTES // (view_bytes * len(settings.views)), 1))(self._read_images)

    def png(self, row: int, kind: str, view: int) -> bytes | None:
        """Return one picture; None if the row, kind or view does not exist or the row is not valid.

        Raises:
            CacheError: stored bytes are missing or damaged.
        """
        samples, num_views = self._cache.samples, len(self._cache.info.settings.views)
        if kind not in MODALITY_OF or not 0 <= row < len(samples) or not 0 <= view < num_views:
            return None
        return self._draw(row, kind, view) if has_picture(samples[row], kind) else None

    def read(self, row: int, name: str) -> np.ndarray:
        """Read a row of an array as stored: images of every view (V, H, W, …), or labels.

        Raises:
            CacheError: stored bytes are missing or damaged.
        """
        with self._lock:
            return self._read(row, name)

    def read_rows(self, rows: Sequence[int], name: str) -> np.ndarray:
        """Read rows of an array as stored, (n, …); they are not kept. Raises CacheError as `read`."""
        with self._lock:
            return self._cache.arrays.read(name, rows)

    def _read_images(self, row: int, name: str) -> np.ndarray:
        return np.array(self._cache.arrays.read(name, [row])[0])

    def _draw_png(self, row: int, kind: str, view: int) -> bytes:
        return draw_png(self.read(row, MODALITY_OF[kind])[view], kind, dynamic=bool(self._cache.info.settings.dynamic))


def draw_png(pixels: np.ndarray, kind: str, *, dynamic: bool = False) -> bytes:
    """Draw stored values (H, W, …) as a PNG; where there is no surface, the page shows through, except in `normal`."""
    options = {}
    if kind != "normal":
        options["transparency"] = BACKGROUND  # white tiles glare on a dark page
        pixels = MODALITIES[MODALITY_OF[kind]].draw(pixels, dynamic=dynamic)
    buffer = io.BytesIO()
    # 25 % faster than zlib's default strategy, and no larger
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE, **options)
    return buffer.getvalue()


def has_picture(sample: Sample, kind: str) -> bool:
    return sample.valid and sample.has(MODALITY_OF[kind])


def choose_kind(sample: Sample, wanted: str) -> str | None:
    """Return the wanted kind of picture if the row has it, else another; None if it has none."""
    return next((kind for kind in (wanted, *KINDS) if has_picture(sample, kind)), None)
