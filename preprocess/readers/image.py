"""Texture images, through Pillow; JPEG through simplejpeg, which needs half the time for the same pixels."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path

import numpy as np
import simplejpeg  # type: ignore[import-untyped]
from PIL import Image

from preprocess.readers.file_bytes import is_text_copy, name_errors, read_bytes
from shared.errors import ScanError

# 8192 × 8192: larger than any scanner's texture; a file of a few KB can claim thousands of times that.
MAX_PIXELS = 1 << 26
_MAX_BYTES = 1 << 28  # an uncompressed image of so many pixels fits
_FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP", "TGA", "GIF", "PPM")
_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_BITS, _IS_ZERO_BLACK = 258, 262  # tags of TIFF: BitsPerSample, PhotometricInterpretation

_WEBP_PIXELS = 8000  # that a zero byte stands for, at most; 10,000 and more in images of one colour

# What libjpeg says of lost data. A few bytes too many before a marker are a habit of some cameras.
_DAMAGE = re.compile(r"premature end of data|bad Huffman code|\d{2,} extraneous bytes")

Image.MAX_IMAGE_PIXELS = None  # MAX_PIXELS is stricter, checked before decoding, and its error names the size


def read_image(path: Path) -> np.ndarray:
    """Read a BMP, JPEG, PNG, TIFF, WebP, TGA, GIF or PPM file as it is stored (an EXIF orientation is not applied).

    Returns:
        u8 (h, w, 3), sRGB, row 0 on top. Grey is repeated to three channels, 16-bit grey in either byte order scaled to 8;
        transparency is dropped; of several frames or pages it is the first.
    Raises:
        ScanError: missing, no such image, cut off, too large, or of unusual levels (32 bits, fractions).
    """
    data = read_bytes(path, max_bytes=_MAX_BYTES)
    with name_errors(path):
        return decode_image(data)


def decode_image(data: bytes) -> np.ndarray:
    """Decode the bytes of an image as `read_image`; the error does not name a file."""
    if is_text_copy(data):
        raise ScanError("its bytes were changed as if it were a text (FTP in text mode); copy it again in binary mode")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                scale = math.sqrt(MAX_PIXELS / (width * height))
                raise ScanError(
                    f"{width} × {height} pixels, expected at most {MAX_PIXELS}; "
                    f"scale it down to {max(int(width * scale), 1)} × {max(int(height * scale), 1)}"
                )
            if image.format == "TIFF":
                _check_pages(data, width, height)
            if image.mode in _EIGHT_BIT_MODES:
                if image.format == "WEBP":
                    _check_webp(data, width * height)
                pixels = _decode_jpeg(data, height, width) if image.format in ("JPEG", "MPO") else None
                if pixels is not None:
                    return pixels
                return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
            if not is_16_bit_grey(image):
                raise ScanError(f"an image of mode {image.mode}; save it with 8 bits a channel")
            grey = np.asarray(image).astype(np.uint32)  # Pillow would clip it, not scale it
            grey += 128
            grey //= 257
            return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
    except ScanError:
        raise
    except MemoryError as error:
        raise ScanError("out of memory while decoding; scale the texture down") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error …
        why = "it is cut off" if "truncated" in str(error) else type(error).__name__
        raise ScanError(
            f"not a readable image ({why}); expected a BMP, JPEG, PNG, TIFF, WebP, TGA, GIF or PPM image; "
            "copy it again, or save it as PNG"
        ) from error


def _check_pages(data: bytes, width: int, height: int) -> None:
    """Refuse a TIFF whose second page is larger than its first, of this size: a thumbnail.

    Raises:
        ScanError: it is.
    """
    with Image.open(io.BytesIO(data), formats=("TIFF",)) as pages:
        try:
            pages.seek(1)
        except Exception:  # there is none that can be read
            return
        if pages.width * pages.height > width * height:
            raise ScanError(
                f"its first page has {width} × {height} pixels, its second {pages.width} × {pages.height}; "
                "save the page that is meant alone"
            )


def _check_webp(data: bytes, num_pixels: int) -> None:
    """Refuse a WebP that ends in more zeros than an image of one colour: libwebp decodes them to smears.

    Raises:
        ScanError: its last bytes are lost.
    """
    data = data[: 8 + int.from_bytes(data[4:8], "little")]
    if len(data) - len(data.rstrip(b"\0")) > 16 + num_pixels // _WEBP_PIXELS:
        raise ScanError("its WebP data ends in zeros: it was not copied to its end; copy it again")


def _decode_jpeg(data: bytes, height: int, width: int) -> np.ndarray | None:
    """Decode a JPEG of a known size; None where anything about it is unusual.

    Raises:
        ScanError: part of its data is lost.
    """
    try:
        if simplejpeg.decode_jpeg_header(data)[:2] != (height, width):
            return None
        pixels: np.ndarray = simplejpeg.decode_jpeg(data)
        return pixels
    except ValueError as error:
        if _DAMAGE.search(str(error)):  # Pillow would decode it, and draw stripes where the data is lost
            raise ScanError("its JPEG data is damaged; copy it again") from error
        return None


def is_16_bit_grey(image: Image.Image) -> bool:
    """Return whether its levels are 0 to 65535, black to white."""
    if image.format == "PNG":
        return image.mode in ("I;16", "I;16B", "I")
    tags = getattr(image, "tag_v2", {})
    return image.mode.startswith("I;16") and tags.get(_BITS) == (16,) and tags.get(_IS_ZERO_BLACK) == 1
