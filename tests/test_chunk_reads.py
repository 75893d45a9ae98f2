"""Images read straight from local shard files: what was stored, into the caller's memory, and damage is always told."""

from __future__ import annotations

import gc
import io
import os
import resource
import struct
import time
from collections.abc import Callable
from pathlib import Path

import crc32c
import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from test_storage import KINDS, NUM_ROWS, make_arrays, make_info, write_all

import shared.store.chunk_reads
from shared.errors import CacheError
from shared.schema import SHARD_ROWS, STORES, CacheInfo
from shared.store.hdf5_store import is_fletcher32
from shared.store.storage import open_arrays, shard_files

IMAGES = ("texture", "normal", "depth")


def write_noise(path: Path, store: str) -> tuple[CacheInfo, dict[str, np.ndarray]]:
    """Both shards, of images that Blosc makes smaller and of noise that it cannot."""
    info = make_info(store)
    arrays = make_arrays(info)
    noise = np.random.default_rng(1).integers(0, 256, arrays["normal"][::2].shape)
    arrays["normal"][::2] = noise
    write_all(path, info, arrays, np.ones(NUM_ROWS, bool))
    return info, arrays


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("store", KINDS)
def test_rows_come_into_memory_that_is_used_again(store: str, verify: bool, mapped: bool, tmp_path: Path) -> None:
    info, arrays = write_noise(tmp_path, store)
    reader = open_arrays(tmp_path, info, verify=verify, mapped=mapped)
    random = np.random.default_rng(0)
    for name, array in arrays.items():
        out = np.full((23, *array.shape[1:]), 7, array.dtype)
        for _ in range(3):
            rows = random.integers(-1, NUM_ROWS, 23)
            found = reader.start_into(name, rows, out).result()
            assert np.shares_memory(found, out)
            assert (found == np.where((rows == -1).reshape(-1, *[1] * (array.ndim - 1)), 0, array[rows])).all()
        assert reader.start_into(name, np.zeros(0, np.int64), out[:0]).result().shape == (0, *array.shape[1:])


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("store", STORES)
def test_few_files_are_open_and_none_when_done(
    store: str, mapped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared.store.chunk_reads, "MAX_DESCRIPTORS", 1 + mapped)
    info, arrays = write_noise(tmp_path, store)
    gc.collect()

    def num_open() -> int:
        links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))  # noqa: PTH208
        return sum(str(tmp_path) in os.readlink(link) for link in links if link.is_symlink())  # noqa: PTH115

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("this system does not say which files are open")
    reader = open_arrays(tmp_path, info, mapped=mapped)
    for name in IMAGES:
        rows = [0, SHARD_ROWS, 1, SHARD_ROWS + 1]
        assert (reader.read(name, rows) == arrays[name][rows]).all()
    assert settles(num_open, 1 + mapped)  # a mapping keeps a descriptor of its own
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
    for verify in (True, False):
        with pytest.raises(CacheError, match=r"row 7 of texture is missing or damaged \(it is not stored\).*verify"):
            open_arrays(tmp_path, info, verify=verify).read("texture", [6, 7])


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("store", KINDS)
def test_every_flipped_bit_is_found_and_unchecked_ones_harm_nothing(store: str, mapped: bool, tmp_path: Path) -> None:
    info, arrays = write_noise(tmp_path, store)
    path = tmp_path / next(n for n in shard_files(info, 1) if info.store == "hdf5" or "texture" in n)
    whole = path.read_bytes()
    random = np.random.default_rng(2)
    rows = np.arange(SHARD_ROWS, NUM_ROWS)
    num_found = 0
    for place in random.integers(0, len(whole), 100).tolist():
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        found = read_or_complain(tmp_path, info, rows, verify=True, mapped=mapped)
        if isinstance(found, str):
            assert "missing or damaged" in found and "\n" not in found
            num_found += 1
        else:  # damage may lie in another array of the file, or between the images
            assert (found == arrays["texture"][rows]).all()
        found = read_or_complain(tmp_path, info, rows, verify=False, mapped=mapped)
        assert "missing or damaged" in found if isinstance(found, str) else found.shape == (len(rows), 2, 16, 16, 3)
    assert num_found > 10


def read_or_complain(path: Path, info: CacheInfo, rows: np.ndarray, *, verify: bool, mapped: bool) -> np.ndarray | str:
    try:
        return open_arrays(path, info, verify=verify, mapped=mapped).read("texture", rows)
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
        open_arrays(tmp_path, info, verify=False).read("texture", [SHARD_ROWS])


def test_an_array_laid_out_in_another_way_is_read_all_the_same(tmp_path: Path) -> None:
    info = make_info("zarr")
    arrays = make_arrays(info)
    group = zarr.create_group(tmp_path / "views.zarr")
    for name, array in arrays.items():
        group.create_array(name, data=array, chunks=(2, *array.shape[1:]))  # Zstandard, no shards
    reader = open_arrays(tmp_path, info)
    rows = np.array([NUM_ROWS - 1, -1, 3, 3])
    out = np.full((4, *arrays["texture"].shape[1:]), 7, np.uint8)
    assert (reader.start_into("texture", rows, out).result()[[0, 2, 3]] == arrays["texture"][rows[[0, 2, 3]]]).all()
    assert not out[1].any()


@given(data=st.binary(min_size=1, max_size=300), repeat=st.sampled_from([1, 3, 60, 999]), flip=st.integers(0, 10**6))
def test_fletcher32_is_what_hdf5_writes(data: bytes, repeat: int, flip: int) -> None:
    data *= repeat
    with h5py.File(io.BytesIO(), "w") as file:
        array = np.frombuffer(data, np.uint8)
        stored = file.create_dataset("x", data=array, chunks=array.shape, fletcher32=True).id.read_direct_chunk((0,))[1]
    assert is_fletcher32(stored[:-4], stored[-4:])
    changed = bytearray(stored[:-4])
    changed[flip % len(changed)] ^= 1
    assert not is_fletcher32(bytes(changed), stored[-4:])


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
