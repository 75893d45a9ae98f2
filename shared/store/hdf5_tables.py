"""Write and read small tables in untrusted HDF5 files: the prompt embeddings of text/.

An HDF5 file can name other files (external storage and links, virtual data sets), claim more than it holds, or unpack to any
size. Read is only what lies in the file itself, as this product writes it.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import CacheError, first_line

MAX_TABLE_BYTES = 1 << 26  # of a file of small tables, and of each table in it: 64 MB
_MAX_LENGTH = 1 << 24  # of an axis: a table of nothing may have any length
_MAX_ATTRIBUTES, _MAX_ATTRIBUTE_BYTES = 64, 1024
_CONTIGUOUS = 1  # the layout class of a data set in one piece (HDF5 File Format Specification 3.0, IV.A.2.i)
_ATTRIBUTE, _ATTRIBUTES_ELSEWHERE = 0x0C, 0x15  # types of messages there (IV.A.2)


def encode_hdf5_tables(tables: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> bytes:
    """Encode a small HDF5 file in memory; arrays of str become UTF-8 strings."""
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


def read_hdf5_tables(
    data: bytes, path: Path, *, tables: Collection[str], attributes: Collection[str]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the named tables and attributes of a file that `encode_hdf5_tables` wrote, and nothing else.

    With pyfive, which is Python alone: damaged texts make HDF5's own library crash, or walk on for ever.

    Args:
        data: the file's bytes. path: where they come from, for messages. tables, attributes: names to read where they exist.
    Returns:
        Tables (strings as object arrays of str) and scalar attributes by name.
    Raises:
        CacheError: no HDF5 file, or one of them is not a plain, small value stored in the file itself.
    """
    import pyfive

    try:
        _check_heaps(data)
        with pyfive.File(io.BytesIO(data)) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            links = file._links
            found = {name: _read_table(file, name, data) for name in sorted(tables) if name in links}
            return found, _read_attributes(file, attributes)
    except Exception as error:  # whatever Python raises on bytes that are no such file
        raise CacheError(
            f"{path}: not a readable HDF5 file ({first_line(error)}); run `python -m preprocess prompts` again"
        ) from error


def _check_heaps(data: bytes) -> None:
    """Check that the heaps of a file's texts lie apart, so that reading each once takes no more memory than the file.

    Layout by the HDF5 File Format Specification 3.0, III.E: `GCOL`, version and 3 bytes, u64 size of the whole.

    Raises:
        ValueError: they overlap, or reach beyond the file.
    """
    starts = [match.start() for match in re.finditer(b"GCOL", data)]
    if sum(int.from_bytes(data[start + 8 : start + 16], "little") for start in starts) > len(data):
        raise ValueError("its heaps of texts are larger than the file")


def _read_table(file: Any, name: str, data: bytes) -> np.ndarray:
    """Read a whole small data set, stored as `encode_hdf5_tables` does: in one piece in this file, without filters."""
    import pyfive

    if not isinstance(file._links[name], int) or not isinstance(dataset := file[name], pyfive.Dataset):
        raise ValueError(f"{name} is not a data set of this file")
    if dataset.id.layout_class != _CONTIGUOUS or dataset.id.filter_pipeline is not None:
        raise ValueError(f"{name} is in pieces, compressed or in other files")
    is_text = dataset.dtype.kind == "O"
    size, start = math.prod(dataset.shape), dataset.id.data_offset
    num_bytes = size * (16 if is_text else dataset.dtype.itemsize)
    if max(dataset.shape, default=0) > _MAX_LENGTH or not 0 <= start <= len(data) - num_bytes:
        raise ValueError(f"{name} claims {size} values, which the file does not hold")
    if is_text:
        texts = [text if isinstance(text, bytes) else b"" for text in dataset[...].ravel()]
        if sum(map(len, texts)) > MAX_TABLE_BYTES:
            raise ValueError(f"{name} holds too much text")
        return np.array([text.decode() for text in texts], object).reshape(dataset.shape)
    if dataset.dtype.kind not in "biuf":
        raise ValueError(f"{name} holds {dataset.dtype}")
    return np.frombuffer(data, dataset.dtype, size, start).reshape(dataset.shape)


def _read_attributes(file: Any, names: Collection[str]) -> dict[str, Any]:
    """Read the file's own attributes, which must be numbers and short texts."""
    messages = file._dataobjects.msgs
    sizes = [message["size"] for message in messages if message["type"] == _ATTRIBUTE]
    if any(message["type"] == _ATTRIBUTES_ELSEWHERE for message in messages) or len(sizes) > _MAX_ATTRIBUTES:
        raise ValueError("it has more attributes than prompts have")
    if max(sizes, default=0) > _MAX_ATTRIBUTE_BYTES:
        raise ValueError("an attribute is not one value")
    found = {}
    for name, value in file.attrs.items():
        if name in names:
            if isinstance(value, bytes):
                value = value.decode()
            if not isinstance(value, str | np.generic):
                raise ValueError(f"the attribute {name} is not one value")
            found[name] = value.item() if isinstance(value, np.generic) else value
    return found
