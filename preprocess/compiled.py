"""Kernels compiled by Numba. The machine code is cached on disk and shared by all processes of the machine.

It goes into `__pycache__` beside the source, else into the user's cache folder, or to NUMBA_CACHE_DIR. A kernel is compiled
again when its own file changes, or one whose kernels it can call, or a number that one of them imports. So what kernels use
must be imported at the top of the file.

`byte_at` and `eight_bytes_at` read memory by its address inside a kernel. Nothing is checked: the kernel keeps to the array it
was given. An address is a plain integer. An array handed from kernel to kernel is reference-counted with atomic operations,
which costs several times as much as reading a number.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic, is_jitted

# Of each file with kernels: itself, the files whose kernels it can call, and the numbers in all of them, as text.
_SOURCES: dict[str, set[str]] = {}


def compile_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a function that Numba compiles at its first call, without fast-math: the same bytes on every machine.

    The kernel releases the GIL. Where no folder can be written, each process compiles anew instead of failing.
    """
    # Division by zero gives inf as in NumPy: not checking for it is not fast-math.
    options: dict[str, Any] = {"nogil": True, "fastmath": False, "error_model": "numpy"}
    own = function.__code__.co_filename
    sources = _SOURCES.setdefault(own, {own, __file__})
    for name, value in function.__globals__.items():
        if is_jitted(value):
            sources |= _SOURCES[value.py_func.__code__.co_filename]
        elif isinstance(value, (int, float, np.generic)):
            sources.add(f"{name} = {value!r}")
    try:
        kernel = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # "cannot cache function …: no locator available": all folders are read-only
        return numba.njit(**options)(function)
    # Numba itself compares the time and size of a kernel's own file alone. There is no public way to say more.
    kernel._cache._cache_file._source_stamp = [_describe_source(source) for source in sorted(sources)]
    return kernel


def _describe_source(source: str) -> tuple[object, ...]:
    path = Path(source)
    return (path.stat().st_mtime, path.stat().st_size) if path.is_file() else (source,)


def _byte_at(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        return builder.zext(builder.load(pointer), ir.IntType(64))

    return types.int64(types.int64), generate


def _eight_bytes_at(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load(pointer, align=1)

    return types.uint64(types.int64), generate


def _prefetch(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, i32 = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer()), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, i32, i32, i32])
        call = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], kind)
        builder.call(call, [pointer, i32(0), i32(3), i32(1)])  # for reading, into the nearest cache, data
        return context.get_dummy_value()

    return types.none(types.int64), generate


def _trailing_zeros(typing_context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


byte_at: Any = intrinsic(_byte_at)  # → int64, 0 to 255
eight_bytes_at: Any = intrinsic(_eight_bytes_at)  # → uint64, the first byte in the lowest bits (x86 and ARM alike)
prefetch: Any = intrinsic(_prefetch)  # fetches an address's cache line without waiting for it; any address is harmless
trailing_zeros: Any = intrinsic(_trailing_zeros)  # → int64, how many bits below the lowest 1 are 0; 64 of 0
