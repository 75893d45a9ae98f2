"""A file's bytes where the kernel keeps them, for as far as it has them in memory."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import threading
from functools import cache
from typing import Any

import numpy as np


class MappedFile:
    """Gives bytes of an open file without copying them, and only such as are in memory already.

    Bytes that are not would be fetched by the processor's touching them: page by page, and where the disk refuses, or another
    program has shortened the file, the process is killed by a signal instead of being told. Those are for `os.preadv`. A file
    that is shortened in the microseconds between asking and copying still kills: caches are written by renaming, which does not
    touch what is mapped, but copying another over one in use does.
    """

    def __init__(self, number: int, num_bytes: int) -> None:
        """number: a file descriptor, which may be closed afterwards. num_bytes: of the file, at least 1.

        Raises:
            OSError, ValueError: this file, or any on this system, cannot be mapped.
        """
        self._map = mmap.mmap(number, num_bytes, prot=mmap.PROT_READ)
        self._bytes = np.frombuffer(self._map, np.uint8)
        self._address = self._bytes.ctypes.data

    def find(self, offset: int, num_bytes: int) -> np.ndarray | None:
        """u8 (num_bytes,), read-only; None where not all of them are in memory."""
        first = offset - offset % mmap.PAGESIZE
        length = offset + num_bytes - first
        num_pages = -(-length // mmap.PAGESIZE)
        pages, address = _page_flags(num_pages)
        if _mincore()(self._address + first, length, address) or pages.find(0, 0, num_pages) != -1:
            return None
        return self._bytes[offset : offset + num_bytes]


def map_file(number: int) -> MappedFile | None:
    """None where it cannot be told which pages of the file are in memory: Linux tells those who own it or may write it.

    Elsewhere mincore's flags have other meanings (macOS), and the file is read.
    """
    if sys.platform != "linux":
        return None
    status = os.fstat(number)
    may_know = status.st_uid == os.geteuid() or os.access(f"/proc/self/fd/{number}", os.W_OK)
    if not may_know or not status.st_size:
        return None
    try:
        _mincore()
        return MappedFile(number, status.st_size)
    except (OSError, ValueError, AttributeError):
        return None


@cache
def _mincore() -> Any:
    """mincore(2). PyDLL keeps Python's lock: it takes a microsecond, and letting go of the lock and taking it again more."""
    call = ctypes.PyDLL(None).mincore
    call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    return call


def _page_flags(num_pages: int) -> tuple[bytearray, int]:
    """Room for a byte a page, all that mincore sets 0 or 1, and its address."""
    if getattr(_of_thread, "num_pages", 0) < num_pages:
        _of_thread.flags = bytearray(2 * num_pages)
        _of_thread.address = ctypes.addressof(ctypes.c_char.from_buffer(_of_thread.flags))
        _of_thread.num_pages = 2 * num_pages
    return _of_thread.flags, _of_thread.address


_of_thread = threading.local()
