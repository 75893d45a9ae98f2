"""Builds: what a row holds, failures listed, nothing lost to kills, only what changed rendered again."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scan_folders import BuiltOnce, cache_bytes, manifest_row, write_manifest, write_scan, write_scan_folder

from preprocess.alignment.align import align
from preprocess.build.build import BuildReport, build_cache
from preprocess.build.verify import verify_cache
from preprocess.datasets import DATASETS
from preprocess.inspection.summary import describe_cache
from preprocess.rendering.cameras import build_cameras
from preprocess.rendering.views import render_views
from shared.cache import FAILURES_CSV, Failure, open_cache, read_info
from shared.csv_tables import read_table
from shared.errors import CacheError, FacetError, ScanError
from shared.schema import SHARD_ROWS, RenderSettings
from shared.store.storage import STORES

SMALL = RenderSettings(size_px=32)
FOLDER = DATASETS["folder"]


def build(root: Path, cache: Path, settings: RenderSettings = SMALL, **options: object) -> BuildReport:
    return build_cache(FOLDER, root, cache, settings, **{"num_workers": 1, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scans")
    write_scan_folder(root, SHARD_ROWS + 6, without_texture=(3,))
    return root


@pytest.fixture(scope="module")
def built(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> BuiltOnce:
    """Of `scans`."""
    return BuiltOnce(lambda store, folder: build(scans, folder, store=store), tmp_path_factory.mktemp("built"))


@pytest.fixture
def few(tmp_path: Path) -> Path:
    write_scan_folder(tmp_path / "few", 6)
    return tmp_path / "few"


@pytest.mark.parametrize("store", STORES)
def test_rows_hold_what_align_and_render_give(store: str, scans: Path, tmp_path: Path) -> None:
    report = build(scans, tmp_path / "c", store=store)
    cache = open_cache(tmp_path / "c")
    assert report.info == cache.info
    assert (cache.info.num_samples, cache.info.num_valid, cache.info.num_shards) == (70, 70, 2)
    assert cache.path.stat().st_mode & 0o777 == 0o700
    records = FOLDER.find(scans).records
    for row in (0, 3, 69):
        sample = cache.samples[row]
        mesh = FOLDER.read(scans, records[row])
        placed = align(mesh, landmark_groups=FOLDER.landmark_groups, crop_radius_mm=SMALL.crop_radius_mm)
        views = render_views(placed.mesh, build_cameras(SMALL.views), size_px=32, radius_mm=SMALL.crop_radius_mm)
        assert sample.valid
        assert sample.alignment == "landmarks"
        assert sample.label == records[row].label
        assert (cache.arrays.read("depth", [row])[0] == views.depth).all()
        assert (cache.arrays.read("normal", [row])[0] == views.normal).all()
        assert cache.arrays.read("scan_to_face", [row])[0] == pytest.approx(placed.scan_to_face)
        if row == 3:
            assert sample.modalities == "normal+depth"  # absent is marked, never grey
        else:
            assert sample.modalities == "texture+normal+depth"
            assert (cache.arrays.read("texture", [row])[0] == views.texture).all()
    assert verify_cache(tmp_path / "c") == []


def test_number_of_workers_does_not_change_a_byte(scans: Path, built: BuiltOnce, tmp_path: Path) -> None:
    built("zarr", tmp_path / "one")
    build(scans, tmp_path / "two", num_workers=2)
    assert cache_bytes(tmp_path / "one") == cache_bytes(tmp_path / "two")


def test_killed_at_any_moment_it_ends_byte_identical(scans: Path, built: BuiltOnce, tmp_path: Path) -> None:
    built("zarr", tmp_path / "whole")
    command = [sys.executable, "-m", "preprocess", "build", "folder", "--size", "32", "--workers", "2"]
    command += ["--root", str(scans), "--cache", str(tmp_path / "c")]
    rng = random.Random(0)
    for attempt in range(2):
        process = subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if attempt == 0:
            # at the worst moment: something is in the cache, but not all of it
            deadline = time.monotonic() + 60
            while not (tmp_path / "c" / "samples.csv").exists() and time.monotonic() < deadline:
                time.sleep(0.01)
        time.sleep(rng.uniform(0, 3))
        if attempt == 1:
            process.kill()  # the coordinator alone: its workers must end themselves
        else:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    build(scans, tmp_path / "c", num_workers=2)
    assert cache_bytes(tmp_path / "c") == cache_bytes(tmp_path / "whole")


def test_a_second_build_has_nothing_to_do(few: Path, tmp_path: Path) -> None:
    build(few, tmp_path / "c")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "c" / "views.zarr").rglob("*") if path.is_file()}
    assert build(few, tmp_path / "c").num_rendered == 0
    for path in few.iterdir():
        os.utime(path)  # a copied data set: other times, the same contents
    assert build(few, tmp_path / "c").num_rendered == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_failures_of_one_kind_are_printed_a_few_times(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(5):
        (few / f"scan{number:03d}.obj").write_text(f"v 1 {number}\nf 1 2 3\n")
    build(few, tmp_path / "c")
    printed = capsys.readouterr().err
    assert printed.count("  failed: ") == 3
    assert "  5 scans failed as scan000.obj: " in printed


def test_bad_scans_are_listed_and_the_rest_goes_on(few: Path, tmp_path: Path) -> None:
    (few / "scan001.obj").write_text("v 1 2\nf 1 2 3\n")
    (few / "scan002.png").write_bytes(b"no image")
    (few / "scan004.obj").unlink()
    report = build(few, tmp_path / "c")
    cache = open_cache(tmp_path / "c")
    assert [sample.sample_id for sample in cache.samples if not sample.valid] == ["scan001", "scan002", "scan004"]
    failures = read_table(tmp_path / "c" / FAILURES_CSV, Failure)
    assert [f.source for f in failures] == ["scan001.obj", "scan002.obj", "scan004.obj"]
    assert "scan002.png" in failures[1].reason
    assert all(f.reason and str(tmp_path) not in f.reason and "\n" not in f.reason for f in failures)
    assert not any(f.reason.startswith(f.source) for f in failures)
    assert report.failures == failures
    assert verify_cache(tmp_path / "c") == []

    write_scan(few, "scan001", 0.2)  # mended: its shard is rendered again, and then it is in
    assert build(few, tmp_path / "c").num_rendered == 6
    assert open_cache(tmp_path / "c").samples[1].valid


def test_strict_stops_at_the_first_bad_scan(few: Path, tmp_path: Path) -> None:
    (few / "scan001.obj").write_text("nothing")
    with pytest.raises(ScanError, match=r"scan001\.obj.*stopped by --strict"):
        build(few, tmp_path / "c", strict=True)
    with pytest.raises(CacheError, match="not finished"):
        open_cache(tmp_path / "c")


def test_no_readable_scan_at_all_is_an_error(few: Path, tmp_path: Path) -> None:
    for path in few.glob("*.obj"):
        path.write_text("nothing")
    with pytest.raises(FacetError, match=r"none of 6 scans could be read; the first: scan000\.obj"):
        build(few, tmp_path / "c")


def test_new_scans_append_and_only_their_shards_are_rendered(scans: Path, tmp_path: Path) -> None:
    root = tmp_path / "growing"
    write_scan_folder(root, SHARD_ROWS + 2)
    build(root, tmp_path / "c")
    first = (tmp_path / "c" / "views.zarr/depth/c/0/0/0/0").stat().st_mtime_ns
    for name in ("aaa", "scan066"):
        write_scan(root, name, 3.0)
    # the new rows stand first in the manifest; in the cache they must come last
    text = (root / "manifest.csv").read_text().splitlines(keepends=True)
    new = [manifest_row(66, 5).replace("scan066", "aaa"), manifest_row(66, 5)]
    (root / "manifest.csv").write_text("".join([text[0], *new, *text[1:]]))
    assert build(root, tmp_path / "c").num_rendered == 4
    cache = open_cache(tmp_path / "c")
    assert [s.sample_id for s in cache.samples[-3:]] == ["scan065", "aaa", "scan066"]
    assert (tmp_path / "c" / "views.zarr/depth/c/0/0/0/0").stat().st_mtime_ns == first
    assert verify_cache(tmp_path / "c") == []


def test_vanished_scans_become_invalid_and_keep_their_row(few: Path, tmp_path: Path) -> None:
    build(few, tmp_path / "c")
    write_manifest(few, [0, 1, 2, 4, 5])
    build(few, tmp_path / "c")
    cache = open_cache(tmp_path / "c")
    assert [s.sample_id for s in cache.samples] == [f"scan{i:03d}" for i in range(6)]
    assert [s.valid for s in cache.samples] == [True, True, True, False, True, True]
    assert "no longer" in cache.samples[3].reason and cache.samples[3].label == ""
    assert "; none failed, 1 no longer in the data set\n" in describe_cache(cache)
    with pytest.raises(CacheError):
        cache.arrays.read("depth", [3])


def test_a_changed_label_renders_nothing(few: Path, tmp_path: Path) -> None:
    build(few, tmp_path / "c")
    manifest = few / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("scan002.obj,S02,anger", "scan002.obj,S02,fear"))
    assert build(few, tmp_path / "c").num_rendered == 0
    assert open_cache(tmp_path / "c").samples[2].label == "fear"
    assert verify_cache(tmp_path / "c") == []


@pytest.mark.parametrize(
    ("column", "value"), [("scale", "1.04"), ("units", "cm"), ("facing", "-z"), ("texture_origin", "top")]
)
def test_another_option_of_a_scan_draws_it_anew(few: Path, tmp_path: Path, column: str, value: str) -> None:
    build(few, tmp_path / "c")
    header, *rows = (few / "manifest.csv").read_text().splitlines()
    rows = [f"{row},{value if 'scan002' in row else ''}" for row in rows]
    (few / "manifest.csv").write_text("\n".join([f"{header},{column}", *rows]) + "\n")
    assert build(few, tmp_path / "c").num_rendered == 6
    build(few, tmp_path / "fresh")
    assert cache_bytes(tmp_path / "c") == cache_bytes(tmp_path / "fresh")
    assert build(few, tmp_path / "c").num_rendered == 0


def test_other_sequences_align_their_frames_anew(few: Path, tmp_path: Path) -> None:
    def build_as(sequence: str, cache: str) -> int:
        rows = (f"scan00{k}.obj,S0,anger,{sequence}\n" for k in range(2))
        (few / "manifest.csv").write_text("path,subject,label,sequence\n" + "".join(rows))
        return build(few, tmp_path / cache).num_rendered

    build_as("", "c")
    assert build_as("a", "c") == build_as("a", "fresh") == 2
    assert cache_bytes(tmp_path / "c") == cache_bytes(tmp_path / "fresh")
    assert build_as("b", "c") == 0  # another name of the same frames
    (few / "manifest.csv").write_text("path,subject,label,sequence,apex\nscan001.obj,S1,fear,b,0\n")
    build(few, tmp_path / "c")  # of a scan that has vanished nothing is left in its sequence
    (sequence,) = open_cache(tmp_path / "c").sequences
    assert (sequence.subject, sequence.label, sequence.apex, sequence.num_frames) == ("S1", "fear", 0, 1)


def test_other_settings_are_refused_unless_overwritten(few: Path, tmp_path: Path) -> None:
    build(few, tmp_path / "c")
    other = dataclasses.replace(SMALL, size_px=48, modalities=("depth",))
    with pytest.raises(CacheError, match="size_px 32, now 48; modalities texture,normal,depth, now depth"):
        build(few, tmp_path / "c", other)
    earlier = dataclasses.replace(SMALL, revision=4)
    build(few, tmp_path / "c", earlier, overwrite=True)
    with pytest.raises(CacheError, match=r"revision 4, now \d; since then the crop sphere cuts faces pixel by pixel"):
        build(few, tmp_path / "c")
    build(few, tmp_path / "c", other, overwrite=True)
    build(few, tmp_path / "fresh", other)
    assert cache_bytes(tmp_path / "c") == cache_bytes(tmp_path / "fresh")
    with pytest.raises(CacheError, match="store zarr, now hdf5; compression lz4, now none"):
        build(few, tmp_path / "c", other, store="hdf5", compression="none")


def test_a_folder_that_is_no_cache_is_left_alone(few: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("precious")
    with pytest.raises(CacheError, match=r"not empty and not a cache \(holds thesis\.tex\)"):
        build(few, tmp_path / "home", overwrite=True)
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["thesis.tex"]  # no lock is left there
    assert (tmp_path / "home" / "thesis.tex").read_text() == "precious"


def test_a_first_file_that_was_never_finished_is_swept_up(few: Path, tmp_path: Path) -> None:
    """What a build that is killed at once leaves, and what another one sees of it while it writes."""
    (tmp_path / "c" / ".build").mkdir(parents=True)
    (tmp_path / "c" / ".build" / "lock").touch()
    (tmp_path / "c" / ".cache.json.4711.partial").write_text('{"format_')
    (tmp_path / "c" / ".thesis.tex.4711.partial").write_text("precious")
    with pytest.raises(CacheError, match=r"not a cache \(holds \.thesis\.tex\.4711\.partial\)"):
        build(few, tmp_path / "c")
    (tmp_path / "c" / ".thesis.tex.4711.partial").unlink()
    assert build(few, tmp_path / "c").num_rendered == 6
    assert not list((tmp_path / "c").glob(".*.partial"))


def test_two_builds_of_one_cache_do_not_meet(few: Path, tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "c" / ".build").mkdir(parents=True)
    with (tmp_path / "c" / ".build" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(CacheError, match="another build is writing"):
            build(few, tmp_path / "c")
    build(few, tmp_path / "c")


@pytest.mark.parametrize("store", STORES)
def test_repair_renders_damaged_shards_alone(store: str, scans: Path, built: BuiltOnce, tmp_path: Path) -> None:
    built(store, tmp_path / "c")
    whole = cache_bytes(tmp_path / "c")
    name = "views.zarr/texture/c/0/0/0/0/0" if store == "zarr" else "views/shard-00000.h5"
    damaged = bytearray(whole[name])
    place = len(damaged) // 2
    damaged[place : place + 8] = bytes(b ^ 0xFF for b in damaged[place : place + 8])
    (tmp_path / "c" / name).write_bytes(damaged)
    problems = verify_cache(tmp_path / "c")
    assert len(problems) == 1
    assert name in problems[0]
    assert "damaged: scan0" in problems[0]  # the sample is named
    assert build(scans, tmp_path / "c", store=store, repair=True).num_rendered == SHARD_ROWS
    assert cache_bytes(tmp_path / "c") == whole


def test_a_full_disk_costs_nothing_that_is_finished(few: Path, tmp_path: Path) -> None:
    """A file-size limit stands in for the full disk: the write fails half-way, the next build goes on."""
    command = (
        f"ulimit -f 8; exec {sys.executable} -m preprocess build folder --root {few} --cache {tmp_path / 'c'} --size 64"
    )
    limited = subprocess.run(["bash", "-c", f"trap '' XFSZ; {command}"], capture_output=True, text=True, check=False)
    assert limited.returncode == 2, limited.stdout + limited.stderr
    lines = [line for line in limited.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert str(tmp_path / "c") in lines[0]
    assert "Traceback" not in limited.stderr
    assert not list((tmp_path / "c").rglob(".*.partial"))
    assert not read_info(tmp_path / "c").complete
    settings = dataclasses.replace(SMALL, size_px=64)
    build(few, tmp_path / "c", settings)
    build(few, tmp_path / "whole", settings)
    assert cache_bytes(tmp_path / "c") == cache_bytes(tmp_path / "whole")
