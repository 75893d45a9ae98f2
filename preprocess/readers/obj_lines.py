"""The lines of an OBJ file: one pass from bytes to arrays of numbers, corners and faces."""

from __future__ import annotations

import numpy as np

from preprocess.compiled import byte_at, compile_kernel
from preprocess.readers.text_numbers import MARK, SEPARATOR, WORD, scan_float, scan_integer, skip

FINE = -1  # `scan_obj` found nothing wrong

_TAB, _NEWLINE, _RETURN, _BLANK, _SLASH, _F, _T, _V = 9, 10, 13, 32, 47, 102, 116, 118


@compile_kernel
def _scan_corner(at, stop, table):  # type: ignore[no-untyped-def]
    """Read a corner `a`, `a/b`, `a//c` or `a/b/c`: (whether it is one, a, b or 0, the address behind it)."""
    fine, vertex, at = scan_integer(at, stop)
    uv = 0
    for part in range(2):
        if not fine or at == stop or byte_at(at) != _SLASH:
            break
        at += 1
        if at < stop and byte_at(at) != _SLASH and byte_at(table + byte_at(at)) == WORD:
            fine, value, at = scan_integer(at, stop)
            uv = value if part == 0 else uv
    return fine and (at == stop or byte_at(table + byte_at(at)) != WORD), vertex, uv, at


@compile_kernel
def scan_obj(text, classes, numbers, corners, faces):  # type: ignore[no-untyped-def]
    """Read the lines `v`, `vt` and `f` of an OBJ file; comments are left out.

    Args:
        text: u8 (n,). classes: END is what ends a row.
        numbers: f64 (2, ≥ n // 2 + 1): of the lines `v` and of `vt`, with marks for `read_marked`.
        corners: int64 (≥ n // 2 + 1, 2): vertex and texture coordinate, counted from 0. A negative vertex does not exist; of
            texture coordinates −1 is none, and a smaller one does not exist.
        faces: int64 (≥ n // 2 + 1, 2): position of the line and number of corners of each face.
    Returns:
        FINE, or the position of a line that is no such line; numbers and lines of `v` and of `vt`, int64 (2,) each; numbers of
        corners and faces.
    """
    begin, table, bits = np.int64(text.ctypes.data), np.int64(classes.ctypes.data), numbers.view(np.uint64)
    stop, at = begin + len(text), begin
    num_values, num_lines = np.zeros(2, np.int64), np.zeros(2, np.int64)
    num_corners = num_faces = 0
    while at < stop:
        line = at
        while at < stop and (byte_at(at) == _BLANK or byte_at(at) == _TAB):
            at += 1
        keyword = byte_at(at) if at < stop else _NEWLINE
        which = np.intp(keyword == _V and at + 1 < stop and byte_at(at + 1) == _T)
        at += 1 + which
        if at < stop and (byte_at(at) == _BLANK or byte_at(at) == _TAB):
            at = skip(SEPARATOR, at, stop, table)
            if keyword == _V:
                first = count = num_values[which]
                while at < stop and byte_at(table + byte_at(at)) == WORD:
                    exact, value, end = scan_float(at, stop)
                    behind = skip(WORD, end, stop, table)
                    numbers[which, count] = value
                    if not exact or behind > end:
                        bits[which, count] = MARK + np.uint64(at - begin)
                    count += 1
                    at = skip(SEPARATOR, behind, stop, table)
                if num_lines[which] > 0 and (count - first) * num_lines[which] != first:
                    return line - begin, num_values, num_lines, num_corners, num_faces
                num_values[which] = count
                num_lines[which] += 1
            elif keyword == _F:
                first = num_corners
                while at < stop and byte_at(table + byte_at(at)) == WORD:
                    fine, vertex, uv, at = _scan_corner(at, stop, table)
                    if not fine:
                        return line - begin, num_values, num_lines, num_corners, num_faces
                    # Counted from 1, or from the last line above (negative).
                    corners[num_corners, 0] = vertex - 1 if vertex >= 0 else vertex + num_lines[0]
                    if uv < 0 and uv + num_lines[1] < 0:
                        corners[num_corners, 1] = -2
                    else:
                        corners[num_corners, 1] = uv - 1 if uv >= 0 else uv + num_lines[1]
                    num_corners += 1
                    at = skip(SEPARATOR, at, stop, table)
                faces[num_faces, 0], faces[num_faces, 1] = line - begin, num_corners - first
                num_faces += 1
        if keyword != _NEWLINE and keyword != _RETURN:
            while at < stop and byte_at(at) != _NEWLINE and byte_at(at) != _RETURN:
                at += 1
            at += 1
    return FINE, num_values, num_lines, num_corners, num_faces
