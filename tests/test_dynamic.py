"""Dynamic images against rank pooling's definition by brute force; nothing lost to kills; from a data set to a result."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_lines import run_preprocess
from conftest import VIEWS, MakeCache
from next_commands import next_commands
from scan_folders import cache_bytes
from test_every_data_set import preprocess
from test_train_cli import call

from preprocess.build.build import build_cache
from preprocess.build.cache_folder import settings_fingerprint
from preprocess.build.dynamic import build_dynamic_cache, pool_frames
from preprocess.build.verify import verify_cache
from preprocess.datasets import DATASETS
from shared.cache import (
    SAMPLES_CSV,
    Cache,
    open_cache,
    read_info,
    read_record,
    write_info,
    write_record,
)
from shared.csv_tables import encode_table
from shared.errors import CacheError, FacetError
from shared.labels import BASIC_EXPRESSIONS
from shared.modalities import MODALITIES
from shared.schema import ARRAYS, COMPRESSIONS, FORMAT_VERSION, SHARD_ROWS, RenderSettings, Sample, fingerprint
from shared.signed_json import write_signed_json
from shared.store.storage import STORES, encode_metadata, encode_shard, write_file


def make_sequences(tiny_cache: MakeCache, **options: object) -> Path:
    return tiny_cache(**{"num_subjects": 2, "num_frames": 5, "size_px": 16, "modalities": MODALITIES, **options})


def make_two_shards(tiny_cache: MakeCache, **options: object) -> Path:
    """72 sequences of 3 frames: two shards of dynamic images."""
    return make_sequences(tiny_cache, num_subjects=12, num_frames=3, **options)


@pytest.mark.parametrize("store", STORES)
def test_a_row_is_a_sequence(store: str, tiny_cache: MakeCache) -> None:
    # a sequence with one valid frame, one with two, one whose first frame has no texture
    source = open_cache(make_sequences(tiny_cache, store=store, invalid=(1, 2, 3, 4, 5, 7, 8), without_texture=(10,)))
    out = source.path.parent / "dynamic"
    report = build_dynamic_cache(source.path, out)
    cache = open_cache(out)
    assert verify_cache(out) == []
    assert out.stat().st_mode & 0o777 == 0o700
    assert cache.info == report.info
    assert cache.sequences == []
    assert [s.sample_id for s in cache.samples] == [s.sequence for s in source.sequences]
    assert cache.info.settings == dataclasses.replace(source.info.settings, dynamic=cache.info.settings.dynamic)
    assert (cache.info.num_samples, cache.info.num_valid, cache.info.num_landmarks) == (12, 11, 0)
    assert cache.read_text() is not None  # the prompts came along
    assert cache.samples[0].reason == "fewer than 2 valid frames"
    assert [f.sample_id for f in report.failures] == [cache.samples[0].sample_id]
    valid_rows = {1: [6, 9], 2: list(range(10, 15)), 11: list(range(55, 60))}
    for place, rows in valid_rows.items():
        sample, first = cache.samples[place], source.samples[source.sequences[place].first_row]
        assert (sample.subject, sample.label, sample.intensity, sample.source) == (
            *(first.subject, first.label, first.intensity, first.source),
        )
        assert (sample.sequence, sample.frame, sample.valid, sample.modalities) == (
            "",
            None,
            True,
            "+".join(MODALITIES),
        )
        for modality in MODALITIES:
            held = [row for row in rows if source.samples[row].has(modality)]
            assert len(held) == len(rows) - (place == 2 and modality == "texture")
            stored = cache.arrays.read(modality, [place])[0]
            assert np.array_equal(stored, pool_frames(source, modality, held))


def test_frames_are_pooled_in_time_order_whatever_their_rows(tiny_cache: MakeCache, tmp_path: Path) -> None:
    path = make_sequences(tiny_cache, modalities=("normal",))
    info, record = read_info(path), read_record(path, 0)
    assert record is not None
    samples = tuple(dataclasses.replace(sample, frame=2 * (row % 5) % 5) for row, sample in enumerate(record.samples))
    write_record(path, dataclasses.replace(record, samples=samples))
    hashes = {**info.file_hashes, SAMPLES_CSV: write_file(path / SAMPLES_CSV, encode_table(Sample, samples))}
    write_info(path, dataclasses.replace(info, file_hashes=hashes))
    build_dynamic_cache(path, tmp_path / "out")
    stored = open_cache(tmp_path / "out").arrays.read("normal", [0, 11])
    for place, first in ((0, 0), (1, 55)):
        in_time = [first + row for row in (0, 3, 1, 4, 2)]  # frames 0, 2, 4, 1, 3
        assert np.array_equal(stored[place], pool_frames(open_cache(path), "normal", in_time))


def test_targets_are_those_of_the_first_valid_frame(tiny_cache: MakeCache, tmp_path: Path) -> None:
    path = make_sequences(tiny_cache, invalid=(5,))
    info = dataclasses.replace(read_info(path), target_names=("a", "b"), au_names=("AU1",))
    write_info(path, info)
    targets = np.tile(np.array([[0, 1]], np.int8), (60, 1))
    targets[5:10] = [[1, 0], [1, 1], [0, 0], [0, 0], [0, 0]]
    arrays = {name: np.zeros(shape, ARRAYS[name].dtype) for name, shape in info.arrays().items()} | {"targets": targets}
    for name, data in {**encode_shard(info, 0, arrays, {}), **encode_metadata(info)}.items():
        if "/targets/" in name:
            write_file(path / name, data)
    build_dynamic_cache(path, tmp_path / "out")
    cache = open_cache(tmp_path / "out")
    assert (cache.info.target_names, cache.info.au_names) == (("a", "b"), ())
    for name in ("dataset", "licence", "class_names", "store", "compression"):
        assert getattr(cache.info, name) == getattr(info, name), name
    assert cache.info.software
    assert cache.arrays.read("targets", [0, 1, 11]).tolist() == [[0, 1], [1, 1], [0, 1]]
    assert cache.arrays.read("scan_to_face", [1])[0].tolist() == np.eye(4).tolist()
    assert verify_cache(tmp_path / "out") == []


def test_killed_and_resumed_it_ends_byte_identical(tiny_cache: MakeCache, tmp_path: Path) -> None:
    source = make_two_shards(tiny_cache)
    build_dynamic_cache(source, tmp_path / "whole")
    whole = cache_bytes(tmp_path / "whole")
    assert read_info(tmp_path / "whole").num_shards == 2
    out = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "preprocess", "dynamic", "--cache", str(source), "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (out / "records" / "00000.json").exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    process.kill()
    process.wait()
    # whatever it had come to, now for certain: the second shard is not finished, and a write was cut off
    (out / "records" / "00001.json").unlink(missing_ok=True)
    write_info(out, dataclasses.replace(read_info(out), complete=False))
    (out / "views.zarr" / ".x.1.partial").write_bytes(b"half")
    first = (out / "views.zarr/depth/c/0/0/0/0").stat().st_mtime_ns
    with pytest.raises(CacheError, match="not finished"):
        open_cache(out)
    assert build_dynamic_cache(source, out).num_pooled == 72 - SHARD_ROWS
    assert (out / "views.zarr/depth/c/0/0/0/0").stat().st_mtime_ns == first
    assert cache_bytes(out) == whole
    assert build_dynamic_cache(source, out).num_pooled == 0


@pytest.mark.parametrize("store", STORES)
def test_damage_is_found_and_pooled_again(store: str, tiny_cache: MakeCache, tmp_path: Path) -> None:
    source, out = make_two_shards(tiny_cache, store=store), tmp_path / "out"
    build_dynamic_cache(source, out)
    whole = cache_bytes(out)
    (name, *_) = read_record(out, 1).files  # type: ignore[union-attr]
    damaged = bytearray(whole[name])
    damaged[len(damaged) // 2] ^= 0xFF
    (out / name).write_bytes(damaged)
    verified = run_preprocess("verify", "--cache", out)
    assert verified.returncode == 1
    assert "python -m preprocess dynamic --cache CACHE --out" in verified.stdout.splitlines()[-1]
    assert build_dynamic_cache(source, out).num_pooled == 72 - SHARD_ROWS
    assert cache_bytes(out) == whole


def test_only_shards_whose_sequences_changed_are_pooled_again(tiny_cache: MakeCache, tmp_path: Path) -> None:
    build_dynamic_cache(make_two_shards(tiny_cache, name="a"), tmp_path / "out")
    changed = make_two_shards(tiny_cache, name="b", invalid=(215,))  # the last frame of the last sequence is gone
    assert build_dynamic_cache(changed, tmp_path / "out").num_pooled == 72 - SHARD_ROWS
    build_dynamic_cache(changed, tmp_path / "fresh")
    assert cache_bytes(tmp_path / "out") == cache_bytes(tmp_path / "fresh")


def test_what_cannot_be_pooled_is_refused(tiny_cache: MakeCache, tmp_path: Path) -> None:
    source = make_sequences(tiny_cache, name="source")
    (tmp_path / "link").symlink_to(source)
    for same in (source, tmp_path / "link"):
        with pytest.raises(CacheError, match="is the cache that is read"):
            build_dynamic_cache(source, same)
    scans = tiny_cache(name="scans", num_subjects=1)
    with pytest.raises(CacheError, match="holds no sequences"):
        build_dynamic_cache(scans, tmp_path / "out")
    with pytest.raises(CacheError, match=r"was built with other settings.*choose another --out"):
        build_dynamic_cache(source, scans)
    build_dynamic_cache(source, tmp_path / "out")
    with pytest.raises(CacheError, match="holds no sequences"):
        build_dynamic_cache(tmp_path / "out", tmp_path / "again")
    with pytest.raises(CacheError, match=r"size_px 16, now 20\); choose another --out"):
        build_dynamic_cache(make_sequences(tiny_cache, name="other", size_px=20), tmp_path / "out")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("precious")
    with pytest.raises(CacheError, match="not empty and not a cache"):
        build_dynamic_cache(source, tmp_path / "home")
    still = make_sequences(tiny_cache, name="still", num_frames=1)
    with pytest.raises(FacetError, match="none of 12 sequences has 2 valid frames"):
        build_dynamic_cache(still, tmp_path / "none")
    write_info(source, dataclasses.replace(read_info(source), complete=False))
    result = run_preprocess("dynamic", "--cache", source, "--out", tmp_path / "new")
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert "not finished" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_damaged_source_is_one_clear_line(tiny_cache: MakeCache, tmp_path: Path) -> None:
    source = make_sequences(tiny_cache)
    (name,) = [name for name in read_record(source, 0).files if "/texture/" in name]  # type: ignore[union-attr]
    (source / name).write_bytes((source / name).read_bytes()[:500])
    with pytest.raises(CacheError, match=r"texture is missing or damaged.*verify"):
        build_dynamic_cache(source, tmp_path / "out")


def test_older_caches_open_and_keep_their_fingerprint(tiny_cache: MakeCache) -> None:
    path = tiny_cache(num_subjects=1)
    old = json.loads((path / "cache.json").read_text())
    del old["settings"]["dynamic"], old["compression"], old["checksum"]
    write_signed_json(path / "cache.json", old)
    cache: Cache = open_cache(path)
    assert cache.info.settings.dynamic == ""
    assert cache.info.compression == "lz4"
    assert cache.info.settings == RenderSettings(views=VIEWS, size_px=32, modalities=("texture", "normal"))
    # as it was computed before the fields came
    assert settings_fingerprint(cache.info) == fingerprint(
        {
            "format_version": FORMAT_VERSION,
            "dataset": "tiny",
            "settings": old["settings"],
            "store": "zarr",
            "shard_rows": SHARD_ROWS,
        }
    )
    pooled = dataclasses.replace(cache.info.settings, dynamic="somehow")
    prints = {
        settings_fingerprint(dataclasses.replace(cache.info, settings=settings, compression=compression))
        for settings in (pooled, cache.info.settings)
        for compression in COMPRESSIONS
    }
    assert len(prints) == 4


def test_from_a_data_set_to_a_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scans, source, out = tmp_path / "scans", tmp_path / "c", tmp_path / "dynamic"
    preprocess("synth", "bu4dfe", "--out", scans, "--subjects", 2, "--frames", 5)
    preprocess("build", "bu4dfe", "--root", scans, "--cache", source, "--size", 32)
    preprocess("prompts", "--cache", source, "--model", "facet-tiny", "--pretrained", "none")
    capsys.readouterr()
    preprocess("dynamic", "--cache", source, "--out", out)
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1].endswith("dynamic images of 12 sequences of 2 subjects; none failed")
    assert next_commands(printed) == ["train fit"]  # it has the prompts of the cache that it was made from
    assert verify_cache(out) == []
    (tmp_path / "p.txt").write_text("".join(f"{name}: {name}\n" for name in BASIC_EXPRESSIONS))
    preprocess(
        "prompts", "--cache", source, "--prompts", tmp_path / "p.txt", "--model", "facet-tiny", "--pretrained", "none"
    )
    preprocess("dynamic", "--cache", source, "--out", out)
    assert "keeps its prompts (facet-tiny.h5), which are others than those of" in capsys.readouterr().out
    preprocess("inspect", "--cache", out, "--summary", "--sheet", tmp_path / "sheet.png")
    assert "rank pooling" in capsys.readouterr().out
    assert (tmp_path / "sheet.png").stat().st_size > 10_000
    settings = RenderSettings(size_px=32)
    with pytest.raises(CacheError, match=r"rank pooling.*now none"):  # a build does not take it for its own
        build_cache(DATASETS["bu4dfe"], scans, out, settings)
    fit = ["fit", "--cache", out, "--out", tmp_path / "run", "--epochs", 1, "--device", "cpu"]
    assert call(*fit, "--modalities", "normal,depth", "--folds", 2) == 0
    assert (tmp_path / "run" / "metrics.json").is_file()
