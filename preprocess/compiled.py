"""Kernels compiled by Numba, once a machine: the machine code is kept on disk and shared by all processes.

It goes into `__pycache__` beside the source, else into the user's cache folder, or where NUMBA_CACHE_DIR says. A kernel's
machine code is renewed when its own file changes: kernels must only call kernels of the same file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compile_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator: compiles at the first call. No fast-math, so the same bytes on every machine; other threads run meanwhile.

    Where no folder can be written, each process compiles anew instead of failing.
    """
    # Division by zero gives inf as in NumPy: not checking for it is not fast-math.
    options: dict[str, Any] = {"nogil": True, "fastmath": False, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # "cannot cache function …: no locator available": all folders are read-only
        return numba.njit(**options)(function)
