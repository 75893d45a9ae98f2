"""Building on a cluster: a real scheduler and workers in processes of their own, killed in the middle, or not there at all."""

from __future__ import annotations

import io
import os
import pickle
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from command_lines import run_preprocess
from scan_folders import cache_bytes, write_scan_folder
from test_isolate import task_of
from tqdm import tqdm

from preprocess.build import cluster
from preprocess.build.build import build_cache
from preprocess.build.ledger import claim_build, note_path
from preprocess.build.progress import count_rows
from preprocess.build.shard import build_shard
from preprocess.datasets import DATASETS
from shared.errors import FacetError
from shared.schema import SHARD_ROWS, RenderSettings

FOLDER = DATASETS["folder"]
SMALL = RenderSettings(size_px=32)
ROOT = Path(__file__).resolve().parents[1]


def start(*command: str, cwd: Path) -> subprocess.Popen[bytes]:
    """A process that knows nothing of this program: another folder, no path to it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=cwd,
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = start("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
                    "--scheduler-file", str(tmp_path / "scheduler.json"), cwd=tmp_path)  # fmt: skip
    wait_for((tmp_path / "scheduler.json").is_file)
    yield process
    if process.poll() is None:
        stop(process)


@pytest.fixture
def scheduler_file(scheduler: subprocess.Popen[bytes], tmp_path: Path) -> Path:
    return tmp_path / "scheduler.json"


def start_worker(scheduler_file: Path, cwd: Path) -> subprocess.Popen[bytes]:
    return start("distributed.cli.dask_worker", "--scheduler-file", str(scheduler_file), "--nthreads", "1",
                 "--no-dashboard", "--host", "127.0.0.1", cwd=cwd)  # fmt: skip


def wait_for(condition: object, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def start_build(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "preprocess", "build", "folder", "--size", "32", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_worker_killed_in_the_middle_costs_no_byte(scheduler_file: Path, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    write_scan_folder(scans, 2 * SHARD_ROWS + 5)
    elsewhere = tmp_path / "elsewhere"  # workers of other machines have other current folders
    elsewhere.mkdir()
    workers = [start_worker(scheduler_file, elsewhere)]
    try:
        records = tmp_path / "c" / "records"
        build = start_build("--root", scans, "--cache", tmp_path / "c", "--scheduler-file", scheduler_file)
        wait_for(lambda: any(records.glob("*.json")))
        workers.append(start_worker(scheduler_file, elsewhere))
        wait_for(note_path(tmp_path / "c", 1).is_file)  # in the middle of its second shard
        stop(workers[0])
        stdout, stderr = build.communicate(timeout=240)
        assert build.returncode == 0, stderr
    finally:
        for worker in workers:
            if worker.poll() is None:
                stop(worker)
    assert "its worker was killed; built again" in stderr
    assert "none failed" in stdout
    build_cache(FOLDER, scans, tmp_path / "local", SMALL, num_workers=1)
    assert cache_bytes(tmp_path / "c") == cache_bytes(tmp_path / "local")
    assert not (tmp_path / "c" / ".build" / "current").exists()


def test_a_lost_scheduler_is_one_clear_line(
    scheduler: subprocess.Popen[bytes], scheduler_file: Path, tmp_path: Path
) -> None:
    write_scan_folder(tmp_path / "scans", SHARD_ROWS)
    worker = start_worker(scheduler_file, tmp_path)
    build = start_build("--root", tmp_path / "scans", "--cache", tmp_path / "c", "--scheduler-file", scheduler_file)
    try:
        wait_for(note_path(tmp_path / "c", 0).is_file)
        stop(scheduler)
        _, stderr = build.communicate(timeout=120)
    finally:
        stop(worker)
    assert build.returncode == 2
    assert "error: the connection to the scheduler was lost" in stderr
    assert "Traceback" not in stderr


def test_no_scheduler_is_one_clear_line(tmp_path: Path) -> None:
    write_scan_folder(tmp_path / "scans", 2)
    (tmp_path / "other.json").write_text("{}")
    for option, value in (
        ("--scheduler-file", tmp_path / "none.json"),
        ("--scheduler-file", tmp_path / "other.json"),
        ("--scheduler", "nonsense:1:2"),
    ):
        build = run_preprocess(
            "build", "folder", "--root", tmp_path / "scans", "--cache", tmp_path / "c", option, value
        )
        assert build.returncode == 2
        errors = [line for line in build.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and option in errors[0] and "dask scheduler" in errors[0], build.stderr
    both = ["--workers", 2, "--scheduler", "tcp://a:1"]
    build = run_preprocess("build", "folder", "--root", "x", "--cache", "y", *both)
    assert "--workers" in build.stderr and build.returncode == 2


def test_a_task_travels_with_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_scan_folder(tmp_path / "scans", 3)
    monkeypatch.chdir(tmp_path)
    task = task_of(Path("scans"), Path("c"), FOLDER)
    packed = cluster._pack(task)
    assert len(packed) < 8000
    assert pickle.loads(zlib.decompress(packed)) == replace(task, root=tmp_path / "scans", cache=tmp_path / "c")


def test_a_late_worker_writes_nothing(tmp_path: Path) -> None:
    write_scan_folder(tmp_path / "scans", 3)
    task = task_of(tmp_path / "scans", tmp_path / "c", FOLDER)
    with pytest.raises(FacetError, match="does not see this build"):
        build_shard(replace(task, build_id="ended"))
    with claim_build(tmp_path / "c") as first, claim_build(tmp_path / "c") as second:
        with pytest.raises(FacetError, match="another build writes this cache now"):
            build_shard(replace(task, build_id=first))
        assert not (tmp_path / "c" / "records").exists()
        build_shard(replace(task, build_id=second))
    assert (tmp_path / "c" / "records" / "00000.json").is_file()


def test_a_worker_with_other_software_is_refused() -> None:
    software = cluster.software_of_workers()
    cluster.check_software(software)
    with pytest.raises(FacetError, match=rf"numpy {software['numpy']} instead of 1\.0"):
        cluster.check_software({**software, "numpy": "1.0"})


def test_the_bar_moves_with_every_row_and_never_back() -> None:
    with tqdm(total=128, disable=False, file=io.StringIO()) as bar:
        note = count_rows(bar)
        for shard, num_rows, shown in (
            (0, 10, 10),
            (1, 5, 15),
            (0, 64, 69),
            (1, 2, 69),
            (1, 6, 70),
            (0, 64, 70),
            (1, 64, 128),
        ):
            note(shard, num_rows)  # shard 1's worker died at 5 and another began anew
            assert bar.n == shown
