"""Files that a scan's file names: searched in its own folder and below, never elsewhere."""

from __future__ import annotations

import functools
import os
import time
import unicodedata
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from shared.errors import ScanError
from shared.pairs import group_pairs

# Encodings of names that are not UTF-8: Windows and DOS of Western Europe, China, Japan, Taiwan, Korea, Russia, Central
# Europe; old Macs. A wrong one gives a name that no file has.
_ENCODINGS = ("cp1252", "gb18030", "cp932", "big5", "cp949", "cp1251", "cp1250", "cp850", "mac_roman", "latin-1")
_MAX_NAME_BYTES = 4096
_MAX_SHOWN = 80
_SETTLED_SECONDS = 2  # a folder changed within less may change again without a newer time


def find_beside(path: Path, name: str | bytes) -> Path | None:
    """Return the file that `path` means by `name`, in the same folder or below; None if there is none.

    A path of another computer (`C:\\\\scans\\\\face.jpg`, `../face.jpg`) is reduced to its last part. The name is tried as
    written (bytes that are not UTF-8: in the encodings of several systems), then with %20 and the like decoded; case and
    composition need not agree (`find_below`). An address (`http://…`) is never followed. Nor is a link out of the folder:
    files named by a file from elsewhere must not become part of a cache. (Links that the user lists, or that lead to the
    folder, are followed.)

    Raises:
        ScanError: the name is a link out of the folder.
    """
    for text in _spellings(name):
        for candidate in _relative_paths(text):
            file = find_below(path.parent, candidate)
            if file is None:
                continue
            beside = file.parent == path.parent and not file.is_symlink()  # spares resolving each part of both paths
            if not beside and not file.resolve().is_relative_to(path.parent.resolve()):
                raise ScanError(f"{path}: {file.name} is a link out of its folder; put a copy of the file itself there")
            return file
    return None


def find_below(folder: Path, name: str) -> Path | None:
    """Return the file of a relative path below a folder, part by part; None if there is none.

    Each part is the one of exactly this name, else one whose letters are composed differently (ü as one character or two),
    else the only one that differs in upper and lower case alone.
    """
    try:
        if (folder / name).is_file():
            return folder / name
        file = folder
        for part in name.split("/"):
            found = part if (file / part).exists() else _find_name(file, part)
            if part in ("", ".", "..") or found is None:
                return None
            file = file / found
        return file if file.is_file() else None
    except (OSError, ValueError):  # a name that the file system cannot hold
        return None


def plain_name(name: str) -> str:
    """Return a name for comparison: names that differ only in case or in Unicode composition become equal."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def show_name(name: str | bytes) -> str:
    """Return a name for a message, in quotes: of one line, not too long."""
    text = name if isinstance(name, str) else decode_name(name[:_MAX_NAME_BYTES])
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return f"'{text}'" if len(text) <= _MAX_SHOWN else f"'{text[:_MAX_SHOWN]}…'"


def decode_name(name: bytes) -> str:
    """Return the likeliest text: UTF-8, else the encoding of Windows."""
    return _decode(name)[0]


def _spellings(name: str | bytes) -> Iterator[str]:
    """Iterate over the texts that a name may be, the likeliest first."""
    if len(name) > _MAX_NAME_BYTES:
        return
    yield from [name] if isinstance(name, str) else _decode(name)
    stored = name.encode(errors="replace") if isinstance(name, str) else name
    if b"%" in stored:
        yield from _decode(urllib.parse.unquote_to_bytes(stored))


def _decode(name: bytes) -> list[str]:
    texts = []
    for encoding in ("utf-8", *_ENCODINGS):
        try:
            texts.append(name.decode(encoding))
        except UnicodeDecodeError:
            continue
        if encoding == "utf-8":
            return texts
    return list(dict.fromkeys([*texts, os.fsdecode(name)]))  # last, a file that has these very bytes for its name


def _relative_paths(name: str) -> Iterator[str]:
    """Iterate over the paths below the folder that a name may be: as it stands, or its last part."""
    name = name.replace("\\", "/")
    if name[:5].lower() == "file:":  # a path on the computer that it comes from
        name = "/" + name[5:]
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or "\0" in name or "://" in name or parts[-1] == "..":
        return
    if ".." not in parts and not name.startswith("/") and ":" not in parts[0]:
        yield "/".join(parts)
    yield parts[-1]


def _find_name(folder: Path, name: str) -> str | None:
    changed = folder.stat().st_mtime_ns
    settled = time.time_ns() - changed > _SETTLED_SECONDS * 10**9
    listing = _list_unchanged(folder, changed) if settled else list_names(folder)
    alike = listing.get(plain_name(name), [])
    same = [other for other in alike if unicodedata.normalize("NFC", other) == unicodedata.normalize("NFC", name)]
    return same[0] if same else alike[0] if len(alike) == 1 else None


@functools.lru_cache(maxsize=8)
def _list_unchanged(folder: Path, changed_ns: int) -> dict[str, list[str]]:
    return list_names(folder)


def list_names(folder: Path) -> dict[str, list[str]]:
    """Return the names in a folder, in order, by `plain_name`."""
    return group_pairs((plain_name(file.name), file.name) for file in sorted(folder.iterdir()))
