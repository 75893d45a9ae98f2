"""Images read straight from local shard files: what was stored, into the caller's memory, and damage is always told."""

from __future__ import annotations

import gc
import os
import resource
import struct
import time
from collections.abc import Callable
from pathlib import Path

import crc32c
import numpy as np
import pytest
from test_storage import KINDS, NUM_ROWS, make_arrays, make_info, write_all

import shared.store.hdf5_store
import shared.store.zarr_reader
from shared.errors import CacheError
from shared.schema import SHARD_ROWS, CacheInfo
from shared.store.storage import STORES, open_arrays, shard_files

IMAGES = ("texture", "normal", "depth")


def write_noise(path: Path, store: str) -> tuple[CacheInfo, dict[str, np.ndarray]]:
    """Both shards, of images that Blosc makes smaller and of noise that it cannot."""
    info = make_info(store)
    arrays = make_arrays(info)
    noise = np.random.default_rng(1).integers(0, 256, arrays["normal"][::2].shape)
    arrays["normal"][::2] = noise
    write_all(path, info, arrays, np.ones(NUM_ROWS, bool))
    return info, arrays


@pytest.mark.parametrize("store", KINDS)
def test_rows_come_into_memory_that_is_used_again(store: str, tmp_path: Path) -> None:
    info, arrays = write_noise(tmp_path, store)
    reader = open_arrays(tmp_path, info)
    random = np.random.default_rng(0)
    for name, array in arrays.items():
        out = np.full((23, *array.shape[1:]), 7, array.dtype)
        for _ in range(3):
            rows = random.integers(-1, NUM_ROWS, 23)
            found = reader.start_into(name, rows, out).result()
            assert np.shares_memory(found, out)
            assert (found == np.where((rows == -1).reshape(-1, *[1] * (array.ndim - 1)), 0, array[rows])).all()
        assert reader.start_into(name, np.zeros(0, np.int64), out[:0]).result().shape == (0, *array.shape[1:])


@pytest.mark.parametrize("store", STORES)
def test_few_files_are_open_and_none_when_done(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (shared.store.zarr_reader, shared.store.hdf5_store):
        monkeypatch.setattr(module, "MAX_OPEN_FILES", 1)
    info, arrays = write_noise(tmp_path, store)
    gc.collect()

    def num_open() -> int:
        links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))  # noqa: PTH208
        return sum(str(tmp_path) in os.readlink(link) for link in links if link.is_symlink())  # noqa: PTH115

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("this system does not say which files are open")
    reader = open_arrays(tmp_path, info)
    for name in IMAGES:
        rows = [0, SHARD_ROWS, 1, SHARD_ROWS + 1]
        assert (reader.read(name, rows) == arrays[name][rows]).all()
    assert settles(num_open, 1)
    del reader
    assert settles(num_open, 0)


def settles(count: Callable[[], int], wanted: int) -> bool:
    """A thread that has delivered what it read lets go of its file a moment later."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        gc.collect()
        if count() == wanted:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("store", STORES)
def test_an_image_that_is_not_stored_is_never_black(store: str, tmp_path: Path) -> None:
    info = make_info(store)
    present = np.ones(NUM_ROWS, bool)
    present[7] = False
    write_all(tmp_path, info, make_arrays(info), present)
    with pytest.raises(CacheError, match=r"row 7 of texture is missing or damaged \(it is not stored\).*verify"):
        open_arrays(tmp_path, info).read("texture", [6, 7])


@pytest.mark.parametrize("store", KINDS)
def test_every_flipped_bit_is_found_and_unchecked_ones_harm_nothing(store: str, tmp_path: Path) -> None:
    info, arrays = write_noise(tmp_path, store)
    path = tmp_path / next(n for n in shard_files(info, 1) if info.store == "hdf5" or "texture" in n)
    whole = path.read_bytes()
    random = np.random.default_rng(2)
    rows = np.arange(SHARD_ROWS, NUM_ROWS)
    num_found = 0
    for place in random.integers(0, len(whole), 100).tolist():
        path.unlink()  # a new file, as builds write it: HDF5 shares what it knows of a file that is still open
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        found = read_or_complain(tmp_path, info, rows)
        if isinstance(found, str):
            assert "missing or damaged" in found and "\n" not in found
            num_found += 1
        else:  # damage may lie in another array of the file, or between the images
            assert (found == arrays["texture"][rows]).all()
    assert num_found > 10


def read_or_complain(path: Path, info: CacheInfo, rows: np.ndarray) -> np.ndarray | str:
    try:
        return open_arrays(path, info).read("texture", rows)
    except CacheError as error:
        return str(error)


@pytest.mark.parametrize("size", [1, 1 << 40])
def test_an_index_is_not_believed(size: int, tmp_path: Path) -> None:
    info, _ = write_noise(tmp_path, "zarr")
    path = tmp_path / next(n for n in shard_files(info, 1) if "texture" in n)
    data = path.read_bytes()
    index = bytearray(data[-16 * SHARD_ROWS - 4 : -4])
    index[:16] = struct.pack("<QQ", len(data) - 20, size)
    path.write_bytes(data[: -len(index) - 4] + index + crc32c.crc32c(bytes(index)).to_bytes(4, "little"))
    with pytest.raises(CacheError, match="row 64 of texture is missing or damaged"):
        open_arrays(tmp_path, info).read("texture", [SHARD_ROWS])


def test_a_system_without_preadv_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info, arrays = write_noise(tmp_path, "zarr")
    monkeypatch.delattr(os, "preadv", raising=False)
    assert (open_arrays(tmp_path, info).read("normal", [1, 66]) == arrays["normal"][[1, 66]]).all()


def test_too_many_open_files_are_no_damage(tmp_path: Path) -> None:
    info, _ = write_noise(tmp_path, "zarr")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    reader = open_arrays(tmp_path, info)
    reader.read("texture", [SHARD_ROWS])
    resource.setrlimit(resource.RLIMIT_NOFILE, (os.dup(0), hard))  # no number is left below that of the last one opened
    try:
        with pytest.raises(CacheError, match="too many open files; allow more with `ulimit -n`"):
            reader.read("texture", [0])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
