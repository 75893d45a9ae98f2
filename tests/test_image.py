"""Texture images: levels of 16 bits, sizes above the limit, formats."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from fuzz import containers
from PIL import Image

from preprocess.readers.image import decode_image, read_image
from shared.errors import ScanError

LEVELS = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "I;16"), ("TIFF", "I;16"), ("TIFF", "I;16B")])
def test_grey_of_16_bits_is_scaled(kind: str, mode: str) -> None:
    levels = LEVELS.byteswap() if mode.endswith("B") else LEVELS
    data = encode(Image.frombytes(mode, (8, 8), levels.tobytes()), kind)
    if kind == "TIFF":
        assert data[:2] == (b"MM" if mode.endswith("B") else b"II")
    pixels = decode_image(data)
    np.testing.assert_array_equal(pixels, np.repeat(np.rint(LEVELS / 257).astype(np.uint8)[..., None], 3, -1))


def test_other_levels_are_refused() -> None:
    for image, kind in (
        (Image.fromarray(LEVELS.astype(np.int32)), "TIFF"),
        (Image.fromarray(LEVELS.astype(np.float32)), "TIFF"),
    ):
        with pytest.raises(ScanError, match="8 bits a channel"):
            decode_image(encode(image, kind))
    data = encode(Image.fromarray(LEVELS), "TIFF", tiffinfo={262: 0})  # white is 0
    with pytest.raises(ScanError, match="8 bits a channel"):
        decode_image(data)


def test_an_image_above_the_limit_tells_its_size(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    for width, height, smaller in ((16384, 16384, "8192 × 8192"), (40_000, 10_000, "16384 × 4096")):
        path.write_bytes(containers.png_bomb(width, height, full=False))
        with pytest.raises(ScanError, match=f"{width} × {height} pixels.*scale it down to {smaller}"):
            read_image(path)


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "TGA"])
def test_formats(kind: str) -> None:
    image = Image.new("RGB", (4, 4), (200, 40, 40))
    np.testing.assert_allclose(decode_image(encode(image, kind)), np.full((4, 4, 3), (200, 40, 40)), atol=3)


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"subsampling": "4:2:2"}, {"progressive": True}], ids=str)
def test_jpeg_has_the_pixels_that_pillow_decodes(options: dict[str, object]) -> None:
    rng = np.random.default_rng(0)
    smooth = np.asarray(
        Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8)).resize((101, 67), Image.Resampling.BICUBIC)
    )
    data = encode(Image.fromarray(smooth), "JPEG", quality=92, **options)
    np.testing.assert_array_equal(decode_image(data), np.asarray(Image.open(io.BytesIO(data))))
    with pytest.raises(ScanError, match="it is cut off"):
        decode_image(data[: len(data) // 2])
    grey = encode(Image.fromarray(smooth[..., 0]), "JPEG")
    assert decode_image(grey).shape == (67, 101, 3)


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("MPO", "RGB")])
def test_a_damaged_jpeg_is_refused(kind: str, mode: str) -> None:
    """Pillow decodes it, and stretches a colour over what is lost."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).convert(mode)
    data = encode(noise, kind, **({"save_all": True, "append_images": [noise]} if kind == "MPO" else {}))
    np.testing.assert_allclose(decode_image(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), atol=1)
    place = data.index(b"\xff\xda") + 100
    for lost in (bytes(8), b"\xff\xd9"):
        with pytest.raises(ScanError, match="JPEG data is damaged; copy it again"):
            decode_image(data[:place] + lost + data[place + 400 :])
    decode_image(data[:-2] + bytes(3) + data[-2:])  # some cameras fill the end up


def test_a_tiff_that_begins_with_its_thumbnail_is_refused() -> None:
    image, small = Image.new("RGB", (80, 60), (200, 40, 40)), Image.new("RGB", (20, 15))
    data = encode(image, "TIFF", save_all=True, append_images=[small])
    np.testing.assert_array_equal(decode_image(data), np.asarray(image))
    with pytest.raises(ScanError, match="first page has 20 × 15 pixels, its second 80 × 60"):
        decode_image(encode(small, "TIFF", save_all=True, append_images=[image]))


@pytest.mark.parametrize("options", [{"quality": 90}, {"lossless": True}], ids=str)
def test_a_webp_that_ends_in_zeros_is_refused(options: dict[str, object]) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))
    data = encode(noise, "WEBP", **options)
    decode_image(data + bytes(500))  # the last block of a disk
    with pytest.raises(ScanError, match="WebP data ends in zeros"):
        decode_image(data[: len(data) * 9 // 10].ljust(len(data), b"\0"))
    for color in ((0, 0, 0), (90, 20, 30)):  # hundreds of zeros, and whole
        decode_image(encode(Image.new("RGB", (2048, 2048), color), "WEBP", **options))


@pytest.mark.parametrize("kind", ["BMP", "PPM", "JPEG", "WEBP", "TGA"])
def test_a_copy_in_text_mode_is_refused(kind: str) -> None:
    """Only PNG has bytes that show it; the other formats decode to noise."""
    data = encode(Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8)), kind)
    decode_image(data)
    with pytest.raises(ScanError, match="FTP in text mode"):
        decode_image(data.replace(b"\n", b"\r\n"))
    decode_image(b"P3 99 33 255\r\n" + b"200 100 50\r\n" * (99 * 33))  # text indeed
