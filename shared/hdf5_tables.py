"""HDF5 that may come from a stranger: small tables (the prompt embeddings of text/), and data sets that are what they seem.

An HDF5 file can name other files (external storage and links, virtual data sets), promise more than it holds, or unpack to any
size. `find_dataset` is the one door to a data set of ours: only what lies in the file itself, as this product writes it.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import CacheError, first_line

MAX_TABLE_BYTES = 1 << 26  # of a file of small tables, and of each table in it: 64 MB
_MAX_STRINGS = 1 << 20
_MAX_ATTRIBUTE_BYTES = 1 << 16


def encode_hdf5_tables(tables: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> bytes:
    """Encodes a small HDF5 file in memory; arrays of str become UTF-8 strings."""
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
    """Reads the inverse of `encode_hdf5_tables`, and nothing but the named tables and attributes.

    Args:
        data: the file's bytes. path: where they come from, for messages. tables, attributes: names to read where they exist.
    Returns:
        Tables (strings as object arrays of str) and scalar attributes by name.
    Raises:
        CacheError: no HDF5 file, or one of them is not a plain, small value stored in the file itself.
    """
    import h5py

    try:
        _check_heaps(data)
        with h5py.File(io.BytesIO(data), "r") as file:
            found = {name: _read_table(find_dataset(file, name)) for name in sorted(tables) if name in file}
            values = {name: _read_attribute(file, name) for name in sorted(attributes) if name in file.attrs}
            return found, values
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise CacheError(
            f"{path}: not a readable HDF5 file ({first_line(error)}); run `python -m preprocess prompts` again"
        ) from error


def find_dataset(file: Any, name: str) -> Any:
    """Returns a data set that lies in the open file itself.

    Raises:
        KeyError: there is none of that name.
        ValueError: it is a link, a group, or stored in other files.
    """
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink) or file.get(name, getclass=True) is not h5py.Dataset:
        if name not in file:
            raise KeyError(name)
        raise ValueError(f"{name} is not a data set of this file")
    dataset = file[name]
    properties = dataset.id.get_create_plist()
    if properties.get_layout() == h5py.h5d.VIRTUAL or properties.get_external_count():
        raise ValueError(f"{name} is stored in other files")
    return dataset


def _check_heaps(data: bytes) -> None:
    """Walks over the texts that HDF5 keeps in global heaps: one that does not go on would keep the library walking for ever.

    Layout after the HDF5 File Format Specification 3.0, III.E: `GCOL`, version and 3 bytes, u64 size of the whole; then
    objects, each u16 index, u16 count, 4 bytes, u64 size of its data, which is padded to 8 bytes. Index 0: the free rest.

    Raises:
        ValueError: a heap is damaged.
    """
    start = data.find(b"GCOL")
    while start >= 0:
        end = start + int.from_bytes(data[start + 8 : start + 16], "little")
        if not start + 16 <= end <= len(data):
            raise ValueError("a heap of texts reaches beyond the file")
        place = start + 16
        while place + 16 <= end:
            size = int.from_bytes(data[place + 8 : place + 16], "little")
            step = 16 + -(-size // 8) * 8 if data[place : place + 2] != b"\0\0" else size
            if not 16 <= step <= end - place:
                raise ValueError("a heap of texts is damaged")
            place += step
        start = data.find(b"GCOL", start + 4)


def _read_table(dataset: Any) -> np.ndarray:
    """Reads a whole small data set, stored as `encode_hdf5_tables` does: in one piece, without filters."""
    import h5py

    name, size = dataset.name, int(np.prod(dataset.shape, dtype=object)) if dataset.shape is not None else -1
    properties = dataset.id.get_create_plist()
    if properties.get_layout() == h5py.h5d.CHUNKED or properties.get_nfilters():
        raise ValueError(f"{name} is compressed or in pieces")
    if not 0 <= size * dataset.dtype.itemsize <= MAX_TABLE_BYTES:
        raise ValueError(f"{name} promises {size} values, more than a table of prompts")
    if size and dataset.id.get_storage_size() < size * dataset.id.get_type().get_size():
        raise ValueError(f"{name} promises {size} values and holds fewer")
    if not h5py.check_string_dtype(dataset.dtype):
        if dataset.dtype.kind not in "biuf":
            raise ValueError(f"{name} holds {dataset.dtype}")
        return np.asarray(dataset[...])
    if size > _MAX_STRINGS:
        raise ValueError(f"{name} promises {size} texts")
    texts = np.empty(size, object)
    strings, num_bytes = dataset.asstr(), 0
    for number, index in enumerate(np.ndindex(dataset.shape)):  # one by one: many may be one long text
        texts[number] = str(strings[index])
        num_bytes += len(texts[number])
        if num_bytes > MAX_TABLE_BYTES:
            raise ValueError(f"{name} holds longer texts than prompts")
    return texts.reshape(dataset.shape)


def _read_attribute(file: Any, name: str) -> Any:
    attribute = file.attrs.get_id(name)
    if (
        attribute.shape != ()
        or attribute.dtype.itemsize > _MAX_ATTRIBUTE_BYTES
        or attribute.dtype.kind not in "biufOSU"
    ):
        raise ValueError(f"the attribute {name} is not one value")
    return file.attrs[name]
