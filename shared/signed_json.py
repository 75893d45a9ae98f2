"""JSON with a sha256 of its own content: a flipped byte is found although no other file vouches for this one."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from shared.schema import canonical_json, fingerprint
from shared.store.paths import read_bytes
from shared.store.storage import write_file

_CHECKSUM = re.compile(rb'(\n "checksum": "([0-9a-f]{64})"(,?))(?=\n)')


def write_signed_json(path: Path, value: dict[str, Any]) -> None:
    """Write canonical JSON with a `checksum` over everything else in it."""
    write_file(path, canonical_json({**value, "checksum": fingerprint(value)}).encode())


def read_signed_json(path: Path) -> dict[str, Any]:
    """Read what `write_signed_json` wrote.

    Raises:
        ValueError: no such JSON, or changed since it was written.
        FileNotFoundError: there is no such file.
    """
    data = read_bytes(path)
    found = _CHECKSUM.findall(data)
    if len(found) != 1:
        raise ValueError("it lacks its checksum")
    line, checksum, comma = found[0]
    # the bytes that were hashed: encoding a value again takes far longer
    body = data.replace(line if comma else b"," + line, b"")
    if hashlib.sha256(body).hexdigest().encode() != checksum:
        raise ValueError("its content does not match its checksum")
    try:
        value: dict[str, Any] = json.loads(body)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value
