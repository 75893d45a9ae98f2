"""One name for a set of weights, so that a text tower and an image tower prove that they belong together."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from shared.errors import FacetError

# open_clip model configurations that ship with the product; both stages add them to open_clip's own.
TOWERS = Path(__file__).parents[1] / "towers"


def hash_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """sha256 over weights: for each key in sorted order its name, its shape and its values as little-endian float32.

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


def check_file_exists(pretrained: str) -> None:
    """Raises FacetError where what was given as weights is meant as a file, by its look, and is none."""
    path = Path(pretrained)
    if (
        "/" in pretrained or path.suffix in (".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".json")
    ) and not path.exists():
        raise FacetError(f"--pretrained {pretrained}: no such file; check the path (from {Path.cwd()})")


def skip_unreachable_hub() -> None:
    """Without a network, tells huggingface_hub to look at local files only, instead of trying for a minute.

    To be called before huggingface_hub (or open_clip, which imports it) is imported: it reads the variable then.
    """
    host = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).hostname or "huggingface.co"
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        if not any(name.lower() in ("https_proxy", "all_proxy") for name in os.environ):  # a proxy resolves for us
            os.environ.setdefault("HF_HUB_OFFLINE", "1")
