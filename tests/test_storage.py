"""Both stores: round trips bit for bit, read back by other libraries, exact refusals, no zeros for what is lost."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (the Blosc filter)
import numpy as np
import pytest
import tensorstore
import zarr

from shared.errors import CacheError, describe_os_error
from shared.schema import ARRAYS, COMPRESSIONS, SHARD_ROWS, CacheInfo, RenderSettings, View
from shared.store.storage import STORES, encode_metadata, encode_shard, open_arrays, shard_files, write_file

NUM_ROWS = SHARD_ROWS + 6


KINDS = [f"{store}-{compression}" for store in STORES for compression in COMPRESSIONS]


def make_info(kind: str) -> CacheInfo:
    """kind: one of KINDS, or a store alone."""
    store, _, compression = kind.partition("-")
    settings = RenderSettings(views=(View(0), View(30)), size_px=16)
    return CacheInfo(
        "x", "licence", ("a",), settings, store=store, compression=compression or "lz4", num_samples=NUM_ROWS,
        num_shards=2, num_landmarks=5, au_names=("AU1", "AU2"), target_names=("a",),
    )  # fmt: skip


def make_arrays(info: CacheInfo) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.integers(1, 100, shape).astype(ARRAYS[name].dtype) for name, shape in info.arrays().items()}


def write_all(path: Path, info: CacheInfo, arrays: dict[str, np.ndarray], present: np.ndarray) -> None:
    for name, data in encode_metadata(info).items():
        write_file(path / name, data)
    for shard in range(info.num_shards):
        rows = slice(shard * SHARD_ROWS, (shard + 1) * SHARD_ROWS)
        files = encode_shard(info, shard, {n: a[rows] for n, a in arrays.items()}, {"texture": present[rows]})
        assert set(files) <= set(shard_files(info, shard))
        for name, data in files.items():
            write_file(path / name, data)


@pytest.mark.parametrize("store", KINDS)
def test_every_array_comes_back_bit_for_bit_in_any_order(store: str, tmp_path: Path) -> None:
    info = make_info(store)
    arrays = make_arrays(info)
    present = np.arange(NUM_ROWS) % 3 != 1
    write_all(tmp_path, info, arrays, present)
    reader = open_arrays(tmp_path, info)
    rows = [NUM_ROWS - 1, 3, 0, SHARD_ROWS, 3]
    for name, array in arrays.items():
        asked = [row for row in rows if name != "texture" or present[row]]
        found = reader.read(name, asked)
        assert found.dtype == array.dtype
        assert (found == array[asked]).all()
        assert (reader.start(name, asked).result() == found).all()


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_zarr_store_opens_in_plain_zarr_and_in_tensorstore(compression: str, tmp_path: Path) -> None:
    info = make_info(f"zarr-{compression}")
    arrays = make_arrays(info)
    write_all(tmp_path, info, arrays, np.ones(NUM_ROWS, bool))
    group: Any = zarr.open_group(tmp_path / "views.zarr", mode="r")
    assert sorted(group.array_keys()) == sorted(arrays)
    for name, array in arrays.items():
        assert (np.asarray(group[name]) == array).all()
        assert group[name].metadata.dimension_names == ARRAYS[name].dims
        kvstore = {"driver": "file", "path": str(tmp_path / "views.zarr" / name)}
        opened = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}).result()
        assert (opened.read().result() == array).all()
    assert group["texture"].shards == (SHARD_ROWS, 2, 16, 16, 3)
    assert group["texture"].chunks == (1, 2, 16, 16, 3)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_zarr_shards_are_the_bytes_that_zarr_python_writes(compression: str, tmp_path: Path) -> None:
    """Absent rows, a shard of 6 rows, images that are all zeros, rows of NaN, and arrays that hold nothing at all."""
    info = make_info(f"zarr-{compression}")
    arrays = make_arrays(info)
    arrays["normal"][3] = 0
    arrays["landmarks"][5] = np.nan
    arrays["scan_to_face"][SHARD_ROWS:] = np.nan
    arrays["targets"][:] = -1
    present = np.arange(NUM_ROWS) % 3 != 1
    write_all(tmp_path, info, arrays, present)
    group: Any = zarr.create_group(tmp_path / "expected" / "views.zarr")
    for name, array in arrays.items():
        (tmp_path / "expected" / "views.zarr" / name).mkdir()
        metadata = (tmp_path / "views.zarr" / name / "zarr.json").read_bytes()
        (tmp_path / "expected" / "views.zarr" / name / "zarr.json").write_bytes(metadata)
        group[name][:] = np.where(present[:, None, None, None, None], array, 0) if name == "texture" else array
    files = [path.relative_to(tmp_path).as_posix() for path in sorted((tmp_path / "views.zarr").rglob("c/**/*"))]
    expected = tmp_path / "expected"
    assert files == [p.relative_to(expected).as_posix() for p in sorted((expected / "views.zarr").rglob("c/**/*"))]
    assert not any("targets" in name for name in files)
    for name in files:
        if (tmp_path / name).is_file():
            assert (tmp_path / name).read_bytes() == (expected / name).read_bytes(), name


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_hdf5_store_opens_in_plain_h5py(compression: str, tmp_path: Path) -> None:
    info = make_info(f"hdf5-{compression}")
    arrays = make_arrays(info)
    write_all(tmp_path, info, arrays, np.ones(NUM_ROWS, bool))
    with h5py.File(tmp_path / "views" / "shard-00001.h5") as file:
        assert file.attrs["first_row"] == SHARD_ROWS
        for name, array in arrays.items():
            assert (file[name][...] == array[SHARD_ROWS:]).all()
            assert tuple(d.label for d in file[name].dims) == ARRAYS[name].dims


@pytest.mark.parametrize("store", KINDS)
def test_equal_arrays_are_equal_bytes(store: str) -> None:
    info = make_info(store)
    arrays = {name: array[:SHARD_ROWS] for name, array in make_arrays(info).items()}
    assert encode_shard(info, 0, arrays, {}) == encode_shard(info, 0, arrays, {})
    assert encode_metadata(info) == encode_metadata(info)


@pytest.mark.parametrize("store", KINDS)
def test_a_lost_or_damaged_shard_is_an_error_and_never_zeros(store: str, tmp_path: Path) -> None:
    info = make_info(store)
    arrays = make_arrays(info)
    write_all(tmp_path, info, arrays, np.ones(NUM_ROWS, bool))
    path = tmp_path / next(n for n in shard_files(info, 0) if info.store == "hdf5" or "texture" in n)
    whole = path.read_bytes()
    path.unlink()
    with pytest.raises(CacheError, match="missing or damaged"):
        open_arrays(tmp_path, info).read("texture", [1])
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CacheError, match="missing or damaged"):
        open_arrays(tmp_path, info).read("texture", [SHARD_ROWS - 1])


def test_a_row_without_texture_is_not_readable_as_black(tmp_path: Path) -> None:
    info = make_info("zarr")
    present = np.ones(NUM_ROWS, bool)
    present[7] = False
    write_all(tmp_path, info, make_arrays(info), present)
    with pytest.raises(CacheError, match="missing or damaged"):
        open_arrays(tmp_path, info).read("texture", [7])


@pytest.mark.parametrize("store", STORES)
def test_wrong_dtype_or_shape_is_refused_exactly(store: str) -> None:
    info = make_info(store)
    arrays = {name: array[:SHARD_ROWS] for name, array in make_arrays(info).items()}
    with pytest.raises(CacheError, match=r"depth: expected uint16 .* found int64"):
        encode_shard(info, 0, {**arrays, "depth": arrays["depth"].astype(np.int64)}, {})
    with pytest.raises(
        CacheError, match=r"normal: expected uint8 \(64, 2, 16, 16, 3\), found uint8 \(64, 2, 16, 16, 1\)"
    ):
        encode_shard(info, 0, {**arrays, "normal": arrays["normal"][..., :1]}, {})
    with pytest.raises(CacheError, match="presence"):
        encode_shard(info, 0, arrays, {"depth": np.ones(3, bool)})


def test_write_file_is_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.bin"
    assert write_file(target, b"first") == hashlib.sha256(b"first").hexdigest()
    blocked = tmp_path / "deep" / "folder"
    blocked.mkdir()  # a folder stands where the file should go: the rename fails
    with pytest.raises(OSError) as caught:
        write_file(blocked, b"second")
    assert caught.value.filename == str(blocked)
    assert sorted(path.name for path in target.parent.iterdir()) == ["file.bin", "folder"]
    assert target.read_bytes() == b"first"


def test_a_full_disk_is_reported_on_the_file_the_user_knows() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(OSError) as caught, Path("/dev/full").open("wb") as file:
        file.write(b"x" * 100_000)
    caught.value.filename = "cache/views.zarr/texture/c/0"
    assert "cache/views.zarr/texture/c/0: the disk is full" in describe_os_error(caught.value)
