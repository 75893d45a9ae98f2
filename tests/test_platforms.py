"""Other systems and file systems: macOS without Linux's calls, Windows, disks that cannot lock, what systems leave behind."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import MakeCache
from scan_folders import write_scan_folder

from preprocess.__main__ import main
from preprocess.build.cache_folder import lock_cache
from preprocess.build.verify import verify_cache
from shared.cache import find_records, find_text_files, open_cache
from shared.errors import FacetError
from shared.store.lock import hold_lock
from shared.store.paths import is_litter, list_files, remove_folder
from train.__main__ import main as train

ROOT = Path(__file__).parent.parent

# Read by every Python that is started with its folder on PYTHONPATH, workers too: takes away what macOS has not.
MACOS = """
import multiprocessing, os, sys
for name in ("sched_getaffinity", "sched_setaffinity", "preadv", "pwritev", "posix_fadvise", "posix_fallocate", "eventfd",
             "memfd_create", "pidfd_open", "copy_file_range", "splice", "getresuid", "getrandom", "fdatasync", "O_DIRECT"):
    if hasattr(os, name):
        delattr(os, name)
multiprocessing.set_start_method("spawn")
ROOT = os.environ["FACET_ROOT"] + os.sep
OURS = tuple(ROOT + part + os.sep for part in ("shared", "preprocess", "train"))

def refuse(event, arguments):
    if event in ("open", "os.listdir", "os.scandir") and str(arguments[0]).startswith(("/proc", "/sys")):
        frame = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename.endswith(("pathlib.py", "os.py", "<frozen os>")):
            frame = frame.f_back
        if frame is not None and frame.f_code.co_filename.startswith(OURS):
            raise FileNotFoundError(2, "No such file or directory", str(arguments[0]))
sys.addaudithook(refuse)
"""

WINDOWS = """
import argparse, contextlib, csv, dataclasses, hashlib, importlib.metadata, json, os, pathlib, runpy, shlex, shutil, signal, sys
import numpy, typing
sys.argv = sys.argv[1:]
for name in ("fcntl", "resource", "pwd", "grp", "termios", "posix_ipc", "torch", "open3d"):
    sys.modules[name] = None  # importing it fails
for name in ("sched_getaffinity", "register_at_fork", "geteuid", "getuid", "preadv", "pread", "fork", "killpg", "mkfifo"):
    delattr(os, name)
for name in ("SIGKILL", "SIGHUP", "SIGUSR1", "SIGALRM", "pthread_sigmask", "setitimer"):
    delattr(signal, name)
sys.platform = "win32"
runpy.run_module(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("stage", ["preprocess", "train"])
@pytest.mark.parametrize("words", [["--help"], [], ["build", "folder"], ["fit", "--cache", "c", "--out", "o"]])
def test_windows_gets_one_line(stage: str, words: list[str]) -> None:
    command = [sys.executable, "-c", WINDOWS, stage, *words]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1
    assert "WSL" in ended.stderr.upper()


@pytest.fixture
def macos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(MACOS)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("FACET_ROOT", str(ROOT))


def run(*words: object) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout + ended.stderr


@pytest.mark.usefixtures("macos")
def test_a_cache_is_built_without_linuxs_calls(tmp_path: Path) -> None:
    """By two workers, which are processes of their own."""
    write_scan_folder(tmp_path / "in", 2)
    cache = tmp_path / "cache"
    words = ("--cache", cache, "--size", 32, "--views", "0", "--workers", 2)
    assert "2 scans" in run("preprocess", "build", "folder", "--root", tmp_path / "in", *words)
    assert verify_cache(cache) == []


def test_training_runs_without_linuxs_calls(
    tiny_cache: MakeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sched_getaffinity", "preadv", "posix_fadvise", "copy_file_range"):
        monkeypatch.delattr(os, name)
    cache, out = tiny_cache(num_subjects=4, store="hdf5"), tmp_path / "run"
    words = ("--cache", cache, "--out", out, "--pretrained", "none", "--device", "cpu", "--epochs", 1, "--folds", 2)
    assert train(["fit", *map(str, words)]) == 0
    assert (out / "model.safetensors").is_file()


def test_cores_are_the_machines_where_the_system_does_not_say_more(monkeypatch: pytest.MonkeyPatch) -> None:
    from shared.processors import num_cores

    monkeypatch.delattr(os, "sched_getaffinity")
    assert num_cores() == (os.cpu_count() or 1)


@pytest.fixture(params=[errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def unlockable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: object, operation: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.usefixtures("unlockable")
def test_a_file_system_without_locks_is_named(
    tmp_path: Path, tiny_cache: MakeCache, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for refusal in (None, FacetError("busy")):
        with (
            pytest.raises(FacetError, match="a: its file system cannot lock files"),
            hold_lock(tmp_path / "a" / "lock", refusal),
        ):
            raise AssertionError("went on without a lock")
    with pytest.raises(FacetError, match="cannot lock"), lock_cache(tmp_path / "cache"):
        raise AssertionError("went on without a lock")
    cache = tiny_cache(num_subjects=4, store="hdf5")
    words = ["--cache", str(cache), "--out", str(tmp_path / "run"), "--pretrained", "none", "--device", "cpu"]
    for command in (["fit", *words, "--folds", "2"], ["embed", *words]):
        with pytest.raises(FacetError, match=f"{tmp_path / 'run'}: its file system cannot lock"):
            train(command)
    assert main(["verify", "--cache", str(cache)]) == 0  # a reader needs no lock


def test_other_failures_of_a_lock_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: object, operation: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError) as caught, hold_lock(tmp_path / "lock"):
        raise AssertionError("went on without a lock")
    assert caught.value.filename == str(tmp_path / "lock")


LITTER = (
    *(
        ".DS_Store",
        "._cache.json",
        "._facet-tiny.h5",
        "Thumbs.db",
        "desktop.ini",
        ".nfs000000000a3f",
        ".fuse_hidden00001",
    ),
    *("lost+found/a", "@eaDir/a.h5", ".snapshot/hourly/cache.json", ".Spotlight-V100/x", "__MACOSX/._a"),
    *("System Volume Information/x", "._.cache.json.4711.partial"),
)


def test_litter_is_told_from_a_caches_files(tiny_cache: MakeCache) -> None:
    assert all(is_litter(name) and is_litter(f"text/{name}") for name in LITTER)
    files = list_files(tiny_cache(num_subjects=2))
    assert len(files) > 5 and not any(is_litter(name) for name in files)
    assert not is_litter("text/a._b.h5") and not is_litter(".build/lock") and not is_litter(".cache.json.4711.partial")


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
def test_what_systems_leave_in_a_cache_is_no_part_of_it(store: str, tiny_cache: MakeCache, tmp_path: Path) -> None:
    """The cache as it was copied to a Mac, a share, a NAS and back: nothing about it changes."""
    clean, littered = tiny_cache(num_subjects=2, store=store), tmp_path / "copy"
    shutil.copytree(clean, littered)
    folders = [littered, *(path for path in littered.rglob("*") if path.is_dir())]
    for folder in folders:
        for name in (*LITTER, "._00000.json", "._model.h5"):
            (folder / name).parent.mkdir(exist_ok=True, parents=True)
            (folder / name).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")
    for path in [path for path in littered.rglob("*.json") if not is_litter(path.relative_to(littered).as_posix())]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    assert verify_cache(littered) == verify_cache(clean) == []
    assert list_files(littered) == list_files(clean)
    assert [path.name for path in find_text_files(littered)] == [path.name for path in find_text_files(clean)]
    assert find_records(littered) == find_records(clean)
    one, two = open_cache(clean), open_cache(littered)
    assert one.info == two.info and one.samples == two.samples
    assert one.read_text().class_names == two.read_text().class_names


def test_a_folder_with_litter_alone_may_become_a_cache(tmp_path: Path) -> None:
    write_scan_folder(tmp_path / "in", 1)
    cache = tmp_path / "cache"
    (cache / ".Spotlight-V100").mkdir(parents=True)
    (cache / ".DS_Store").write_bytes(b"x")
    with lock_cache(cache):
        pass
    remove_folder(cache)
    assert not cache.exists()
