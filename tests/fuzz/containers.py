"""Damage to what holds other things, as text, as bytes or from within: JSON documents, GLB, PNG and XLSX files."""

from __future__ import annotations

import copy
import io
import json
import random
import re
import struct
import zipfile
import zlib
from typing import Any

from fuzz.mutations import NUMBERS, PATHS, mutate_binary, mutate_text

_JSON_VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 3, 5, 99, 255, 65536, 2**31 - 1, 2**31, 2**32, 2**63, 10**30, 0.5, -1.5, 1e308,
    float("nan"),
    float("inf"), "", "a", "VEC2", "VEC3", "SCALAR", "MAT4", 5120, 5121, 5123, 5125, 5126, [], {}, [0], [0, 0, 0],
    [1e30] * 3, [0] * 16,
    [None], [[]], {"a": 1}, "../secret.png", "file:///etc/passwd", "data:application/octet-stream;base64,AAAA",
    "x" * 10000,
)  # fmt: skip


def mutate_json(rng: random.Random, data: bytes) -> bytes:
    """A value of the document replaced, a key or entry removed, doubled or exchanged; now and then its text."""
    if rng.random() < 0.2:
        return mutate_text(rng, data)
    document = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_walk_json(document))
        if not places:
            break
        holder, key = rng.choice(places)
        how = rng.random()
        if how < 0.6:
            holder[key] = copy.deepcopy(rng.choice(_JSON_VALUES))
        elif how < 0.75:
            del holder[key]
        elif how < 0.85:
            other, other_key = rng.choice(places)
            holder[key] = copy.deepcopy(other[other_key])
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        elif isinstance(holder[key], int):
            holder[key] += rng.choice((-1, 1, 4, 256, -256))
    return json.dumps(document).encode()


def _walk_json(value: Any) -> list[tuple[Any, Any]]:
    """Every place of a document, as what holds it and its key."""
    places: list[tuple[Any, Any]] = []
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        places.append((value, key))
        places += _walk_json(inner)
    return places


def mutate_glb(rng: random.Random, data: bytes) -> bytes:
    """The JSON part, the numbers, or the container's bytes."""
    how = rng.random()
    if how < 0.25:
        return mutate_binary(rng, data)
    length = int.from_bytes(data[12:16], "little")
    text, binary = data[20 : 20 + length], data[28 + length :]
    if how < 0.8:
        text = mutate_json(rng, text)
        text += b" " * (-len(text) % 4)
    else:
        binary = mutate_binary(rng, binary)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def mutate_png(rng: random.Random, data: bytes) -> bytes:
    """As mutate_binary, half the time with sums that are right again, so that what is behind them is read."""
    changed = mutate_binary(rng, data)
    if rng.random() < 0.5 or not changed.startswith(b"\x89PNG\r\n\x1a\n"):
        return changed
    result, place = changed[:8], 8
    while place + 8 <= len(changed):
        length = int.from_bytes(changed[place : place + 4], "big")
        body = changed[place + 4 : place + 8 + length]
        result += changed[place : place + 4] + body + zlib.crc32(body).to_bytes(4, "big")
        place += 12 + length
    return result


def png_bomb(width: int, height: int, *, mode: int = 2, full: bool = True) -> bytes:
    """A small PNG file that claims to be large; with `full`, its compressed data really hold so many zeros."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    head = struct.pack(">IIBBBBB", width, height, 8, mode, 0, 0, 0)
    packer = zlib.compressobj(1)
    row = bytes(1 + width * {0: 1, 2: 3, 6: 4}[mode]) if full else b"\0"
    body = b"".join(packer.compress(row) for _ in range(height if full else 1)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def mutate_xlsx(rng: random.Random, data: bytes) -> bytes:
    """The archive's bytes, or the text of one of its parts, or a part too many, too large or missing."""
    if rng.random() < 0.3:
        return mutate_binary(rng, data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = [(member.filename, archive.read(member)) for member in archive.infolist()]
    k = rng.randrange(len(parts))
    if rng.random() < 0.6:
        k = next(i for i, (name, _) in enumerate(parts) if name.endswith("sheet1.xml"))
    name, text = parts[k]
    how = rng.randrange(12)
    if how < 6:
        parts[k] = name, _mutate_sheet_xml(rng, text)
    elif how < 8:
        parts[k] = name, mutate_text(rng, text)
    elif how == 8:
        del parts[k]
    elif how == 9:
        parts[k] = rng.choice(("../../evil.xml", "/etc/passwd", "xl/worksheets/sheet1.xml", "a" * 500)), text
    elif how == 10:
        parts[k] = name, text.replace(b"?>", b'?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>', 1)
    else:
        parts.append(("xl/media/large.bin", bytes(rng.choice((1000, 1 << 22)))))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in dict(parts).items():
            archive.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _mutate_sheet_xml(rng: random.Random, text: bytes) -> bytes:
    old, new = rng.choice(
        (
            (rb'r="\d+"', b'r="1048576"'), (rb'r="\d+"', b'r="999999999999"'), (rb'r="[A-Z]+\d+"', b'r="XFD1048576"'),
            (rb'r="[A-Z]+\d+"', b'r="ZZZZZZZZ1"'), (rb'r="[A-Z]+\d+"', b'r=""'), (rb't="\w+"', b't="s"'), (rb't="\w+"',
            b't="e"'),
            (rb't="\w+"', b't="d"'), (rb't="\w+"', b't="b"'), (rb"<v>[^<]*</v>",
            b"<v>" + rng.choice(NUMBERS) + b"</v>"),
            (rb"<t>[^<]*</t>", b"<t>" + rng.choice(PATHS).replace(b"\0", b"").replace(b"\xff\xfe", b"") + b"</t>"),
            (rb"<row", b"<row><row"), (rb"</c>", b""), (rb"<sheetData>", b"<sheetData>" + b"<a>" * rng.choice((1, 3000,
            100000))),
        )
    )  # fmt: skip
    places = list(re.finditer(old, text))
    if not places:
        return mutate_text(rng, text)
    match = rng.choice(places)
    return text[: match.start()] + new + text[match.end() :]


def xlsx_bomb(num_bytes: int, *, lie: bool = False) -> bytes:
    """A sheet that unpacks to num_bytes; with `lie`, its directory says that it holds 100."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("xl/worksheets/sheet1.xml", "w", force_zip64=True) as member,
    ):
        for _ in range(num_bytes >> 20):
            member.write(b" " * (1 << 20))
    data = out.getvalue()
    if lie:
        data = data.replace((num_bytes >> 20 << 20).to_bytes(4, "little"), (100).to_bytes(4, "little"))
        data = data.replace((num_bytes >> 20 << 20).to_bytes(8, "little"), (100).to_bytes(8, "little"))
    return data
