"""Damage to files that looks like what happens to files, or like what somebody would do to them on purpose."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable

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
    b"$HOME/a.png", b"%2e%2e%2fsecret.png", b"..%5csecret.png", b"face%2epng", b"file:///secret.png", b"%00", b"-s 1 face.png",
    b"face.png -o 1e999", b"a.mtl " * 50, b"\xb2\xe2.png", b"fa\xcc\x88ce.png", b"LINK.PNG", b"Linked/SECRET.png",
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
