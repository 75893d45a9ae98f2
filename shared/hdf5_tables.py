"""Small tables in an HDF5 file: the prompt embeddings of text/."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import CacheError, first_line


def encode_hdf5_tables(tables: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> bytes:
    """A small HDF5 file in memory; arrays of str become UTF-8 strings."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for key, value in sorted(attributes.items()):
            file.attrs[key] = value
        for name, array in sorted(tables.items()):
            if array.dtype.kind in "UO":
                file.create_dataset(name, data=array.astype(object), dtype=h5py.string_dtype("utf-8"))
            else:
                file.create_dataset(name, data=array)
    return buffer.getvalue()


def read_hdf5_tables(data: bytes, path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The inverse of `encode_hdf5_tables`: tables (strings as object arrays of str) and attributes.

    Args:
        data: the file's bytes. path: where they come from, for messages.
    """
    import h5py

    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            tables = {
                name: dataset.asstr()[...] if h5py.check_string_dtype(dataset.dtype) else dataset[...]
                for name, dataset in file.items()
            }
            return tables, dict(file.attrs)
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise CacheError(
            f"{path}: not a readable HDF5 file ({first_line(error)}); run `python -m preprocess prompts` again"
        ) from error
