"""Numbers in the text of a scan: one pass from bytes to arrays, with no object for a single word.

A number is exactly what Python's `float` or `int` makes of its word. Up to 18 digits that fit in 53 bits, times or over a
power of ten up to 10²², are one exactly rounded operation (Clinger 1990, "How to read floating point numbers accurately");
over such a power, up to 18 digits of more bits are three. For any other word (more digits, nan, inf, garbage, a value halfway
between two numbers) a kernel stores a mark with the word's position, and `_read_marked` hands the word to Python.

Inner kernels take the text by its address (see compiled.py), the outer ones as an array that keeps it alive.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from preprocess.compiled import byte_at, compile_kernel, eight_bytes_at, trailing_zeros

WORD, SEPARATOR, END = 0, 1, 2  # classes of bytes; END: a comment, or the end of a row, begins

_NEWLINE, _RETURN, _PLUS, _MINUS, _POINT, _ZERO, _E = 10, 13, 43, 45, 46, 48, 101
_MAX_DIGITS = 18  # 10¹⁸ fits in an int64
_MAX_EXACT = 1 << 53
_MAX_POWER = 22  # 10²² is the largest power of ten that a float64 holds exactly
_MAX_EXPONENT = 100_000  # larger ones count as this one: the word goes to `float`
# Plus a word's position: an integer below −10¹⁸, or the bits of a denormal float64. No exact number is one.
MARK = np.uint64((1 << 63) + 1)
_MAX_POSITION = 1 << 32
_POWERS = np.array([float(f"1e{power}") for power in range(_MAX_POWER + 1)])
_INTEGER_POWERS = np.array([10**power for power in range(9)])
# For eight bytes at once.
_ZEROS, _OVER_NINE = np.uint64(0x3030303030303030), np.uint64(0x7676767676767676)
_HIGH_BITS = np.uint64(0x8080808080808080)
_FIRST_BYTE = np.uint64(0xFF)
_EVERY_FOURTH = np.uint64(0x000000FF000000FF)
_TIMES_UPPER, _TIMES_LOWER = np.uint64(100 + (1000000 << 32)), np.uint64(1 + (10000 << 32))
_DECIMAL_COMMA = re.compile(rb"[-+]?\d*,\d+(?:[eE][-+]?\d+)?,?")


def byte_classes(separators: bytes, end: bytes = b"") -> np.ndarray:
    """Return the class of every byte, u8 (256,): what separates numbers, and what begins a comment or ends a row."""
    classes = np.full(256, WORD, np.uint8)
    classes[list(separators)] = SEPARATOR
    classes[list(end)] = END
    return classes


_BLANKS = byte_classes(b" \t\r\n\v\f")


def parse_numbers(
    text: bytes | memoryview, dtype: type[np.float64] | type[np.int64], *, classes: np.ndarray = _BLANKS
) -> np.ndarray:
    """Read numbers separated by white space: what Python's `float` or `int` makes of each word.

    Args:
        text: at most 4 GB.
        classes: u8 (256,), see `byte_classes`.
    Returns:
        float64 or int64 (n,); integers that do not fit become the nearest one that does.
    Raises:
        ValueError: a word is no such number; names it.
    """
    data = np.frombuffer(text, np.uint8)
    values = np.empty(len(data) // 2 + 1, dtype)  # memory that no number reaches is never touched
    scan = scan_integers if dtype is np.int64 else scan_floats
    count, num_marked = scan(data, classes, values)
    values = values[:count]
    if num_marked:
        read_marked(text, classes, values)
    return values


def parse_table(rows: Sequence[bytes], columns: int | None = None) -> np.ndarray:
    """Read rows of equally many numbers, float64 (rows, columns); inf and NaN as written.

    Raises:
        ValueError: a word is no number, or a row has not `columns` numbers (None: as many as the first); says which.
    """
    columns = columns or (len(rows[0].split()) if rows else 0)
    numbers = parse_numbers(b" inf ".join(rows) + b" inf", np.float64) if rows else np.empty(0)  # inf ends a row
    if len(numbers) != (columns + 1) * len(rows) or not np.isposinf(numbers[columns :: columns + 1]).all():
        wrong = next((row for row in rows if len(row.split()) != columns), b"").strip()
        shown = wrong[:20].decode("latin-1")
        raise ValueError(f"expected {columns} numbers per line, found {len(wrong.split())}: {shown!r}")
    return numbers.reshape(len(rows), columns + 1)[:, :columns]


def read_marked(text: bytes | memoryview, classes: np.ndarray, values: np.ndarray) -> None:
    """Replace the marks in `values`, float64 or int64 (n,), by what Python reads.

    Raises:
        ValueError: a word is no number; names it.
    """
    limits = np.iinfo(np.int64)
    if not len(values) or values.view(np.int64).min() > limits.min + _MAX_POSITION:  # the usual file
        return
    positions = values.view(np.uint64) - MARK
    data = np.frombuffer(text, np.uint8)
    for k in np.flatnonzero(positions < _MAX_POSITION).tolist():
        start = int(positions[k])
        word = bytes(text[start : _find_word_end(data, start, classes)])
        try:
            if b"_" in word:  # Python's own: 1_000
                raise ValueError
            values[k] = min(max(int(word), limits.min), limits.max) if values.dtype == np.int64 else float(word)
        except ValueError:
            shown = repr(word[:40].decode("latin-1"))
            if _DECIMAL_COMMA.fullmatch(word):
                raise ValueError(f"{shown} has a decimal comma; export the scan with decimal points") from None
            raise ValueError(f"expected numbers, found {shown}") from None


def to_float32(array: np.ndarray) -> np.ndarray:
    """Return float32, where what is too large becomes infinite without a warning (Mesh then refuses it)."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(array, np.float32)


@compile_kernel
def _scan_digits(word):  # type: ignore[no-untyped-def]
    """Return how many digits eight bytes begin with, 0 to 8, and their value. No branch: a processor could not predict it.

    After Lemire 2022, "Parsing series of integers with SIMD".
    """
    digits = word ^ _ZEROS
    length = trailing_zeros(((digits + _OVER_NINE) | digits) & _HIGH_BITS) >> 3  # a bit for each byte that is no digit
    return length, _join_digits(digits, length)


@compile_kernel
def _scan_signed(word):  # type: ignore[no-untyped-def]
    """Return the number that eight bytes begin with: length, 1 to 8; digits, −1 if it is no number; value; whether negative.

    The length does not depend on the first byte, so the processor can go on to the next number without waiting for it.
    """
    digits, first = word ^ _ZEROS, word & _FIRST_BYTE
    length = trailing_zeros(((digits + _OVER_NINE) | digits) & _HIGH_BITS & ~_FIRST_BYTE) >> 3
    if first in (_MINUS, _PLUS):
        return length, length - 1, _join_digits(digits & ~_FIRST_BYTE, length), first == _MINUS
    return length, length if digits & _FIRST_BYTE <= 9 else -1, _join_digits(digits, length), False


@compile_kernel
def _join_digits(digits, length):  # type: ignore[no-untyped-def]
    """The value of the first 0 to 8 of eight digits."""
    # They go to the upper end, zeros before them; in two shifts, for one by 64 bits is not defined.
    digits = (digits << np.uint64(56 if length == 0 else 64 - 8 * length)) << np.uint64(8 if length == 0 else 0)
    digits = digits * np.uint64(10) + (digits >> np.uint64(8))
    upper = (digits & _EVERY_FOURTH) * _TIMES_UPPER
    lower = ((digits >> np.uint64(16)) & _EVERY_FOURTH) * _TIMES_LOWER
    return np.int64((upper + lower) >> np.uint64(32))


@compile_kernel
def scan_integer(address, stop):  # type: ignore[no-untyped-def]
    """An integer at an address: (whether it is exact, its value, the address behind it)."""
    if address + 8 <= stop:
        length, digits, value, negative = _scan_signed(eight_bytes_at(address))
        if length < 8:
            return digits > 0, -value if negative else value, address + length
    negative, address = _scan_sign(address)
    first, value = address, 0
    while address < stop:
        digit = byte_at(address) - _ZERO
        if digit < 0 or digit > 9:
            break
        value = value * 10 + digit  # may overflow: then it is not exact
        address += 1
    return 0 < address - first <= _MAX_DIGITS, -value if negative else value, address


@compile_kernel
def _scan_sign(address):  # type: ignore[no-untyped-def]
    """Whether there is a minus, and the address behind a sign."""
    first = byte_at(address)
    return first == _MINUS, address + (1 if first in (_MINUS, _PLUS) else 0)


@compile_kernel
def scan_float(address, stop):  # type: ignore[no-untyped-def]
    """A number at an address: (whether it is exact, its value, the address behind it)."""
    if address + 17 <= stop:  # up to seven digits on both sides of a point, as scanners write them
        length, digits, mantissa, negative = _scan_signed(eight_bytes_at(address))
        end, decimals = address + length, 0
        if byte_at(end) == _POINT:
            decimals, part = _scan_digits(eight_bytes_at(end + 1))
            mantissa = mantissa * _INTEGER_POWERS[decimals] + part
            end += 1 + decimals
        if length < 8 and decimals < 8 and digits >= 0 and digits + decimals > 0 and byte_at(end) | 32 != _E:
            value = mantissa / _POWERS[decimals]
            return True, -value if negative else value, end
    negative, address = _scan_sign(address)
    return _scan_long_float(address, stop, negative)


@compile_kernel
def _divide(mantissa, power):  # type: ignore[no-untyped-def]
    """Return mantissa / power, and whether it is surely the nearest float64. A mantissa has up to 18 digits; a power is exact.

    A mantissa above 2⁵³ is split into two numbers. The error of the quotient follows from the larger one's remainder, which is
    exact (Dekker 1971, "A floating-point technique for extending the available precision").
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
def _scan_long_float(address, stop, negative):  # type: ignore[no-untyped-def]
    """As `scan_float`, behind the sign; any number of digits, with an exponent or without."""
    first = address
    mantissa, digits, exponent, points = 0, 0, 0, 0
    while address < stop:
        digit = byte_at(address) - _ZERO
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
        address += 1
    exact = address > first + points and digits <= _MAX_DIGITS
    if address < stop and byte_at(address) | 32 == _E:
        address += 1
        below = address < stop and byte_at(address) == _MINUS
        if below or (address < stop and byte_at(address) == _PLUS):
            address += 1
        first, power = address, 0
        while address < stop:
            digit = byte_at(address) - _ZERO
            if digit < 0 or digit > 9:
                break
            power = min(power * 10 + digit, _MAX_EXPONENT)
            address += 1
        exact = exact and address > first
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
    return exact, -value if negative else value, address


@compile_kernel
def _next_word(address, stop, classes):  # type: ignore[no-untyped-def]
    """Return the next word's address, or the text's end; a comment goes to the end of its line."""
    while address < stop:
        kind = byte_at(classes + byte_at(address))
        if kind == WORD:
            break
        address += 1
        if kind == END:
            while address < stop and byte_at(address) != _NEWLINE and byte_at(address) != _RETURN:
                address += 1
    return address


@compile_kernel
def skip(kind, address, stop, classes):  # type: ignore[no-untyped-def]
    """Return the address behind the bytes of a class that begin at an address."""
    while address < stop and byte_at(classes + byte_at(address)) == kind:
        address += 1
    return address


@compile_kernel
def _find_word_end(text, start, classes):  # type: ignore[no-untyped-def]
    begin = np.int64(text.ctypes.data)
    return skip(WORD, begin + start, begin + len(text), np.int64(classes.ctypes.data)) - begin


@compile_kernel
def _is_lone_separator(address, stop, classes):  # type: ignore[no-untyped-def]
    """Whether there is one separator and a word behind it, as between most numbers."""
    if address + 1 >= stop:
        return False
    return byte_at(classes + byte_at(address)) == SEPARATOR and byte_at(classes + byte_at(address + 1)) == WORD


@compile_kernel
def scan_floats(text, classes, values):  # type: ignore[no-untyped-def]
    """Write the numbers of a text into `values`; return how many there are, and how many marks for `read_marked` among them.

    text: u8 (n,). classes: u8 (256,), see `byte_classes`. values: f64 (≥ n // 2 + 1,).
    """
    begin, table, bits = np.int64(text.ctypes.data), np.int64(classes.ctypes.data), values.view(np.uint64)
    stop, count, num_marked = begin + len(text), 0, 0
    at = _next_word(begin, stop, table)
    while at < stop:
        exact, value, end = scan_float(at, stop)
        values[count] = value
        count += 1
        if exact and _is_lone_separator(end, stop, table):
            at = end + 1
            continue
        behind = skip(WORD, end, stop, table)
        if not exact or behind > end:
            bits[count - 1] = MARK + np.uint64(at - begin)
            num_marked += 1
        at = _next_word(behind, stop, table)
    return count, num_marked


@compile_kernel
def scan_integers(text, classes, values):  # type: ignore[no-untyped-def]
    """Do the same as `scan_floats` for int64 values. One kernel for both would read whole numbers a third slower."""
    begin, table, bits = np.int64(text.ctypes.data), np.int64(classes.ctypes.data), values.view(np.uint64)
    stop, count, num_marked = begin + len(text), 0, 0
    at = _next_word(begin, stop, table)
    while at < stop:
        exact, value, end = scan_integer(at, stop)
        values[count] = value
        count += 1
        if exact and _is_lone_separator(end, stop, table):
            at = end + 1
            continue
        behind = skip(WORD, end, stop, table)
        if not exact or behind > end:
            bits[count - 1] = MARK + np.uint64(at - begin)
            num_marked += 1
        at = _next_word(behind, stop, table)
    return count, num_marked
