"""Hash a set of weights, to check that a text tower and an image tower belong together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np


def hash_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the sha256 of weights: for each key in sorted order its name, shape and values as little-endian float32.

    Everything is cast to float32 first, so that weights stored as float16, bfloat16 or float32 with the same values
    hash alike (both half precisions fit into float32 without loss).

    Args:
        arrays: weights by name; for an image tower the names **without** the leading `visual.`.
    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for key in sorted(arrays):
        values = np.asarray(arrays[key])
        digest.update(f"{key}\n{','.join(map(str, values.shape))}\n".encode())
        digest.update(np.ascontiguousarray(values, dtype="<f4").tobytes())
    return digest.hexdigest()
