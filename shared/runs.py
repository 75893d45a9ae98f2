"""The files of a run folder are what was written there: hashes.json holds the sha256 of each finished one.

Bytes rot, and files are exchanged: weights of another fold have the same shapes. So weights and settings are compared with
their hashes whenever they are loaded, and `python -m train verify RUN` compares all. A hash does not prove who wrote a file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from shared.errors import FacetError, first_line
from shared.schema import canonical_json, fingerprint
from shared.store.storage import hash_bytes, hash_file, write_file

HASHES_JSON = "hashes.json"
_FORMAT = "facet run hashes 1"
_MAX_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][^/\\\x00-\x1f]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def record_hashes(folder: Path, names: Iterable[str]) -> None:
    """Records some files of a folder as they are now; a name without a file is taken off the record."""
    hashes = read_hashes(folder)
    for name in names:
        if (folder / name).is_file():
            hashes[name] = hash_file(folder / name)
        else:
            hashes.pop(name, None)
    value = {"format": _FORMAT, "files": hashes}
    write_file(folder / HASHES_JSON, canonical_json({**value, "checksum": fingerprint(value)}).encode())


def read_hashes(folder: Path) -> dict[str, str]:
    """Reads the recorded hashes: file name → sha256; {} where nothing is recorded yet.

    Raises:
        FacetError: the record itself is damaged.
    """
    path = folder / HASHES_JSON
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError("too large")
        value = json.loads(path.read_bytes())
        checksum = value.pop("checksum")
        files = value["files"]
        if value["format"] != _FORMAT or checksum != fingerprint(value):
            raise ValueError("its checksum is another")
        if not all(_NAME.fullmatch(name) and _DIGEST.fullmatch(digest) for name, digest in files.items()):
            raise ValueError("names no file of this folder")
        return dict(files)
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FacetError(f"{path}: damaged ({first_line(error)}); copy the run again, or fit again") from error


def check_file(folder: Path, name: str, data: bytes, *, required: bool = False) -> None:
    """Compares the bytes of a file with its recorded hash.

    Args:
        required: a file that is not recorded is refused, too.
    Raises:
        FacetError: they are others, or nothing is recorded of a file that must be.
    """
    digest = read_hashes(folder).get(name)
    if digest is None and required:
        raise FacetError(f"{folder / name}: {HASHES_JSON} does not record it; copy the whole run again, or fit again")
    if digest is not None and digest != hash_bytes(data):
        raise FacetError(
            f"{folder / name}: damaged, or another run's (its sha256 is not the one in {HASHES_JSON}); copy it again, or "
            "fit again"
        )


def find_recorded(folder: Path) -> list[Path]:
    """Lists a folder and the folders below it (folds, tests of other caches) that record hashes. Links are not followed."""
    found = [path.parent for path in folder.rglob(HASHES_JSON) if path.is_file()]
    return sorted(found)


def find_changed(folder: Path) -> list[str]:
    """Lists what is wrong with the recorded files of one folder, a line each.

    Raises:
        FacetError: the record itself is damaged.
    """
    problems = []
    for name, digest in read_hashes(folder).items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{path}: missing")
        elif hash_file(path) != digest:
            problems.append(f"{path}: changed since it was written")
    return problems
