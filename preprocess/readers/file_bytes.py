"""A scan's file as bytes, and the numbers in its text."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

import numpy as np

from preprocess.readers.text_kernels import byte_classes, scan_floats, scan_integers
from shared.errors import ScanError, describe_os_error

# 134 MB; a dense face scan has up to 100. The tightest text ("f 1 2 3") takes 16 times its size while it is read: so any file
# stays near 2 GB.
MAX_SCAN_BYTES = 1 << 27
_CONTENT = re.compile(rb"[^\0 \t\r\n]")
_BLANKS = byte_classes(b" \t\r\n\v\f")
_DECIMAL_COMMA = re.compile(rb"[-+]?\d*,\d+(?:[eE][-+]?\d+)?,?")
# What files begin with that are never what is read here, whatever their names say.
_PACKED = {
    b"\x1f\x8b": "compressed with gzip; unpack it (gunzip)",
    b"PK\x03\x04": "a ZIP archive; unpack it (unzip)",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it",
    b"Rar!\x1a\x07": "a RAR archive; unpack it",
    b"BZh": "compressed with bzip2; unpack it (bunzip2)",
    b"\xfd7zXZ\0": "compressed with xz; unpack it (unxz)",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it (unzstd)",
    b"version https://git-lfs": "a pointer of Git LFS and not the file itself; fetch it (git lfs pull)",
    b"<!doctype html": "a web page; download the file itself",
    b"<html": "a web page; download the file itself",
}
_KINDS = {
    b"ply\n": "PLY", b"ply\r": "PLY", b"#vrml v": "VRML", b"#inventor": "an Open Inventor file", b"gltf": "GLB",
    b"solid ": "STL", b"off": "OFF", b"coff": "OFF", b"kaydara fbx": "FBX", b"<?xml": "XML", b"# vtk": "VTK", b"%pdf": "PDF",
    b"{": "JSON", b"\x89png": "a PNG image", b"\xff\xd8\xff": "a JPEG image", b"bm": "a BMP image",
    b"ii*\0": "a TIFF image", b"mm\0*": "a TIFF image", b"gif8": "a GIF image", b"mtllib": "OBJ",
    b"newmtl": "a material file (MTL)",
}  # fmt: skip


def read_bytes(path: Path, *, max_bytes: int = MAX_SCAN_BYTES, packed: bool = False) -> bytes:
    """A whole file.

    Args:
        packed: it is an archive and is meant to be one.
    Raises:
        ScanError: missing, empty, no regular file, too large, compressed or a web page, or the system refuses.
    """
    try:
        if not path.is_file():
            kind = "is not a file" if path.exists() else "no such file; copy it there"
            raise ScanError(f"{path}: {kind}")
        size = path.stat().st_size
        if size > max_bytes:
            raise ScanError(f"{path}: {size / 1e6:.0f} MB, expected at most {max_bytes / 1e6:.0f} MB; is this a scan?")
        data = path.read_bytes()
    except OSError as error:
        raise ScanError(describe_os_error(error)) from error
    if _CONTENT.search(data) is None:
        raise ScanError(f"{path}: the file is empty; copy it again")
    if not packed and (found := describe_packed(data)):
        raise ScanError(f"{path}: {found}")
    return data


def read_text(path: Path, *, max_bytes: int = MAX_SCAN_BYTES) -> bytes:
    """A whole text file as it stands, but without a byte order mark; UTF-16 becomes UTF-8, line ends of CR alone become LF.

    Raises:
        ScanError: as `read_bytes`.
    """
    data = without_mark(read_bytes(path, max_bytes=max_bytes))
    return data if b"\n" in data else data.replace(b"\r", b"\n")


def without_mark(data: bytes) -> bytes:
    """A text without its byte order mark; UTF-16 becomes UTF-8. Other bytes are left as they are."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace").encode()
    return data.removeprefix(codecs.BOM_UTF8)


def describe_packed(data: bytes) -> str | None:
    """What a file is that is never read here, whatever its name says, and what to do; None where it is none of these."""
    return _find_kind(data, _PACKED)


def describe_kind(data: bytes) -> str | None:
    """What a file seems to be by its first bytes: "PLY", "a PNG image"; None where they tell nothing."""
    return _find_kind(data, _KINDS)


def _find_kind(data: bytes, kinds: dict[bytes, str]) -> str | None:
    """By the first bytes, without regard to case."""
    start = data[:32].removeprefix(codecs.BOM_UTF8).lower()
    return next((kind for first, kind in kinds.items() if start.startswith(first.lower())), None)


def parse_numbers(
    text: bytes | memoryview, dtype: type[np.float64] | type[np.int64], *, classes: np.ndarray = _BLANKS
) -> np.ndarray:
    """Numbers separated by white space, as a flat array: what Python's `float` or `int` makes of each word.

    Args:
        classes: u8 (256,), see `byte_classes`: what else stands between numbers, and what begins a comment.
    Returns:
        float64 or int64 (n,); integers that do not fit become the nearest that does.
    Raises:
        ValueError: something in the text is no such number; names it.
    """
    data = np.frombuffer(text, np.uint8)
    scan = scan_integers if dtype is np.int64 else scan_floats
    values, left = np.empty(len(data) // 5 + 8, dtype), np.empty((64, 3), np.int64)
    place, count, num_left = scan(data, 0, classes, values, 0, left, 0)
    while place < len(data):
        values = enlarge(values) if count == len(values) else values
        left = enlarge(left) if num_left == len(left) else left
        place, count, num_left = scan(data, place, classes, values, count, left, num_left)
    parse_words(text, left[:num_left], values)
    return values[:count]


def parse_words(text: bytes | memoryview, left: np.ndarray, values: np.ndarray) -> None:
    """Writes the numbers that the kernels left: `left` int64 (m, 3) says which, and where their words begin and end.

    Raises:
        ValueError: a word is no number; names it.
    """
    limits = np.iinfo(np.int64)
    for which, start, end in left.tolist():
        word = bytes(text[start:end])
        try:
            if b"_" in word:  # Python's own: 1_000
                raise ValueError
            values[which] = min(max(int(word), limits.min), limits.max) if values.dtype == np.int64 else float(word)
        except ValueError:
            shown = repr(word[:40].decode("latin-1"))
            if _DECIMAL_COMMA.fullmatch(word):
                raise ValueError(f"{shown} has a decimal comma; export the scan with decimal points") from None
            raise ValueError(f"expected numbers, found {shown}") from None


def enlarge(array: np.ndarray) -> np.ndarray:
    """A copy with room for twice as many rows."""
    larger = np.empty((2 * len(array), *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger


def to_float32(array: np.ndarray) -> np.ndarray:
    """float32, where what is too large becomes infinite without a warning (Mesh then refuses it)."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(array, np.float32)
