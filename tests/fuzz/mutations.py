"""Damage to files that looks like what happens to files, or like what somebody would do to them on purpose."""

from __future__ import annotations

import copy
import io
import json
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

Mutator = Callable[[random.Random, bytes], bytes]

_NUMBER = re.compile(rb"[-+]?[0-9][0-9.eE+-]*")
_QUOTED_OR_NAME = re.compile(rb'"[^"\r\n]*"|[\w./-]+\.(?:png|jpg|bmp|mtl|obj|csv|wrl|xlsx)')
NUMBERS = (
    b"nan", b"-nan", b"inf", b"-inf", b"1e999", b"-1e999", b"1e38", b"-3.5e38", b"1e-400", b"0", b"-0", b"-1", b"-2",
    b"1", b"2",
    b"3", b"65535", b"65536", b"1000000000", b"2147483647", b"2147483648", b"-2147483648", b"4294967295", b"4294967296",
    b"9223372036854775807", b"9223372036854775808", b"99999999999999999999999", b"9" * 400, b"9" * 5000, b"0x10",
    b"1_000",
    b"1,5", b"1.5.2", b"--1", b"+", b"-", b".", b"e", b"1e", b"1e+", b"\xd9\xa1\xd9\xa2", b"\xc2\xb2", b"nan(7)",
    b"infinity", b"",
    b"1/2/3/4", b"/", b"//", b"1//", b"-1/-1", b"0/0/0", b"1.0/2", b"None", b"true",
)  # fmt: skip
PATHS = (
    b"../secret.png", b"../../etc/passwd", b"/etc/passwd", b"//etc/passwd", b"file:///etc/passwd",
    b"http://127.0.0.1:9/a.png",
    b"\\\\server\\share\\a.png", b"C:\\secret.png", b"..\\secret.png", b"linked/secret.png", b"link.png", b"link.mtl",
    b"loop.png",
    b"loop/loop/a.png", b"pipe.png", b"folder.png", b"folder.png/secret.png", b"./././face.png", b"FACE.PNG",
    b"face.png/../../secret.png",
    b"..", b".", b"/", b"", b"~/.ssh/id_rsa", b"a" * 300, b"b/" * 3000, b"%2e%2e/secret.png", b"secret.png\0face.png",
    b"\xff\xfe.png",
    b"con", b"/dev/zero", b"/dev/stdin", b"/proc/self/environ", b"data:image/png;base64,AAAA", b"face.png",
    b"$HOME/a.png",
)  # fmt: skip
BYTES = (b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\x1a", b'"', b"'", b"{", b"}", b"[", b"]", b"#", b"\\\n",
b"\r", b"\n", b",", b";", b"\t", b"\x0b", b"\x85")  # fmt: skip
_FLOATS = (
    float("nan"),
    float("inf"),
    -float("inf"),
    1e308,
    3.5e38,
    -1e30,
    1e-320,
    0.0,
    -0.0,
    1e9,
    -1e9,
    1e6,
    16777217.0,
)
_INTEGERS = (0, 1, 2, 3, 4, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 10**9, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

_JSON_VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 3, 5, 99, 255, 65536, 2**31 - 1, 2**31, 2**32, 2**63, 10**30, 0.5, -1.5, 1e308,
    float("nan"),
    float("inf"), "", "a", "VEC2", "VEC3", "SCALAR", "MAT4", 5120, 5121, 5123, 5125, 5126, [], {}, [0], [0, 0, 0],
    [1e30] * 3, [0] * 16,
    [None], [[]], {"a": 1}, "../secret.png", "file:///etc/passwd", "data:application/octet-stream;base64,AAAA",
    "x" * 10000,
)  # fmt: skip


def mutate_text(rng: random.Random, data: bytes) -> bytes:
    """One to four of: a number replaced, a line dropped, doubled or moved, a name replaced, bytes changed, cut, joined."""
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4))):
        data = rng.choice(_TEXT)(rng, data)
    return data


def mutate_table(rng: random.Random, data: bytes) -> bytes:
    """A field of a CSV file replaced, by what stands elsewhere in it too; now and then the text as a whole."""
    if rng.random() < 0.3:
        return mutate_text(rng, data)
    lines = [line.split(b",") for line in data.split(b"\n") if line]
    for _ in range(rng.choice((1, 1, 2, 3))):
        row = rng.choice(lines[1:] or lines)
        other = rng.choice(rng.choice(lines))
        new = rng.choice(
            (
                rng.choice(NUMBERS),
                rng.choice(PATHS),
                rng.choice(BYTES),
                other,
                b'"a\nb"',
                b"\xc3\x28",
                "é😀\u202e".encode(),
            )
        )
        row[rng.randrange(len(row))] = new
    return b"\n".join(b",".join(row) for row in lines) + b"\n"


def mutate_binary(rng: random.Random, data: bytes) -> bytes:
    """One to four of: bits turned, a number of some width overwritten (the head more often), cut, lengthened, a run zeroed."""
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4))):
        data = rng.choice(_BINARY)(rng, data)
    return data


def mutate_either(rng: random.Random, data: bytes) -> bytes:
    return rng.choice((mutate_text, mutate_binary))(rng, data)


def _replace_number(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data) + 1) if rng.random() < 0.7 else rng.randrange(min(len(data), 400) + 1)
    match = _NUMBER.search(data, start) or _NUMBER.search(data)
    if match is None:
        return data
    new = rng.choice(NUMBERS) if rng.random() < 0.8 else str(int(rng.gauss(0, 200))).encode()
    return data[: match.start()] + new + data[match.end() :]


def _replace_all_numbers_of_a_line(rng: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    k = rng.randrange(len(lines))
    lines[k] = _NUMBER.sub(rng.choice(NUMBERS[:24]), lines[k])
    return b"\n".join(lines)


def _replace_every_number(rng: random.Random, data: bytes) -> bytes:
    """Every n-th number becomes the same: a mesh without area, of one point, or far away."""
    new, step, count = (
        rng.choice((b"0", b"0.0", b"1", b"-1", b"1e30", b"1e-30", b"nan")),
        rng.choice((1, 2, 3, 4, 50)),
        0,
    )

    def put(match: re.Match[bytes]) -> bytes:
        nonlocal count
        count += 1
        return new if count % step == 0 else match[0]

    return _NUMBER.sub(put, data)


def _replace_name(rng: random.Random, data: bytes) -> bytes:
    places = list(_QUOTED_OR_NAME.finditer(data))
    if not places:
        return data
    match, new = rng.choice(places), rng.choice(PATHS)
    if match[0][:1] == b'"':
        new = b'"' + new + b'"'
    return data[: match.start()] + new + data[match.end() :]


def _change_lines(rng: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    how = rng.randrange(7)
    if how == 0:
        del lines[i]
    elif how == 1:
        lines.insert(j, lines[i])
    elif how == 2:
        lines[i], lines[j] = lines[j], lines[i]
    elif how == 3:
        del lines[min(i, j) : max(i, j)]
    elif how == 4:
        lines[i] = lines[i] * rng.choice((2, 3, 50))
    elif how == 5:
        lines[i : i + 1] = [lines[i]] * rng.choice((2, 10, 1000))
    else:
        return rng.choice((b"\r", b"\r\n", b" ", b"", b"\x0b")).join(lines)
    return b"\n".join(lines)


def _change_words(rng: random.Random, data: bytes) -> bytes:
    words = data.split(b" ")
    i, j = rng.randrange(len(words)), rng.randrange(len(words))
    if rng.random() < 0.5:
        del words[i]
    else:
        words.insert(i, words[j])
    return b" ".join(words)


def _insert_bytes(rng: random.Random, data: bytes) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.choice(BYTES) * rng.choice((1, 1, 2, 1000)) + data[place + rng.choice((0, 1)) :]


def _turn_bits(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 8, 64)) if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(rng: random.Random, data: bytes) -> bytes:
    i, j = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    return rng.choice((data[:i], data[:i], data[i:], data[:i] + data[j:]))


def _lengthen(rng: random.Random, data: bytes) -> bytes:
    i, j = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    return rng.choice((data + data[i:j], data[:j] + data[i:], data + bytes(rng.choice((1, 3, 4096))), data * 2))


def _overwrite_value(rng: random.Random, data: bytes) -> bytes:
    kind = rng.choice("BHIQfd")
    order = rng.choice("<<<>")
    width = struct.calcsize("<" + kind)
    end = len(data) if rng.random() < 0.5 else min(len(data), 160)
    if end < width:
        return data
    if kind == "f":
        number = rng.choice([value for value in _FLOATS if not 3.4e38 < abs(value) < 1e309])
        value = struct.pack(order + kind, number)
    elif kind == "d":
        value = struct.pack(order + kind, rng.choice(_FLOATS))
    else:
        value = struct.pack(order + kind, rng.choice(_INTEGERS) & (256**width - 1))
    place = rng.randrange(end - width + 1)
    return data[:place] + value + data[place + width :]


def _zero_run(rng: random.Random, data: bytes) -> bytes:
    i, j = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    return data[:i] + rng.choice((b"\0", b"\xff", b"\x20", b"\x41")) * (j - i) + data[j:]


_TEXT: tuple[Mutator, ...] = (
    _replace_number, _replace_number, _replace_number, _replace_number, _replace_all_numbers_of_a_line,
    _replace_every_number,
    _replace_name, _replace_name, _change_lines, _change_lines, _change_words, _insert_bytes, _turn_bits, _cut,
    _lengthen,
)  # fmt: skip
_BINARY: tuple[Mutator, ...] = (
    _turn_bits,
    _overwrite_value,
    _overwrite_value,
    _overwrite_value,
    _cut,
    _lengthen,
    _zero_run,
)


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
    packer = zlib.compressobj(9)
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
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("xl/worksheets/sheet1.xml", "w", force_zip64=True) as member,
    ):
        for _ in range(num_bytes >> 20):
            member.write(b" " * (1 << 20))
    data = out.getvalue()
    if lie:
        data = data.replace((num_bytes >> 20 << 20).to_bytes(4, "little"), (100).to_bytes(4, "little"))
        data = data.replace((num_bytes >> 20 << 20).to_bytes(8, "little"), (100).to_bytes(8, "little"))
    return data
