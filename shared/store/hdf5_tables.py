"""HDF5 that may come from a stranger: small tables (the prompt embeddings of text/), and data sets that are what they seem.

An HDF5 file can name other files (external storage and links, virtual data sets), promise more than it holds, or unpack to any
size. `find_dataset` is the one door to a data set of ours: only what lies in the file itself, as this product writes it.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import CacheError, first_line

MAX_TABLE_BYTES = 1 << 26  # of a file of small tables, and of each table in it: 64 MB
_MAX_TEXT_BYTES = 1 << 16  # of one text: a prompt has some hundred letters
_MAX_LENGTH = 1 << 24  # of an axis: a table of nothing may have any length
_MAX_ATTRIBUTES, _MAX_ATTRIBUTE_BYTES = 64, 1024
_CONTIGUOUS = 1  # the layout class of a data set in one piece (HDF5 File Format Specification 3.0, IV.A.2.i)
_ATTRIBUTE, _ATTRIBUTES_ELSEWHERE = 0x0C, 0x15  # types of messages there (IV.A.2)


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
        texts = _Texts(data)
        with pyfive.File(io.BytesIO(data)) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            links = file._links
            found = {name: _read_table(file, name, data, texts) for name in sorted(tables) if name in links}
            return found, _read_attributes(file, attributes)
    except Exception as error:  # whatever Python raises on bytes that are no such file
        raise CacheError(
            f"{path}: not a readable HDF5 file ({first_line(error)}); run `python -m preprocess prompts` again"
        ) from error


class _Texts:
    """The texts of a file: HDF5 keeps them in global heaps, and in a table the heap, the number there, and the length.

    Layout after the HDF5 File Format Specification 3.0, III.E: `GCOL`, version and 3 bytes, u64 size of the whole; then
    objects, each u16 index, u16 count, 4 bytes, u64 size of its data, which is padded to 8 bytes. Index 0: the free rest.
    """

    def __init__(self, data: bytes) -> None:
        """
        Raises:
            ValueError: a heap is damaged.
        """
        self._data = data
        self._places: dict[tuple[int, int], tuple[int, int]] = {}
        start = data.find(b"GCOL")
        while start >= 0:
            end = start + int.from_bytes(data[start + 8 : start + 16], "little")
            if not start + 16 <= end <= len(data):
                raise ValueError("a heap of texts reaches beyond the file")
            self._walk(start, end)
            start = data.find(b"GCOL", start + 4)

    def _walk(self, start: int, end: int) -> None:
        place = start + 16
        while place + 16 <= end:
            index = int.from_bytes(self._data[place : place + 2], "little")
            size = int.from_bytes(self._data[place + 8 : place + 16], "little")
            step = 16 + -(-size // 8) * 8 if index else size
            if not 16 <= step <= end - place or (index and size > _MAX_TEXT_BYTES):
                raise ValueError("a heap of texts is damaged, or a text too long")
            if index:
                self._places[start, index] = place + 16, size
            place += step

    def read(self, table: bytes) -> list[str]:
        """The texts that a table of 16 bytes each names: u32 length, u64 heap, u32 index."""
        result, total = [], 0
        for length, heap, index in struct.iter_unpack("<IQI", table):
            place, size = self._places[heap, index] if length else (0, 0)
            total += length
            if length > size or total > MAX_TABLE_BYTES:
                raise ValueError("a text reaches beyond its end")
            result.append(self._data[place : place + length].decode())
        return result


def _read_table(file: Any, name: str, data: bytes, texts: _Texts) -> np.ndarray:
    """Reads a whole small data set, stored as `encode_hdf5_tables` does: in one piece in this file, without filters."""
    import pyfive

    if not isinstance(file._links[name], int) or not isinstance(dataset := file[name], pyfive.Dataset):
        raise ValueError(f"{name} is not a data set of this file")
    is_text = dataset.dtype.kind == "O"
    size = math.prod(dataset.shape)
    num_bytes = size * (16 if is_text else dataset.dtype.itemsize)
    if dataset.id.layout_class != _CONTIGUOUS or dataset.id.filter_pipeline is not None:
        raise ValueError(f"{name} is in pieces, compressed or in other files")
    start = dataset.id.data_offset
    if (
        max(dataset.shape, default=0) > _MAX_LENGTH
        or num_bytes > MAX_TABLE_BYTES
        or not 0 <= start <= len(data) - num_bytes
    ):
        raise ValueError(f"{name} promises {size} values, which the file does not hold")
    stored = data[start : start + num_bytes]
    if is_text:
        return np.array(texts.read(stored), object).reshape(dataset.shape)
    if dataset.dtype.kind not in "biuf":
        raise ValueError(f"{name} holds {dataset.dtype}")
    return np.frombuffer(stored, dataset.dtype).reshape(dataset.shape)


def _read_attributes(file: Any, names: Collection[str]) -> dict[str, Any]:
    """The file's own attributes, numbers and short texts, once it is clear that there is nothing else among them."""
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
