"""Prompt embeddings and shards of a cache that a stranger sent: nothing is read but what lies in the file itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest

from shared.errors import CacheError
from shared.schema import ARRAYS, CacheInfo, RenderSettings
from shared.store.storage import encode_shard, open_arrays, write_file
from shared.text import TextEmbeddings, read_text_embeddings, write_text_embeddings

SECRET = b"a secret of this machine, 32 bytes"


def make_text(path: Path) -> None:
    embeddings = np.zeros((2, 1, 4), np.float32)
    embeddings[:, 0, 0] = 1
    mask = np.ones((2, 1), bool)
    write_text_embeddings(
        path,
        TextEmbeddings(("a", "b"), (("one",), ("two",)), embeddings, mask, "m", "none", "0" * 64, "0" * 64, 10.0, True),
    )
    path.with_name(path.name + ".sha256").unlink()  # a stranger's would fit


def external_storage(file: Any, folder: Path) -> None:
    (folder / "secret").write_bytes(SECRET)
    del file["prompts"]
    file.create_dataset("prompts", (2, 1), "S17", external=[(str(folder / "secret"), 0, h5py.h5f.UNLIMITED)])


def external_pipe(file: Any, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    del file["embeddings"]
    file.create_dataset("embeddings", (2, 1, 4), "f4", external=[(str(folder / "pipe"), 0, h5py.h5f.UNLIMITED)])


def external_link(file: Any, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["prompts"] = np.array([[b"one"], [b"two"]], "S3")
    del file["prompts"]
    file["prompts"] = h5py.ExternalLink(str(folder / "other.h5"), "prompts")


def soft_link(file: Any, folder: Path) -> None:
    file.move("prompts", "elsewhere")
    file["prompts"] = h5py.SoftLink("elsewhere")


def virtual(file: Any, folder: Path) -> None:
    del file["embeddings"]
    layout = h5py.VirtualLayout((2, 1, 4), "f4")
    layout[0] = h5py.VirtualSource(str(folder / "other.h5"), "x", (1, 4))
    file.create_virtual_dataset("embeddings", layout)


def sparse(file: Any, folder: Path) -> None:
    del file["embeddings"]
    file.create_dataset("embeddings", (2, 1, 25_000_000_000), "f4")


def sparse_small(file: Any, folder: Path) -> None:
    del file["embeddings"]
    file.create_dataset("embeddings", (2, 1, 4), "f4", fillvalue=0.5)  # unit length, and nothing stored


def bomb(file: Any, folder: Path) -> None:
    del file["embeddings"]
    file.create_dataset("embeddings", (2, 1, 4_000_000), "f4", compression="gzip", fillvalue=1)


def group(file: Any, folder: Path) -> None:
    del file["mask"]
    file.create_group("mask")


def compound(file: Any, folder: Path) -> None:
    del file["mask"]
    file["mask"] = np.zeros((2, 1), [("a", "f4"), ("b", "S3")])


def reference(file: Any, folder: Path) -> None:
    del file["mask"]
    file.create_dataset("mask", (2, 1), h5py.ref_dtype)


def array_attribute(file: Any, folder: Path) -> None:
    file.attrs["model"] = np.zeros(1000)


def not_finite(file: Any, folder: Path) -> None:
    file["embeddings"][0] = np.nan


def infinite_scale(file: Any, folder: Path) -> None:
    file.attrs["logit_scale"] = np.inf


@pytest.mark.parametrize(
    "change",
    [
        external_storage, external_pipe, external_link, soft_link, virtual, sparse, sparse_small, bomb, group, compound,
        reference, array_attribute, not_finite, infinite_scale,
    ],
)  # fmt: skip
def test_prompt_embeddings_that_are_not_plain_are_refused(tmp_path: Path, change: Callable[[Any, Path], None]) -> None:
    path = tmp_path / "m.h5"
    make_text(path)
    assert read_text_embeddings(path).class_names == ("a", "b")
    with h5py.File(path, "r+") as file:
        change(file, tmp_path)
    with pytest.raises(CacheError, match=r"m\.h5"):
        read_text_embeddings(path)


def test_other_members_of_the_file_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    make_text(path)
    with h5py.File(path, "r+") as file:
        file["further"] = np.zeros(3)
        file.create_group("folder")
        file.attrs["further"] = np.zeros(10)
    assert read_text_embeddings(path).prompts == (("one",), ("two",))


def test_a_large_sparse_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    make_text(path)
    os.truncate(path, 200 << 30)
    with pytest.raises(CacheError, match="MB"):
        read_text_embeddings(path)


def test_long_texts_are_bounded_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    make_text(path)
    with h5py.File(path, "r+") as file:
        one_long_text_many_times(file)
    code = (
        "import resource, sys; from pathlib import Path; from shared.text import read_text_embeddings\n"
        "start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_text_embeddings(Path(sys.argv[1]))\n"
        "except Exception as error: print(type(error).__name__)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) // 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    name, megabytes = done.stdout.split()
    assert name == "CacheError" and int(megabytes) < 1000


def one_long_text_many_times(file: Any) -> None:
    """60,000 elements that all point to one text of 1 MB in the file's heap: 60 GB once they are read."""
    del file["prompts"]
    dataset = file.create_dataset("prompts", (2, 30_000), h5py.string_dtype())
    dataset[0, 0] = "x" * 1_000_000
    offset = dataset.id.get_offset()
    name = file.filename
    file.flush()
    with Path(name).open("r+b") as raw:
        raw.seek(offset)
        pointer = raw.read(16)
        raw.seek(offset)
        raw.write(pointer * 60_000)


def write_shard(folder: Path, *, compression: str = "lz4") -> tuple[CacheInfo, Path]:
    info = CacheInfo(
        "folder", "", ("a",), RenderSettings(size_px=16), store="hdf5", compression=compression, num_samples=2,
        num_shards=1,
    )  # fmt: skip
    generator = np.random.default_rng(0)
    arrays = {
        name: generator.integers(0, 200, (2, *shape[1:])).astype(ARRAYS[name].dtype)
        for name, shape in info.arrays().items()
    }
    for name, data in encode_shard(info, 0, arrays, {}).items():
        write_file(folder / name, data)
    return info, folder / "views" / "shard-00000.h5"


@pytest.mark.parametrize("name", ["normal", "scan_to_face"])
def test_shards_that_point_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    info, path = write_shard(tmp_path)
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other[name] = np.ones(info.arrays()[name], ARRAYS[name].dtype)
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = h5py.ExternalLink(str(tmp_path / "other.h5"), name)
    with pytest.raises(CacheError):
        open_arrays(tmp_path, info).read(name, [0, 1])


def test_a_chunk_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    info, path = write_shard(tmp_path)
    shape = info.arrays()["scan_to_face"]
    with h5py.File(path, "r+") as file:
        blosc: Any = hdf5plugin.Blosc(cname="lz4", clevel=5, shuffle=hdf5plugin.Blosc.SHUFFLE)
        del file["scan_to_face"]
        dataset = file.create_dataset("scan_to_face", shape, "f4", chunks=shape, fletcher32=True, **blosc)
        dataset[...] = 1
        stored = bytearray(dataset.id.read_direct_chunk((0, 0, 0))[1])
        stored[4:8] = (1 << 30).to_bytes(4, "little")
        dataset.id.write_direct_chunk((0, 0, 0), bytes(stored))
    with pytest.raises(CacheError, match="unpacks"):
        open_arrays(tmp_path, info).read("scan_to_face", [0])


def test_a_heap_of_texts_that_does_not_go_on_ends(tmp_path: Path) -> None:
    """HDF5 1.14 itself walks on one for ever."""
    path = tmp_path / "m.h5"
    make_text(path)
    data = bytearray(path.read_bytes())
    place = data.find(b"GCOL") + 16
    while data[place : place + 2] != b"\0\0":  # to what is free
        place += 16 + -(-int.from_bytes(data[place + 8 : place + 16], "little") // 8) * 8
    for size in (0, 8, 1 << 40):
        data[place + 8 : place + 16] = size.to_bytes(8, "little")
        path.write_bytes(data)
        assert read_text_embeddings(path).prompts == (("one",), ("two",))


def test_heaps_of_texts_that_overlap_are_refused(tmp_path: Path) -> None:
    """Each would be read whole: as much memory as their number times the file."""
    path = tmp_path / "m.h5"
    make_text(path)
    heap = b"GCOL\1\0\0\0" + (16_000).to_bytes(8, "little")
    path.write_bytes(path.read_bytes() + 1000 * heap)
    with pytest.raises(CacheError, match="heaps of texts are larger than the file"):
        read_text_embeddings(path)
