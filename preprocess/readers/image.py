"""Texture images, through Pillow."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from preprocess.readers.file_bytes import read_bytes
from shared.errors import ScanError

MAX_PIXELS = (
    1 << 26
)  # 8192 × 8192: larger than any scanner's texture; a bomb of a few KB can claim thousands of times that
_MAX_BYTES = 1 << 28  # an uncompressed image of so many pixels fits
_FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP", "TGA")


def read_image(path: Path) -> np.ndarray:
    """Reads a BMP, JPEG, PNG, TIFF, WebP or TGA file as it is stored (an EXIF orientation is not applied).

    Returns:
        u8 (h, w, 3), sRGB, row 0 on top. Grey is repeated to three channels, transparency dropped.
    Raises:
        ScanError: missing, no such image, cut off, or too large.
    """
    data = read_bytes(path, max_bytes=_MAX_BYTES)
    try:
        return decode_image(data)
    except ScanError as error:
        raise ScanError(f"{path}: {error}") from error


def decode_image(data: bytes) -> np.ndarray:
    """`read_image` for bytes in memory; the error does not name a file."""
    advice = "expected a BMP, JPEG, PNG, TIFF, WebP or TGA image; copy it again"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own size warning: MAX_PIXELS is stricter
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise ScanError(f"{width} × {height} pixels, expected at most {MAX_PIXELS}; scale the texture down")
                if image.mode in ("I;16", "I", "F"):  # a scanner's 16-bit grey: Pillow would clip it, not scale it
                    raise ScanError(f"an image of mode {image.mode}; save it with 8 bits a channel")
                return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except ScanError:
        raise
    except MemoryError as error:
        raise ScanError("out of memory while decoding; scale the texture down") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error …
        why = "it is cut off" if "truncated" in str(error) else type(error).__name__
        raise ScanError(f"not a readable image ({why}); {advice}") from error
