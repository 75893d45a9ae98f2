"""Verify names the samples that a damaged byte hits, wholly or quickly; repair renders their shards alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from conftest import MakeCache
from scan_folders import BuiltOnce, cache_bytes, write_scan, write_scan_folder

from preprocess.build.build import build_cache
from preprocess.build.verify import verify_cache
from preprocess.datasets import DATASETS
from shared.cache import open_cache, read_info, read_record, write_record
from shared.errors import CacheError
from shared.schema import SHARD_ROWS, RenderSettings
from shared.store.storage import STORES

SMALL = RenderSettings(size_px=32)


def build(root: Path, cache: Path, store: str, **options: object) -> int:
    options = {"num_workers": 1, "store": store, **options}
    return build_cache(DATASETS["folder"], root, cache, SMALL, **options).num_rendered  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scans")
    write_scan_folder(root, SHARD_ROWS + 4, without_texture=(3,))
    (root / "scan007.obj").write_text("garbled")
    return root


@pytest.fixture(scope="module")
def built(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> BuiltOnce:
    """Of `scans`."""
    return BuiltOnce(lambda store, folder: build(scans, folder, store), tmp_path_factory.mktemp("built"))


@pytest.fixture
def few(tmp_path: Path) -> Path:
    write_scan_folder(tmp_path / "few", 6)
    return tmp_path / "few"


def zarr_chunk(data: bytes, row: int) -> tuple[int, int]:
    """First byte and length of a row's chunk in an image shard, read from the index as Zarr v3 lays it out."""
    start, length = np.frombuffer(data[-16 * SHARD_ROWS - 4 : -4], "<u8").reshape(-1, 2)[row].tolist()
    return start, length


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)


def test_the_samples_whose_chunks_fail_are_named_and_their_shards_rendered_again(
    scans: Path, built: BuiltOnce, tmp_path: Path
) -> None:
    cache = built("zarr", tmp_path / "c")
    whole = cache_bytes(cache)
    for name, rows in (("texture/c/0/0/0/0/0", (2, 40)), ("depth/c/0/0/0/0", (40, 63))):
        for row in rows:
            start, length = zarr_chunk(whole[f"views.zarr/{name}"], row)
            flip(cache / "views.zarr" / name, start + length // 2)
    problems = verify_cache(cache)
    hit = {problem.partition(": ")[0]: problem.rpartition(": ")[2] for problem in problems}
    assert hit == {
        "views.zarr/texture/c/0/0/0/0/0": "scan002, scan040",
        "views.zarr/depth/c/0/0/0/0": "scan040, scan063",
    }
    assert build(scans, cache, "zarr") == 0  # whole files are not looked at without --repair
    assert build(scans, cache, "zarr", repair=True) == SHARD_ROWS
    assert cache_bytes(cache) == whole
    assert build(scans, cache, "zarr", repair=True) == 0


def test_rows_keep_their_numbers_after_damage_to_their_table(scans: Path, built: BuiltOnce, tmp_path: Path) -> None:
    cache = built("zarr", tmp_path / "c")
    whole = cache_bytes(cache)
    lines = whole["samples.csv"].splitlines(keepends=True)
    swapped, other = [*lines], b"".join(lines).replace(b"scan005,", b"scan0x5,")
    swapped[3], swapped[66] = lines[66], lines[3]
    damages = (
        other,
        b"".join(lines[:9] + lines[10:]),
        b"".join(swapped),
        b"".join(lines[:9] + lines[8:]),
        b"".join(lines[:-1]),
        b"",
        None,
    )
    for damage in damages:  # a name, a line less, two exchanged, one twice, the last one less, nothing, no file
        (cache / "samples.csv").unlink() if damage is None else (cache / "samples.csv").write_bytes(damage)
        assert build(scans, cache, "zarr", repair=damage is other) == 0
        assert cache_bytes(cache) == whole
    (cache / "samples.csv").write_bytes(other)  # a row that is in no record: its shard is rendered again
    flip(cache / "records" / "00001.json", 300)
    assert build(scans, cache, "zarr") == len(lines) - 1 - SHARD_ROWS
    assert cache_bytes(cache) == whole
    (cache / "samples.csv").write_bytes(b"".join(lines[:40]))
    flip(cache / "records" / "00000.json", 300)
    with pytest.raises(CacheError, match="the order of its rows is lost, so render everything again with --overwrite"):
        build(scans, cache, "zarr")


@pytest.mark.parametrize("store", STORES)
def test_repair_of_lost_files_and_structures(store: str, scans: Path, built: BuiltOnce, tmp_path: Path) -> None:
    cache = built(store, tmp_path / "c")
    whole = cache_bytes(cache)
    name = "views.zarr/texture/c/0/0/0/0/0" if store == "zarr" else "views/shard-00000.h5"
    (cache / name).unlink()
    for quick in (False, True):
        assert any(p.startswith(f"{name}: missing; it holds scan000") for p in verify_cache(cache, quick=quick))
    assert build(scans, cache, store) == SHARD_ROWS
    assert cache_bytes(cache) == whole
    (cache / name).write_bytes(whole[name][:-1])
    for quick in (False, True):
        assert any(name in problem and "scan000" in problem for problem in verify_cache(cache, quick=quick))
    build(scans, cache, store, repair=True)
    assert cache_bytes(cache) == whole


@pytest.mark.parametrize("store", STORES)
def test_a_shard_of_other_images_is_rendered_again(store: str, scans: Path, built: BuiltOnce, tmp_path: Path) -> None:
    """All checksums in the shard's file hold, but its record is of other images."""
    cache, other = built(store, tmp_path / "c"), tmp_path / "other"
    whole = cache_bytes(cache)
    changed = tmp_path / "scans"
    write_scan_folder(changed, SHARD_ROWS + 4, without_texture=(3,))
    (changed / "scan007.obj").write_text("garbled")
    write_scan(changed, "scan010", 9.0)
    build(changed, other, store)
    name = "views.zarr/depth/c/0/0/0/0" if store == "zarr" else "views/shard-00000.h5"
    assert cache_bytes(other)[name] != whole[name]
    (cache / name).write_bytes(cache_bytes(other)[name])
    assert any("any may be damaged" in problem for problem in verify_cache(cache))
    assert verify_cache(cache, quick=True) == []  # what quick cannot see
    assert build(scans, cache, store, repair=True) == SHARD_ROWS
    assert cache_bytes(cache) == whole


@pytest.mark.parametrize("store", STORES)
def test_a_changed_scan_renders_its_own_shard_alone(store: str, tmp_path: Path) -> None:
    root, cache = tmp_path / "scans", tmp_path / "c"
    write_scan_folder(root, SHARD_ROWS + 3)
    assert build(root, cache, store) == SHARD_ROWS + 3
    before = cache_bytes(cache)
    write_scan(root, f"scan{SHARD_ROWS + 1:03d}", 30.0)
    assert build(root, cache, store) == 3
    after = cache_bytes(cache)
    assert {name for name in before if before[name] != after[name]} == {
        "cache.json", "samples.csv", "records/00001.json", *read_record_files(cache, 1) - {"views.zarr/texture/c/1/0/0/0/0"}
    } | ({"views.zarr/texture/c/1/0/0/0/0"} if store == "zarr" else set())  # fmt: skip
    assert verify_cache(cache) == []


def read_record_files(cache: Path, shard: int) -> set[str]:
    record = read_record(cache, shard)
    assert record is not None
    return set(record.files)


@pytest.mark.parametrize("store", STORES)
def test_rows_are_checked_against_the_shards_own_index(store: str, tiny_cache: MakeCache) -> None:
    """A record that is whole in itself, with a hash that holds, but claims an image that no shard holds, or leaves one out."""
    cache = tiny_cache(store=store, without_texture=(4,))
    record = read_record(cache, 0)
    assert record is not None
    for row, modalities, expected in (
        (4, "texture+normal", "no texture is stored of S0/surprise0"),
        (2, "texture", "normal is stored, but not claimed, of S0/happiness0"),
    ):
        samples = list(record.samples)
        samples[row] = dataclasses.replace(samples[row], modalities=modalities)
        write_record(cache, dataclasses.replace(record, samples=tuple(samples)))
        for quick in (False, True):
            assert f"records/00000.json: {expected}" in verify_cache(cache, quick=quick)
    write_record(cache, record)
    assert verify_cache(cache) == []


def test_quick_reads_indexes_and_full_reads_every_byte(tiny_cache: MakeCache) -> None:
    cache = tiny_cache()
    name = "views.zarr/texture/c/0/0/0/0/0"
    whole = (cache / name).read_bytes()
    start, length = zarr_chunk(whole, 5)
    flip(cache / name, start + length // 2)
    assert verify_cache(cache, quick=True) == []
    assert verify_cache(cache) == [f"{name}: its bytes are not those that were written; damaged: S0/surprise1"]
    (cache / name).write_bytes(whole)
    for place in (len(whole) - 1, len(whole) - 16 * SHARD_ROWS + 3):  # the index and its checksum
        flip(cache / name, place)
        for quick in (False, True):
            problems = verify_cache(cache, quick=quick)
            assert len(problems) == 1
            assert "damaged: S0/anger0, S0/anger1" in problems[0]
        (cache / name).write_bytes(whole)
    (cache / name).write_bytes(b"\0" + whole)
    assert "bytes, its index" in verify_cache(cache, quick=True)[0]


@pytest.mark.parametrize("store", STORES)
def test_strays_and_damaged_records_are_named(store: str, tiny_cache: MakeCache) -> None:
    cache = tiny_cache(store=store)
    stray = "views.zarr/texture/c/9/0/0/0/0" if store == "zarr" else "views/shard-00009.h5"
    (cache / stray).parent.mkdir(parents=True, exist_ok=True)
    (cache / stray).write_bytes(b"x")
    assert verify_cache(cache) == [f"{stray}: belongs to no record; remove it"]
    (cache / stray).unlink()
    flip(cache / "records" / "00000.json", 100)
    problems = verify_cache(cache)
    assert any("records/00000.json" in problem and "S0/anger0, S0/anger1" in problem for problem in problems)
    assert read_info(cache).complete


def test_verify_finds_every_flipped_byte(few: Path, tmp_path: Path) -> None:
    build(few, tmp_path / "c", "zarr")
    files = [path for path in sorted((tmp_path / "c").rglob("*")) if path.is_file() and ".build" not in path.parts]
    rng = np.random.default_rng(0)
    for path in files:
        whole = path.read_bytes()
        for place in rng.integers(0, len(whole), min(4, len(whole))) if whole else ():
            damaged = bytearray(whole)
            damaged[place] ^= 1 << int(rng.integers(0, 8))
            path.write_bytes(damaged)
            try:
                assert verify_cache(tmp_path / "c"), f"{path}, byte {place}"
            except CacheError:
                assert path.name == "cache.json"
            path.write_bytes(whole)
    assert verify_cache(tmp_path / "c") == []


def test_missing_parts_are_named_by_open_and_verify(few: Path, tmp_path: Path) -> None:
    build(few, tmp_path / "c", "zarr")
    record = tmp_path / "c" / "records" / "00000.json"
    whole = record.read_bytes()
    record.unlink()
    with pytest.raises(CacheError, match=r"00000\.json: missing"):
        open_cache(tmp_path / "c")
    assert any("00000.json: missing" in problem for problem in verify_cache(tmp_path / "c"))
    record.write_bytes(whole)
    (tmp_path / "c" / "samples.csv").write_text("sample_id\n")
    with pytest.raises(CacheError, match=r"samples\.csv: changed"):
        open_cache(tmp_path / "c")
    build(few, tmp_path / "c", "zarr")  # the table is restored from the records
    assert verify_cache(tmp_path / "c") == []
