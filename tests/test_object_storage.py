"""Caches on object storage, against a real S3 server process on loopback: the same bytes, nothing lost, errors of one line."""

from __future__ import annotations

import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import write_tiny_cache
from object_store import SECRET, s3fs, served_bucket
from scan_folders import BuiltOnce, cache_bytes, write_scan_folder

from preprocess.__main__ import main as preprocess_main
from preprocess.build.build import build_cache
from preprocess.build.dynamic import build_dynamic_cache
from preprocess.build.verify import verify_cache
from preprocess.datasets import DATASETS
from shared.cache import open_cache, read_info
from shared.errors import CacheError, StorageError, run_command_line
from shared.schema import SHARD_ROWS, RenderSettings
from shared.store.paths import is_file, list_files, open_path, read_bytes, remove_file, remove_folder
from shared.store.storage import STORES, open_arrays, shard_files, write_file
from train.__main__ import main as train_main

Run = Callable[..., tuple[int, str, str]]
SMALL = RenderSettings(size_px=32)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with served_bucket() as address:
        yield address


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scans")
    write_scan_folder(root, SHARD_ROWS + 6, without_texture=(3,))
    return root


@pytest.fixture(scope="module")
def built(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> BuiltOnce:
    """Of `scans`, on the disk."""
    return BuiltOnce(lambda store, folder: build(scans, folder, store=store), tmp_path_factory.mktemp("built"))


def build(root: Path, cache: Path, **options: object) -> int:
    options = {"num_workers": 1, **options}
    return build_cache(DATASETS["folder"], root, cache, SMALL, **options).num_rendered  # type: ignore[arg-type]


def contract_bytes(cache: Path) -> dict[str, bytes]:
    return {name: read_bytes(cache / name) for name in list_files(cache) if not name.startswith(".build/")}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process: `run("preprocess", "verify", "--cache", cache)` → exit code, stdout, stderr."""

    def call(package: str, *arguments: object) -> tuple[int, str, str]:
        s3fs.S3FileSystem.clear_instance_cache()  # the environment may have changed
        capsys.readouterr()
        main = train_main if package == "train" else preprocess_main
        code = run_command_line(lambda: main([str(a) for a in arguments]))
        out, err = capsys.readouterr()
        assert SECRET not in out + err
        return code, out, err

    return call


def refusal(result: tuple[int, str, str]) -> str:
    code, out, err = result
    assert code == 2, out + err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    return lines[0]


@pytest.mark.parametrize("store", STORES)
def test_a_build_is_the_local_one_and_repairs_the_flipped_sample(
    store: str, bucket: str, scans: Path, built: BuiltOnce, tmp_path: Path
) -> None:
    cache = open_path(f"{bucket}/{store}/cache")
    built(store, tmp_path / "local")
    assert build(scans, cache, store=store) == SHARD_ROWS + 6
    whole = cache_bytes(tmp_path / "local")
    assert contract_bytes(cache) == whole
    assert not any(SECRET.encode() in data or b"127.0.0.1" in data for data in whole.values())
    assert not is_file(cache / ".build" / "lock")
    assert build(scans, cache, store=store) == 0  # a second build has nothing to do
    local, remote = open_cache(tmp_path / "local").arrays, open_cache(cache).arrays
    rows = [SHARD_ROWS + 5, 2, 0, SHARD_ROWS]
    for name in ("texture", "depth", "scan_to_face"):
        assert (local.read(name, rows) == remote.start(name, rows).result()).all()

    name = next(n for n in shard_files(read_info(cache), 0) if store == "hdf5" or "texture" in n)
    damaged = bytearray(whole[name])
    place = len(damaged) // 2
    damaged[place : place + 8] = bytes(byte ^ 0xFF for byte in damaged[place : place + 8])
    write_file(cache / name, bytes(damaged))
    assert verify_cache(cache, quick=True) == []
    problems = verify_cache(cache)
    assert len(problems) == 1 and name in problems[0] and "damaged: scan0" in problems[0]
    assert build(scans, cache, store=store, repair=True) == SHARD_ROWS
    assert contract_bytes(cache) == whole

    remove_file(cache / name)
    assert any(f"{name}: missing" in problem for problem in verify_cache(cache, quick=True))
    with pytest.raises(CacheError, match="missing or damaged"):
        open_cache(cache).arrays.read("texture", [1])


def test_a_killed_build_resumes(bucket: str, scans: Path, built: BuiltOnce, tmp_path: Path) -> None:
    built("zarr", tmp_path / "local")
    cache = open_path(f"{bucket}/killed/cache")
    command = [sys.executable, "-m", "preprocess", "build", "folder", "--root", str(scans), "--cache", str(cache)]
    command += ["--size", "32", "--workers", "1"]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while not is_file(cache / "samples.csv"):  # from here on shards are rendered and put
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert is_file(cache / ".build" / "lock")  # left behind; its owner is seen to be dead
    assert not read_info(cache).complete
    build(scans, cache)
    assert contract_bytes(cache) == cache_bytes(tmp_path / "local")


def test_training_and_inspecting_read_the_same_from_there(
    bucket: str, tiny_model: str, tmp_path: Path, run: Run
) -> None:
    remote = f"{bucket}/tiny/cache"
    for path in (tmp_path / "local", open_path(remote)):
        write_tiny_cache(path, model=tiny_model, num_subjects=3)
    recipe = ["--folds", 3, "--epochs", 2, "--batch-size", 8, "--device", "cpu"]
    for cache, out in ((tmp_path / "local", "a"), (remote, "b")):
        assert run("train", "fit", "--cache", cache, "--out", tmp_path / out, *recipe)[0] == 0
    assert (tmp_path / "a" / "predictions.csv").read_bytes() == (tmp_path / "b" / "predictions.csv").read_bytes()
    write_tiny_cache(open_path(f"{bucket}/tiny/hdf5"), model=tiny_model, num_subjects=3, store="hdf5")
    for store in (remote, f"{bucket}/tiny/hdf5"):
        opened = open_cache(store)
        whole = opened.arrays.read("normal", [4, 1])
        chosen = opened.with_views(opened.info.settings.views[::-2]).arrays
        assert (chosen.read("normal", [4, 1]) == whole[:, ::-2]).all()
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert config["cache"] == remote
    assert SECRET not in json.dumps(config)
    code, _, said = run("train", "evaluate", tmp_path / "b", "--device", "cpu")
    assert code == 2 and f"give --cache {remote}" in said  # an address in a file is not followed
    assert run("train", "evaluate", tmp_path / "b", "--cache", remote, "--device", "cpu")[0] == 0
    code, out, _ = run("preprocess", "inspect", "--cache", remote, "--summary", "--sheet", tmp_path / "sheet.png")
    assert code == 0
    assert remote in out
    assert "18 scans of 3 subjects" in out
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    assert "every byte" in run("preprocess", "verify", "--cache", remote)[1]
    assert run("preprocess", "prompts", "--cache", remote, "--model", "facet-tiny", "--pretrained", "none")[0] == 0
    assert is_file(open_path(remote) / "text" / "facet-tiny.h5.sha256")


def test_the_viewer_shows_what_lies_there(bucket: str, tmp_path: Path) -> None:
    from preprocess.viewer.app import build_app
    from preprocess.viewer.live import LiveSite
    from preprocess.viewer.site import open_site

    remote = open_path(f"{bucket}/looked-at/cache")
    for path in (tmp_path / "local", remote):
        write_tiny_cache(path, model="none", num_subjects=3, num_frames=3, with_text=False)
    shown = {}
    for path in (tmp_path / "local", remote):
        live = LiveSite(partial(open_site, path))
        site, client = live.site, build_app(live).server.test_client()
        pictures = [client.get(f"/image/{row}/{kind}/1.png") for row in (0, 53) for kind in ("texture", "relief")]
        assert [picture.status_code for picture in pictures] == [200] * 4
        shown[path] = [picture.data for picture in pictures], site.checker.findings(wait_seconds=60)
    assert shown[remote] == shown[tmp_path / "local"]


def test_dynamic_images_go_there_and_come_from_there(bucket: str, tiny_model: str, tmp_path: Path) -> None:
    source = open_path(f"{bucket}/frames/cache")
    write_tiny_cache(source, model=tiny_model, num_subjects=2, num_frames=3)
    build_dynamic_cache(source, tmp_path / "local")
    build_dynamic_cache(source, open_path(f"{bucket}/frames/dynamic"))
    assert contract_bytes(open_path(f"{bucket}/frames/dynamic")) == cache_bytes(tmp_path / "local")
    with pytest.raises(CacheError, match="is the cache that is read"):
        build_dynamic_cache(source, open_path(f"{bucket}/frames/cache/"))


def test_other_settings_empty_the_prefix_and_nothing_beside_it(bucket: str, tmp_path: Path) -> None:
    write_scan_folder(tmp_path / "few", 3)
    cache = open_path(f"{bucket}/over/cache")
    write_file(open_path(f"{bucket}/over/cache-of-others"), b"precious")
    build(tmp_path / "few", cache)
    before = contract_bytes(cache)
    with pytest.raises(CacheError, match="other settings"):
        build(tmp_path / "few", cache, store="hdf5")
    build(tmp_path / "few", cache, store="hdf5", overwrite=True)
    assert "views/shard-00000.h5" in contract_bytes(cache) and not any("zarr" in name for name in contract_bytes(cache))
    build(tmp_path / "few", cache, overwrite=True)
    assert contract_bytes(cache) == before
    remove_folder(cache)
    assert list_files(cache) == {}
    assert read_bytes(open_path(f"{bucket}/over/cache-of-others")) == b"precious"
    write_file(cache / "thesis.tex", b"precious")
    with pytest.raises(CacheError, match=r"not empty and not a cache \(holds thesis\.tex\)"):
        build(tmp_path / "few", cache)


def test_what_a_user_gets_wrong_is_one_line(
    bucket: str, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scan_folder(tmp_path / "few", 2)
    build_it = ("preprocess", "build", "folder", "--root", tmp_path / "few", "--size", 32, "--workers", 1, "--cache")
    assert "there is no such bucket" in refusal(run(*build_it, "s3://nowhere/cache"))
    assert "there is no such bucket" in refusal(run("preprocess", "verify", "--cache", "s3://nowhere/cache"))
    assert "no cache here" in refusal(run("preprocess", "verify", "--cache", f"{bucket}/nothing/here"))
    assert "come from the environment" in refusal(
        run("preprocess", "verify", "--cache", f"s3://key:{SECRET}@faces/cache")
    )
    fit = ("train", "fit", "--out", tmp_path / "run", "--cache")
    assert "expected s3://bucket/prefix" in refusal(run(*fit, "s3://faces"))
    assert "expected s3://bucket/prefix" in refusal(run("preprocess", "verify", "--cache", "ftp://faces/cache"))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        assert "cannot be reached" in refusal(run("preprocess", "inspect", "--cache", f"{bucket}/tiny/cache"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))  # no credentials of whoever runs the tests
    assert "no credentials found in the environment" in refusal(run(*build_it, f"{bucket}/c/d"))
    monkeypatch.undo()
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_store_that_goes_away_is_no_empty_cache(
    bucket: str, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = open_path(f"{bucket}/away/cache")
    write_tiny_cache(cache, model=tiny_model, num_subjects=2)
    assert open_cache(cache).arrays.read("texture", np.arange(2)).any()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(StorageError, match="cannot be reached"):
        list_files(open_path(f"{bucket}/away/cache"))
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_store_that_drops_connections_is_no_damage(
    bucket: str, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = open_path(f"{bucket}/dropped/cache")
    write_tiny_cache(cache, model=tiny_model, num_subjects=2)
    opened = open_cache(cache)

    class HangUp(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.close()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), HangUp) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        s3fs.S3FileSystem.clear_instance_cache()
        arrays = open_arrays(open_path(str(cache)), opened.info)
        with pytest.raises(StorageError, match="the object store cannot be reached"):
            arrays.read("texture", np.arange(2))
        server.shutdown()
    s3fs.S3FileSystem.clear_instance_cache()


def test_paths_are_pickled_and_named_as_the_user_wrote_them() -> None:
    import pickle

    path = open_path("s3://faces/a/b")
    assert str(pickle.loads(pickle.dumps(path)) / "records" / "00000.json") == "s3://faces/a/b/records/00000.json"
    assert open_path("data_cache/x") == Path("data_cache/x")
    for text in ("s3://", "s3://faces", "s3://faces/../x", "s3://faces//x", "s3://faces/./x"):
        with pytest.raises(CacheError, match="expected s3://bucket/prefix"):
            open_path(text)
