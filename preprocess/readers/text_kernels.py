"""One pass over the text of a scan: bytes → arrays, with nothing made for a single word.

A number is exactly what Python's `float` or `int` makes of its word. Up to 18 digits that fit in 53 bits, times or over a
power of ten up to 10²², are one exactly rounded operation (Clinger 1990, "How to read floating point numbers accurately");
over such a power, up to 18 digits of more bits are three. Other words (more digits, nan, inf, garbage, a value in the middle
of two numbers) are left to the caller: kernels list where they stand.

Inner kernels take the text by its address (see raw_bytes.py), the outer ones as an array that keeps it alive.
"""

from __future__ import annotations

import numpy as np

from preprocess.compiled import compile_kernel
from preprocess.readers.raw_bytes import byte_at, eight_bytes_at

WORD, SEPARATOR, END = 0, 1, 2  # classes of bytes; END: a comment, or the end of a row, begins
# What `scan_obj` finds.
FINE, NO_ROOM, BAD_CORNER, VERTEX_ZERO, VERTEX_BEFORE_FIRST, UV_BEFORE_FIRST, UNEVEN_VERTICES, UNEVEN_UV = range(8)
NUM_STATES = 8

_TAB, _NEWLINE, _RETURN, _BLANK, _PLUS, _MINUS, _POINT, _SLASH, _ZERO = 9, 10, 13, 32, 43, 45, 46, 47, 48
_E, _F, _T, _V = 101, 102, 116, 118
_MAX_DIGITS = 18  # 10¹⁸ fits in an int64
_MAX_EXACT = 1 << 53
_MAX_POWER = 22  # 10²² is the largest power of ten that a float64 holds exactly
_MAX_EXPONENT = 100_000  # larger ones are not told apart here: the word goes to `float`
_POWERS = np.array([float(f"1e{power}") for power in range(_MAX_POWER + 1)])
_INTEGER_POWERS = np.array([10**power for power in range(9)])
# For eight bytes at once.
_ONE = np.uint64(1)
_ZEROS, _OVER_NINE = np.uint64(0x3030303030303030), np.uint64(0x7676767676767676)
_HIGH_BITS, _LOW_BITS = np.uint64(0x8080808080808080), np.uint64(0x0101010101010101)
_EVERY_FOURTH = np.uint64(0x000000FF000000FF)
_TIMES_UPPER, _TIMES_LOWER = np.uint64(100 + (1000000 << 32)), np.uint64(1 + (10000 << 32))


def byte_classes(separators: bytes, end: bytes = b"") -> np.ndarray:
    """u8 (256,): the class of every byte."""
    classes = np.full(256, WORD, np.uint8)
    classes[list(separators)] = SEPARATOR
    classes[list(end)] = END
    return classes


@compile_kernel
def _scan_digits(word):  # type: ignore[no-untyped-def]
    """How many digits eight bytes begin with, 0 to 8, and their value; without a branch, for no branch here could be foreseen.

    After Lemire 2022, "Parsing series of integers with SIMD".
    """
    digits = word ^ _ZEROS
    other = (((digits + _OVER_NINE) | digits) & _HIGH_BITS) >> np.uint64(7)  # a bit for each byte that is no digit …
    below = (other & (~other + _ONE)) - _ONE  # … all bits below the first of them …
    length = np.int64(((below & _LOW_BITS) * _LOW_BITS) >> np.uint64(56))  # … and how many bytes they are
    # The digits go to the upper end, zeros before them; in two shifts, for one by 64 bits is not defined.
    digits = (digits << np.uint64(56 if length == 0 else 64 - 8 * length)) << np.uint64(8 if length == 0 else 0)
    digits = digits * np.uint64(10) + (digits >> np.uint64(8))
    upper = (digits & _EVERY_FOURTH) * _TIMES_UPPER
    lower = ((digits >> np.uint64(16)) & _EVERY_FOURTH) * _TIMES_LOWER
    return length, np.int64((upper + lower) >> np.uint64(32))


@compile_kernel
def _scan_integer(place, stop):  # type: ignore[no-untyped-def]
    """An integer at an address: (whether it is exact, its value, the address behind it)."""
    first_byte = byte_at(place)
    negative = first_byte == _MINUS
    if negative or first_byte == _PLUS:
        place += 1
    if place + 8 <= stop:
        length, value = _scan_digits(eight_bytes_at(place))
        if length < 8:
            return length > 0, -value if negative else value, place + length
    first, value = place, 0
    while place < stop:
        digit = byte_at(place) - _ZERO
        if digit < 0 or digit > 9:
            break
        value = value * 10 + digit  # may overflow: then it is not exact
        place += 1
    return 0 < place - first <= _MAX_DIGITS, -value if negative else value, place


@compile_kernel
def _scan_float(place, stop):  # type: ignore[no-untyped-def]
    """A number at an address: (whether it is exact, its value, the address behind it)."""
    first_byte = byte_at(place)
    negative = first_byte == _MINUS
    if negative or first_byte == _PLUS:
        place += 1
    if place + 17 <= stop:  # up to seven digits on both sides of a point, as scanners write them
        length, mantissa = _scan_digits(eight_bytes_at(place))
        end, decimals = place + length, 0
        if byte_at(end) == _POINT:
            decimals, part = _scan_digits(eight_bytes_at(end + 1))
            mantissa = mantissa * _INTEGER_POWERS[decimals] + part
            end += 1 + decimals
        if length < 8 and decimals < 8 and length + decimals > 0 and byte_at(end) | 32 != _E:
            value = mantissa / _POWERS[decimals]
            return True, -value if negative else value, end
    return _scan_long_float(place, stop, negative)


@compile_kernel
def _divide(mantissa, power):  # type: ignore[no-untyped-def]
    """mantissa / power, and whether that is surely the nearest float64; a mantissa has up to 18 digits, a power is exact.

    Beyond 2⁵³ a mantissa is a sum of two numbers. The quotient of the larger and its remainder, which is exact (Dekker 1971,
    "A floating-point technique for extending the available precision"), say how far the quotient is off.
    """
    upper = np.float64(mantissa)
    quotient = upper / power
    if mantissa <= _MAX_EXACT:
        return quotient, True
    lower = np.float64(mantissa - np.int64(upper))
    product = quotient * power
    quotient_upper, quotient_lower = _split(quotient)
    power_upper, power_lower = _split(power)
    error = quotient_upper * power_upper - product + quotient_upper * power_lower + quotient_lower * power_upper
    error += quotient_lower * power_lower
    off = (upper - product - error + lower) / power
    value = quotient + off
    return value, quotient + off * (1 - 1e-12) == value and quotient + off * (1 + 1e-12) == value


@compile_kernel
def _split(number):  # type: ignore[no-untyped-def]
    """A float64 as the sum of two whose products are exact (Veltkamp's splitting)."""
    scaled = number * 134217729.0  # 2²⁷ + 1
    upper = scaled - (scaled - number)
    return upper, number - upper


@compile_kernel
def _scan_long_float(place, stop, negative):  # type: ignore[no-untyped-def]
    """As `_scan_float`, behind the sign; any number of digits, with an exponent or without."""
    first = place
    mantissa, digits, exponent, points = 0, 0, 0, 0
    while place < stop:
        digit = byte_at(place) - _ZERO
        if digit < 0 or digit > 9:
            if digit + _ZERO != _POINT or points > 0:
                break
            points = 1
        elif digits < _MAX_DIGITS:
            mantissa = mantissa * 10 + digit
            digits += mantissa > 0
            exponent -= points
        else:
            digits = _MAX_DIGITS + 1
        place += 1
    exact = place > first + points and digits <= _MAX_DIGITS
    if place < stop and byte_at(place) | 32 == _E:
        place += 1
        below = place < stop and byte_at(place) == _MINUS
        if below or (place < stop and byte_at(place) == _PLUS):
            place += 1
        first, power = place, 0
        while place < stop:
            digit = byte_at(place) - _ZERO
            if digit < 0 or digit > 9:
                break
            power = min(power * 10 + digit, _MAX_EXPONENT)
            place += 1
        exact = exact and place > first
        exponent += -power if below else power
    value = np.float64(mantissa)
    if mantissa == 0:
        pass
    elif -_MAX_POWER <= exponent < 0:
        value, near = _divide(mantissa, _POWERS[-exponent])
        exact = exact and near
    elif 0 <= exponent <= _MAX_POWER and mantissa <= _MAX_EXACT:
        value *= _POWERS[exponent]
    else:
        exact = False
    return exact, -value if negative else value, place


@compile_kernel
def _next_word(place, stop, classes):  # type: ignore[no-untyped-def]
    """The next word's address, or the text's end; a comment goes to the end of its line."""
    while place < stop:
        kind = byte_at(classes + byte_at(place))
        if kind == WORD:
            break
        place += 1
        if kind == END:
            while place < stop and byte_at(place) != _NEWLINE and byte_at(place) != _RETURN:
                place += 1
    return place


@compile_kernel
def _next_in_row(place, stop, classes):  # type: ignore[no-untyped-def]
    """The next word's address, or the row's end."""
    while place < stop and byte_at(classes + byte_at(place)) == SEPARATOR:
        place += 1
    return place


@compile_kernel
def _end_of_word(place, stop, classes):  # type: ignore[no-untyped-def]
    while place < stop and byte_at(classes + byte_at(place)) == WORD:
        place += 1
    return place


@compile_kernel
def scan_floats(text, place, classes, values, count, left, num_left):  # type: ignore[no-untyped-def]
    """Numbers of a text from `place` on, as far as they find room.

    Args:
        text: u8 (n,). classes: u8 (256,), see `byte_classes`.
        values: f64 (k,), the first `count` are filled. left: int64 (m, 3), the words left to the caller, the first `num_left`
            are filled: which number, first byte, end.
    Returns:
        place, count, num_left; at the end of the text place is its length.
    """
    begin, table = text.ctypes.data, classes.ctypes.data
    stop = begin + len(text)
    at = _next_word(begin + place, stop, table)
    while at < stop and count < len(values) and num_left < len(left):
        exact, value, end = _scan_float(at, stop)
        behind = _end_of_word(end, stop, table)
        if not exact or behind > end:
            left[num_left, 0], left[num_left, 1], left[num_left, 2] = count, at - begin, behind - begin
            num_left += 1
        values[count] = value
        count += 1
        at = _next_word(behind, stop, table)
    return at - begin, count, num_left


@compile_kernel
def scan_integers(text, place, classes, values, count, left, num_left):  # type: ignore[no-untyped-def]
    """As `scan_floats`; values int64."""
    begin, table = text.ctypes.data, classes.ctypes.data
    stop = begin + len(text)
    at = _next_word(begin + place, stop, table)
    while at < stop and count < len(values) and num_left < len(left):
        exact, value, end = _scan_integer(at, stop)
        behind = _end_of_word(end, stop, table)
        if not exact or behind > end:
            left[num_left, 0], left[num_left, 1], left[num_left, 2] = count, at - begin, behind - begin
            num_left += 1
        values[count] = value
        count += 1
        at = _next_word(behind, stop, table)
    return at - begin, count, num_left


@compile_kernel
def _scan_corner(at, stop, table):  # type: ignore[no-untyped-def]
    """A corner `a`, `a/b`, `a//c` or `a/b/c`: (whether it is one, a, b or 0, the address behind it)."""
    fine, vertex, at = _scan_integer(at, stop)
    uv = 0
    for part in range(2):
        if not fine or at == stop or byte_at(at) != _SLASH:
            break
        at += 1
        if at < stop and byte_at(at) != _SLASH and byte_at(table + byte_at(at)) == WORD:
            fine, value, at = _scan_integer(at, stop)
            uv = value if part == 0 else uv
    return fine and (at == stop or byte_at(table + byte_at(at)) != WORD), vertex, uv, at


@compile_kernel
def scan_obj(text, place, classes, vertices, uv, vertices_left, uv_left, corners, sizes, state):  # type: ignore[no-untyped-def]
    """The lines `v`, `vt` and `f` of an OBJ file from `place` on, as far as they find room; comments left out.

    Args:
        text: u8 (n,). classes: END is what ends a row.
        vertices, uv: f64, the numbers of the lines `v` and of `vt`; vertices_left, uv_left: int64 (m, 3), as in `scan_floats`.
        corners: int64 (C, 2), vertex and texture coordinate counted from 0, −1: none. sizes: int64 (P,), corners of each face.
        state: int64 (NUM_STATES,): numbers, words left and lines of `v`, the same of `vt`, corners and faces, so far.
    Returns:
        FINE; what is wrong, and where; or NO_ROOM in one of the arrays, and the line to begin again with.
    """
    begin, table = text.ctypes.data, classes.ctypes.data
    stop, at = begin + len(text), begin + place
    while at < stop:
        line = at
        while at < stop and (byte_at(at) == _BLANK or byte_at(at) == _TAB):
            at += 1
        keyword = byte_at(at) if at < stop else _NEWLINE
        is_uv = keyword == _V and at + 1 < stop and byte_at(at + 1) == _T
        at += 2 if is_uv else 1
        if at < stop and (byte_at(at) == _BLANK or byte_at(at) == _TAB):
            at = _next_in_row(at, stop, table)
            if keyword == _V:
                which = 3 if is_uv else 0
                count, num_left, num_lines = state[which], state[which + 1], state[which + 2]
                room = len(uv) if is_uv else len(vertices)
                room_left = len(uv_left) if is_uv else len(vertices_left)
                while at < stop and byte_at(table + byte_at(at)) == WORD:
                    if count == room or num_left == room_left:
                        return NO_ROOM, line - begin
                    exact, value, end = _scan_float(at, stop)
                    behind = _end_of_word(end, stop, table)
                    if not exact or behind > end:
                        for k, number in enumerate((count, at - begin, behind - begin)):
                            if is_uv:
                                uv_left[num_left, k] = number
                            else:
                                vertices_left[num_left, k] = number
                        num_left += 1
                    if is_uv:
                        uv[count] = value
                    else:
                        vertices[count] = value
                    count += 1
                    at = _next_in_row(behind, stop, table)
                if num_lines > 0 and (count - state[which]) * num_lines != state[which]:
                    return UNEVEN_UV if is_uv else UNEVEN_VERTICES, line - begin
                state[which], state[which + 1], state[which + 2] = count, num_left, num_lines + 1
            elif keyword == _F:
                count = state[6]
                if state[7] == len(sizes):
                    return NO_ROOM, line - begin
                while at < stop and byte_at(table + byte_at(at)) == WORD:
                    if count == len(corners):
                        return NO_ROOM, line - begin
                    fine, vertex_index, uv_index, end = _scan_corner(at, stop, table)
                    if not fine:
                        return BAD_CORNER, at - begin
                    if vertex_index == 0:
                        return VERTEX_ZERO, at - begin
                    if vertex_index < 0:  # from the last one above
                        vertex_index += state[2] + 1
                        if vertex_index < 1:
                            return VERTEX_BEFORE_FIRST, at - begin
                    if uv_index < 0:
                        uv_index += state[5] + 1
                        if uv_index < 1:
                            return UV_BEFORE_FIRST, at - begin
                    corners[count, 0], corners[count, 1] = vertex_index - 1, uv_index - 1
                    count += 1
                    at = _next_in_row(end, stop, table)
                sizes[state[7]] = count - state[6]
                state[6], state[7] = count, state[7] + 1
        if keyword != _NEWLINE and keyword != _RETURN:
            while at < stop and byte_at(at) != _NEWLINE and byte_at(at) != _RETURN:
                at += 1
            at += 1
    return FINE, len(text)
