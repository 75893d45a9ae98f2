"""Read the tensors of a TorchScript archive without running its code.

`torch.jit.load` runs the archive's own program (the `__setstate__` of its modules), with operators on files. Weights come
from strangers, so only the values are read here. The archive is a zip file: `data.pkl` is the module tree, `data/N`,
uncompressed, the values of storage N (PyTorch, torch/csrc/jit/docs/serialization.md).
"""

from __future__ import annotations

import math
import pickle
import pickletools
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

MAX_PICKLE_BYTES = 8 << 20
# How many times over tensors may use the bytes of the file: tied weights do, a bomb does by the million
MAX_SHARING = 4
_DTYPES = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "DoubleStorage": "<f8",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


def read_torchscript(path: Path) -> tuple[dict[str, np.ndarray], bool]:
    """Read the parameters and buffers of an archive by name, and whether it has OpenAI's `QuickGELU`.

    bfloat16 comes as float32.

    Raises:
        ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile: not such an archive, or damaged.
    """
    with zipfile.ZipFile(path) as archive:
        num_bytes = path.stat().st_size
        check_values(archive, num_bytes)
        reader = _ArchiveUnpickler(archive, num_bytes)
        return _collect_tensors(reader.load()), reader.quick_gelu


def check_values(archive: zipfile.ZipFile, num_bytes: int) -> None:
    """Check that the values of a torch archive are stored uncompressed and fit into it."""
    values = [member for member in archive.infolist() if "data/" in member.filename]
    if any(member.compress_type != zipfile.ZIP_STORED for member in values):
        raise ValueError("its values are compressed, which torch never does")
    if sum(member.file_size for member in values) > num_bytes:
        raise ValueError("its values claim more than the file holds")


class _Inert:
    """Stands for an object of any class in the archive: keeps its state and does nothing."""

    state: Any = None

    def __new__(cls, *_: object) -> _Inert:
        return object.__new__(cls)

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.state = state


class _ArchiveUnpickler(pickle.Unpickler):
    """Rebuilds tensors as arrays and replaces every other object by an inert one: no name in the file runs a function."""

    def __init__(self, archive: zipfile.ZipFile, num_bytes: int) -> None:
        pickled = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickled) != 1 or archive.getinfo(pickled[0]).file_size > MAX_PICKLE_BYTES:
            raise ValueError("it has no data.pkl of a module")
        data = archive.read(pickled[0])
        for operation, number, _ in pickletools.genops(
            data
        ):  # the unpickler allocates its memo up to the highest index
            if operation.name.endswith("PUT") and int(number or 0) > len(data):
                raise ValueError("its data.pkl is damaged")
        super().__init__(BytesIO(data))
        self.quick_gelu = False
        self._archive = archive
        self._folder = pickled[0].removesuffix("data.pkl")
        self._storages: dict[str, np.ndarray] = {}
        self._room_bytes = MAX_SHARING * num_bytes

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._rebuild_tensor
        self.quick_gelu |= name == "QuickGELU"
        return type(name, (_Inert,), {})

    def persistent_load(self, pid: Any) -> tuple[np.ndarray, bool]:
        kind, storage_type, key = pid[:3]
        if kind != "storage" or storage_type.__name__ not in _DTYPES or not isinstance(key, str):
            raise ValueError(f"it holds a {storage_type.__name__}, which is no plain tensor")
        if key not in self._storages:
            data = self._archive.read(f"{self._folder}data/{key}")
            self._storages[key] = np.frombuffer(data, _DTYPES[storage_type.__name__])
        return self._storages[key], storage_type.__name__ == "BFloat16Storage"

    def _rebuild_tensor(
        self,
        storage: tuple[np.ndarray, bool],
        offset: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        *_: object,
    ) -> np.ndarray:
        values, is_bfloat16 = storage
        if not all(isinstance(number, int) and number >= 0 for number in (offset, *shape, *strides)):
            raise ValueError("a tensor has a negative size")
        count = math.prod(shape)
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if count > len(values) or (count and last >= len(values)):
            raise ValueError("a tensor reaches beyond its storage")
        self._room_bytes -= count * values.itemsize
        if self._room_bytes < 0:
            raise ValueError("its tensors claim more than the file holds")
        if not count:
            return np.zeros(shape, np.float32 if is_bfloat16 else values.dtype)
        steps = [stride * values.itemsize for stride in strides]
        array = np.lib.stride_tricks.as_strided(values[offset:], shape, steps, writeable=False)
        if is_bfloat16:  # the upper half of a float32
            return np.asarray((array.astype("<u4") << 16).view("<f4"))
        return array


def _collect_tensors(root: object) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    waiting, seen = [("", root)], {id(root)}
    while waiting:
        prefix, module = waiting.pop()
        state = module.state if isinstance(module, _Inert) else None
        for name, value in state.items() if isinstance(state, dict) else ():
            if isinstance(value, np.ndarray):
                arrays[f"{prefix}{name}"] = value
            elif isinstance(value, _Inert) and id(value) not in seen:  # a module within itself would never end
                seen.add(id(value))
                waiting.append((f"{prefix}{name}.", value))
    return arrays
