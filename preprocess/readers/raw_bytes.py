"""Memory read by its address inside compiled kernels. Nothing is checked: the kernel keeps to the array it was given.

An address is a plain integer. Arrays handed from kernel to kernel are counted at each call (Numba's reference counting is
atomic), which costs several times what it takes to read a number.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic


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


byte_at: Any = intrinsic(_byte_at)  # → int64, 0 to 255
eight_bytes_at: Any = intrinsic(_eight_bytes_at)  # → uint64, the first byte in the lowest bits (x86 and ARM alike)
