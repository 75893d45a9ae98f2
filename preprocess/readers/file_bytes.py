"""A file as bytes or text, written by any program; and the format of a file whose name is wrong."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import ScanError, describe_os_error

# 134 MB; a dense face scan has up to 100. The tightest text ("f 1 2 3") takes 16 times its size while it is read: so any file
# stays near 2 GB.
MAX_SCAN_BYTES = 1 << 27
# Ends of errors: of a mesh, of which one is needed, and of labels or landmarks, which may be left out.
CUT = "the file is cut off or garbled; copy it again"
COPY = "copy it again or remove it"
# Of a mesh file that says how many faces it holds.
MORE_FOLLOWS = "more follows its last face, and is not drawn; perhaps its header counts too few faces"
_CONTENT = re.compile(rb"[^\0 \t\r\n]")
_MARKS = ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_SAMPLE_BYTES = 400
_MAX_ZEROS = 4  # at the end of a text
_MANY_LINE_ENDS = 16  # in random bytes, not even two of them are all preceded by CR
# First bytes of files that are never read here, under any name.
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
    """Read a whole file.

    Args:
        packed: the file is meant to be an archive.
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


@contextmanager
def name_errors(path: Path) -> Iterator[None]:
    """Name the file in errors of a block that reads it; a ValueError becomes a ScanError."""
    try:
        yield
    except (ScanError, ValueError) as error:
        raise ScanError(f"{path}: {error}") from error


def read_text(path: Path, *, max_bytes: int = MAX_SCAN_BYTES) -> bytes:
    """Read a whole text file: UTF-16 becomes UTF-8, a byte order mark is dropped, line ends of CR alone become LF.

    Raises:
        ScanError: as `read_bytes`; a zero byte, which interrupted copies end with.
    """
    data = to_utf8(read_bytes(path, max_bytes=max_bytes))
    text = data.rstrip(b"\0")  # programs in C may write the one that ends a string
    data = text if len(data) - len(text) <= _MAX_ZEROS else data
    if (place := data.find(b"\0")) >= 0:
        raise ScanError(
            f"{path}: a zero byte in a text, at byte {place}; the file was not copied to its end; copy it again"
        )
    return data if b"\n" in data else data.replace(b"\r", b"\n")


def read_lines(path: Path, *, max_bytes: int = 1 << 20) -> list[str]:
    """Read the lines of a text file, without white space at both ends; bytes that are not UTF-8 become �.

    Raises:
        ScanError: as `read_bytes`.
    """
    text = to_utf8(read_bytes(path, max_bytes=max_bytes)).decode("utf-8", "replace")
    return [line.strip() for line in re.split(r"\r\n|\n|\r", text)]


def read_rows(path: Path, *, max_bytes: int = 1 << 20, separators: bytes = b",;") -> list[bytes]:
    """Read the lines of a text file that are not blank; the separators become blanks.

    Raises:
        ScanError: as `read_bytes`.
    """
    text = to_utf8(read_bytes(path, max_bytes=max_bytes)).translate(bytes.maketrans(separators, b" " * len(separators)))
    return [row for row in text.splitlines() if row.strip()]


def to_utf8(data: bytes) -> bytes:
    """Drop the byte order mark of a text; UTF-16, with a mark or without, becomes UTF-8. Leave other bytes as they are."""
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "") or _guess_utf16(data)
    if encoding:
        return data.decode(encoding, "replace").lstrip("\ufeff").encode("utf-8", "replace")
    return data.removeprefix(codecs.BOM_UTF8)


def _guess_utf16(data: bytes) -> str:
    """Recognise UTF-16 without its mark: in text of digits and Latin letters every other byte is 0."""
    start = data[:_SAMPLE_BYTES]
    for offset, (_, name) in zip((1, 0), _MARKS, strict=True):
        if len(start) >= 4 and not start[offset::2].strip(b"\0") and b"\0" not in start[1 - offset :: 2]:
            return name
    return ""


def is_text_copy(data: bytes) -> bool:
    """Return whether a copy in text mode put CR before every LF of a binary file."""
    num = data.count(b"\n")
    return num > _MANY_LINE_ENDS and data.count(b"\r\n") == num and not data.isascii()


def is_blank(path: Path) -> bool:
    """Return whether a file is there and holds nothing: some data sets mark so what could not be tracked."""
    try:
        if not path.is_file() or path.stat().st_size > _SAMPLE_BYTES:
            return False
        return not path.read_bytes().strip(b"\0 \t\r\n")
    except OSError:
        return False


def describe_packed(data: bytes) -> str | None:
    """Name a file by its first bytes if it is one that is never read here, and say what to do; else None."""
    return _find_kind(data, _PACKED)


def describe_kind(data: bytes) -> str | None:
    """Name a file's format by its first bytes: "PLY", "a PNG image"; None if they show none."""
    return _find_kind(data, _KINDS)


def _find_kind(data: bytes, kinds: dict[bytes, str]) -> str | None:
    start = data[:32].removeprefix(codecs.BOM_UTF8).lower()
    return next((kind for first, kind in kinds.items() if start.startswith(first.lower())), None)
